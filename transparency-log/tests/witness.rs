//! The witness server, alone and as the quorum of a log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use rcgen::{KeyPair, SigningKey as _};
use reqwest::Client;
use serde_json::Value;
use server::{Process, Stack, open_checkpoint, run};
use tlog::cosignature::{TimestampedSignature, v1_message};
use tlog::note::{Note, NoteSignature, parse_signature_lines};
use tlog::witness::AddCheckpointRequest;
use tlog::{ConsistencyProof, Hash, VerifierKey};

const WITNESS: &str = env!("CARGO_BIN_EXE_witness");

/// Configures and initialises a witness for the stack's signing and raw logs; returns its verifier keys.
fn make(stack: &Stack, listen: &str) -> Vec<String> {
    let log = |place: usize| {
        let vkeys: Vec<_> =
            stack.logs[place]["vkeys"].as_array().unwrap().iter().map(Value::to_string).collect();
        format!("[[log]]\norigin = {}\nvkeys = [{}]\n", stack.logs[place]["origin"], vkeys.join(", "))
    };
    let text = format!(
        "name = \"witness.test/w1\"\ndata = \"records\"\n[server]\nlisten = \"{listen}\"\n\
         [keystore]\ndirectory = \"witness-keys\"\npassphrase = \"file:witness-pass\"\n{}{}",
        log(0),
        log(3)
    );
    std::fs::write(stack.path("witness.toml"), text).unwrap();
    let (code, made, error) = run(WITNESS, &["init", "--config"], &stack.path("witness.toml"));
    assert_eq!(code, Some(0), "{error}");
    let made: Value = serde_json::from_str(&made).unwrap();
    made["witness"]["vkeys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vkey| vkey.as_str().unwrap().to_owned())
        .collect()
}

async fn ask(client: &Client, witness: &Process, body: Vec<u8>) -> (u16, String, String) {
    let response = client.post(format!("{}/add-checkpoint", witness.url)).body(body).send().await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (response.status().as_u16(), kind, response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_with_the_statuses_of_the_protocol_and_remembers_across_a_kill() {
    let stack = Stack::new();
    let vkeys = make(&stack, "127.0.0.1:0");
    let witness =
        Process::start(WITNESS, &stack.path("witness.toml")).unwrap_or_else(|line| panic!("{line}"));
    let log = stack.serve();
    let client = Client::new();
    let mut notes = Vec::new();
    for size in [3_u64, 7] {
        for i in notes.len() as u64 * 10..notes.len() as u64 * 10 + if size == 3 { 3 } else { 4 } {
            client.post(format!("{}/raw/add", log.url)).body(format!("entry {i}")).send().await.unwrap();
        }
        notes.push(loop {
            let note = client
                .get(format!("{}/raw/checkpoint", log.url))
                .send()
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            if open_checkpoint(&stack, "raw", &note).head().size == size {
                break note.to_vec();
            }
        });
    }
    let consistency: Value = client
        .get(format!("{}/raw/api/v1/consistency?old=3", log.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let hashes = consistency["hashes"].as_array().unwrap().iter();
    let proof = ConsistencyProof {
        path: hashes.map(|hash| Hash::from_base64(hash.as_str().unwrap()).unwrap()).collect(),
    };
    let request = |old_size: u64, proof: &ConsistencyProof, note: &[u8]| {
        AddCheckpointRequest { old_size, proof: proof.clone(), note: Note::parse(note).unwrap() }.to_bytes()
    };
    let none = ConsistencyProof::default();

    let (status, _, lines) = ask(&client, &witness, request(0, &none, &notes[0])).await;
    assert_eq!(status, 200, "{lines}");
    let keys: Vec<_> = vkeys.iter().map(|vkey| VerifierKey::parse(vkey).unwrap()).collect();
    let text = Note::parse(&notes[0]).unwrap();
    let lines = parse_signature_lines(&lines).unwrap();
    assert_eq!(lines.len(), 2);
    for line in &lines {
        let key = keys.iter().find(|key| key.id() == line.key_id()).unwrap();
        assert!(key.verify(text.text(), line.signature(), &trust_store::provider::AwsLc).unwrap().is_some());
    }
    // A refresh of the same checkpoint is allowed.
    assert_eq!(ask(&client, &witness, request(3, &none, &notes[0])).await.0, 200);

    let origin = stack.logs[3]["origin"].as_str().unwrap();
    let forged = String::from_utf8(notes[1].clone()).unwrap().replacen("\n7\n", "\n8\n", 1);
    let foreign =
        String::from_utf8(notes[1].clone()).unwrap().replace(origin, "raw.00000000.mentat.internal");
    let wrong = ConsistencyProof { path: vec![Hash([1; 32]); proof.path.len()] };
    for (what, body, status) in [
        ("no request", b"nonsense".to_vec(), 400),
        ("an unknown origin", request(3, &proof, foreign.as_bytes()), 404),
        ("a forged checkpoint", request(3, &proof, forged.as_bytes()), 403),
        ("an old size above the checkpoint's", request(8, &none, &notes[1]), 400),
        ("another old size", request(2, &proof, &notes[1]), 409),
        ("a wrong proof", request(3, &wrong, &notes[1]), 422),
        ("no proof", request(3, &none, &notes[1]), 422),
    ] {
        let (found, kind, body) = ask(&client, &witness, body).await;
        assert_eq!(found, status, "{what}: {body}");
        if status == 409 {
            assert_eq!((kind.as_str(), body.as_str()), ("text/x.tlog.size", "3\n"));
        }
    }
    // Lines that anybody can add are not shown to monitors, who would take no more than 64, nor kept.
    let mut crowded = Note::parse(&notes[1]).unwrap();
    let ours = crowded.signatures().len();
    for place in 0..64 - ours {
        let line = format!("— junk.example/{place} AAAAAAA=\n");
        crowded.push(parse_signature_lines(&line).unwrap().remove(0));
    }
    assert_eq!(ask(&client, &witness, request(3, &proof, &crowded.to_bytes())).await.0, 200);
    let hash = hex::encode(Hash::digest(origin.as_bytes()).0);
    let shown = client.get(format!("{}/{hash}/checkpoint", witness.url)).send().await.unwrap();
    let shown = shown.bytes().await.unwrap();
    assert_eq!(Note::parse(&shown).unwrap().signatures().len(), ours + 2);
    assert_eq!(open_checkpoint(&stack, "raw", &shown).head().size, 7);
    witness.kill();
    let witness =
        Process::start(WITNESS, &stack.path("witness.toml")).unwrap_or_else(|line| panic!("{line}"));
    // What it answered before the kill it still knows: no smaller tree is cosigned again.
    let (status, _, body) = ask(&client, &witness, request(3, &none, &notes[0])).await;
    assert_eq!((status, body.as_str()), (409, "7\n"));
    assert_eq!(ask(&client, &witness, request(7, &none, &notes[1])).await.0, 200);
    let shown = client.get(format!("{}/{hash}/checkpoint", witness.url)).send().await.unwrap();
    assert_eq!(shown.status().as_u16(), 200);
    let shown = shown.bytes().await.unwrap();
    assert_eq!(open_checkpoint(&stack, "raw", &shown).head().size, 7);
    let unknown = client.get(format!("{}/{}/checkpoint", witness.url, "0".repeat(64))).send().await.unwrap();
    assert_eq!(unknown.status().as_u16(), 404);
    assert_eq!(witness.stop(), Some(0));

    // Both directories gone, as volumes that are not mounted: what was cosigned is not forgotten, nor begun anew.
    for name in ["records", "records-copies"] {
        std::fs::rename(stack.path(name), stack.path(&format!("{name}.aside"))).unwrap();
    }
    let origins = stack.path("witness-keys/origins");
    let listed = std::fs::read_to_string(&origins).unwrap();
    // The last is a keystore of the first day, when no log was configured yet.
    for (command, list) in
        [("serve", listed.as_str()), ("add-log", &listed), ("serve", "mentat witness origins 1\n")]
    {
        std::fs::write(&origins, list).unwrap();
        let (code, _, line) = run(WITNESS, &[command, "--config"], &stack.path("witness.toml"));
        assert_eq!(code, Some(78), "{command}: {line}");
        // Whichever of the two logs is looked at first.
        assert!(line.contains("/record and ") && line.contains(" are both gone"), "{command}: {line}");
        assert_eq!(std::fs::read_to_string(&origins).unwrap(), list, "{command}");
    }
    for name in ["records", "records-copies"] {
        assert!(!stack.path(name).join(&hash).exists());
        std::fs::rename(stack.path(&format!("{name}.aside")), stack.path(name)).unwrap();
    }
    // A log that is added gets its record by the command, once, and by no start.
    let text = std::fs::read_to_string(stack.path("witness.toml")).unwrap();
    let added = format!(
        "{text}[[log]]\norigin = {}\nvkeys = [{}]\n",
        stack.logs[2]["origin"], stack.logs[2]["vkeys"][0]
    );
    std::fs::write(stack.path("witness.toml"), added).unwrap();
    let (code, _, line) = run(WITNESS, &["serve", "--config"], &stack.path("witness.toml"));
    assert!(code == Some(78) && line.contains("add-log"), "{code:?}: {line}");
    for _ in 0..2 {
        let (code, _, line) = run(WITNESS, &["add-log", "--config"], &stack.path("witness.toml"));
        assert_eq!(code, Some(0), "{line}");
    }
    // A keystore from before there was a list takes over the records that are there.
    std::fs::remove_file(stack.path("witness-keys/origins")).unwrap();
    let witness =
        Process::start(WITNESS, &stack.path("witness.toml")).unwrap_or_else(|line| panic!("{line}"));
    assert_eq!(ask(&client, &witness, request(7, &none, &notes[1])).await.0, 200);
    assert!(std::fs::read_to_string(stack.path("witness-keys/origins")).unwrap().contains(origin));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_a_policy_publishes_only_what_its_witness_cosigned() {
    let stack = Stack::with("witness_policy = \"policy\"\nwitness_timeout_seconds = 2\n");
    // A port that is free now; the policy has to name it before the witness runs.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let vkeys = make(&stack, &format!("127.0.0.1:{port}"));
    let policy = format!(
        "log {}\nwitness w1 {} http://127.0.0.1:{port}\nquorum w1\n",
        stack.logs[0]["vkeys"][0].as_str().unwrap(),
        vkeys[0]
    );
    std::fs::write(stack.path("policy"), &policy).unwrap();
    let log = stack.serve();
    let client = Client::new();
    let status = client.get(format!("{}/checkpoint", log.url)).send().await.unwrap().status().as_u16();
    assert_eq!(status, 503, "a checkpoint was published without its quorum");
    assert_eq!(client.get(format!("{}/readyz", log.url)).send().await.unwrap().status().as_u16(), 503);

    let witness =
        Process::start(WITNESS, &stack.path("witness.toml")).unwrap_or_else(|line| panic!("{line}"));
    let request = stack.authority.leaf("dev@example.test").request(b"artifact");
    let answer = client
        .post(format!("{}/api/v2/log/entries", log.url))
        .body(request.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 201);
    let answer: Value = answer.json().await.unwrap();
    let note = answer["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap();
    let policy = tlog::Policy::parse(policy.as_bytes()).unwrap();
    let opened = policy.open(note.as_bytes(), &trust_store::provider::AwsLc).unwrap();
    assert_eq!(opened.head().size, 1);

    let digest = tlog::Hash::digest(b"artifact").0.map(|byte| format!("{byte:02x}")).concat();
    let found = async |url: &str| {
        for _ in 0..100 {
            let answer = client.get(format!("{url}/api/v1/lookup?digest={digest}")).send().await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            if answer["covered_size"] == 1 {
                return answer["entries"].as_array().unwrap().len();
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the lookup index does not cover the entry");
    };
    assert_eq!(found(&log.url).await, 1);

    // Without the witness nothing more is published; what was published stays.
    witness.kill();
    let request = stack.authority.leaf("dev@example.test").request(b"another");
    let pending = tokio::time::timeout(
        std::time::Duration::from_secs(2),
        client.post(format!("{}/api/v2/log/entries", log.url)).body(request.to_string()).send(),
    );
    assert!(pending.await.is_err(), "an entry was acknowledged as published without the quorum");
    let note = client.get(format!("{}/checkpoint", log.url)).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(policy.open(&note, &trust_store::provider::AwsLc).unwrap().head().size, 1);

    // Nor does a restart without it take anything away: checkpoint, tiles, proofs and what was indexed.
    log.kill();
    let log = stack.serve();
    for path in ["checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1", "api/v1/proof?index=0", "readyz"] {
        let answer = client.get(format!("{}/{path}", log.url)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
    }
    let note = client.get(format!("{}/checkpoint", log.url)).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(policy.open(&note, &trust_store::provider::AwsLc).unwrap().head().size, 1);
    assert_eq!(found(&log.url).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_chooses_its_level_and_witnessed_fails_closed() {
    let stack = Stack::with(
        "witness_policy = \"policy\"\nwitnessing = \"on-request\"\nwitness_pause_seconds = 0\n\
         witness_timeout_seconds = 2\nack_timeout_seconds = 1\n",
    );
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let vkeys = make(&stack, &format!("127.0.0.1:{port}"));
    let policy = format!(
        "log {}\nwitness w1 {} http://127.0.0.1:{port}\nquorum w1\n",
        stack.logs[0]["vkeys"][0].as_str().unwrap(),
        vkeys[0]
    );
    std::fs::write(stack.path("policy"), &policy).unwrap();
    let policy = tlog::Policy::parse(policy.as_bytes()).unwrap();
    let log = stack.serve();
    let client = Client::new();
    let leaf = stack.authority.leaf("dev@example.test");
    let submit = async |level: &str, artifact: &[u8]| {
        let url = format!("{}/api/v2/log/entries{level}", log.url);
        let answer = client.post(url).body(leaf.request(artifact).to_string()).send().await.unwrap();
        let retry = answer.headers().get("retry-after").is_some();
        (answer.status().as_u16(), retry, answer.json::<Value>().await.unwrap())
    };
    // Without the witness: published is answered, witnessed is not, and what was sequenced stays.
    let (status, _, answer) = submit("", b"one").await;
    assert_eq!(status, 201, "{answer}");
    let (status, retry, answer) = submit("?ack=witnessed", b"two").await;
    assert_eq!((status, retry, answer["code"].as_str()), (504, true, Some("not_acknowledged")), "{answer}");
    let (status, _, answer) = submit("?ack=sequenced", b"three").await;
    assert_eq!((status, answer["code"].as_str()), (400, Some("malformed")), "{answer}");
    let shown = client.get(format!("{}/api/v1/witnessed", log.url)).send().await.unwrap();
    assert_eq!(shown.status().as_u16(), 404);

    let _witness =
        Process::start(WITNESS, &stack.path("witness.toml")).unwrap_or_else(|line| panic!("{line}"));
    let (status, _, answer) = submit("?ack=witnessed", b"four").await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["logIndex"], "2", "the entry that got no acknowledgement is in the log");
    let note = answer["inclusionProof"]["checkpoint"]["envelope"].as_str().unwrap();
    assert!(policy.open(note.as_bytes(), &trust_store::provider::AwsLc).unwrap().head().size >= 3);
    let shown = client.get(format!("{}/api/v1/witnessed", log.url)).send().await.unwrap();
    policy.open(&shown.bytes().await.unwrap(), &trust_store::provider::AwsLc).unwrap();

    // A log without a policy promises nothing it cannot keep.
    let answer = client.post(format!("{}/raw/add?ack=witnessed", log.url)).body("x").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    let answer = client.post(format!("{}/raw/add?ack=published", log.url)).body("x").send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "0\n");
}

/// A witness that answers its one valid line `times` times: its key and address.
fn repeating(times: usize) -> (VerifierKey, String) {
    let name = "repeating.test/w";
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let verifier = VerifierKey::cosignature_v1(name, key.public_key_raw().try_into().unwrap()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (id, address) = (verifier.id(), listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let Ok(request) = AddCheckpointRequest::parse(&body) else { continue };
            let signature = key.sign(&v1_message(7, request.note.text())).unwrap();
            let body = TimestampedSignature { time: 7, signature }.to_bytes();
            let answer = NoteSignature::new(name, id, body).unwrap().to_string().repeat(times);
            let length = answer.len();
            // The log may have gone away; that is not what is tested.
            let _ = write!(
                stream.get_mut(),
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}"
            );
        }
    });
    (verifier, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_that_repeats_itself_neither_stops_the_log_nor_spoils_its_checkpoint() {
    let stack = Stack::with("witness_policy = \"policy\"\nwitness_timeout_seconds = 5\n");
    let (verifier, address) = repeating(64);
    let policy = format!(
        "log {}\nwitness w1 {verifier} http://{address}\nquorum w1\n",
        stack.logs[0]["vkeys"][0].as_str().unwrap()
    );
    std::fs::write(stack.path("policy"), &policy).unwrap();
    let policy = tlog::Policy::parse(policy.as_bytes()).unwrap();
    let log = stack.serve();
    let client = Client::new();
    let request = stack.authority.leaf("dev@example.test").request(b"artifact");
    let url = format!("{}/api/v2/log/entries", log.url);
    let answer = client.post(url).body(request.to_string()).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 201);
    let note = client.get(format!("{}/checkpoint", log.url)).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(Note::parse(&note).unwrap().signatures().len(), 3, "two lines of the log, one of the witness");
    assert_eq!(policy.open(&note, &trust_store::provider::AwsLc).unwrap().head().size, 1);
}
