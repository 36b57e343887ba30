//! Certificates that entries of an issuance log refer to, one file each, named by the SHA-256 fingerprint.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use trust_store::certificate::Certificate;

/// What became of a kept certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    Damaged,
    Missing,
}

/// The directory, and what is known to be durable in it.
#[derive(Debug)]
pub(crate) struct Issuers {
    directory: PathBuf,
    kept: Mutex<BTreeSet<[u8; 32]>>,
}

impl Issuers {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self::at(directory))
    }

    /// The directory as it is; nothing is made.
    pub(crate) fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), kept: Mutex::default() }
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

    /// The certificate with this fingerprint; damage is no answer, and is reported.
    pub(crate) fn find(&self, fingerprint: &[u8; 32]) -> Result<Vec<u8>, Unusable> {
        let path = self.path(fingerprint);
        let found = match std::fs::read(&path) {
            Ok(der) if tlog::hash::Hash::digest(&der).0 == *fingerprint => Ok(der),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Unusable::Missing),
            Ok(_) | Err(_) => Err(Unusable::Damaged),
        };
        if found == Err(Unusable::Damaged) {
            // So that the next chain with it stores it again.
            self.kept.lock().remove(fingerprint);
            tracing::error!(file = %path.display(), "issuer is missing or damaged");
        }
        found
    }

    /// Whether every one of these is there; the first that is not, with the repair.
    pub(crate) fn check(&self, fingerprints: &BTreeSet<[u8; 32]>) -> Result<(), String> {
        for fingerprint in fingerprints {
            if self.find(fingerprint).is_err() {
                return Err(format!(
                    "issuer {} is missing or damaged; write the CA's certificate with this fingerprint there, as DER",
                    self.path(fingerprint).display()
                ));
            }
        }
        Ok(())
    }

    fn path(&self, fingerprint: &[u8; 32]) -> PathBuf {
        self.directory.join(hex::encode(fingerprint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_issuer_is_no_answer_is_named_and_is_stored_again() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let der = rcgen::CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
        let certificate = Certificate::from_der(&der).unwrap();
        let fingerprint = certificate.fingerprint();
        let issuers = Issuers::open(&folder.path().join("issuer")).unwrap();
        let all = BTreeSet::from([fingerprint]);
        assert_eq!(issuers.find(&fingerprint), Err(Unusable::Missing));
        issuers.keep(&certificate).unwrap();
        assert_eq!(issuers.find(&fingerprint).as_ref(), Ok(&der));
        issuers.check(&all).unwrap();
        let path = issuers.path(&fingerprint);
        for at in 0..der.len() {
            let mut bad = der.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(&path, bad).unwrap();
            assert_eq!(issuers.find(&fingerprint), Err(Unusable::Damaged), "byte {at}");
        }
        let named = issuers.check(&all).unwrap_err();
        assert!(named.contains(&path.display().to_string()), "{named}");
        issuers.keep(&certificate).unwrap();
        assert_eq!(issuers.find(&fingerprint).as_ref(), Ok(&der));
    }
}
