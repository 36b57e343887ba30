//! A new shard takes over the address of an old one, as `docs/operations/log-rotation.md` says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use reqwest::Client;
use serde_json::Value;
use server::{Stack, open_checkpoint, run};
use tlog::{InclusionProof, leaf_hash};
use trust_store::log_entry::TransparencyLogEntry;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_shard_stays_provable_while_a_new_one_takes_its_address() {
    let mut stack = Stack::new();
    let client = Client::new();
    let leaf = stack.authority.leaf("dev@example.test");
    let submit = async |url: &str, artifact: &[u8]| {
        let answer = client.post(url).body(leaf.request(artifact).to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let server = stack.serve();
    let (status, first) = submit(&format!("{}/api/v2/log/entries", server.url), b"one").await;
    assert_eq!(status, 201, "{first}");
    assert_eq!(server.stop(), Some(0));

    let text = std::fs::read_to_string(stack.config()).unwrap();
    let old = "name = \"signing\"\nkind = \"signing\"\n";
    let moved = text.replace(old, &format!("{old}base = \"/signing-2026a\"\nwriting = \"frozen\"\n"));
    let new = "[[log]]\nname = \"signing-2\"\nkind = \"signing\"\nbase = \"\"\nauthorities = [\"root.pem\", \"ca.pem\"]\n";
    std::fs::write(stack.config(), format!("{moved}\n{new}")).unwrap();
    let before = std::fs::read(stack.path("data/signing/head/head")).unwrap();
    let (code, made, error) =
        run(env!("CARGO_BIN_EXE_transparency-log"), &["init", "--config"], &stack.config());
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(std::fs::read(stack.path("data/signing/head/head")).unwrap(), before);
    stack.logs = serde_json::from_str::<Value>(&made).unwrap()["logs"].clone();
    assert_ne!(stack.keys("signing").0, stack.keys("signing-2").0);

    let server = stack.serve();
    let (status, second) = submit(&format!("{}/api/v2/log/entries", server.url), b"one").await;
    assert_eq!(
        (status, &second["logIndex"]),
        (201, &Value::from("0")),
        "another log, another history: {second}"
    );
    let (status, refused) = submit(&format!("{}/signing-2026a/api/v2/log/entries", server.url), b"two").await;
    assert_eq!((status, refused["code"].as_str()), (405, Some("frozen")), "{refused}");
    let get = async |path: &str| {
        client.get(format!("{}{path}", server.url)).send().await.unwrap().bytes().await.unwrap()
    };
    assert_eq!(open_checkpoint(&stack, "signing-2", &get("/checkpoint").await).head().size, 1);
    let opened = open_checkpoint(&stack, "signing", &get("/signing-2026a/checkpoint").await);
    // The proof handed out before the rotation, against the checkpoint served after it: the tree is the same.
    let entry = TransparencyLogEntry::parse(first.to_string().as_bytes()).unwrap();
    let path = entry.inclusion_proof.unwrap().hashes;
    let proof = InclusionProof { leaf_index: 0, path };
    let _ = proof.verify(&leaf_hash(&entry.canonicalized_body), opened.head()).unwrap();
    let listed: Vec<Value> = serde_json::from_slice(&get("/api/v1/logs").await).unwrap();
    for name in ["signing", "signing-2"] {
        assert!(listed.iter().any(|log| log["name"] == name), "{listed:?}");
    }
}
