//! Keys in AWS KMS.
//!
//! | Part | What |
//! |---|---|
//! | `service` | the client: credentials, timeouts, what its failures mean, and waiting after one |
//! | `signer` | one key; which algorithm is called what |
//!
//! A key is named by its ARN or id, never by an alias, which could be moved. What it may sign, and its label, are tags of the key: who may
//! change tags in the account may change them, so the account's policy should not let the CA's own role do it. Digests are sent,
//! not messages, since KMS takes messages of 4,096 bytes at most. Nothing is sent twice: a request that may have arrived and was
//! not answered is [`Error::Ambiguous`].

mod service;
mod signer;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyUsageType, Tag};

use crate::algorithm::KeyAlgorithm;
use crate::audit::KeyAudit;
use crate::error::Error;
use crate::intent::{Purpose, PurposeSet};
use crate::policy::KeyPolicy;
use crate::provider::{Capabilities, Health, KeyInfo, KeyLabel, KeyProvider, KeySpec};
use crate::public_key::PublicKey;
use crate::signer::{ProtectionLevel, Signer};
use crate::software::RateLimit;
use crate::uri::{KeyUri, Scheme};
use service::Service;
use signer::KmsSigner;

pub use service::KmsOptions;

/// Most keys of an account that a listing looks at.
const MAX_KEYS: usize = 10_000;
const TAG_LABEL: &str = "mentat-label";
const TAG_PURPOSES: &str = "mentat-purposes";
const TAG_LIMIT: &str = "mentat-max-per-second";

/// The keys of ours in one account and region.
pub struct Kms {
    service: Arc<Service>,
    audit: Option<Arc<dyn KeyAudit>>,
    /// Keys that were made here: a listing of the service may lack the newest for a while.
    made: Mutex<Vec<(KeyLabel, KeyUri)>>,
}

/// A key of ours.
struct Stored {
    id: String,
    label: KeyLabel,
    purposes: PurposeSet,
    max_per_second: Option<NonZeroU32>,
    public_key: PublicKey,
}

impl Kms {
    /// Prepares the client. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Permanent`] when the client cannot be made, [`Error::NotFound`] when there are no credentials.
    pub fn open(options: KmsOptions) -> Result<Self, Error> {
        Ok(Self { service: Arc::new(Service::open(options)?), audit: None, made: Mutex::default() })
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
        Ok(Arc::new(KmsSigner::open(Arc::clone(&self.service), stored.id, stored.public_key, policy)?))
    }

    fn made(&self) -> MutexGuard<'_, Vec<(KeyLabel, KeyUri)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reference that opens exactly this key.
    fn reference_to(&self, stored: &Stored) -> Result<KeyUri, Error> {
        let (id, way) = (stored.id.replace('/', "%2F"), self.service.way());
        Ok(KeyUri::parse(&format!("awskms:key-id={id}{way}"))?.pinned_to(stored.public_key.spki_sha256()))
    }

    /// A key with its tags; none when it is not ours.
    fn stored(&self, id: &str) -> Result<Option<Stored>, Error> {
        let tags = self.service.run(self.service.client().list_resource_tags().key_id(id).send())?;
        let Some((label, purposes, max_per_second)) = read_tags(tags.tags()) else { return Ok(None) };
        let found = self.service.run(self.service.client().get_public_key().key_id(id).send())?;
        if found.key_usage() != Some(&KeyUsageType::SignVerify) {
            return Ok(None);
        }
        let damaged = || Error::Permanent { detail: format!("KMS gave no public key for {id}") };
        let spki = found.public_key().map(Blob::as_ref).ok_or_else(damaged)?;
        let public_key = PublicKey::from_spki_der(spki)?;
        let id = found.key_id().unwrap_or(id).to_owned();
        Ok(Some(Stored { id, label, purposes, max_per_second, public_key }))
    }

