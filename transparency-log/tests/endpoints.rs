//! Each endpoint of the real server, with good and bad input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::SigningKey as _;
use reqwest::Client;
use serde_json::{Value, json};
use server::{EVENT_TYPE, Process, Stack, open_checkpoint, run};
use tlog::{ConsistencyProof, Hash, InclusionProof, leaf_hash};
use trust_store::log_entry::TransparencyLogEntry;
use trust_store::provider::AwsLc;

async fn post(
    client: &Client,
    url: &str,
    body: impl Into<reqwest::Body>,
) -> (u16, Value, reqwest::header::HeaderMap) {
    let response = client.post(url).body(body).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)), headers)
}

async fn get(client: &Client, url: &str) -> (u16, Vec<u8>, reqwest::header::HeaderMap) {
    let response = client.get(url).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, response.bytes().await.unwrap().to_vec(), headers)
}

/// Verifies an answer's proof against its own checkpoint, opened with the keys that init printed.
fn verify_entry(stack: &Stack, log: &str, answer: &Value) -> u64 {
    let entry = TransparencyLogEntry::parse(answer.to_string().as_bytes()).unwrap();
    let evidence = entry.inclusion_proof.unwrap();
    let opened = open_checkpoint(stack, log, evidence.checkpoint.as_bytes());
    assert_eq!((opened.head().size, opened.head().root), (evidence.tree_size, evidence.root_hash));
    let proof = InclusionProof { leaf_index: entry.log_index, path: evidence.hashes };
    let _ = proof.verify(&leaf_hash(&entry.canonicalized_body), opened.head()).unwrap();
    entry.log_index
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_log_takes_valid_signatures_of_accepted_certificates_only() {
    let stack = Stack::new();
    let server = stack.serve();
    let (client, url) = (Client::new(), format!("{}/api/v2/log/entries", server.url));
    let leaf = stack.authority.leaf("dev@example.test");
    let request = leaf.request(b"artifact");
    let (status, answer, _) = post(&client, &url, request.to_string()).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(verify_entry(&stack, "signing", &answer), 0);
    assert_eq!(answer["kindVersion"], json!({"kind": "hashedrekord", "version": "0.0.2"}));
    assert_eq!(answer["integratedTime"], "0");

    let (status, answer, headers) = post(&client, &url, request.to_string()).await;
    assert_eq!((status, headers["x-log-index"].to_str().unwrap()), (409, "0"), "{answer}");

    // The same as a DSSE request is another entry: over the hash of the pre-authentication encoding.
    let (payload, kind) = (b"{}".to_vec(), "application/vnd.in-toto+json");
    let sig = leaf.sign(&trust_store::dsse::pae(kind, &payload));
    let dsse = json!({"dsseRequestV002": {
        "envelope": {"payload": STANDARD.encode(&payload), "payloadType": kind, "signatures": [{"sig": STANDARD.encode(sig), "keyid": ""}]},
        "verifiers": [{"x509Certificate": {"rawBytes": STANDARD.encode(&leaf.der)}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"}],
    }});
    let (status, answer, _) = post(&client, &url, dsse.to_string()).await;
    assert_eq!((status, verify_entry(&stack, "signing", &answer)), (201, 1), "{answer}");

    let stranger = server::Authority::new().leaf("dev@example.test");
    let mut other_digest = leaf.request(b"artifact");
    other_digest["hashedRekordRequestV002"]["digest"] = json!(STANDARD.encode([7; 32]));
    let mut unknown = request.clone();
    unknown["hashedRekordRequestV002"]["extra"] = json!(1);
    let mut key = request.clone();
    key["hashedRekordRequestV002"]["signature"]["verifier"] = json!({"publicKey": {"rawBytes": STANDARD.encode(rcgen::PublicKeyData::subject_public_key_info(&leaf.key))}, "keyDetails": "PKIX_ECDSA_P256_SHA_256"});
    let mut forged = stranger.request(b"artifact");
    forged["hashedRekordRequestV002"]["digest"] = json!(STANDARD.encode([7; 32]));
    for (what, body, code) in [
        ("a foreign CA", stranger.request(b"x").to_string(), "unknown_issuer"),
        ("a foreign CA, whose signatures nobody looks at", forged.to_string(), "unknown_issuer"),
        ("a signature over something else", other_digest.to_string(), "signature_invalid"),
        ("an unknown field", unknown.to_string(), "malformed"),
        ("a key that is not registered", key.to_string(), "unknown_issuer"),
        ("no JSON", "not json".to_owned(), "malformed"),
        ("nothing", String::new(), "malformed"),
    ] {
        let (status, answer, _) = post(&client, &url, body).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some(code)), "{what}: {answer}");
    }
    let (status, _, _) = get(&client, &url).await;
    assert_eq!(status, 405);
    let (status, _, _) = post(&client, &format!("{}/add", server.url), "x").await;
    assert_eq!(status, 405, "the signing log takes no raw entries");
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_gets_a_result_and_a_proof_for_each_entry_from_one_checkpoint() {
    let stack = Stack::new();
    let server = stack.serve();
    let leaf = stack.authority.leaf("dev@example.test");
    let entries =
        json!({"entries": [leaf.request(b"a"), leaf.request(b"b"), {"wrong": 1}, leaf.request(b"c")]});
    let (status, answer, _) =
        post(&Client::new(), &format!("{}/api/v1/batch", server.url), entries.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    assert_eq!(results[2]["problem"]["code"], "malformed");
    let indices: Vec<_> =
        [0, 1, 3].iter().map(|place| verify_entry(&stack, "signing", &results[*place]["entry"])).collect();
    assert_eq!(indices, [0, 1, 2]);
    let checkpoint = |place: usize| results[place]["entry"]["inclusionProof"]["checkpoint"].clone();
    assert_eq!(checkpoint(0), checkpoint(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issuance_log_promises_what_it_then_serves() {
    let stack = Stack::new();
    let server = stack.serve();
    let (client, base) = (Client::new(), format!("{}/issuance", server.url));
    let chain = |leaf: &[u8]| {
        json!({"chain": [STANDARD.encode(leaf), STANDARD.encode(&stack.authority.ca_der), STANDARD.encode(&stack.authority.root_der)]}).to_string()
    };
    let precertificate = stack.authority.precertificate("dev@example.test");
    let (status, sct, _) =
        post(&client, &format!("{base}/ct/v1/add-pre-chain"), chain(&precertificate.der)).await;
    assert_eq!((status, sct["sct_version"].as_u64()), (200, Some(0)), "{sct}");
    let (status, again, _) =
        post(&client, &format!("{base}/ct/v1/add-pre-chain"), chain(&precertificate.der)).await;
    assert_eq!(
        (status, &again["timestamp"], &again["extensions"]),
        (200, &sct["timestamp"], &sct["extensions"])
    );
    let leaf = stack.authority.leaf("dev@example.test");
    let (status, _, _) = post(&client, &format!("{base}/ct/v1/add-chain"), chain(&leaf.der)).await;
    assert_eq!(status, 200);

    for (what, path, body) in [
        ("a final certificate as a precertificate", "add-pre-chain", chain(&leaf.der)),
        ("a precertificate as a final one", "add-chain", chain(&precertificate.der)),
        ("a foreign chain", "add-chain", chain(&server::Authority::new().leaf("x@example.test").der)),
        ("an empty chain", "add-chain", json!({"chain": []}).to_string()),
        ("no base64", "add-chain", json!({"chain": ["%"]}).to_string()),
    ] {
        let (status, answer, _) = post(&client, &format!("{base}/ct/v1/{path}"), body).await;
        assert_eq!(status, 400, "{what}: {answer}");
    }

    // Wait until both are published, then read them back as a monitor does.
    let opened = loop {
        let (_, note, _) = get(&client, &format!("{base}/checkpoint")).await;
        let opened = open_checkpoint(&stack, "issuance", &note);
        if opened.head().size == 2 {
            break opened;
        }
    };
    let (status, data, headers) = get(&client, &format!("{base}/tile/data/000.p/2")).await;
    assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/octet-stream"));
    let records = tlog::static_ct::parse_data_tile(tlog::BundleId::new(0, 2).unwrap(), &data).unwrap();
    let (_, hashes, _) = get(&client, &format!("{base}/tile/0/000.p/2")).await;
    let mut range = tlog::CompactRange::new();
    for (record, hash) in records.iter().zip(hashes.chunks(32)) {
        let leaf = record.entry.leaf_hash().unwrap();
        assert_eq!(leaf.as_bytes().as_slice(), hash);
        range.push(leaf);
        for fingerprint in &record.chain {
            let (status, der, headers) =
                get(&client, &format!("{base}/issuer/{}", hex::encode(fingerprint))).await;
            assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, "application/pkix-cert"));
            assert_eq!(Hash::digest(&der).0.as_slice(), fingerprint.as_ref());
        }
    }
    assert_eq!(range.root(), opened.head().root);
    // The promise is a signature over exactly the first record.
    let spki = STANDARD.decode(stack.logs[1]["public_key"].as_str().unwrap()).unwrap();
    let bytes = |name: &str| STANDARD.decode(sct[name].as_str().unwrap()).unwrap();
    let signature = tlog::static_ct::DigitallySigned::parse(&bytes("signature")).unwrap();
    let key = trust_store::algorithm::SubjectPublicKey::from_der(&spki).unwrap();
    tlog::SignatureVerifier::verify(
        &AwsLc,
        tlog::Algorithm::EcdsaP256Sha256,
        key.key,
        &records[0].entry.sct_message().unwrap(),
        &signature.signature,
    )
    .unwrap();
    let (_, roots, _) = get(&client, &format!("{base}/ct/v1/get-roots")).await;
    let roots: Value = serde_json::from_slice(&roots).unwrap();
    assert_eq!(roots["certificates"], json!([STANDARD.encode(&stack.authority.root_der)]));
    let (status, _, _) = get(&client, &format!("{base}/issuer/{}", "0".repeat(64))).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_chains_gets_promises_and_indices_as_each_asks() {
    let stack = Stack::new();
    let server = stack.serve();
    let (client, base) = (Client::new(), format!("{}/issuance", server.url));
    let chain = |leaf: &[u8]| {
        json!([
            STANDARD.encode(leaf),
            STANDARD.encode(&stack.authority.ca_der),
            STANDARD.encode(&stack.authority.root_der)
        ])
    };
    let precertificate = stack.authority.precertificate("dev@example.test");
    let leaf = stack.authority.leaf("dev@example.test");
    let foreign = server::Authority::new().leaf("x@example.test");
    let entries = json!({ "entries": [
        { "chain": chain(&precertificate.der) },
        { "chain": chain(&leaf.der), "answer": "index" },
        { "chain": chain(&foreign.der) },
        { "chain": chain(&leaf.der), "answer": "nothing" },
        { "chain": [] },
        { "chain": chain(&leaf.der) },
    ] });
    let (status, answer, _) =
        post(&client, &format!("{base}/api/v1/batch?ack=sequenced"), entries.to_string()).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 6);
    assert_eq!(results[1], json!({ "index": 1 }));
    // The own chain's issuers stand in the batch too, and help a foreign certificate in nothing.
    assert_eq!(results[2]["problem"]["code"], "unknown_issuer");
    assert_eq!(results[3]["problem"]["code"], "malformed");
    assert_eq!(results[4]["problem"]["code"], "malformed");
    for (place, path, leaf) in [(0, "add-pre-chain", &precertificate.der), (5, "add-chain", &leaf.der)] {
        let (status, alone, _) =
            post(&client, &format!("{base}/ct/v1/{path}"), json!({ "chain": chain(leaf) }).to_string()).await;
        assert_eq!(status, 200, "{alone}");
        for member in ["sct_version", "id", "timestamp", "extensions"] {
            assert_eq!(results[place]["sct"][member], alone[member], "{member}");
        }
    }
    let (status, ..) =
        post(&client, &format!("{base}/api/v1/batch"), json!({ "entries": [] }).to_string()).await;
    assert_eq!(status, 400);
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_log_takes_statements_of_configured_keys_only_and_finds_them() {
    let stack = Stack::new();
    let server = stack.serve();
    let (client, url) = (Client::new(), format!("{}/event/api/v1/entries", server.url));
    let statement = |kind: &str| {
        json!({"_type": "https://in-toto.io/Statement/v1", "subject": [{"name": "certificate", "digest": {"sha256": "ab".repeat(32)}}],
               "predicateType": kind, "predicate": {"serial": "0a1b", "reason": "keyCompromise"}})
        .to_string()
    };
    let kind = "application/vnd.in-toto+json";
    let envelope = |key: &rcgen::KeyPair, payload_type: &str, payload: &str| {
        let sig = key.sign(&trust_store::dsse::pae(payload_type, payload.as_bytes())).unwrap();
        json!({"payload": STANDARD.encode(payload), "payloadType": payload_type, "signatures": [{"sig": STANDARD.encode(sig)}]})
    };
    let good = envelope(&stack.reporter, kind, &statement(EVENT_TYPE));
    let (status, answer, _) = post(&client, &url, good.to_string()).await;
    assert_eq!((status, verify_entry(&stack, "event", &answer)), (201, 0), "{answer}");
    let (status, answer, _) = post(&client, &url, good.to_string()).await;
    assert_eq!((status, verify_entry(&stack, "event", &answer)), (200, 0), "{answer}");

    let stranger = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut altered = good.clone();
    altered["payload"] = json!(STANDARD.encode(statement(EVENT_TYPE).replace("0a1b", "0a1c")));
    let mut two = good.clone();
    let signature = two["signatures"][0].clone();
    two["signatures"].as_array_mut().unwrap().push(signature);
    for (what, body, code) in [
        (
            "a key that is not configured",
            envelope(&stranger, kind, &statement(EVENT_TYPE)),
            "signature_invalid",
        ),
        (
            "a type that is not configured",
            envelope(&stack.reporter, kind, &statement("https://example.test/other")),
            "policy_denied",
        ),
        ("an altered statement", altered, "signature_invalid"),
        (
            "another payload type",
            envelope(&stack.reporter, "text/plain", &statement(EVENT_TYPE)),
            "unsupported",
        ),
        ("two signatures", two, "malformed"),
        ("no statement", envelope(&stack.reporter, kind, "{}"), "malformed"),
    ] {
        let (status, answer, _) = post(&client, &url, body.to_string()).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some(code)), "{what}: {answer}");
    }

    // The table of the write endpoints: too large is 400 everywhere but on a raw log.
    for path in ["event/api/v1/entries", "issuance/ct/v1/add-chain", "issuance/ct/v1/add-pre-chain"] {
        let large = vec![b' '; 300 << 10];
        let (status, answer, _) = post(&client, &format!("{}/{path}", server.url), large).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some("too_large")), "{path}: {answer}");
    }

    for query in
        [format!("digest={}", "ab".repeat(32)), "serial=0A1B".to_owned(), format!("type={EVENT_TYPE}")]
    {
        let found = loop {
            let (status, body, _) =
                get(&client, &format!("{}/event/api/v1/lookup?{query}", server.url)).await;
            assert_eq!(status, 200);
            let found: Value = serde_json::from_slice(&body).unwrap();
            if found["covered_size"] == 1 {
                break found;
            }
        };
        assert_eq!(found["entries"].as_array().unwrap().len(), 1, "{query}: {found}");
        assert_eq!(verify_entry(&stack, "event", &found["entries"][0]), 0);
    }
    let (status, _, _) = get(&client, &format!("{}/event/api/v1/lookup?serial=zz", server.url)).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_log_and_common_reads_follow_the_formats() {
    let stack = Stack::new();
    let server = stack.serve();
    let (client, base) = (Client::new(), format!("{}/raw", server.url));
    let (_, empty, headers) = get(&client, &format!("{base}/checkpoint")).await;
    assert_eq!(open_checkpoint(&stack, "raw", &empty).head().size, 0);
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    for i in 0..300_u32 {
        let response = client.post(format!("{base}/add")).body(format!("entry {i}")).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.text().await.unwrap(), format!("{i}\n"));
    }
    let duplicate = client.post(format!("{base}/add")).body("entry 17").send().await.unwrap();
    assert_eq!((duplicate.status().as_u16(), duplicate.text().await.unwrap().as_str()), (200, "17\n"));
    let (status, _, _) = post(&client, &format!("{base}/add"), vec![0; 65_536]).await;
    assert_eq!(status, 413);
    let (status, _, _) = post(&client, &format!("{base}/add"), vec![0; 65_535]).await;
    assert_eq!(status, 200);
    let opened = loop {
        let (_, note, _) = get(&client, &format!("{base}/checkpoint")).await;
        let opened = open_checkpoint(&stack, "raw", &note);
        if opened.head().size == 301 {
            break opened;
        }
    };
    assert_eq!(opened.log_signatures().len(), 2);
    assert!(opened.log_signed_at().is_some());
    let (_, first, headers) = get(&client, &format!("{base}/tile/entries/000")).await;
    assert!(headers["cache-control"].to_str().unwrap().contains("immutable"));
    let bundle = tlog::EntryBundle::parse(tlog::BundleId::new(0, 256).unwrap(), &first).unwrap();
    let (_, tile, _) = get(&client, &format!("{base}/tile/0/000")).await;
    assert_eq!(tile, bundle.leaf_hashes().flat_map(|leaf| leaf.as_bytes().to_vec()).collect::<Vec<_>>());
    for (path, status) in [
        ("tile/0/001.p/45", 200),
        ("tile/1/000.p/1", 200),
        ("tile/entries/001.p/45", 200),
        ("tile/0/001.p/46", 404),
        ("tile/0/001", 404),
        ("tile/0/00", 404),
        ("tile/00/000", 404),
        ("tile/64/000", 404),
        ("tile/0/x000/000", 404),
        ("tile/0/../../../etc/passwd", 404),
        ("tile/0/%2e%2e", 404),
        ("tile/data/000", 404),
        ("tile/0/x999/x999/x999/x999/x999/x999/999", 404),
        ("nothing", 404),
        ("api/v1/proof?index=300", 200),
        ("api/v1/proof?index=301", 404),
        ("api/v1/proof?index=-1", 400),
        ("api/v1/proof", 400),
        ("api/v1/proof?leaf=00", 400),
        ("api/v1/consistency?old=17", 200),
        ("api/v1/consistency?old=302", 404),
    ] {
        let (found, _, _) = get(&client, &format!("{base}/{path}")).await;
        assert_eq!(found, status, "{path}");
    }
    let leaf = leaf_hash(b"entry 17");
    let (_, proof, _) =
        get(&client, &format!("{base}/api/v1/proof?leaf={}", hex::encode(leaf.as_bytes()))).await;
    let proof: Value = serde_json::from_slice(&proof).unwrap();
    assert_eq!(proof["leaf_index"], 17);
    let hashes = |value: &Value| -> Vec<Hash> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|hash| Hash::from_base64(hash.as_str().unwrap()).unwrap())
            .collect()
    };
    let head = *open_checkpoint(&stack, "raw", proof["checkpoint"].as_str().unwrap().as_bytes()).head();
    let _ = InclusionProof { leaf_index: 17, path: hashes(&proof["hashes"]) }.verify(&leaf, &head).unwrap();
    let (_, consistency, _) = get(&client, &format!("{base}/api/v1/consistency?old=0")).await;
    let consistency: Value = serde_json::from_slice(&consistency).unwrap();
    ConsistencyProof { path: hashes(&consistency["hashes"]) }
        .verify(open_checkpoint(&stack, "raw", &empty).head(), &head)
        .unwrap();

    let (_, logs, _) = get(&client, &format!("{}/api/v1/logs", server.url)).await;
    let logs: Vec<Value> = serde_json::from_slice(&logs).unwrap();
    let raw = logs.iter().find(|log| log["name"] == "raw").unwrap();
    assert_eq!(raw["url"], json!(base));
    assert_eq!(raw["origin"], stack.logs[3]["origin"]);
    assert!(
        raw["origin"].as_str().unwrap().starts_with("raw.")
            && raw["origin"].as_str().unwrap().ends_with(".mentat.internal")
    );
    let (status, _, _) = get(&client, &format!("{}/readyz", server.url)).await;
    assert_eq!(status, 200);
    let (_, metrics, _) = get(&client, &format!("{}/metrics", server.url)).await;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("mentat_log_size{log=\"raw\"} 301"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_log_answers_405_and_goes_on_serving() {
    let stack = Stack::with("writing = \"frozen\"\n");
    let server = stack.serve();
    let client = Client::new();
    let request = stack.authority.leaf("dev@example.test").request(b"artifact");
    let (status, answer, _) =
        post(&client, &format!("{}/api/v2/log/entries", server.url), request.to_string()).await;
    assert_eq!((status, answer["code"].as_str()), (405, Some("frozen")), "{answer}");
    let (status, note, _) = get(&client, &format!("{}/api/v2/checkpoint", server.url)).await;
    assert_eq!(status, 200);
    open_checkpoint(&stack, "signing", &note);
}

#[test]
fn refusals_to_start_say_what_is_wrong_and_exit_with_78() {
    let stack = Stack::new();
    let binary = env!("CARGO_BIN_EXE_transparency-log");
    for log in stack.logs.as_array().unwrap() {
        let pem = std::fs::read_to_string(log["public_key_file"].as_str().unwrap()).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        assert_eq!(log["public_key"], body, "{log}");
    }
    let again = run(binary, &["init", "--config"], &stack.config());
    assert_eq!(again.0, Some(78), "{}", again.2);
    assert!(again.2.contains("exist"), "{}", again.2);

    let server = stack.serve();
    let second = Process::start(binary, &stack.config()).err().unwrap();
    assert!(second.starts_with("exit Some(78)") && second.contains("another process"), "{second}");
    assert_eq!(server.stop(), Some(0));

    let text = std::fs::read_to_string(stack.config()).unwrap();
    let inside = text.replace("\"copies\"", "\"data/copies\"");
    let unknown = format!("nonsense = 1\n{text}");
    let elsewhere = text.replace("127.0.0.1:0", "0.0.0.0:0");
    for (what, text, says) in [
        ("copies inside data", inside, "head_copies"),
        ("an unknown field", unknown, "nonsense"),
        ("plain HTTP elsewhere", elsewhere, "TLS"),
    ] {
        let path = stack.path("bad.toml");
        std::fs::write(&path, text).unwrap();
        let said = Process::start(binary, &path).err().unwrap();
        assert!(
            said.starts_with("exit Some(78)") && said.to_lowercase().contains(&says.to_lowercase()),
            "{what}: {said}"
        );
    }
    std::fs::write(stack.path("pass"), "wrong").unwrap();
    let said = Process::start(binary, &stack.config()).err().unwrap();
    assert!(said.starts_with("exit Some(78)") && said.contains("keystore"), "{said}");
}
