//! Certificates that entries of an issuance log refer to, one file each, named by the SHA-256 fingerprint.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use trust_store::certificate::Certificate;

/// The directory, and what is known to be durable in it.
#[derive(Debug)]
pub(crate) struct Issuers {
    directory: PathBuf,
    kept: Mutex<BTreeSet<[u8; 32]>>,
}

impl Issuers {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), kept: Mutex::default() })
    }

    /// Stores a certificate durably, once.
    pub(crate) fn keep(&self, certificate: &Certificate) -> io::Result<()> {
        let fingerprint = certificate.fingerprint();
        let mut kept = self.kept.lock();
        if kept.contains(&fingerprint) {
            return Ok(());
        }
        let path = self.path(&fingerprint);
        if std::fs::read(&path).ok().as_deref() != Some(certificate.der()) {
            let temporary = path.with_extension("new");
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(certificate.der())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)?;
            std::fs::File::open(&self.directory)?.sync_all()?;
        }
        kept.insert(fingerprint);
        Ok(())
    }

    /// The certificate with this fingerprint; damage is no answer.
    pub(crate) fn find(&self, fingerprint: &[u8; 32]) -> Option<Vec<u8>> {
        let der = std::fs::read(self.path(fingerprint)).ok()?;
        (tlog::hash::Hash::digest(&der).0 == *fingerprint).then_some(der)
    }

    fn path(&self, fingerprint: &[u8; 32]) -> PathBuf {
        self.directory.join(hex::encode(fingerprint))
    }
}
