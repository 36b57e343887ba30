//! Keys in a PKCS#11 token (hardware module, smart card, soft token) through its vendor's library.
//!
//! | Part | What |
//! |---|---|
//! | `token` | the library, sessions, log-in, and coming back after the token was away |
//! | `object` | key objects: finding, reading, making; public keys from attributes |
//! | `signer` | one key; mechanisms, formats of signatures |
//!
//! A key is found by CKA_ID and its public key, never by its label alone. What it may sign is kept beside it in the token,
//! in a private data object of the same label, so that it cannot be changed without the PIN. Calls block; several sessions
//! sign in parallel. After a failure of the device the provider is unusable for a growing while and then tries again by
//! itself: new session, log-in, and, where the library needs it, a new start of the library. A refused PIN is never tried
//! a second time, since tokens count.

mod object;
mod signer;
mod token;

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
use object::Stored;
use signer::TokenSigner;
use token::Connection;

/// Which token, and how to reach it.
#[derive(Clone, Debug)]
pub struct TokenOptions {
    /// The vendor's library (`module-path`).
    pub module: PathBuf,
    /// The token's label; exactly one token that also is what the next field says must have it.
    pub token: String,
    /// What else must be true of the token.
    pub only: TokenIdentity,
    /// Where the user PIN is read from, at every log-in.
    pub pin: PassphraseSource,
    /// Sessions that sign at the same time, at least 1. More than the token has processors is of no use.
    pub sessions: usize,
    /// How well the token keeps keys: the operator's claim.
    pub protection: ProtectionLevel,
}

impl TokenOptions {
    /// Options for a token that is hardware, with four sessions.
    #[must_use]
    pub fn new(module: impl Into<PathBuf>, token: impl Into<String>, pin: PassphraseSource) -> Self {
        let (module, token) = (module.into(), token.into());
        let only = TokenIdentity::default();
        Self { module, token, only, pin, sessions: 4, protection: ProtectionLevel::Hardware }
    }

    /// The token that a key reference names: `token`, `module-path` and `pin-source`, and what it says of the token beside its label.
    ///
    /// # Errors
    /// [`Error::Invalid`] when one of the three is missing, [`Error::Unsupported`] for another scheme and for `module-name`: which file
    /// a name means is decided by a search path, and what is loaded here gets the PIN.
    pub fn from_uri(uri: &KeyUri) -> Result<Self, Error> {
        own_scheme(uri)?;
        if uri.query_attribute("module-name").is_some() {
            return Err(Error::Unsupported {
                what: "module-name".to_owned(),
                reason: "a library is named by its file, in module-path",
            });
        }
        let needed = |found: Option<&str>, name: &str| {
            found.map(str::to_owned).ok_or_else(|| Error::Invalid {
                what: "key URI",
                reason: format!("a PKCS#11 reference that opens a token needs {name}"),
            })
        };
        let module = needed(uri.query_attribute("module-path"), "module-path")?;
        let token = needed(uri.path_attribute("token"), "token")?;
        let pin = needed(uri.query_attribute("pin-source"), "pin-source")?.parse()?;
        Ok(Self { only: TokenIdentity::from_uri(uri), ..Self::new(module, token, pin) })
    }
}

/// What a reference says of its token beside the label (RFC 7512 §2.3); what is absent may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenIdentity {
    /// Who made it.
    pub manufacturer: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// The number of its slot, as the library counts now.
    pub slot_id: Option<u64>,
}

impl TokenIdentity {
    fn from_uri(uri: &KeyUri) -> Self {
        let text = |name| uri.path_attribute(name).map(str::to_owned);
        Self {
            manufacturer: text("manufacturer"),
            model: text("model"),
            serial: text("serial"),
            slot_id: uri.path_attribute("slot-id").and_then(|digits| digits.parse().ok()),
        }
    }

    /// Whether a token that is `other` is meant, too.
    fn admits(&self, other: &Self) -> bool {
        fn fits<T: PartialEq>(wanted: Option<&T>, is: Option<&T>) -> bool {
            wanted.is_none() || wanted == is
        }
        fits(self.manufacturer.as_ref(), other.manufacturer.as_ref())
            && fits(self.model.as_ref(), other.model.as_ref())
            && fits(self.serial.as_ref(), other.serial.as_ref())
            && fits(self.slot_id.as_ref(), other.slot_id.as_ref())
    }
}

fn own_scheme(uri: &KeyUri) -> Result<(), Error> {
    if uri.scheme() == Scheme::Pkcs11 {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("the scheme {}", uri.scheme()),
        reason: "a PKCS#11 token answers pkcs11: references",
    })
}

/// One token.
pub struct Token {
    connection: Arc<Connection>,
    audit: Option<Arc<dyn KeyAudit>>,
}

