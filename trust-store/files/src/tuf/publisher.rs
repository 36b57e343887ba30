//! The publisher's side: a folder of static files.
//!
//! `timestamp.json` is what clients ask for first, and the only file that is replaced: it is written last, so that
//! every file it leads to is there. New keys sign the present files beside the old ones before the root that names
//! them appears, so that no client ever meets a root whose files are not signed yet. An interrupted run leaves files
//! that nothing names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sigstore_tuf::metadata::{Metadata, Role as _, Root, Snapshot, Targets, Timestamp};
use trust_store::UnixTime;

use super::metadata::{
    Lifetimes, Role, RoleSigner, Signers, key_id, reference, root_part, sha256_hex, sign, signed_part,
};
use super::{MAX_METADATA_BYTES, MAX_TARGET_BYTES, Refusal, refuse, refused};
use crate::atomic::{self, Readers};
use crate::error::Error;
use crate::locked::Locked;

/// Locked while a repository is changed.
const LOCK_FILE: &str = ".lock";

/// A repository that can be changed. One publisher at a time holds a folder.
#[derive(Debug)]
pub struct Publisher {
    folder: PathBuf,
    lifetimes: Lifetimes,
    state: State,
    targets: BTreeMap<String, Value>,
    root: Root,
    _lock: Locked,
}

/// Versions and ends of a repository's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Version of each role.
    pub versions: BTreeMap<Role, u64>,
    /// When each role's file expires.
    pub expires: BTreeMap<Role, UnixTime>,
    /// Names of the targets.
    pub targets: Vec<String>,
}

impl State {
    fn version(&self, role: Role) -> u64 {
        self.versions.get(&role).copied().unwrap_or_default()
    }

    fn end(&self, role: Role) -> UnixTime {
        self.expires.get(&role).copied().unwrap_or(UnixTime(0))
    }
}

impl Publisher {
    /// Makes a repository in `folder`, which must hold none.
    ///
    /// # Errors
    /// [`Error::Distribution`] with [`Refusal::Mixed`] when there is one, with [`Refusal::Signature`] when a key does
    /// not sign; [`Error::Io`].
    pub fn create(
        folder: &Path,
        signers: &Signers,
        lifetimes: Lifetimes,
        targets: &[(&str, &[u8])],
        now: UnixTime,
    ) -> Result<Self, Error> {
        std::fs::create_dir_all(folder.join("targets")).map_err(Error::io(folder))?;
        let lock = lock(folder)?;
        if folder.join("1.root.json").exists() {
            let detail = format!("{} holds a repository; it is continued, not made again", folder.display());
            return Err(refuse(Refusal::Mixed, detail));
        }
        let part = root_part(1, UnixTime(now.0.saturating_add(lifetimes.root)), signers)?;
        let bytes = sign(&part, signers.of(Role::Root))?;
        let root = Metadata::<Root>::from_slice(&bytes).map_err(refused)?.into_signed();
        let state = State { versions: BTreeMap::new(), expires: BTreeMap::new(), targets: Vec::new() };
        let mut publisher = Self {
            folder: folder.to_path_buf(),
            lifetimes,
            state,
            targets: BTreeMap::new(),
            root,
            _lock: lock,
        };
        publisher.note_root();
        // Nothing leads to the files before the root is there.
        publisher.write_targets(targets)?;
        publisher.release(&[Role::Targets, Role::Snapshot, Role::Timestamp], &[signers], now)?;
        publisher.write("1.root.json", &bytes)?;
        Ok(publisher)
    }

    /// Opens the repository in `folder` and checks that its files belong together and are signed by the keys of its
    /// newest root; that they have expired does not matter here.
    ///
    /// # Errors
    /// [`Error::Distribution`] with [`Refusal::Unavailable`] when there is none or another publisher holds it, with
    /// [`Refusal::Signature`], [`Refusal::Mixed`] or [`Refusal::Malformed`] when it was changed by someone else.
    pub fn open(folder: &Path, lifetimes: Lifetimes) -> Result<Self, Error> {
        if !folder.join("1.root.json").is_file() {
            return Err(refuse(Refusal::Unavailable, format!("{} holds no repository", folder.display())));
        }
        let lock = lock(folder)?;
        let mut chain =
            sigstore_tuf::TrustedMetadataSet::from_root(&read(folder, "1.root.json")?).map_err(refused)?;
        loop {
            let next = format!("{}.root.json", chain.root().version.saturating_add(1));
            if !folder.join(&next).is_file() {
                break;
            }
            chain.update_root(&read(folder, &next)?).map_err(refused)?;
        }
        let root = chain.root().clone();
        let timestamp: Timestamp = verified(&root, &read(folder, "timestamp.json")?, Role::Timestamp)?;
        let missing = |what: &str| refuse(Refusal::Malformed, format!("no file names the {what}"));
        let pin = timestamp.snapshot_meta().ok_or_else(|| missing("snapshot"))?;
        let bytes = read(folder, &format!("{}.snapshot.json", pin.version))?;
        let snapshot: Snapshot = verified(&root, &bytes, Role::Snapshot)?;
        belongs(pin.hashes.as_ref(), &bytes, Role::Snapshot)?;
        let pin = snapshot.meta.get("targets.json").ok_or_else(|| missing("targets"))?;
        let bytes = read(folder, &format!("{}.targets.json", pin.version))?;
        let list: Targets = verified(&root, &bytes, Role::Targets)?;
        belongs(pin.hashes.as_ref(), &bytes, Role::Targets)?;
        let versions = [
            (Role::Root, root.version()),
            (Role::Snapshot, snapshot.version()),
            (Role::Targets, list.version()),
            (Role::Timestamp, timestamp.version()),
        ];
        let ends = [
            (Role::Root, root.expires()),
            (Role::Snapshot, snapshot.expires()),
            (Role::Targets, list.expires()),
            (Role::Timestamp, timestamp.expires()),
        ];
        let state = State {
            versions: versions.into_iter().collect(),
            expires: ends.into_iter().map(|(role, end)| (role, UnixTime(end.as_second()))).collect(),
            targets: list.targets.keys().cloned().collect(),
        };
        let targets = list
            .targets
            .iter()
            .map(|(name, file)| (name.clone(), json!({ "length": file.length, "hashes": file.hashes })))
            .collect();
        Ok(Self { folder: folder.to_path_buf(), lifetimes, state, targets, root, _lock: lock })
    }

