//! The directory of keys.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::header::{self, Header, KeystoreId, MasterKey};
use super::kdf::{KdfParameters, KdfProfile};
use super::key_file::{self, KeyFile};
use super::secret_file::{self, Readers, io_error};
use super::{PrivateKey, RateLimit, SoftwareSigner, seal};
use crate::algorithm::KeyAlgorithm;
use crate::audit::KeyAudit;
use crate::error::Error;
use crate::passphrase::Passphrase;
use crate::policy::KeyPolicy;
use crate::provider::{Capabilities, Health, KeyInfo, KeyLabel, KeyProvider, KeySpec};
use crate::public_key::PublicKey;
use crate::signer::{ProtectionLevel, Signer};
use crate::uri::{KeyUri, Scheme};

const HEADER_NAME: &str = "keystore";
const KEY_SUFFIX: &str = ".key";
/// Most keys in one keystore: bounds listings.
const MAX_KEYS: usize = 10_000;

/// How a keystore is made or opened.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct KeystoreOptions {
    /// Strength of the passphrase derivation of a new keystore; an existing one keeps its own.
    pub kdf: KdfProfile,
    /// Told of every use of every key before it happens.
    pub audit: Option<Arc<dyn KeyAudit>>,
}

impl KeystoreOptions {
    /// Options with this derivation strength.
    #[must_use]
    pub fn with_kdf(mut self, kdf: KdfProfile) -> Self {
        self.kdf = kdf;
        self
    }

    /// Options with this audit sink.
    #[must_use]
    pub fn with_audit(mut self, audit: Arc<dyn KeyAudit>) -> Self {
        self.audit = Some(audit);
        self
    }
}

/// An unlocked software keystore. The master key is wiped when it is dropped; opened keys live on.
pub struct Keystore {
    directory: PathBuf,
    id: KeystoreId,
    kdf: KdfParameters,
    master: MasterKey,
    audit: Option<Arc<dyn KeyAudit>>,
}

impl Keystore {
    /// Makes a keystore in `directory`, which is created with mode 0700 if it does not exist.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when the directory holds a keystore, [`Error::Invalid`] for a passphrase shorter than
    /// eight bytes, [`Error::Io`].
    pub fn create(directory: &Path, passphrase: &Passphrase) -> Result<Self, Error> {
        Self::create_with(directory, passphrase, KeystoreOptions::default())
    }

    /// Makes a keystore with options.
    ///
    /// # Errors
    /// As [`Keystore::create`].
    pub fn create_with(
        directory: &Path,
        passphrase: &Passphrase,
        options: KeystoreOptions,
    ) -> Result<Self, Error> {
        passphrase.check_strength()?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(io_error(directory, "create"))?;
        let path = directory.join(HEADER_NAME);
        let master: MasterKey = Zeroizing::new(seal::random()?);
        let kdf = options.kdf.parameters();
        let id = seal::random()?;
        secret_file::write_new(&path, &Header::wrap(id, &master, kdf, passphrase)?)?;
        Ok(Self { directory: directory.to_owned(), id, kdf, master, audit: options.audit })
    }

    /// Unlocks the keystore in `directory`.
    ///
    /// # Errors
    /// [`Error::AuthFailed`] for a wrong passphrase, [`Error::Corrupted`] for a damaged file, [`Error::NotFound`],
    /// [`Error::Permissions`] when others can read it.
    pub fn open(directory: &Path, passphrase: &Passphrase) -> Result<Self, Error> {
        Self::open_with(directory, passphrase, KeystoreOptions::default())
    }

    /// Unlocks a keystore with options.
    ///
    /// # Errors
    /// As [`Keystore::open`].
    pub fn open_with(
        directory: &Path,
        passphrase: &Passphrase,
        options: KeystoreOptions,
    ) -> Result<Self, Error> {
        let path = directory.join(HEADER_NAME);
        let header = read_header(&path)?;
        let master = header.unwrap_master(&path, passphrase)?;
        Ok(Self {
            directory: directory.to_owned(),
            id: header.id,
            kdf: header.kdf(),
            master,
            audit: options.audit,
        })
    }

