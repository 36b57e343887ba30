//! Metadata as it is written: four roles, Ed25519 keys, consistent snapshots.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sigstore_tuf::canonical_json::to_canonical_bytes;
use trust_store::UnixTime;
use trust_store::sorted_json::SortedJson;

use super::{Refusal, refuse, refused};
use crate::error::Error;

/// Version of the specification that the files follow.
const SPEC_VERSION: &str = "1.0.31";

/// A role of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Names the keys of every role, its own too.
    Root,
    /// Names the version of the list of targets.
    Snapshot,
    /// Names the targets by their digests.
    Targets,
    /// Names the newest snapshot; short-lived, so that a mirror cannot keep old files alive.
    Timestamp,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Root, Self::Snapshot, Self::Targets, Self::Timestamp];

    /// Its name in metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
            Self::Timestamp => "timestamp",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a signature was not made; the text names no secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SigningFailed(pub String);

/// An Ed25519 key that signs metadata.
pub trait RoleSigner: Send + Sync {
    /// The public key, 32 bytes.
    fn public_key(&self) -> [u8; 32];

    /// Signs the canonical form of one file's `signed` part: 64 bytes.
    ///
    /// # Errors
    /// [`SigningFailed`]; nothing was published then.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningFailed>;
}

/// The keys of every role.
#[derive(Clone)]
pub struct Signers {
    roles: BTreeMap<Role, (Vec<Arc<dyn RoleSigner>>, NonZeroUsize)>,
}

impl Signers {
    /// One key for each role.
    pub fn one_each(key: impl Fn(Role) -> Arc<dyn RoleSigner>) -> Self {
        Self {
            roles: Role::ALL.into_iter().map(|role| (role, (vec![key(role)], NonZeroUsize::MIN))).collect(),
        }
    }

    /// The same with other keys for one role, of which `threshold` must sign.
    #[must_use]
    pub fn with(mut self, role: Role, keys: Vec<Arc<dyn RoleSigner>>, threshold: NonZeroUsize) -> Self {
        self.roles.insert(role, (keys, threshold));
        self
    }

    pub(super) fn of(&self, role: Role) -> &[Arc<dyn RoleSigner>] {
        self.roles.get(&role).map(|(keys, _)| keys.as_slice()).unwrap_or_default()
    }

    fn threshold(&self, role: Role) -> usize {
        self.roles.get(&role).map_or(1, |(_, threshold)| threshold.get())
    }
}

impl std::fmt::Debug for Signers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = self.roles.iter().map(|(role, (keys, threshold))| (role, (keys.len(), threshold)));
        f.debug_map().entries(counts).finish()
    }
}

/// How long each role's files are valid, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Root.
    pub root: i64,
    /// Snapshot.
    pub snapshot: i64,
    /// List of targets.
    pub targets: i64,
    /// Timestamp: how long a mirror can hide news.
    pub timestamp: i64,
}

impl Default for Lifetimes {
    /// Root a year, targets and snapshot 90 days, timestamp a week.
    fn default() -> Self {
        const DAY: i64 = 86_400;
        Self { root: 365 * DAY, snapshot: 90 * DAY, targets: 90 * DAY, timestamp: 7 * DAY }
    }
}

impl Lifetimes {
    pub(super) fn of(&self, role: Role) -> i64 {
        match role {
            Role::Root => self.root,
            Role::Snapshot => self.snapshot,
            Role::Targets => self.targets,
            Role::Timestamp => self.timestamp,
        }
    }
}

/// A file that another file names: version, length and digest.
pub(super) fn reference(version: u64, bytes: &[u8]) -> Value {
    json!({ "version": version, "length": bytes.len(), "hashes": { "sha256": sha256_hex(bytes) } })
}

/// SHA-256 in hexadecimal, as metadata writes it.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The identifier of an Ed25519 key: SHA-256 of its canonical form, as the reference implementation has it.
pub(super) fn key_id(public_key: &[u8; 32]) -> Result<String, Error> {
    Ok(sha256_hex(&to_canonical_bytes(&key_value(public_key)).map_err(refused)?))
}

fn key_value(public_key: &[u8; 32]) -> Value {
    json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": hex::encode(public_key) } })
}

/// The members that every role's `signed` part has, and those that are its own.
pub(super) fn signed_part(role: Role, version: u64, expires: UnixTime, own: &[(&str, Value)]) -> Value {
    let mut signed = json!({
        "_type": role.as_str(), "spec_version": SPEC_VERSION, "version": version, "expires": expires.to_rfc3339(),
    });
    if let Some(members) = signed.as_object_mut() {
        members.extend(own.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    }
    signed
}

/// The `signed` part of a root that names these keys.
pub(super) fn root_part(version: u64, expires: UnixTime, signers: &Signers) -> Result<Value, Error> {
    let mut keys = serde_json::Map::new();
    let mut roles = serde_json::Map::new();
    for role in Role::ALL {
        let mut ids: Vec<String> = Vec::new();
        for signer in signers.of(role) {
            let public = signer.public_key();
            let id = key_id(&public)?;
            keys.insert(id.clone(), key_value(&public));
            ids.push(id);
        }
        ids.sort();
        ids.dedup();
        let threshold = signers.threshold(role);
        if ids.len() < threshold {
            let detail = format!("the role {role} has {} keys, but {threshold} of them must sign", ids.len());
            return Err(refuse(Refusal::Signature, detail));
        }
        roles.insert(role.as_str().to_owned(), json!({ "keyids": ids, "threshold": threshold }));
    }
    let own = [
        ("consistent_snapshot", Value::Bool(true)),
        ("keys", Value::Object(keys)),
        ("roles", Value::Object(roles)),
    ];
    Ok(signed_part(Role::Root, version, expires, &own))
}

/// The file: the `signed` part with a signature of every one of these keys.
pub(super) fn sign<'a>(
    signed: &Value,
    signers: impl IntoIterator<Item = &'a Arc<dyn RoleSigner>>,
) -> Result<Vec<u8>, Error> {
    let message = to_canonical_bytes(signed).map_err(refused)?;
    let mut signatures = BTreeMap::new();
    for signer in signers {
        let id = key_id(&signer.public_key())?;
        if let std::collections::btree_map::Entry::Vacant(place) = signatures.entry(id) {
            let signature = signer
                .sign(&message)
                .map_err(|failed| refuse(Refusal::Signature, format!("signing metadata: {failed}")))?;
            place.insert(hex::encode(signature));
        }
    }
    let signatures: Vec<Value> =
        signatures.into_iter().map(|(keyid, sig)| json!({ "keyid": keyid, "sig": sig })).collect();
    // The next file names this one by the digest of its bytes.
    let file = SortedJson::indented(json!({ "signatures": signatures, "signed": signed }));
    Ok((file.into_string() + "\n").into_bytes())
}