    /// What the repository holds.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Public Ed25519 keys of a role, as the newest root names them.
    pub fn keys(&self, role: Role) -> Vec<[u8; 32]> {
        let ids = self.root.role(role.as_str()).map(|role| role.keyids.as_slice()).unwrap_or_default();
        ids.iter()
            .filter_map(|id| hex::decode(&self.root.keys.get(id)?.keyval.public).ok()?.try_into().ok())
            .collect()
    }

    /// How many keys of a role must sign, as the newest root says.
    pub fn threshold(&self, role: Role) -> std::num::NonZeroUsize {
        let threshold = self.root.role(role.as_str()).map_or(1, |role| role.threshold);
        std::num::NonZeroUsize::new(threshold).unwrap_or(std::num::NonZeroUsize::MIN)
    }

    /// Publishes these targets, in place of those of the same names.
    ///
    /// # Errors
    /// [`Refusal::Signature`] when the keys are not those of the root or one does not sign, [`Refusal::TooLarge`],
    /// [`Refusal::Expired`] when the root must be renewed first; [`Error::Io`].
    pub fn publish(
        &mut self,
        targets: &[(&str, &[u8])],
        signers: &Signers,
        now: UnixTime,
    ) -> Result<(), Error> {
        self.check(&[Role::Targets, Role::Snapshot, Role::Timestamp], signers, now)?;
        self.write_targets(targets)?;
        self.release(&[Role::Targets, Role::Snapshot, Role::Timestamp], &[signers], now)
    }

