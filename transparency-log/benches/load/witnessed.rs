//! Sixteen growing logs that ask one witness, each log by itself in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hsm::software::{KdfProfile, Keystore, KeystoreOptions};
use hsm::{KeyAlgorithm, KeyProvider as _, KeySpec, Passphrase, Purpose};
use log_store::{CheckpointKeys, CheckpointSigner as _, LogKind};
use tlog::note::Note;
use tlog::witness::AddCheckpointRequest;
use tlog::{ConsistencyProof, MemoryTree, leaf_hash};

use crate::client::{Connection, post};
use crate::server::{Process, run};

const LOGS: usize = 16;

/// Durable cosignatures a second.
pub(crate) async fn cosigns_per_s(lasting: Duration) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let options = KeystoreOptions::default().with_kdf(KdfProfile::DangerForTests);
    let keystore =
        Keystore::create_with(&folder.path().join("logs"), &Passphrase::random().unwrap(), options).unwrap();
    let mut text = "name = \"witness.test/w1\"\ndata = \"records\"\n[server]\nlisten = \"127.0.0.1:0\"\n\
                    [keystore]\ndirectory = \"keys\"\npassphrase = \"file:pass\"\n"
        .to_owned();
    let each = lasting.as_secs() as usize * 600 + 200;
    let mut prepared = Vec::new();
    for number in 0..LOGS {
        let spec =
            KeySpec::new(&format!("log-{number}"), KeyAlgorithm::Ed25519, Purpose::Checkpoint).unwrap();
        let origin = format!("log{number}.example.test");
        let keys =
            CheckpointKeys::new(LogKind::Raw, &origin, vec![keystore.generate(&spec).unwrap()]).unwrap();
        let vkey = keys.verifier_keys().next().unwrap().to_string();
        text += &format!("[[log]]\norigin = \"{origin}\"\nvkeys = [\"{vkey}\"]\n");
        let (mut tree, mut requests) = (MemoryTree::new(), Vec::with_capacity(each));
        for size in 0..each as u64 {
            tree.push(leaf_hash(&size.to_be_bytes()));
            let proof = ConsistencyProof::build(size, size + 1, &tree).unwrap();
            let note = Note::parse(&keys.sign(&tree.head(), 1_800_000_000_000).unwrap()).unwrap();
            requests.push(post(
                "/add-checkpoint",
                &AddCheckpointRequest { old_size: size, proof, note }.to_bytes(),
            ));
        }
        prepared.push(requests);
    }
    let config = folder.path().join("witness.toml");
    std::fs::write(&config, text).unwrap();
    let (code, _, error) = run(env!("CARGO_BIN_EXE_witness"), &["init", "--config"], &config);
    assert_eq!(code, Some(0), "{error}");
    let witness = Process::start(env!("CARGO_BIN_EXE_witness"), &config).unwrap();
    let address: Arc<str> = witness.url.trim_start_matches("http://").into();
    let start = Instant::now();
    let tasks: Vec<_> = prepared
        .into_iter()
        .map(|requests| {
            let address = address.clone();
            tokio::spawn(async move {
                let (mut connection, mut count) = (Connection::open(&address).await, 0_u64);
                for request in requests {
                    if start.elapsed() >= lasting {
                        break;
                    }
                    let (status, body) = connection.call(&request).await;
                    assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}
