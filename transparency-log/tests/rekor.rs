//! The interface of Rekor v2, line by line as stock clients read it: what they send, and every field, status and path they look at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{PublicKeyData as _, SigningKey as _};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use server::{Leaf, Process, Stack, open_checkpoint};
use tlog::{Hash, InclusionProof, leaf_hash};

const ENTRIES: &str = "/api/v2/log/entries";

struct Rekor {
    stack: Stack,
    server: Process,
    client: Client,
}

impl Rekor {
    /// A log whose table has `extra`.
    fn with(extra: &str) -> Self {
        let stack = Stack::with(extra);
        let server = stack.serve();
        Self { stack, server, client: Client::new() }
    }

    async fn post(&self, body: &Value) -> Response {
        let request = self.client.post(format!("{}{ENTRIES}", self.server.url));
        request.header("content-type", "application/json").body(body.to_string()).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.server.url)).send().await.unwrap()
    }

    async fn bytes(&self, path: &str) -> Vec<u8> {
        let answer = self.get(path).await;
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        answer.bytes().await.unwrap().to_vec()
    }

    fn leaf(&self) -> Leaf {
        self.stack.authority.leaf("dev@example.test")
    }

    /// The 32 octets of the checkpoint key's name.
    fn key_id(&self) -> String {
        STANDARD.encode(self.stack.keys("signing").1[0].key_hash().0)
    }
}

fn b64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn body_of(answer: &Value) -> String {
    String::from_utf8(STANDARD.decode(answer["canonicalizedBody"].as_str().unwrap()).unwrap()).unwrap()
}