    /// Every key of ours that can be used.
    fn all(&self) -> Result<Vec<Stored>, Error> {
        let (mut found, mut seen, mut marker) = (Vec::new(), 0, None);
        loop {
            let request = self.service.client().list_keys().limit(1000).set_marker(marker.take());
            let page = self.service.run(request.send())?;
            for key in page.keys() {
                let Some(id) = key.key_arn().or(key.key_id()) else { continue };
                match self.stored(id) {
                    Ok(stored) => found.extend(stored),
                    // Keys of other owners in the account: not ours to see, or on their way out.
                    Err(Error::AuthFailed { .. } | Error::NotFound { .. } | Error::Permanent { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            seen += page.keys().len();
            if seen > MAX_KEYS {
                return Err(Error::Permanent { detail: format!("more than {MAX_KEYS} keys in the account") });
            }
            match page.next_marker() {
                Some(next) if page.truncated() => marker = Some(next.to_owned()),
                _ => return Ok(found),
            }
        }
    }
}

fn own_scheme(uri: &KeyUri) -> Result<(), Error> {
    if uri.scheme() == Scheme::AwsKms {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("the scheme {}", uri.scheme()),
        reason: "AWS KMS answers awskms: references",
    })
}

impl KeyProvider for Kms {
    fn scheme(&self) -> Scheme {
        Scheme::AwsKms
    }

    fn capabilities(&self) -> Capabilities {
        let algorithms = vec![
            KeyAlgorithm::EcdsaP256,
            KeyAlgorithm::EcdsaP384,
            KeyAlgorithm::Rsa3072,
            KeyAlgorithm::Rsa4096,
        ];
        Capabilities { algorithms, protection: ProtectionLevel::Hardware }
    }

    fn open(&self, uri: &KeyUri) -> Result<Arc<dyn Signer>, Error> {
        own_scheme(uri)?;
        let missing = || Error::NotFound { what: "the key in AWS KMS".to_owned() };
        let stored = match (uri.path_attribute("key-id"), uri.path_attribute("object")) {
            (Some(id), _) => self.stored(id)?.ok_or_else(missing)?,
            (None, label) => {
                let mut named: Vec<Stored> =
                    self.all()?.into_iter().filter(|key| Some(key.label.as_str()) == label).collect();
                match (named.pop(), named.is_empty()) {
                    (Some(only), true) => only,
                    (None, _) => return Err(missing()),
                    (Some(_), false) => {
                        return Err(Error::Invalid {
                            what: "key URI",
                            reason: "several keys have this label; name the key-id".to_owned(),
                        });
                    }
                }
            }
        };
        match uri.spki_sha256() {
            Some(pin) if pin != stored.public_key.spki_sha256() => Err(Error::KeyMismatch {
                expected: crate::public_key::hex(pin),
                found: stored.public_key.spki_sha256_hex(),
            }),
            _ => self.signer(stored),
        }
    }

    fn generate(&self, spec: &KeySpec) -> Result<Arc<dyn Signer>, Error> {
        let key_spec = signer::key_spec(spec.algorithm)?;
        if self.all()?.iter().any(|key| key.label == spec.label) {
            return Err(Error::AlreadyExists { label: spec.label.to_string() });
        }
        let made = self.service.run(
            self.service
                .client()
                .create_key()
                .key_spec(key_spec)
                .key_usage(KeyUsageType::SignVerify)
                .set_tags(Some(write_tags(spec)?))
                .send(),
        )?;
        let nameless = || Error::Ambiguous { detail: "KMS made a key and did not say which".to_owned() };
        let metadata = made.key_metadata().ok_or_else(nameless)?;
        let id = metadata.arn().unwrap_or(metadata.key_id());
        let stored = self.stored(id)?.ok_or_else(nameless)?;
        let uri = self.reference_to(&stored)?;
        self.made().push((spec.label.clone(), uri));
        self.signer(stored)
    }

    fn list(&self) -> Result<Vec<KeyInfo>, Error> {
        let mut keys = self
            .all()?
            .into_iter()
            .map(|stored| {
                Ok(KeyInfo {
                    uri: self.reference_to(&stored)?,
                    label: stored.label,
                    public_key: stored.public_key,
                    purposes: stored.purposes,
                    protection: ProtectionLevel::Hardware,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        keys.sort_by(|one, other| one.label.cmp(&other.label));
        Ok(keys)
    }

    fn health(&self) -> Health {
        self.service.health()
    }

    fn reference(&self, label: &KeyLabel) -> Result<KeyUri, Error> {
        if let Some((_, uri)) = self.made().iter().find(|(made, _)| made == label) {
            return Ok(uri.clone());
        }
        let found = self.list()?.into_iter().find(|key| key.label == *label);
        found.map(|key| key.uri).ok_or_else(|| Error::NotFound { what: format!("key {:?}", label.as_str()) })
    }
}

/// Values of tags have no commas: purposes stand apart by spaces.
fn write_tags(spec: &KeySpec) -> Result<Vec<Tag>, Error> {
    let purposes: Vec<&str> = spec.purposes.iter().map(Purpose::as_str).collect();
    let limit = spec.max_per_second.map_or(0, NonZeroU32::get);
    [(TAG_LABEL, spec.label.to_string()), (TAG_PURPOSES, purposes.join(" ")), (TAG_LIMIT, limit.to_string())]
        .into_iter()
        .map(|(key, value)| {
            Tag::builder()
                .tag_key(key)
                .tag_value(value)
                .build()
                .map_err(|error| Error::Permanent { detail: error.to_string() })
        })
        .collect()
}

fn read_tags(tags: &[Tag]) -> Option<(KeyLabel, PurposeSet, Option<NonZeroU32>)> {
    let value = |name: &str| tags.iter().find(|tag| tag.tag_key() == name).map(Tag::tag_value);
    let label = KeyLabel::new(value(TAG_LABEL)?).ok()?;
    let purposes =
        value(TAG_PURPOSES)?.split(' ').map(|name| name.parse().ok()).collect::<Option<PurposeSet>>()?;
    let limit = value(TAG_LIMIT)?.parse().ok()?;
    Some((label, purposes, NonZeroU32::new(limit)))
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