    /// Signs a new timestamp, and a new snapshot or list of targets when a third of its life is left or less. Returns
    /// the roles that were signed.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub fn refresh(&mut self, signers: &Signers, now: UnixTime) -> Result<Vec<Role>, Error> {
        let old = |role: Role| self.state.end(role).0.saturating_sub(now.0) <= self.lifetimes.of(role) / 3;
        let roles: &[Role] = if old(Role::Targets) {
            &[Role::Targets, Role::Snapshot, Role::Timestamp]
        } else if old(Role::Snapshot) {
            &[Role::Snapshot, Role::Timestamp]
        } else {
            &[Role::Timestamp]
        };
        self.check(roles, signers, now)?;
        self.release(roles, &[signers], now)?;
        Ok(roles.to_vec())
    }

    /// Publishes a new root with the keys of `next`, signed by the root keys of both. The other roles' files are signed
    /// by old and new keys before it appears. With the same keys this renews the root's life.
    ///
    /// # Errors
    /// As [`Publisher::publish`]; an expired root can be renewed.
    pub fn rotate(&mut self, present: &Signers, next: &Signers, now: UnixTime) -> Result<(), Error> {
        for role in Role::ALL {
            self.check_keys(role, present)?;
        }
        let version = self.state.version(Role::Root).saturating_add(1);
        let end = UnixTime(now.0.saturating_add(self.lifetimes.root));
        let part = root_part(version, end, next)?;
        let both: Vec<&Arc<dyn RoleSigner>> =
            present.of(Role::Root).iter().chain(next.of(Role::Root)).collect();
        let bytes = sign(&part, both)?;
        self.release(&[Role::Targets, Role::Snapshot, Role::Timestamp], &[present, next], now)?;
        self.write(&format!("{version}.root.json"), &bytes)?;
        self.root = Metadata::<Root>::from_slice(&bytes).map_err(refused)?.into_signed();
        self.note_root();
        Ok(())
    }

    fn note_root(&mut self) {
        self.state.versions.insert(Role::Root, self.root.version);
        self.state.expires.insert(Role::Root, UnixTime(self.root.expires.as_second()));
    }

    fn check(&self, roles: &[Role], signers: &Signers, now: UnixTime) -> Result<(), Error> {
        if self.state.end(Role::Root) < now {
            return Err(refuse(Refusal::Expired, "the root has expired: sign a new one first"));
        }
        roles.iter().try_for_each(|role| self.check_keys(*role, signers))
    }

    /// Refuses before anything is signed when the keys at hand are not enough for the present root.
    fn check_keys(&self, role: Role, signers: &Signers) -> Result<(), Error> {
        let Some(keys) = self.root.role(role.as_str()) else {
            return Err(refuse(Refusal::Malformed, format!("the root names no keys for {role}")));
        };
        let mut count = 0;
        for signer in signers.of(role) {
            count += usize::from(keys.keyids.contains(&key_id(&signer.public_key())?));
        }
        if count < keys.threshold {
            let detail = format!(
                "{count} of the keys at hand are {role} keys of root version {}, which demands {}",
                self.root.version, keys.threshold
            );
            return Err(refuse(Refusal::Signature, detail));
        }
        Ok(())
    }

    fn write_targets(&mut self, targets: &[(&str, &[u8])]) -> Result<(), Error> {
        for (name, bytes) in targets {
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
            if !plain || name.starts_with('.') || name.is_empty() {
                return Err(refuse(Refusal::Malformed, format!("`{name}` is no name for a target")));
            }
            if bytes.len() as u64 > MAX_TARGET_BYTES {
                return Err(refuse(Refusal::TooLarge, format!("{name} is over {MAX_TARGET_BYTES} bytes")));
            }
            let digest = sha256_hex(bytes);
            self.write(&format!("targets/{digest}.{name}"), bytes)?;
            let entry = json!({ "length": bytes.len(), "hashes": { "sha256": digest } });
            self.targets.insert((*name).to_owned(), entry);
        }
        self.state.targets = self.targets.keys().cloned().collect();
        Ok(())
    }

    /// Signs and writes new versions of these roles, which stand in the order in which one names the other.
    fn release(&mut self, roles: &[Role], signers: &[&Signers], now: UnixTime) -> Result<(), Error> {
        let mut named = None;
        for role in roles {
            let version = self.state.version(*role).saturating_add(1);
            let own = match role {
                Role::Targets => ("targets", json!(self.targets)),
                Role::Snapshot => {
                    ("meta", json!({ "targets.json": self.named(named.take(), Role::Targets)? }))
                }
                _ => ("meta", json!({ "snapshot.json": self.named(named.take(), Role::Snapshot)? })),
            };
            // What an earlier file vouches for must not end after the root that vouches for it is useless anyway; a
            // life of its own is shorter.
            let end = UnixTime(now.0.saturating_add(self.lifetimes.of(*role)));
            let part = signed_part(*role, version, end, &[own]);
            let bytes = sign(&part, signers.iter().flat_map(|signers| signers.of(*role)))?;
            let name = match role {
                Role::Timestamp => "timestamp.json".to_owned(),
                other => format!("{version}.{other}.json"),
            };
            self.write(&name, &bytes)?;
            named = Some(reference(version, &bytes));
            self.state.versions.insert(*role, version);
            self.state.expires.insert(*role, end);
        }
        Ok(())
    }

    /// The reference to the file that was just written, or to the present one.
    fn named(&self, new: Option<Value>, role: Role) -> Result<Value, Error> {
        let version = self.state.version(role);
        match new {
            Some(reference) => Ok(reference),
            None => Ok(reference(version, &read(&self.folder, &format!("{version}.{role}.json"))?)),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        atomic::write(&self.folder.join(name), bytes, Readers::Everybody)
    }
}

fn verified<T: sigstore_tuf::Role>(root: &Root, bytes: &[u8], role: Role) -> Result<T, Error> {
    let metadata = Metadata::<T>::from_slice(bytes).map_err(refused)?;
    let keys = root
        .role(role.as_str())
        .ok_or_else(|| refuse(Refusal::Malformed, format!("the root names no keys for {role}")))?;
    metadata.verify_threshold(&root.keys, keys, role.as_str()).map_err(refused)?;
    Ok(metadata.into_signed())
}

fn belongs(hashes: Option<&BTreeMap<String, String>>, bytes: &[u8], role: Role) -> Result<(), Error> {
    let named = hashes.and_then(|hashes| hashes.get("sha256"));
    if named.is_none_or(|named| *named != sha256_hex(bytes)) {
        return Err(refuse(Refusal::Mixed, format!("the {role} file is not the one that is named")));
    }
    Ok(())
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>, Error> {
    atomic::read(&folder.join(name), MAX_METADATA_BYTES)
}

fn lock(folder: &Path) -> Result<Locked, Error> {
    Locked::take(&folder.join(LOCK_FILE))?.ok_or_else(|| {
        refuse(Refusal::Unavailable, format!("another publisher is at work in {}", folder.display()))
    })
}