/// The canonical body, written out by hand: members sorted, nothing between them.
fn canonical(digest: &str, signature: &str, verifier: &str) -> String {
    format!(
        "{{\"apiVersion\":\"0.0.2\",\"kind\":\"hashedrekord\",\"spec\":{{\"hashedRekordV002\":{{\"data\":{{\"algorithm\":\"SHA2_256\",\
         \"digest\":\"{digest}\"}},\"signature\":{{\"content\":\"{signature}\",\"verifier\":{{\
         \"keyDetails\":\"PKIX_ECDSA_P256_SHA_256\",{verifier}}}}}}}}}}}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_has_every_field_as_clients_read_it() {
    let rekor = Rekor::with("");
    let request = rekor.leaf().request(b"artifact");
    let answer = rekor.post(&request).await;
    assert_eq!(answer.status().as_u16(), 201);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let answer: Value = answer.json().await.unwrap();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut members = names(&answer);
    // A promise is of version 1: absent here, where some clients also take null.
    members.sort();
    assert_eq!(
        members,
        ["canonicalizedBody", "inclusionProof", "integratedTime", "kindVersion", "logId", "logIndex"]
    );
    assert_eq!(answer["logIndex"], "0", "64-bit numbers are text");
    assert_eq!(answer["logId"], json!({ "keyId": rekor.key_id() }), "the full 32 octets, not the first 4");
    assert_eq!(answer["kindVersion"], json!({ "kind": "hashedrekord", "version": "0.0.2" }));
    assert_eq!(answer["integratedTime"], "0");
    let proof = &answer["inclusionProof"];
    let mut members = names(proof);
    members.sort();
    assert_eq!(members, ["checkpoint", "hashes", "logIndex", "rootHash", "treeSize"]);
    assert_eq!((&proof["logIndex"], &proof["treeSize"]), (&json!("0"), &json!("1")));
    assert_eq!(proof["hashes"], json!([]));
    assert_eq!(names(&proof["checkpoint"]), ["envelope"]);
    // The proof is whole: root and size are those of the checkpoint in it, which covers the entry.
    let note = proof["checkpoint"]["envelope"].as_str().unwrap();
    let opened = open_checkpoint(&rekor.stack, "signing", note.as_bytes());
    assert_eq!(
        (opened.head().size, b64(&opened.head().root.0)),
        (1, proof["rootHash"].as_str().unwrap().to_owned())
    );
    let leaf = leaf_hash(body_of(&answer).as_bytes());
    let _ = InclusionProof { leaf_index: 0, path: Vec::new() }.verify(&leaf, opened.head()).unwrap();
    // Origin and key name: the bare host name, neither port nor path, and never ` - digits` behind it.
    let origin = note.lines().next().unwrap();
    assert!(origin.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)), "{origin}");
    let signatures: Vec<&str> = note.lines().filter(|line| line.starts_with("\u{2014} ")).collect();
    assert!((1..=20).contains(&signatures.len()), "{note}");
    for line in &signatures {
        assert!(line.starts_with(&format!("\u{2014} {origin} ")), "{line}");
    }
    // Clients pick the line by the first four octets of the id; one takes the first line of the name, which is the same.
    let hint = STANDARD.decode(rekor.key_id()).unwrap()[..4].to_vec();
    let hints: Vec<_> =
        signatures.iter().map(|line| STANDARD.decode(line.rsplit(' ').next().unwrap()).unwrap()).collect();
    assert_eq!(hints[0][..4], hint, "{note}");
    assert!(hints[1..].iter().all(|octets| octets[..4] != hint), "{note}");
    assert_eq!(rekor.server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canonical_bodies_are_exact_to_the_byte() {
    let rekor = Rekor::with("registered_keys = [\"reporter.pem\"]\n");
    let leaf = rekor.leaf();
    let certificate = format!("\"x509Certificate\":{{\"rawBytes\":\"{}\"}}", b64(&leaf.der));

    let request = leaf.request(b"artifact");
    let content = request["hashedRekordRequestV002"]["signature"]["content"].as_str().unwrap().to_owned();
    let answer: Value = rekor.post(&request).await.json().await.unwrap();
    assert_eq!(body_of(&answer), canonical(&b64(&Hash::digest(b"artifact").0), &content, &certificate));

    // The names of the proto file are as good as those of its JSON form.
    let signature = b64(&leaf.sign(b"other"));
    let snake = json!({ "hashed_rekord_request_v002": {
        "digest": b64(&Hash::digest(b"other").0),
        "signature": { "content": signature, "verifier": {
            "x509_certificate": { "raw_bytes": b64(&leaf.der) }, "key_details": "PKIX_ECDSA_P256_SHA_256",
        } },
    } });
    let answer: Value = rekor.post(&snake).await.json().await.unwrap();
    assert_eq!(body_of(&answer), canonical(&b64(&Hash::digest(b"other").0), &signature, &certificate));

    // A registered key in the place of a certificate.
    let signature = b64(&rekor.stack.reporter.sign(b"artifact").unwrap());
    let spki = b64(&rekor.stack.reporter.subject_public_key_info());
    let bare = json!({ "hashedRekordRequestV002": {
        "digest": b64(&Hash::digest(b"artifact").0),
        "signature": { "content": signature, "verifier": {
            "publicKey": { "rawBytes": spki }, "keyDetails": "PKIX_ECDSA_P256_SHA_256",
        } },
    } });
    let answer = rekor.post(&bare).await;
    assert_eq!(answer.status().as_u16(), 201);
    let answer: Value = answer.json().await.unwrap();
    let key = format!("\"publicKey\":{{\"rawBytes\":\"{spki}\"}}");
    assert_eq!(body_of(&answer), canonical(&b64(&Hash::digest(b"artifact").0), &signature, &key));

    // The request that is deprecated: logged as a signature over the hash of the pre-authentication encoding.
    let (kind, payload) = ("application/vnd.in-toto+json", b"{\"a\":1}");
    let encoding = format!("DSSEv1 {} {kind} {} {}", kind.len(), payload.len(), "{\"a\":1}");
    let signature = b64(&leaf.sign(encoding.as_bytes()));
    for (form, index) in [("dsseRequestV002", "3"), ("dsse_request_v002", "3")] {
        let request = json!({ form: {
            "envelope": { "payload": b64(payload), "payloadType": kind, "signatures": [{ "sig": signature, "keyid": "" }] },
            "verifiers": [{ "x509Certificate": { "rawBytes": b64(&leaf.der) }, "keyDetails": "PKIX_ECDSA_P256_SHA_256" }],
        } });
        let answer = rekor.post(&request).await;
        if form == "dsseRequestV002" {
            let answer: Value = answer.json().await.unwrap();
            assert_eq!(answer["logIndex"], index);
            assert_eq!(answer["kindVersion"], json!({ "kind": "hashedrekord", "version": "0.0.2" }));
            let digest = b64(&Hash::digest(encoding.as_bytes()).0);
            assert_eq!(body_of(&answer), canonical(&digest, &signature, &certificate));
        } else {
            // The same entry once more, under its other name.
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["x-log-index"]),
                (409, &index.parse().unwrap())
            );
        }
    }
    // What was answered is what is stored: the bundle of entries holds the very bodies.
    let bundle = rekor.bytes("/api/v2/tile/entries/000.p/4").await;
    let stored = tlog::EntryBundle::parse(tlog::BundleId::new(0, 4).unwrap(), &bundle).unwrap();
    let answered = leaf_hash(body_of(&answer).as_bytes());
    assert_eq!(stored.leaf_hashes().nth(2).unwrap().as_bytes(), answered.as_bytes());
    assert_eq!(rekor.server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_duplicate_names_its_index_and_is_not_logged_again() {
    let rekor = Rekor::with("");
    let leaf = rekor.leaf();
    let request = leaf.request(b"artifact");
    for artifact in [b"zero".as_slice(), b"one"] {
        assert_eq!(rekor.post(&leaf.request(artifact)).await.status().as_u16(), 201);
    }
    assert_eq!(rekor.post(&request).await.status().as_u16(), 201);
    let again = rekor.post(&request).await;
    assert_eq!((again.status().as_u16(), &again.headers()["x-log-index"]), (409, &"2".parse().unwrap()));
    let problem: Value = again.json().await.unwrap();
    assert_eq!((problem["code"].as_str(), problem["log_index"].as_u64()), (Some("duplicate"), Some(2)));
    let opened = open_checkpoint(&rekor.stack, "signing", &rekor.bytes("/api/v2/checkpoint").await);
    assert_eq!(opened.head().size, 3);
    assert_eq!(rekor.server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_exactly_a_request_is_refused_with_400() {
    let rekor = Rekor::with("");
    let good = rekor.leaf().request(b"artifact");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let inner = "hashedRekordRequestV002";
    for (what, request) in [
        ("an unknown member", changed(&|r| r["extra"] = json!(1))),
        ("an unknown member inside", changed(&|r| r[inner]["signature"]["extra"] = json!(1))),
        (
            "an unknown member of the verifier",
            changed(&|r| r[inner]["signature"]["verifier"]["extra"] = json!(1)),
        ),
        (
            "both requests at once",
            changed(&|r| r["dsseRequestV002"] = json!({ "envelope": {}, "verifiers": [] })),
        ),
        ("a digest that is no SHA-256", changed(&|r| r[inner]["digest"] = json!(b64(&[7; 31])))),
        (
            "a hash that is not the key's",
            changed(&|r| r[inner]["signature"]["verifier"]["keyDetails"] = json!("PKIX_ECDSA_P384_SHA_384")),
        ),
        (
            "a type of key that no client knows",
            changed(&|r| r[inner]["signature"]["verifier"]["keyDetails"] = json!("PKIX_ECDSA_P256_SHA_1")),
        ),
        ("no signature", changed(&|r| r[inner]["signature"]["content"] = json!(""))),
        ("no verifier", changed(&|r| r[inner]["signature"]["verifier"] = json!({}))),
        ("version 1's request", json!({ "apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {} })),
        ("the type that is gone", json!({ "apiVersion": "0.0.2", "kind": "dsse", "spec": {} })),
        ("an empty object", json!({})),
    ] {
        let answer = rekor.post(&request).await;
        assert_eq!(answer.status().as_u16(), 400, "{what}");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["code"].is_string() && problem["status"] == 400, "{what}: {problem}");
    }
    let opened = open_checkpoint(&rekor.stack, "signing", &rekor.bytes("/checkpoint").await);
    assert_eq!(opened.head().size, 0, "nothing of this was logged");
    assert_eq!(rekor.server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_shard_serves_all_that_was_logged_and_takes_nothing() {
    let mut rekor = Rekor::with("");
    let request = rekor.leaf().request(b"artifact");
    assert_eq!(rekor.post(&request).await.status().as_u16(), 201);
    let before = rekor.bytes("/api/v2/checkpoint").await;
    let tile = rekor.bytes("/api/v2/tile/0/000.p/1").await;
    assert_eq!(rekor.server.stop(), Some(0));

    let config = std::fs::read_to_string(rekor.stack.config()).unwrap();
    let signing = "name = \"signing\"\nkind = \"signing\"\n";
    std::fs::write(
        rekor.stack.config(),
        config.replace(signing, &format!("{signing}writing = \"frozen\"\n")),
    )
    .unwrap();
    rekor.server = rekor.stack.serve();
    for body in [request, rekor.leaf().request(b"new"), json!({})] {
        let refused = rekor.post(&body).await;
        assert!([400, 405].contains(&refused.status().as_u16()));
        if body != json!({}) {
            assert_eq!(
                (refused.status().as_u16(), &refused.headers()["allow"]),
                (405, &"GET, HEAD".parse().unwrap())
            );
        }
    }
    let head = |note: &[u8]| *open_checkpoint(&rekor.stack, "signing", note).head();
    assert_eq!(head(&rekor.bytes("/api/v2/checkpoint").await), head(&before));
    assert_eq!(rekor.bytes("/api/v2/tile/0/000.p/1").await, tile);
    assert!(!rekor.bytes("/api/v2/tile/entries/000.p/1").await.is_empty());
    assert_eq!(rekor.server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiles_and_health_are_where_clients_look() {
    let rekor = Rekor::with("");
    let leaf = rekor.leaf();
    let mut hashes = Vec::new();
    for number in 0..3_u8 {
        let answer: Value = rekor.post(&leaf.request(&[number])).await.json().await.unwrap();
        hashes.extend_from_slice(leaf_hash(body_of(&answer).as_bytes()).as_bytes());
    }
    // Below the interface's own path, and below the log's, which monitors are given.
    for base in ["/api/v2", ""] {
        assert_eq!(rekor.bytes(&format!("{base}/tile/0/000.p/3")).await, hashes);
        assert_eq!(rekor.bytes(&format!("{base}/tile/0/000.p/2")).await, hashes[..64]);
        let bundle = rekor.bytes(&format!("{base}/tile/entries/000.p/3")).await;
        let stored = tlog::EntryBundle::parse(tlog::BundleId::new(0, 3).unwrap(), &bundle).unwrap();
        assert_eq!(
            stored.leaf_hashes().flat_map(|leaf| leaf.as_bytes().to_vec()).collect::<Vec<_>>(),
            hashes
        );
        let checkpoint = rekor.get(&format!("{base}/checkpoint")).await;
        assert_eq!(checkpoint.headers()["content-type"], "text/plain; charset=utf-8");
        let opened = open_checkpoint(&rekor.stack, "signing", &checkpoint.bytes().await.unwrap());
        assert_eq!(opened.head().size, 3);
        for absent in [
            "tile/0/000",
            "tile/0/000.p/4",
            "tile/1/000.p/1",
            "tile/entries/000",
            "tile/0/x001/000",
            "tile/0/0",
        ] {
            assert_eq!(
                rekor.get(&format!("{base}/{absent}")).await.status().as_u16(),
                404,
                "{base}/{absent}"
            );
        }
    }
    let health = rekor.get("/healthz").await;
    assert_eq!(health.headers()["content-type"], "application/json");
    assert_eq!(health.json::<Value>().await.unwrap(), json!({ "status": "SERVING" }));
    assert_eq!(rekor.server.stop(), Some(0));
}
