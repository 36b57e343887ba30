//! Sixteen growing logs that ask one witness, each log by itself in order.

use std::path::Path;
use std::time::Duration;

use hsm::software::{KdfProfile, Keystore, KeystoreOptions};
use hsm::{KeyAlgorithm, KeyProvider as _, KeySpec, Passphrase, Purpose};
use log_store::{CheckpointKeys, CheckpointSigner as _, LogKind};
use tlog::note::Note;
use tlog::witness::AddCheckpointRequest;
use tlog::{ConsistencyProof, MemoryTree, leaf_hash};

use crate::client::{Client, Loop, post};
use crate::server::{Process, run};

const LOGS: usize = 16;

/// What the logs ask, signed before the clock runs: signing checkpoints is their work.
pub(crate) struct Requests {
    configuration: String,
    of_log: Vec<Vec<Vec<u8>>>,
}

impl Requests {
    /// `each` checkpoints of every log.
    pub(crate) fn prepare(each: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = KeystoreOptions::default().with_kdf(KdfProfile::DangerForTests);
        let keystore =
            Keystore::create_with(&folder.path().join("logs"), &Passphrase::random().unwrap(), options)
                .unwrap();
        let mut configuration =
            "name = \"witness.test/w1\"\ndata = \"records\"\n[server]\nlisten = \"127.0.0.1:0\"\n\
                                 [keystore]\ndirectory = \"keys\"\npassphrase = \"file:pass\"\n"
                .to_owned();
        let mut of_log = Vec::new();
        for number in 0..LOGS {
            let spec =
                KeySpec::new(&format!("log-{number}"), KeyAlgorithm::Ed25519, Purpose::Checkpoint).unwrap();
            let origin = format!("log{number}.example.test");
            let keys =
                CheckpointKeys::new(LogKind::Raw, &origin, vec![keystore.generate(&spec).unwrap()]).unwrap();
            let vkey = keys.verifier_keys().next().unwrap().to_string();
            configuration += &format!("[[log]]\norigin = \"{origin}\"\nvkeys = [\"{vkey}\"]\n");
            let mut tree = MemoryTree::new();
            let requests = (0..each).map(|size| {
                tree.push(leaf_hash(&size.to_be_bytes()));
                let proof = ConsistencyProof::build(size, size + 1, &tree).unwrap();
                let note = Note::parse(&keys.sign(&tree.head(), 1_800_000_000_000).unwrap()).unwrap();
                post("/add-checkpoint", &AddCheckpointRequest { old_size: size, proof, note }.to_bytes())
            });
            of_log.push(requests.collect());
        }
        Self { configuration, of_log }
    }

    /// Durable cosigned checkpoints a second of a witness that never saw these logs.
    pub(crate) fn cosigns_per_s(&self, measured: Duration) -> f64 {
        let folder = tempfile::tempdir().unwrap();
        let witness = start(folder.path(), &self.configuration);
        let mut client = Client::connect(witness.url.trim_start_matches("http://"), LOGS, 200);
        let mut next = [0; LOGS];
        let request = |place: usize, out: &mut Vec<u8>| {
            out.extend_from_slice(self.of_log[place].get(next[place]).expect("too few prepared requests"));
            next[place] += 1;
        };
        let timing = Loop { warm_up: Duration::from_millis(300), measured };
        let (count, took) = client.closed_loop(&timing, request, |_| {});
        count as f64 / took.as_secs_f64()
    }
}

fn start(folder: &Path, configuration: &str) -> Process {
    let config = folder.join("witness.toml");
    std::fs::write(&config, configuration).unwrap();
    let (code, _, error) = run(env!("CARGO_BIN_EXE_witness"), &["init", "--config"], &config);
    assert_eq!(code, Some(0), "{error}");
    Process::start(env!("CARGO_BIN_EXE_witness"), &config).unwrap()
}
