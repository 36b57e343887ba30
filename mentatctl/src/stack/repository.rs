//! The stack's trust files as TUF metadata: static files in `trust/tuf`, with keys in a keystore of their own.

use std::path::{Path, PathBuf};

use hsm::PassphraseSource;
use hsm::software::Keystore;
use trust_store_files::tuf::{SIGNING_CONFIG, TRUSTED_ROOT};

use super::layout::Layout;
use super::trust_files::TrustFiles;
use crate::clock;
use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::read_file;
use crate::trust::distribution;

/// Makes keys and repository from the trust files of the first start; the passphrase is there already.
///
/// # Errors
/// When a key or file cannot be made.
pub fn create(layout: &Layout) -> Outcome<()> {
    let passphrase = PassphraseSource::File(layout.passphrase("tuf")).read();
    let passphrase = passphrase.or_fail(Exit::Failure, "the passphrase of the repository's keys")?;
    let keys = Keystore::create(&layout.data("tuf-keys"), &passphrase)
        .or_fail(Exit::Failure, "the repository's keys")?;
    let targets = [
        (TRUSTED_ROOT, read_file(&layout.trust("trusted_root.json"))?),
        (SIGNING_CONFIG, read_file(&layout.trust("signing_config.json"))?),
    ];
    distribution::create(&layout.trust("tuf"), &keys, &targets, clock::now()).map(drop)
}

/// Publishes new trust files. A stack that has no repository gets none.
///
/// # Errors
/// When the keys cannot be opened, or the repository is not theirs or must be rotated first.
pub fn publish(layout: &Layout, files: &TrustFiles) -> Outcome<()> {
    if !layout.trust("tuf").is_dir() {
        return Ok(());
    }
    distribution::publish_targets(&layout.trust("tuf"), &open(layout)?, &files.targets(), clock::now())
}

/// The repository of the stack in a folder, and its keys.
///
/// # Errors
/// When the keys cannot be opened.
pub fn keys(dir: &Path) -> Outcome<(PathBuf, Keystore)> {
    let layout = Layout::new(dir);
    Ok((layout.trust("tuf"), open(&layout)?))
}

fn open(layout: &Layout) -> Outcome<Keystore> {
    let passphrase = PassphraseSource::File(layout.passphrase("tuf")).read();
    let passphrase = passphrase.or_fail(Exit::Refused, "the passphrase of the repository's keys")?;
    Keystore::open(&layout.data("tuf-keys"), &passphrase).or_fail(Exit::Refused, "the repository's keys")
}

/// Signs a new timestamp where less than half of its life is left. A stack that has no repository gets none.
///
/// # Errors
/// When the keys cannot be opened, or the repository is not theirs or must be rotated first.
pub fn keep_fresh(layout: &Layout) -> Outcome<()> {
    if !layout.trust("tuf").is_dir() {
        return Ok(());
    }
    distribution::keep_fresh(&layout.trust("tuf"), &open(layout)?, clock::now())
}
