//! The receipt key: made at the first start, in a keystore of this executor's own.
//!
//! Its passphrase is random and lies beside it, as the key of the artifact cache does: whoever reads the state folder as
//! this user is this executor. The key signs checkpoints of the receipt log and nothing else.

use std::path::Path;
use std::sync::Arc;

use hsm::software::Keystore;
use hsm::{
    KeyAlgorithm, KeyLabel, KeyProvider as _, KeySpec, Passphrase, PassphraseSource, Purpose, PurposeSet,
    Signer,
};
use log_store::{CheckpointKeys, LogKind, default_origin};
use service::{StartRefusal, secret};

const LABEL: &str = "receipts-ed25519";

/// Opens the key, or makes it where there is none.
pub(super) fn open(state: &Path) -> Result<CheckpointKeys, StartRefusal> {
    let (directory, file) = (state.join("receipt-key"), state.join("receipt-key.passphrase"));
    let refuse = |what: &str| {
        let what = format!("{what} {}", directory.display());
        move |error: hsm::Error| {
            StartRefusal::new(what, "restore it from a copy; a new key begins a new receipt log")
                .because(error)
        }
    };
    if !directory.exists() {
        if state.join("receipts").exists() {
            return Err(StartRefusal::new(
                format!("the key of the receipt log, {}, is gone", directory.display()),
                "restore it from a copy; to begin a new log, move the folder `receipts` and the file `receipts.head` away as evidence",
            ));
        }
        make(&directory, &file)?;
    }
    let passphrase = PassphraseSource::File(file)
        .read()
        .map_err(refuse("cannot read the passphrase of the receipt key in"))?;
    let keystore =
        Keystore::open(&directory, &passphrase).map_err(refuse("cannot open the receipt key in"))?;
    let signer: Arc<dyn Signer> = KeyLabel::new(LABEL)
        .and_then(|label| keystore.open_label(&label))
        .map_err(refuse("cannot open the receipt key in"))?;
    let origin = default_origin(LogKind::Receipts, signer.public_key());
    CheckpointKeys::new(LogKind::Receipts, &origin, vec![signer]).map_err(|error| {
        StartRefusal::new("the receipt key cannot sign checkpoints", "restore it from a copy").because(error)
    })
}

/// Makes the keystore under another name first: one that is there is complete.
fn make(directory: &Path, file: &Path) -> Result<(), StartRefusal> {
    let refuse = |error: Box<dyn std::error::Error + Send + Sync>| {
        StartRefusal::new(
            "the receipt key cannot be made",
            "check the free space and permissions of state_dir",
        )
        .because(error)
    };
    let unfinished = directory.with_extension("new");
    for path in [&unfinished, &file.to_path_buf()] {
        // What a start left that was interrupted before there was a key.
        let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(refuse(error.into())),
            _ => {}
        }
    }
    let passphrase = Passphrase::random().map_err(|error| refuse(error.into()))?;
    secret::write_new(file, passphrase.expose())?;
    Keystore::create(&unfinished, &passphrase)
        .and_then(|keystore| {
            keystore.generate(&KeySpec::new(
                LABEL,
                KeyAlgorithm::Ed25519,
                PurposeSet::of(&[Purpose::Checkpoint]),
            )?)
        })
        .map_err(|error| refuse(error.into()))?;
    std::fs::rename(&unfinished, directory).map_err(|error| refuse(error.into()))
}
