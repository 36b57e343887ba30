//! The lookup index only suggests: what it says is checked, and it can be made anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Client;
use serde_json::{Value, json};
use server::{Process, Stack, run};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

const BINARY: &str = env!("CARGO_BIN_EXE_transparency-log");

/// Indices that a search finds once the index covers `size` entries.
async fn find(server: &Process, query: &str, size: u64) -> Vec<u64> {
    let url = format!("{}/api/v1/lookup?{query}", server.url);
    loop {
        let answer: Value = Client::new().get(&url).send().await.unwrap().json().await.unwrap();
        assert!(answer["covered_size"].as_u64() <= answer["tree_size"].as_u64());
        if answer["covered_size"] == size {
            let entries = answer["entries"].as_array().unwrap().iter();
            return entries.map(|entry| entry["logIndex"].as_str().unwrap().parse().unwrap()).collect();
        }
    }
}

async fn alter(stack: &Stack, statements: &str) {
    let options = SqliteConnectOptions::new().filename(stack.path("data/signing/lookup.sqlite"));
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&pool).await.unwrap();
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_index_shows_nothing_wrong_and_the_command_makes_it_right() {
    let stack = Stack::new();
    let server = stack.serve();
    let alice = stack.authority.leaf("alice@example.test");
    let bob = stack.authority.leaf("bob@example.test");
    for (signer, artifact) in [(&alice, "a"), (&bob, "b"), (&alice, "c")] {
        let url = format!("{}/api/v2/log/entries", server.url);
        let request = signer.request(artifact.as_bytes()).to_string();
        assert_eq!(Client::new().post(url).body(request).send().await.unwrap().status().as_u16(), 201);
    }
    let of_alice = "identity=alice@example.test";
    let digest = format!("digest={}", hex::encode(tlog::Hash::digest(b"b").0));
    assert_eq!(find(&server, of_alice, 3).await, [0, 2]);
    assert_eq!(find(&server, "publisher=Example%20Works", 3).await, [0, 1, 2]);
    assert_eq!(find(&server, &digest, 3).await, [1]);
    let serial = trust_store::certificate::Certificate::from_der(&bob.der).unwrap();
    let serial = format!("serial={}", hex::encode(serial.serial()));
    assert_eq!(find(&server, &serial, 3).await, [1]);
    let metrics =
        Client::new().get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("mentat_log_indexed_size{log=\"signing\"} 3\n"), "{metrics}");
    assert_eq!(server.stop(), Some(0));

    // What is hidden is found by the check, and by the server before it claims to have searched the log.
    alter(&stack, "DELETE FROM term WHERE entry = 2;").await;
    let (code, said, _) = run(BINARY, &["check", "--config"], &stack.config());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("signing/lookup.sqlite is not in order"), "{said}");
    assert!(said.contains("transparency-log index --log signing"), "{said}");
    let server = stack.serve();
    assert_eq!(find(&server, of_alice, 3).await, [0, 2], "the index hides an entry");

    // Bob's entry is passed off as Alice's, and one that never was is named, while the server runs.
    alter(
        &stack,
        "INSERT INTO term SELECT kind, key, 1 FROM term WHERE kind = 2 AND key = CAST('alice@example.test' AS BLOB) AND entry = 0;
         INSERT INTO term SELECT kind, key, 77 FROM term WHERE kind = 2 AND key = CAST('alice@example.test' AS BLOB) AND entry = 0;",
    )
    .await;
    assert_eq!(find(&server, of_alice, 3).await, [0, 2], "an entry was shown that does not have the term");
    let (code, _, error) = run(BINARY, &["index", "--config"], &stack.config());
    assert_eq!(code, Some(78), "a log that is being served was indexed: {error}");
    assert_eq!(server.stop(), Some(0));

    let (code, said, error) = run(BINARY, &["index", "--log", "signing", "--config"], &stack.config());
    assert_eq!((code, said.as_str()), (Some(0), "log \"signing\": 3 entries indexed\n"), "{error}");
    let (code, said, error) = run(BINARY, &["check", "--config"], &stack.config());
    assert_eq!(code, Some(0), "{said}{error}");
    let server = stack.serve();
    assert_eq!(find(&server, of_alice, 3).await, [0, 2]);
    assert_eq!(server.stop(), Some(0));

    // It is made of published entries: a log that has fewer was put back, whatever its own files say.
    alter(&stack, "UPDATE covered SET size = 4;").await;
    for (command, word) in [("serve", "an old head was restored"), ("repair", "ends at entry 3")] {
        let (code, _, line) = run(BINARY, &[command, "--config"], &stack.config());
        assert_eq!(code, Some(78), "{command}: {line}");
        assert!(line.contains(word), "{command}: {line}");
        assert_eq!(line.contains("lookup.sqlite"), command == "serve", "{command}: {line}");
    }
    alter(&stack, "UPDATE covered SET size = 3;").await;

    // One of another version, as after an update: not damaged, not compared, and made anew.
    alter(&stack, "UPDATE covered SET terms = NULL; DELETE FROM term WHERE entry = 2;").await;
    let (code, said, error) = run(BINARY, &["check", "--config"], &stack.config());
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(said.contains("in order, size 3") && said.contains("of another version"), "{said}");
    let server = stack.serve();
    assert_eq!(find(&server, of_alice, 3).await, [0, 2]);
    assert_eq!(server.stop(), Some(0));
    let (code, said, error) = run(BINARY, &["check", "--config"], &stack.config());
    assert!(code == Some(0) && !said.contains("version"), "{said}{error}");

    // An index of another tree is noticed and made anew by the server itself.
    alter(&stack, "UPDATE covered SET root = zeroblob(32); DELETE FROM term;").await;
    let server = stack.serve();
    assert_eq!(find(&server, of_alice, 3).await, [0, 2]);
}

