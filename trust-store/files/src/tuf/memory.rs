//! What was accepted before: one file, so that its parts always belong together, with a digest, so that damage is
//! noticed instead of being taken for a first start.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use trust_store::json::{self, Bytes};

use super::{Refusal, refuse};
use crate::atomic::{self, Readers};
use crate::error::Error;

/// Largest memory that is read: roots, one file of each other role, a few targets.
const MAX_MEMORY_BYTES: u64 = 64 << 20;
/// Name under which the root that was pinned by hand is kept.
const PINNED: &str = "pinned";

/// The file's form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u8,
    /// SHA-256 over all names and contents, hexadecimal.
    digest: String,
    files: BTreeMap<String, Bytes>,
}

/// Files by the library's names. Shared with the library while it works; written to disk only by [`Memory::commit`].
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    /// Reads the memory; `None` if there is none.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, Error> {
        let bytes = match atomic::read(path, MAX_MEMORY_BYTES) {
            Ok(bytes) => bytes,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let damaged = |what: &str| {
            refuse(
                Refusal::Memory,
                format!(
                    "{} is damaged ({what}): it holds what guards against old metadata; restore it from a backup, or \
                     move it away and pin a root that you know to be the newest",
                    path.display()
                ),
            )
        };
        let file: File =
            json::parse("memory", &bytes, bytes.len()).map_err(|error| damaged(&error.to_string()))?;
        if file.version != 1 {
            return Err(damaged("its version is not 1"));
        }
        let files = file.files.into_iter().map(|(name, bytes)| (name, bytes.0)).collect();
        if digest(&files) != file.digest {
            return Err(damaged("its digest does not match"));
        }
        if !files.contains_key(PINNED) {
            return Err(damaged("it names no pinned root"));
        }
        Ok(Some(Self(Arc::new(Mutex::new(files)))))
    }

    /// A memory that knows nothing but the root that was pinned by hand.
    pub(super) fn pinned_to(root: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(BTreeMap::from([(PINNED.to_owned(), root.to_vec())]))))
    }

    /// The root that was pinned by hand.
    pub(super) fn pinned(&self) -> Vec<u8> {
        self.files().get(PINNED).cloned().unwrap_or_default()
    }

    /// Whether exactly this root was pinned or accepted.
    pub(super) fn knows_root(&self, root: &[u8]) -> bool {
        let files = self.files();
        let is_root = |name: &str| name == PINNED || name == "root.json" || name.starts_with("root_history/");
        files.iter().any(|(name, bytes)| is_root(name) && bytes == root)
    }

    /// Whether a file is known byte for byte.
    pub(super) fn file(&self, name: &str) -> Option<Vec<u8>> {
        self.files().get(name).cloned()
    }

    /// Makes everything durable.
    pub(super) fn commit(&self, path: &Path) -> Result<(), Error> {
        let files = self.files().clone();
        let digest = digest(&files);
        let files = files.into_iter().map(|(name, bytes)| (name, Bytes(bytes))).collect();
        let bytes =
            json::write("memory", &File { version: 1, digest, files }).map_err(Error::content(path))?;
        // What could not be read again is not written: the old memory stays, and says until where one got.
        if bytes.len() as u64 > MAX_MEMORY_BYTES {
            let detail = format!(
                "{} would hold more than {} MiB of old roots; move it away and pin the newest root",
                path.display(),
                MAX_MEMORY_BYTES >> 20
            );
            return Err(refuse(Refusal::Memory, detail));
        }
        atomic::write(path, &bytes, Readers::Everybody)
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // Nothing that holds the lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl sigstore_tuf::MetadataStore for Memory {
    fn load(&self, name: &str) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        Ok(self.file(name))
    }

    fn store(&self, name: &str, bytes: &[u8]) -> sigstore_tuf::Result<()> {
        // The library keeps each snapshot under its version as well; the newest one is what guards.
        let numbered = name.split_once('.').is_some_and(|(number, _)| number.parse::<u64>().is_ok());
        if !numbered {
            self.files().insert(name.to_owned(), bytes.to_vec());
        }
        Ok(())
    }
}

fn digest(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut hash = Sha256::new();
    for (name, bytes) in files {
        for part in [name.as_bytes(), bytes] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hex::encode(hash.finalize())
}
