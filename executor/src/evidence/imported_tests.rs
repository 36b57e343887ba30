//! Carried evidence: what is taken, what is not, and what survives a restart.

use std::path::Path;

use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use tlog::{Hash, TreeHead};
use trust_store::UnixTime;
use trust_store::evidence::Evidence;
use trust_store::evidence::signed::{self, EvidenceSigner};

use super::Source;
use super::imported::{ImportConfig, Imported};
use crate::clock;

const HEAD: TreeHead = TreeHead { size: 3, root: Hash([7; 32]) };

struct Carrier {
    directory: tempfile::TempDir,
    key: KeyPair,
}

impl Carrier {
    fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Self { directory: tempfile::tempdir().unwrap(), key }
    }

    /// Puts a file in place that was made `age` seconds ago, is valid for `life` and names one checkpoint.
    fn bring(&self, key: &KeyPair, age: i64, life: i64, note: &str) {
        let mut evidence = Evidence::none();
        evidence.log_mut("o").add_checkpoint(note);
        evidence.remember("o", &[1], &HEAD);
        let created = UnixTime(clock::unix_seconds() - age);
        let payload = signed::payload(&evidence, created, UnixTime(created.0 + life)).unwrap();
        let signature = key.sign(&signed::message(&payload)).unwrap();
        let name = self.directory.path().join("new");
        std::fs::write(&name, signed::file(payload, signature).unwrap()).unwrap();
        std::fs::rename(name, self.file()).unwrap();
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("evidence.json")
    }

    fn imported(&self) -> Imported {
        let signer = EvidenceSigner::from_spki_der(&self.key.subject_public_key_info()).unwrap();
        Imported::new(Some(ImportConfig { file: self.file(), signers: vec![signer] }), self.directory.path())
    }
}

/// The checkpoints that count, and what is wrong with the source.
fn state(imported: &Imported) -> (Vec<String>, String) {
    let (mut evidence, mut sources) = (Evidence::none(), Vec::<Source>::new());
    imported.collect(&mut evidence, &mut sources);
    assert_eq!((sources.len(), sources[0].kind), (1, "import"));
    let heads = evidence.log("o").map(|_| HEAD);
    assert_eq!(evidence.remembered_head("o", &[1]), heads, "what the signer remembered comes along");
    let notes = evidence.log("o").map(|log| log.checkpoints.clone()).unwrap_or_default();
    (notes, sources[0].problem.clone())
}

#[test]
fn a_newer_file_replaces_and_an_older_one_does_not_even_after_a_restart() {
    let carrier = Carrier::new();
    let imported = carrier.imported();
    assert!(imported.refresh().is_none());
    assert!(state(&imported).1.contains("cannot be read"), "{:?}", state(&imported));
    carrier.bring(&carrier.key, 100, 3600, "first");
    assert!(imported.refresh().is_some());
    assert_eq!(state(&imported), (vec!["first".to_owned()], String::new()));
    assert!(imported.refresh().is_none(), "nothing new");
    carrier.bring(&carrier.key, 50, 3600, "second, and longer");
    assert!(imported.refresh().is_some());
    carrier.bring(&carrier.key, 100, 3600, "first");
    assert!(imported.refresh().is_none());
    let (notes, problem) = state(&imported);
    assert_eq!(notes, ["second, and longer"], "what was taken goes on counting");
    assert!(problem.contains("was taken already"), "{problem}");
    let restarted = carrier.imported();
    assert!(restarted.refresh().is_none());
    assert!(state(&restarted).0.is_empty() && state(&restarted).1.contains("was taken already"));
}

#[test]
fn strangers_and_expired_files_are_not_taken() {
    let carrier = Carrier::new();
    let imported = carrier.imported();
    let stranger = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    for (key, age, problem) in [
        (&stranger, 0, "signature_invalid"),
        (&carrier.key, 3601, "revocation_stale"),
        (&carrier.key, -1000, "not_yet_valid"),
    ] {
        carrier.bring(key, age, 3600, "note");
        assert!(imported.refresh().is_none());
        let (notes, said) = state(&imported);
        assert!(notes.is_empty() && said.contains(problem), "{problem}: {said}");
    }
    std::fs::write(carrier.file(), Evidence::none().to_json().unwrap()).unwrap();
    assert!(imported.refresh().is_none());
    assert!(state(&imported).1.contains("malformed"));
    carrier.bring(&carrier.key, 0, 3600, "note");
    assert!(imported.refresh().is_some(), "the next good file is taken");
    assert!(state(&imported).1.is_empty());
}

#[test]
fn what_only_the_file_vouched_for_ends_with_it() {
    let carrier = Carrier::new();
    let imported = carrier.imported();
    carrier.bring(&carrier.key, 3599, 3600, "note");
    assert!(imported.refresh().is_some());
    imported.expire_now();
    assert!(imported.refresh().is_none());
    let (notes, problem) = state(&imported);
    assert!(notes.is_empty() && problem.contains("expired"), "{notes:?} {problem}");
}

#[test]
fn nothing_is_imported_where_nothing_is_configured() {
    let imported = Imported::new(None, Path::new("/nowhere"));
    assert!(imported.refresh().is_none());
    let (mut evidence, mut sources) = (Evidence::none(), Vec::new());
    imported.collect(&mut evidence, &mut sources);
    assert!(evidence.logs().is_empty() && sources.is_empty());
}
