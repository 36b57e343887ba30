//! Keys that a TPM 2.0 made and alone can use, in files that are worth nothing without it.
//!
//! | Part | What |
//! |---|---|
//! | `transport` | the kernel's device, or a socket of a software TPM |
//! | `command` | commands and answers of the specification |
//! | `template` | public areas: what keys are made as, and what is read from them |
//! | `key_file` | a key's file |
//! | `connection` | loaded objects, failures, coming back after a reset |
//! | `signer` | one key |
//!
//! The commands are written by this crate: no library of the system is needed. A key's file (`LABEL.tpm2`) has the two halves as the
//! TPM gave them, the private one encrypted below a storage key that the TPM derives from its owner's seed. What the key may sign
//! stands in the file in clear, and its digest in the public area, so that a TPM refuses to load a key whose file was altered. Each
//! signature needs the PIN; it is sent in clear, so whoever listens to the bus of the chip learns it, without learning the key.
//! Wrong PINs count (dictionary attack protection), and a refused one is not tried again.
//!
//! Out of scope: keys behind persistent handles, which say nothing of what they may be used for; an owner's hierarchy with an
//! authorisation of its own; attestation of keys.

mod command;
mod connection;
mod key_file;
mod signer;
mod template;
mod transport;

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::algorithm::KeyAlgorithm;
use crate::audit::KeyAudit;
use crate::error::Error;
use crate::passphrase::PassphraseSource;
use crate::policy::KeyPolicy;
use crate::provider::{Capabilities, Health, KeyInfo, KeyLabel, KeyProvider, KeySpec};
use crate::signer::{ProtectionLevel, Signer};
use crate::software::RateLimit;
use crate::uri::{KeyUri, Scheme};
use connection::Connection;
use key_file::KeyFile;
use signer::TpmSigner;
pub use transport::Place;

/// Key types that are asked for, of which a TPM has some.
const ALGORITHMS: [KeyAlgorithm; 4] =
    [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Rsa3072, KeyAlgorithm::Rsa4096];

/// Which TPM, and where the files of its keys are.
#[derive(Clone, Debug)]
pub struct TpmOptions {
    /// Where it answers (`tcti`). Default: `/dev/tpmrm0`.
    pub place: Place,
    /// Folder of the key files; made, for the owner alone, with the first key.
    pub folder: PathBuf,
    /// Where the PIN of its keys is read from, at every signature.
    pub pin: PassphraseSource,
    /// How well it keeps keys: the operator's claim. Default: hardware.
    pub protection: ProtectionLevel,
}

impl TpmOptions {
    /// Options for a chip behind the kernel's resource manager.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>, pin: PassphraseSource) -> Self {
        Self { place: Place::default(), folder: folder.into(), pin, protection: ProtectionLevel::Hardware }
    }

    /// The TPM that a key reference names: `tcti`, `folder` and `pin-source`. One behind a socket is software.
    ///
    /// # Errors
    /// [`Error::Invalid`] when one of the last two is missing or the first cannot be read, [`Error::Unsupported`] for another
    /// scheme.
    pub fn from_uri(uri: &KeyUri) -> Result<Self, Error> {
        own_scheme(uri)?;
        let needed = |name: &str| {
            uri.query_attribute(name).ok_or_else(|| Error::Invalid {
                what: "key URI",
                reason: format!("a reference of a TPM's key needs {name}"),
            })
        };
        let mut options = Self::new(needed("folder")?, needed("pin-source")?.parse()?);
        if let Some(place) = uri.query_attribute("tcti") {
            options.place = place.parse()?;
        }
        if !matches!(options.place, Place::Device(_)) {
            options.protection = ProtectionLevel::SoftToken;
        }
        Ok(options)
    }
}

fn own_scheme(uri: &KeyUri) -> Result<(), Error> {
    if uri.scheme() == Scheme::Tpm2 {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("the scheme {}", uri.scheme()),
        reason: "a TPM answers tpm2: references",
    })
}

/// One TPM with its folder of keys.
pub struct Tpm {
    connection: Arc<Connection>,
    algorithms: Vec<KeyAlgorithm>,
    audit: Option<Arc<dyn KeyAudit>>,
}

impl Tpm {
    /// Connects, derives the storage key and asks which key types there are.
    ///
    /// # Errors
    /// [`Error::Transient`] when it does not answer, [`Error::AuthFailed`] when its owner's hierarchy has an authorisation.
    pub fn open(options: TpmOptions) -> Result<Self, Error> {
        let connection = Connection::open(options)?;
        let mut algorithms = Vec::new();
        for algorithm in ALGORITHMS {
            if connection.supports(algorithm)? {
                algorithms.push(algorithm);
            }
        }
        Ok(Self { connection: Arc::new(connection), algorithms, audit: None })
    }