    /// Replaces the passphrase. The keys themselves are not rewritten.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a passphrase that is too short, [`Error::Io`].
    pub fn change_passphrase(&mut self, new: &Passphrase, kdf: KdfProfile) -> Result<(), Error> {
        new.check_strength()?;
        let file = Header::wrap(self.id, &self.master, kdf.parameters(), new)?;
        secret_file::replace(&self.directory.join(HEADER_NAME), &file)?;
        self.kdf = kdf.parameters();
        Ok(())
    }

    /// The strength of this keystore's passphrase derivation.
    #[must_use]
    pub const fn kdf(&self) -> KdfParameters {
        self.kdf
    }

    /// Opens the key with this label, whatever its public key is. Configurations pin the key and use
    /// [`KeyProvider::open`].
    ///
    /// # Errors
    /// As [`KeyProvider::open`].
    pub fn open_label(&self, label: &KeyLabel) -> Result<Arc<dyn Signer>, Error> {
        self.open(&KeyUri::soft(label))
    }

    /// Takes a PKCS#8 private key into the keystore.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the key is not of the type `spec` names, [`Error::AlreadyExists`].
    pub fn import(&self, spec: &KeySpec, pkcs8: &Zeroizing<Vec<u8>>) -> Result<Arc<dyn Signer>, Error> {
        self.store(spec, PrivateKey::from_pkcs8(spec.algorithm, pkcs8)?)
    }

    fn store(&self, spec: &KeySpec, key: PrivateKey) -> Result<Arc<dyn Signer>, Error> {
        let public_key = key.public_key()?;
        if public_key.algorithm() != spec.algorithm {
            return Err(Error::Invalid {
                what: "private key",
                reason: format!("it is of type {}, not {}", public_key.algorithm(), spec.algorithm),
            });
        }
        let pkcs8 = key.to_pkcs8()?;
        let file = KeyFile::encode(self.id, &self.master, spec, &public_key, &pkcs8)?;
        // Opened, and so self-tested, before anything is stored; read back from the bytes that will be stored.
        let path = self.key_path(&spec.label);
        let signer = self.open_file(&path, &KeyFile::parse(&path, &spec.label, self.id, &file)?)?;
        secret_file::write_new(&path, &file).map_err(|error| match error {
            Error::AlreadyExists { .. } => Error::AlreadyExists { label: spec.label.to_string() },
            other => other,
        })?;
        Ok(signer)
    }

    fn key_path(&self, label: &KeyLabel) -> PathBuf {
        self.directory.join(format!("{label}{KEY_SUFFIX}"))
    }

    fn read(&self, label: &KeyLabel) -> Result<(PathBuf, KeyFile), Error> {
        let path = self.key_path(label);
        let file =
            secret_file::read_secret(&path, key_file::MAX_LEN, Readers::Owner).map_err(
                |error| match error {
                    Error::NotFound { .. } => Error::NotFound {
                        what: format!("key {:?} in keystore {}", label.as_str(), self.directory.display()),
                    },
                    other => other,
                },
            )?;
        let parsed = KeyFile::parse(&path, label, self.id, &file)?;
        Ok((path, parsed))
    }

    fn open_file(&self, path: &Path, file: &KeyFile) -> Result<Arc<dyn Signer>, Error> {
        let pkcs8 = file.unseal(path, &self.master)?;
        let damaged = |reason| Error::Corrupted { path: path.to_owned(), reason };
        let key = PrivateKey::from_pkcs8(file.public_key.algorithm(), &pkcs8)
            .map_err(|_| damaged("it holds no key of the type it names"))?;
        let signer = SoftwareSigner::open(
            key,
            file.public_key.clone(),
            KeyPolicy {
                purposes: file.purposes,
                rate: file.max_per_second.map(RateLimit::new),
                audit: self.audit.clone(),
            },
        )
        .map_err(|error| match error {
            Error::KeyMismatch { .. } => damaged("its private and public halves differ"),
            other => other,
        })?;
        Ok(Arc::new(signer))
    }
}

