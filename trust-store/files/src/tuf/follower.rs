//! A relying party's side: follow a repository from a pinned root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sigstore_tuf::{Updater, UpdaterConfig};
use trust_store::UnixTime;
use trust_store::signing_config::SigningConfig;
use trust_store::trusted_root::TrustedRoot;

use super::memory::Memory;
use super::source::{Repository, Source};
use super::{
    MAX_METADATA_BYTES, MAX_ROOT_ROTATIONS, MAX_TARGET_BYTES, Refusal, SIGNING_CONFIG, TRUSTED_ROOT, refuse,
    refused, timestamp,
};
use crate::error::Error;
use crate::locked::Locked;

/// Follows one repository. The memory is one file; whoever deletes it forgets what guards against old metadata. One
/// follower at a time holds it: of two that write, one would forget what the other saw.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    memory: Memory,
    _lock: Locked,
}

/// What an update gave: verified, and remembered durably.
#[derive(Clone, Debug)]
#[must_use]
pub struct Distribution {
    /// Version of the newest root.
    pub root_version: u64,
    /// Version of the timestamp.
    pub timestamp_version: u64,
    /// Version of the list of targets.
    pub targets_version: u64,
    /// When the first of the four files expires, and with it what was distributed.
    pub expires: UnixTime,
    targets: BTreeMap<String, Vec<u8>>,
}

impl Follower {
    /// Opens the memory in the file `memory`. At the first use `pinned` is the root that was obtained by a trusted way;
    /// later it may be left out, or must be a root that is already known.
    ///
    /// # Errors
    /// [`Error::Distribution`]: [`Refusal::Memory`] when the memory is damaged, belongs to another repository, or does
    /// not exist and no root is pinned; [`Refusal::Signature`] or [`Refusal::Malformed`] for a root that is none;
    /// [`Refusal::Unavailable`] while another follower holds the memory. [`Error::Io`] when it cannot be kept there.
    pub fn open(memory: &Path, pinned: Option<&[u8]>) -> Result<Self, Error> {
        let path = memory.to_path_buf();
        let lock = lock(memory)?;
        let memory = match (Memory::load(memory)?, pinned) {
            (Some(memory), Some(root)) if !memory.knows_root(root) => {
                let detail = format!(
                    "{} follows another root than the one given; use another file for another repository",
                    path.display()
                );
                return Err(refuse(Refusal::Memory, detail));
            }
            (Some(memory), _) => memory,
            (None, Some(root)) => {
                if root.len() as u64 > MAX_METADATA_BYTES {
                    return Err(refuse(Refusal::TooLarge, "the pinned root is larger than any root"));
                }
                Memory::pinned_to(root)
            }
            (None, None) => {
                let detail = format!(
                    "nothing is known yet in {}: pin the repository's root, obtained by a way that you trust",
                    path.display()
                );
                return Err(refuse(Refusal::Memory, detail));
            }
        };
        sigstore_tuf::TrustedMetadataSet::from_root(&memory.pinned()).map_err(refused)?;
        Ok(Self { path, memory, _lock: lock })
    }

    /// Follows the repository to its newest state at `now` and fetches the targets that are listed among `names`; the
    /// first of them must be. Nothing is given out before what was learned is durable, so that a later update cannot
    /// be led back behind it.
    ///
    /// # Errors
    /// [`Error::Distribution`] with the reason; [`Error::Io`] when the memory cannot be written. The memory then keeps
    /// its old state, or what was verified until the failure: both only ever raise what a later update must reach.
    pub async fn update(
        &self,
        source: Arc<dyn Source>,
        names: &[&str],
        now: UnixTime,
    ) -> Result<Distribution, Error> {
        let time = timestamp(now)?;
        let mut config = UpdaterConfig::default();
        config.root_max_length = MAX_METADATA_BYTES;
        config.snapshot_max_length = MAX_METADATA_BYTES;
        config.targets_max_length = MAX_METADATA_BYTES;
        config.target_max_length = MAX_TARGET_BYTES;
        // The last look, which finds none, is one of the library's.
        config.max_root_rotations = MAX_ROOT_ROTATIONS.saturating_add(1);
        let mut updater = Updater::new(Repository(source), &self.memory.pinned())
            .map_err(refused)?
            .with_config(config)
            .with_store(self.memory.clone());
        let refreshed = updater.refresh(time).await;
        // Also after a failure: a root or timestamp that was verified counts from now on.
        self.memory.commit(&self.path)?;
        refreshed.map_err(refused)?;
        let mut targets = BTreeMap::new();
        for (index, name) in names.iter().enumerate() {
            match updater.get_target(name, time).await {
                Ok(bytes) => {
                    targets.insert((*name).to_owned(), bytes);
                }
                Err(sigstore_tuf::Error::TargetNotFound(_)) if index > 0 => {}
                Err(error) => return Err(refused(error)),
            }
        }
        self.memory.commit(&self.path)?;
        distribution(&updater, targets)
    }
}

fn lock(memory: &Path) -> Result<Locked, Error> {
    let mut path = memory.as_os_str().to_owned();
    path.push(".lock");
    Locked::take(Path::new(&path))?.ok_or_else(|| {
        refuse(Refusal::Unavailable, format!("another update with {} is at work", memory.display()))
    })
}

fn distribution(updater: &Updater, targets: BTreeMap<String, Vec<u8>>) -> Result<Distribution, Error> {
    let trusted = updater.trusted();
    let (Some(fresh), Some(snapshot), Some(list)) =
        (trusted.timestamp(), trusted.snapshot(), trusted.targets_role("targets"))
    else {
        return Err(refuse(Refusal::Malformed, "the update ended without timestamp, snapshot or targets"));
    };
    let ends = [trusted.root().expires, fresh.expires, snapshot.expires, list.expires];
    Ok(Distribution {
        root_version: trusted.root().version,
        timestamp_version: fresh.version,
        targets_version: list.version,
        expires: UnixTime(ends.iter().map(|end| end.as_second()).min().unwrap_or_default()),
        targets,
    })
}

impl Distribution {
    /// A target's bytes; `None` if it was not asked for or is not listed.
    pub fn target(&self, name: &str) -> Option<&[u8]> {
        self.targets.get(name).map(Vec::as_slice)
    }

    /// The trusted root that was distributed.
    ///
    /// # Errors
    /// [`Refusal::TargetMissing`] if it was not asked for; [`Refusal::Malformed`] if it cannot be read.
    pub fn trusted_root(&self) -> Result<TrustedRoot, Error> {
        let bytes = self
            .target(TRUSTED_ROOT)
            .ok_or_else(|| refuse(Refusal::TargetMissing, "no trusted root was distributed"))?;
        TrustedRoot::parse(bytes).map_err(|error| refuse(Refusal::Malformed, error.to_string()))
    }

    /// The signing configuration that was distributed; `None` if there is none.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if it cannot be read.
    pub fn signing_config(&self) -> Result<Option<SigningConfig>, Error> {
        self.target(SIGNING_CONFIG)
            .map(SigningConfig::parse)
            .transpose()
            .map_err(|error| refuse(Refusal::Malformed, error.to_string()))
    }
}