    /// The same, with every use of a key recorded before it happens.
    #[must_use]
    pub fn with_audit(mut self, audit: Arc<dyn KeyAudit>) -> Self {
        self.audit = Some(audit);
        self
    }

    fn signer(&self, key: KeyFile) -> Result<Arc<dyn Signer>, Error> {
        let policy = KeyPolicy {
            purposes: key.purposes,
            rate: key.max_per_second.map(RateLimit::new),
            audit: self.audit.clone(),
        };
        Ok(Arc::new(TpmSigner::open(Arc::clone(&self.connection), key, policy)?))
    }

    /// The reference that opens exactly this key.
    fn reference(&self, key: &KeyFile) -> Result<KeyUri, Error> {
        let encoded = |bytes: &[u8]| {
            use std::fmt::Write as _;
            bytes.iter().fold(String::new(), |mut text, byte| {
                // Writing to a String cannot fail.
                let _ = write!(text, "%{byte:02X}");
                text
            })
        };
        let options = self.connection.options();
        let text = format!(
            "tpm2:object={}?tcti={}&folder={}&pin-source={}",
            key.label,
            encoded(options.place.to_string().as_bytes()),
            encoded(options.folder.as_os_str().as_encoded_bytes()),
            encoded(options.pin.to_string().as_bytes()),
        );
        Ok(KeyUri::parse(&text)?.pinned_to(key.public_key.spki_sha256()))
    }
}

impl KeyProvider for Tpm {
    fn scheme(&self) -> Scheme {
        Scheme::Tpm2
    }

    fn capabilities(&self) -> Capabilities {
        let protection = self.connection.options().protection;
        Capabilities { algorithms: self.algorithms.clone(), protection }
    }

    fn open(&self, uri: &KeyUri) -> Result<Arc<dyn Signer>, Error> {
        own_scheme(uri)?;
        if uri.path_bytes("handle").is_some() {
            return Err(Error::Unsupported {
                what: "a key behind a persistent handle".to_owned(),
                reason: "it does not say what it may be used for; make a key with a label (object)",
            });
        }
        let label = KeyLabel::new(uri.path_attribute("object").unwrap_or_default())?;
        let key = KeyFile::read(&self.connection.options().folder, &label)?;
        if let Some(pin) = uri.spki_sha256()
            && pin != key.public_key.spki_sha256()
        {
            return Err(Error::KeyMismatch {
                expected: crate::public_key::hex(pin),
                found: key.public_key.spki_sha256_hex(),
            });
        }
        self.signer(key)
    }

    fn generate(&self, spec: &KeySpec) -> Result<Arc<dyn Signer>, Error> {
        let folder = &self.connection.options().folder;
        if key_file::path(folder, &spec.label).exists() {
            return Err(Error::AlreadyExists { label: spec.label.to_string() });
        }
        let policy = key_file::policy(&spec.label, spec.purposes, spec.max_per_second);
        let template = template::signing(spec.algorithm, &policy)
            .filter(|_| self.algorithms.contains(&spec.algorithm))
            .ok_or_else(|| Error::Unsupported {
                what: format!("{} in this TPM", spec.algorithm),
                reason: "use a key type that it has",
            })?;
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|source| Error::Io {
            path: folder.clone(),
            action: "create",
            source,
        })?;
        let (public, private) = self.connection.create(&template)?;
        let key = KeyFile::new(spec.label.clone(), spec.purposes, spec.max_per_second, public, private)
            .filter(|key| key.public_key.algorithm() == spec.algorithm)
            .ok_or_else(|| Error::Permanent {
                detail: "the TPM made another key than it was asked for".to_owned(),
            })?;
        key.write(folder)?;
        self.signer(key)
    }

    fn list(&self) -> Result<Vec<KeyInfo>, Error> {
        let options = self.connection.options();
        let failed = |source| Error::Io { path: options.folder.clone(), action: "list", source };
        let entries = match std::fs::read_dir(&options.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_none_or(|extension| extension != key_file::EXTENSION) {
                continue;
            }
            let label = KeyLabel::new(&path.file_stem().unwrap_or_default().to_string_lossy())?;
            let key = KeyFile::read(&options.folder, &label)?;
            keys.push(KeyInfo {
                uri: self.reference(&key)?,
                label,
                public_key: key.public_key,
                purposes: key.purposes,
                protection: options.protection,
            });
        }
        keys.sort_by(|one, other| one.label.cmp(&other.label));
        Ok(keys)
    }

    fn health(&self) -> Health {
        self.connection.health()
    }
}

#[cfg(test)]
mod tests;