/// The leaves of certificate logs are found by the lookup index only: as long as it does not know the log, nobody says
/// that an entry is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_not_indexed_is_not_said_to_be_missing() {
    let stack = Stack::new();
    let server = stack.serve();
    let client = Client::new();
    let options = SqliteConnectOptions::new().filename(stack.path("data/issuance/lookup.sqlite"));
    let pool = SqlitePool::connect_with(options).await.unwrap();
    let ask = |path: String| {
        let asked = client.get(format!("{}/issuance/{path}", server.url)).send();
        async move {
            let answer = asked.await.unwrap();
            let (status, retry) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
            (status, retry, answer.json::<Value>().await.unwrap())
        }
    };

    let held = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let leaf = stack.authority.leaf("alice@example.test");
    let chain = [&leaf.der, &stack.authority.ca_der].map(|der| STANDARD.encode(der));
    let sent =
        client.post(format!("{}/issuance/ct/v1/add-chain", server.url)).json(&json!({ "chain": chain }));
    assert_eq!(sent.send().await.unwrap().status().as_u16(), 200);
    let (status, _, proof) = loop {
        let (status, retry, answer) = ask("api/v1/proof?index=0".to_owned()).await;
        if status == 200 {
            break (status, retry, answer);
        }
    };
    assert_eq!(status, 200);
    let of_leaf = format!("leaf={}", proof["leaf_hash"].as_str().unwrap());
    for path in ["proof", "entry"] {
        let (status, retry, problem) = ask(format!("api/v1/{path}?{of_leaf}")).await;
        assert_eq!((status, problem["code"].as_str(), retry), (503, Some("not_indexed"), true), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("0 of 1 entries"), "{problem}");
    }

    held.rollback().await.unwrap();
    // The follower asks for the file again some seconds after it was refused.
    let proven = loop {
        let (status, _, answer) = ask(format!("api/v1/proof?{of_leaf}")).await;
        if status != 503 {
            break (status, answer);
        }
    };
    assert_eq!((proven.0, &proven.1["leaf_index"]), (200, &json!(0)), "{proven:?}");
    let (status, _, problem) = ask(format!("api/v1/proof?leaf={}", "00".repeat(32))).await;
    assert_eq!((status, &problem["tree_size"]), (404, &json!(1)), "{problem}");
}