impl KeyProvider for Keystore {
    fn scheme(&self) -> Scheme {
        Scheme::Soft
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { algorithms: KeyAlgorithm::ALL.to_vec(), protection: ProtectionLevel::Software }
    }

    fn open(&self, uri: &KeyUri) -> Result<Arc<dyn Signer>, Error> {
        if uri.scheme() != Scheme::Soft {
            return Err(Error::Unsupported {
                what: format!("a {} reference in a software keystore", uri.scheme()),
                reason: "write soft:object=LABEL",
            });
        }
        let label = KeyLabel::new(uri.path_attribute("object").unwrap_or_default())?;
        let (path, file) = self.read(&label)?;
        check_pin(uri, &file.public_key)?;
        self.open_file(&path, &file)
    }

    fn generate(&self, spec: &KeySpec) -> Result<Arc<dyn Signer>, Error> {
        if spec.purposes.is_empty() {
            return Err(Error::Invalid { what: "key purposes", reason: "none is named".to_owned() });
        }
        // Early, so that a taken label does not cost an RSA key; write_new is what decides.
        if self.key_path(&spec.label).exists() {
            return Err(Error::AlreadyExists { label: spec.label.to_string() });
        }
        self.store(spec, PrivateKey::generate(spec.algorithm)?)
    }

    fn list(&self) -> Result<Vec<KeyInfo>, Error> {
        let entries = fs::read_dir(&self.directory).map_err(io_error(&self.directory, "list"))?;
        let mut labels = Vec::new();
        for entry in entries {
            let name = entry.map_err(io_error(&self.directory, "list"))?.file_name();
            let label = name.to_str().and_then(|n| n.strip_suffix(KEY_SUFFIX)).map(KeyLabel::new);
            if let Some(Ok(label)) = label {
                labels.push(label);
            }
            if labels.len() > MAX_KEYS {
                return Err(Error::Permanent {
                    detail: format!("more than {MAX_KEYS} keys in one keystore"),
                });
            }
        }
        labels.sort();
        labels
            .into_iter()
            .map(|label| {
                let (path, file) = self.read(&label)?;
                // Metadata counts only when the private half decrypts with it.
                file.unseal(&path, &self.master)?;
                Ok(KeyInfo {
                    uri: KeyUri::soft(&label).pinned_to(file.public_key.spki_sha256()),
                    label: file.label,
                    public_key: file.public_key,
                    purposes: file.purposes,
                    protection: ProtectionLevel::Software,
                })
            })
            .collect()
    }

    fn health(&self) -> Health {
        match read_header(&self.directory.join(HEADER_NAME)) {
            Ok(_) => Health::Usable,
            Err(error) => Health::Unusable { detail: error.to_string() },
        }
    }
}

/// Compares a key with the pin of the reference that found it.
pub(crate) fn check_pin(uri: &KeyUri, found: &PublicKey) -> Result<(), Error> {
    match uri.spki_sha256() {
        Some(expected) if expected != found.spki_sha256() => Err(Error::KeyMismatch {
            expected: crate::public_key::hex(expected),
            found: found.spki_sha256_hex(),
        }),
        _ => Ok(()),
    }
}

fn read_header(path: &Path) -> Result<Header, Error> {
    let file =
        secret_file::read_secret(path, header::LEN as u64, Readers::Owner).map_err(|error| match error {
            Error::NotFound { .. } => Error::NotFound { what: format!("keystore {}", path.display()) },
            other => other,
        })?;
    Header::parse(path, &file)
}

#[cfg(test)]
mod tests;
