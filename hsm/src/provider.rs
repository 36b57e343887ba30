//! The contract of a place where keys live.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use crate::algorithm::KeyAlgorithm;
use crate::error::Error;
use crate::intent::PurposeSet;
use crate::public_key::PublicKey;
use crate::signer::{ProtectionLevel, Signer};
use crate::uri::{KeyUri, Scheme};

/// A key's name within its provider: 1 to 64 of `a-z 0-9 . _ -`, starting with a letter or digit. It is a file name
/// in the software keystore, hence the narrow alphabet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyLabel(String);

impl KeyLabel {
    /// Longest label, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Checks and takes a label.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is empty, too long, or holds another character.
    pub fn new(label: &str) -> Result<Self, Error> {
        let starts_well = label.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let fits = label.len() <= Self::MAX_LEN
            && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
        if starts_well && fits {
            Ok(Self(label.to_owned()))
        } else {
            Err(Error::Invalid {
                what: "key label",
                reason: "use 1 to 64 of a-z 0-9 . _ - and start with a letter or digit".to_owned(),
            })
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyLabel {
    type Err = Error;

    fn from_str(label: &str) -> Result<Self, Error> {
        Self::new(label)
    }
}

/// What a new key shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeySpec {
    /// Its name; must be free.
    pub label: KeyLabel,
    /// Its type.
    pub algorithm: KeyAlgorithm,
    /// What it may sign; cannot be changed later.
    pub purposes: PurposeSet,
    /// Most signatures in any one second; `None` is unlimited.
    pub max_per_second: Option<NonZeroU32>,
}

impl KeySpec {
    /// A specification.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad label or an empty set of purposes.
    pub fn new(label: &str, algorithm: KeyAlgorithm, purposes: impl Into<PurposeSet>) -> Result<Self, Error> {
        let purposes = purposes.into();
        if purposes.is_empty() {
            return Err(Error::Invalid {
                what: "key purposes",
                reason: "a key without a purpose can sign nothing; name at least one".to_owned(),
            });
        }
        Ok(Self { label: KeyLabel::new(label)?, algorithm, purposes, max_per_second: None })
    }

    /// The same, with a limit on signatures per second.
    #[must_use]
    pub fn with_max_per_second(mut self, limit: NonZeroU32) -> Self {
        self.max_per_second = Some(limit);
        self
    }
}

/// A key as listings show it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Its name.
    pub label: KeyLabel,
    /// The reference that opens exactly this key, with its public key pinned.
    pub uri: KeyUri,
    /// The public half.
    pub public_key: PublicKey,
    /// What it may sign.
    pub purposes: PurposeSet,
    /// How well it is kept.
    pub protection: ProtectionLevel,
}

/// What a provider can do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// Key types it can generate and use.
    pub algorithms: Vec<KeyAlgorithm>,
    /// The protection its keys have.
    pub protection: ProtectionLevel,
}

/// Whether a provider can sign now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It answered recently.
    Usable,
    /// It failed and is being probed again; signing may work.
    Probing {
        /// The last failure.
        detail: String,
    },
    /// It does not answer; signing fails at once until a probe succeeds.
    Unusable {
        /// The last failure.
        detail: String,
    },
}

/// A place where keys live.
///
/// Implementations MUST resolve a reference to exactly one key version or fail, MUST check a pinned `spki-sha256`,
/// MUST make a self-test signature over a random challenge before they return an opened key, and MUST NOT overwrite an
/// existing key. [`KeyProvider::generate`] is durable when it returns. Calls block.
pub trait KeyProvider: Send + Sync {
    /// The scheme of the key URIs this provider answers.
    fn scheme(&self) -> Scheme;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Opens one key.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::KeyMismatch`] against the pin, [`Error::Unsupported`] for another scheme, and the
    /// backend's own failures.
    fn open(&self, uri: &KeyUri) -> Result<Arc<dyn Signer>, Error>;

    /// Makes a key, durably, and opens it.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Unsupported`], and the backend's own failures.
    fn generate(&self, spec: &KeySpec) -> Result<Arc<dyn Signer>, Error>;

    /// The keys, by label.
    ///
    /// # Errors
    /// The backend's own failures; one damaged key fails the listing with its name.
    fn list(&self) -> Result<Vec<KeyInfo>, Error>;

    /// Whether it can sign now.
    fn health(&self) -> Health;

    /// The reference that opens exactly the key of this label, with its public key pinned.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of [`KeyProvider::list`].
    fn reference(&self, label: &KeyLabel) -> Result<KeyUri, Error> {
        let found = self.list()?.into_iter().find(|key| key.label == *label);
        found.map(|key| key.uri).ok_or_else(|| Error::NotFound { what: format!("key {:?}", label.as_str()) })
    }
}