impl Token {
    /// Loads the library, finds the token and logs in.
    ///
    /// # Errors
    /// [`Error::Permanent`] when the library cannot be loaded, [`Error::NotFound`] when no token has the label,
    /// [`Error::AuthFailed`] when the PIN is refused, [`Error::Transient`] when the device does not answer.
    pub fn open(options: TokenOptions) -> Result<Self, Error> {
        Ok(Self { connection: Arc::new(Connection::open(options)?), audit: None })
    }

    /// The same, with every use of a key recorded before it happens.
    #[must_use]
    pub fn with_audit(mut self, audit: Arc<dyn KeyAudit>) -> Self {
        self.audit = Some(audit);
        self
    }

    fn signer(&self, stored: Stored) -> Result<Arc<dyn Signer>, Error> {
        let policy = KeyPolicy {
            purposes: stored.purposes,
            rate: stored.max_per_second.map(RateLimit::new),
            audit: self.audit.clone(),
        };
        Ok(Arc::new(TokenSigner::open(Arc::clone(&self.connection), stored, policy)?))
    }
}

impl KeyProvider for Token {
    fn scheme(&self) -> Scheme {
        Scheme::Pkcs11
    }

    fn capabilities(&self) -> Capabilities {
        let algorithms = vec![
            KeyAlgorithm::EcdsaP256,
            KeyAlgorithm::EcdsaP384,
            KeyAlgorithm::Rsa3072,
            KeyAlgorithm::Rsa4096,
        ];
        Capabilities { algorithms, protection: self.connection.options().protection }
    }

    fn open(&self, uri: &KeyUri) -> Result<Arc<dyn Signer>, Error> {
        own_scheme(uri)?;
        let another_label =
            uri.path_attribute("token").is_some_and(|token| token != self.connection.options().token);
        let named = TokenIdentity::from_uri(uri);
        let another = named != TokenIdentity::default() && !named.admits(&self.connection.identity()?);
        if another_label || another {
            return Err(Error::NotFound { what: "the key's token".to_owned() });
        }
        if uri.path_attribute("type").is_some_and(|kind| kind != "private") {
            return Err(Error::Invalid {
                what: "key URI",
                reason: "a key that signs is of the type private".to_owned(),
            });
        }
        let (id, label) = (uri.path_bytes("id"), uri.path_attribute("object"));
        let mut found = self.connection.repeat(|session| object::find(session, id, label))?;
        let stored = match (found.pop(), found.is_empty()) {
            (Some(only), true) => only,
            (None, _) => return Err(Error::NotFound { what: "the key in the token".to_owned() }),
            (Some(_), false) => {
                return Err(Error::Invalid {
                    what: "key URI",
                    reason: "several keys of the token answer to it; name the id".to_owned(),
                });
            }
        };
        if let Some(pin) = uri.spki_sha256()
            && pin != stored.public_key.spki_sha256()
        {
            return Err(Error::KeyMismatch {
                expected: crate::public_key::hex(pin),
                found: stored.public_key.spki_sha256_hex(),
            });
        }
        self.signer(stored)
    }

    fn generate(&self, spec: &KeySpec) -> Result<Arc<dyn Signer>, Error> {
        let taken =
            self.connection.repeat(|session| object::find(session, None, Some(spec.label.as_str())))?;
        if !taken.is_empty() {
            return Err(Error::AlreadyExists { label: spec.label.to_string() });
        }
        // Made once: a failure half-way is reported, not repeated.
        let stored = self.connection.once(|session| object::generate(session, spec))?;
        self.signer(stored)
    }

    fn list(&self) -> Result<Vec<KeyInfo>, Error> {
        let found = self.connection.repeat(|session| object::find(session, None, None))?;
        let mut keys = found
            .into_iter()
            .map(|stored| {
                let uri = self.reference(&stored)?;
                Ok(KeyInfo {
                    label: KeyLabel::new(&stored.label)?,
                    uri,
                    public_key: stored.public_key,
                    purposes: stored.purposes,
                    protection: self.connection.options().protection,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        keys.sort_by(|one, other| one.label.cmp(&other.label));
        Ok(keys)
    }

    fn health(&self) -> Health {
        self.connection.health()
    }
}

impl Token {
    /// The reference that opens exactly this key.
    fn reference(&self, stored: &Stored) -> Result<KeyUri, Error> {
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
            "pkcs11:token={};object={};id={}?module-path={}&pin-source={}",
            encoded(options.token.as_bytes()),
            stored.label,
            encoded(&stored.id),
            encoded(options.module.as_os_str().as_encoded_bytes()),
            encoded(options.pin.to_string().as_bytes()),
        );
        Ok(KeyUri::parse(&text)?.pinned_to(stored.public_key.spki_sha256()))
    }
}

#[cfg(test)]
mod tests;
