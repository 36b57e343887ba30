//! Each type of event is taken from its own key only: every other key's statement of that type is a forgery.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, SigningKey as _};
use reqwest::Client;
use serde_json::{Value, json};
use server::{EVENT_TYPE, Stack};

const IN_TOTO: &str = "application/vnd.in-toto+json";

/// Revocation comes from the issuing CA, the others from whoever does them.
const TYPES: [&str; 5] = ["revocation", "approval", "deployment", "receipt-anchor", "audit-anchor"];

fn kind(name: &str) -> String {
    format!("https://example.test/event/{name}/v1")
}

fn statement(name: &str, subject: &str) -> String {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "subject", "digest": {"sha256": subject.repeat(32)}}],
        "predicateType": kind(name),
        "predicate": {"of": name},
    })
    .to_string()
}

fn envelope(key: &KeyPair, payload_type: &str, payload: &str) -> Value {
    let signature = key.sign(&trust_store::dsse::pae(payload_type, payload.as_bytes())).unwrap();
    json!({
        "payload": STANDARD.encode(payload), "payloadType": payload_type,
        "signatures": [{"sig": STANDARD.encode(signature), "keyid": "any hint"}],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_of_each_type_counts_from_the_key_of_that_type_only() {
    let stack = Stack::new();
    let algorithms = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ED25519,
    ];
    let keys = algorithms.map(|algorithm| KeyPair::generate_for(algorithm).unwrap());
    let mut rules = String::new();
    for (name, key) in TYPES.iter().zip(&keys) {
        std::fs::write(stack.path(&format!("{name}.pem")), key.public_key_pem()).unwrap();
        rules += &format!("[[log.event]]\npredicate_type = \"{}\"\nkeys = [\"{name}.pem\"]\n", kind(name));
    }
    let text = std::fs::read_to_string(stack.config()).unwrap();
    let old = format!("[[log.event]]\npredicate_type = \"{EVENT_TYPE}\"\nkeys = [\"reporter.pem\"]\n");
    assert!(text.contains(&old));
    std::fs::write(stack.config(), text.replace(&old, &rules)).unwrap();
    let server = stack.serve();
    let (client, url) = (Client::new(), format!("{}/event/api/v1/entries", server.url));
    let post = async |envelope: Value| {
        let answer = client.post(&url).body(envelope.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let stranger = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    for (place, name) in TYPES.iter().enumerate() {
        let payload = statement(name, "ab");
        for (other, key) in keys.iter().enumerate().filter(|(other, _)| *other != place) {
            let (status, answer) = post(envelope(key, IN_TOTO, &payload)).await;
            let what = format!("{name} by the key of {}", TYPES[other]);
            assert_eq!(
                (status, answer["code"].as_str()),
                (400, Some("signature_invalid")),
                "{what}: {answer}"
            );
        }
        let (status, answer) = post(envelope(&stranger, IN_TOTO, &payload)).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some("signature_invalid")), "{name}: {answer}");

        let genuine = envelope(&keys[place], IN_TOTO, &payload);
        let mut altered = genuine.clone();
        altered["payload"] = json!(STANDARD.encode(statement(name, "cd")));
        let mut retyped = genuine.clone();
        retyped["payloadType"] = json!("text/plain");
        let mut renamed = genuine.clone();
        let other = TYPES[(place + 1) % TYPES.len()];
        renamed["payload"] = json!(STANDARD.encode(payload.replace(name, other)));
        let mut unsigned = genuine.clone();
        unsigned["signatures"] = json!([]);
        for (what, forged, code) in [
            ("altered", altered, "signature_invalid"),
            ("of another payload type", retyped, "unsupported"),
            ("renamed to another type", renamed, "signature_invalid"),
            ("without a signature", unsigned, "malformed"),
        ] {
            let (status, answer) = post(forged).await;
            assert_eq!((status, answer["code"].as_str()), (400, Some(code)), "{name} {what}: {answer}");
        }

        let (status, answer) = post(genuine.clone()).await;
        assert_eq!((status, &answer["logIndex"]), (201, &json!(place.to_string())), "{name}: {answer}");
        // The key hint is not signed and not kept: the same event with another hint is the same entry.
        let mut hinted = genuine;
        hinted["signatures"][0]["keyid"] = json!("another hint");
        let (status, answer) = post(hinted).await;
        assert_eq!((status, &answer["logIndex"]), (200, &json!(place.to_string())), "{name}: {answer}");
    }
    let unknown = statement("revocation", "ab").replace("/v1\"", "/v2\"");
    let (status, answer) = post(envelope(&keys[0], IN_TOTO, &unknown)).await;
    assert_eq!(status, 400, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_reads_each_entry_as_strictly_as_the_single_endpoint() {
    let stack = Stack::new();
    let server = stack.serve();
    let (client, base) = (Client::new(), format!("{}/event/api/v1", server.url));
    let payload = statement("revocation", "ab");
    let good = envelope(&stack.reporter, IN_TOTO, &payload).to_string();
    let doubled = good.replacen('{', &format!("{{\"payloadType\":\"{IN_TOTO}\","), 1);
    let post = async |path: &str, body: String| {
        let answer = client.post(format!("{base}/{path}")).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, alone) = post("entries", doubled.clone()).await;
    assert_eq!((status, alone["code"].as_str()), (400, Some("malformed")), "{alone}");
    let (status, batch) = post("batch", format!("{{\"entries\":[{doubled},{good}]}}")).await;
    assert_eq!(status, 200, "{batch}");
    assert_eq!(batch["results"][0]["problem"]["code"], alone["code"], "{batch}");
    assert_eq!(batch["results"][0]["problem"]["detail"], alone["detail"], "{batch}");
    assert_eq!(batch["results"][1]["entry"]["logIndex"], "0", "{batch}");

    // Entries that cost next to nothing to send cost next to nothing to refuse.
    let many = format!("{{\"entries\":[{}]}}", vec!["{\"\":0}"; 500_000].join(","));
    let (status, answer) = post("batch", many).await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("malformed")), "{answer}");
    assert!(answer["detail"].as_str().unwrap().contains("1 to 1000"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_ca_cannot_revoke_what_another_issued() {
    let stack = Stack::new();
    let text = std::fs::read_to_string(stack.config()).unwrap();
    let old = format!("[[log.event]]\npredicate_type = \"{EVENT_TYPE}\"\nkeys = [\"reporter.pem\"]\n");
    assert!(text.contains(&old));
    let keys =
        ["one", "two"].map(|name| (name, KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()));
    let mut rules = String::new();
    for (name, key) in &keys {
        std::fs::write(stack.path(&format!("{name}.pem")), key.public_key_pem()).unwrap();
        rules += &format!(
            "[[log.event]]\npredicate_type = \"{}\"\nissuer = \"{name}\"\nkeys = [\"{name}.pem\"]\n",
            kind("revocation")
        );
    }
    std::fs::write(stack.config(), text.replace(&old, &rules)).unwrap();
    let server = stack.serve();
    let (client, url) = (Client::new(), format!("{}/event/api/v1/entries", server.url));
    for (name, key) in &keys {
        for issuer in [json!("one"), json!("two"), json!("three"), json!(1), Value::Null] {
            let payload = statement("revocation", "ab")
                .replace("\"of\":\"revocation\"", &format!("\"issuer\":{issuer},\"serial\":\"01\""));
            assert!(payload.contains("issuer"), "{payload}");
            let answer = client.post(&url).body(envelope(key, IN_TOTO, &payload).to_string());
            let answer = answer.send().await.unwrap();
            let expected = if issuer == *name { 201 } else { 400 };
            assert_eq!(answer.status().as_u16(), expected, "the key of {name} for {issuer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_issuers_that_a_key_speaks_for_are_told_to_whoever_reads() {
    let stack = Stack::new();
    let text = std::fs::read_to_string(stack.config()).unwrap();
    let old = format!("[[log.event]]\npredicate_type = \"{EVENT_TYPE}\"\nkeys = [\"reporter.pem\"]\n");
    let with = |files: &str| text.replace(&old, &format!("{old}issuer_certificates = [{files}]\n"));
    // A file with the whole chain, which is about its first CA, and one for the root.
    let chain = stack.authority.ca_pem.clone() + &stack.authority.root_pem;
    std::fs::write(stack.path("chain.pem"), chain).unwrap();
    std::fs::write(stack.config(), with("\"chain.pem\", \"root.pem\"")).unwrap();
    let server = stack.serve();
    let logs: Value =
        reqwest::get(format!("{}/api/v1/logs", server.url)).await.unwrap().json().await.unwrap();
    let event = logs.as_array().unwrap().iter().find(|log| log["name"] == "event").unwrap();
    let told = |event: &Value| {
        let rules = event["events"].as_array().unwrap().iter();
        let text = |rule: &Value, key: &str| STANDARD.decode(rule[key].as_str().unwrap()).unwrap();
        rules.map(|rule| (text(rule, "issuerName"), text(rule, "issuerKey"))).collect::<Vec<_>>()
    };
    let identity = |pem: &str| {
        let certificate = &trust_store::Certificate::from_pem_chain(pem).unwrap()[0];
        (certificate.subject_der().to_vec(), certificate.key_digest().to_vec())
    };
    let (ca, root) = (identity(&stack.authority.ca_pem), identity(&stack.authority.root_pem));
    let mut expected = [ca.clone(), root];
    expected.sort();
    assert_eq!(told(event), expected);
    drop(server);
    // Below the same root there may be other authorities: the chain alone does not speak for what it issued.
    std::fs::write(stack.config(), with("\"chain.pem\"")).unwrap();
    let server = stack.serve();
    let logs: Value =
        reqwest::get(format!("{}/api/v1/logs", server.url)).await.unwrap().json().await.unwrap();
    let event = logs.as_array().unwrap().iter().find(|log| log["name"] == "event").unwrap();
    assert_eq!(told(event), [ca]);
    drop(server);
    std::fs::write(stack.config(), with("\"reporter.pem\"")).unwrap();
    let refused =
        server::Process::start(env!("CARGO_BIN_EXE_transparency-log"), &stack.config()).err().unwrap();
    assert!(refused.contains("reporter.pem"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_stall_on_one_log_keep_nobody_from_another() {
    let stack = Stack::new();
    let log = stack.serve();
    let length = 4 << 20;
    let stalled: Vec<_> = (0..64)
        .map(|_| {
            let mut socket = TcpStream::connect(log.url.trim_start_matches("http://")).unwrap();
            socket.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            write!(
                socket,
                "POST /event/api/v1/batch HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
            )
            .unwrap();
            // Those that there is no room for are closed while they send.
            let _ = socket.write_all(&vec![b' '; length - 400]);
            socket
        })
        .collect();
    let client = Client::new();
    for _ in 0..20 {
        let batch = client.post(format!("{}/issuance/api/v1/batch", log.url));
        let answer = batch.body(r#"{"entries":[{"chain":[]}]}"#).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(stalled);
    assert_eq!(log.stop(), Some(0));
}
