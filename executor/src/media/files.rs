//! Objects as files of this machine.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use executor_engine::ModuleDigest;

use super::{MediaBackend, MediaError, Until};

/// A directory of objects, each under its digest.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    /// Bytes of all objects, and how many there may be.
    used: AtomicU64,
    limit: u64,
}

impl Files {
    /// Opens or makes the directory, and removes what an interrupted upload left there.
    pub(super) fn open(directory: PathBuf, limit: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let mut used = 0u64;
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                std::fs::remove_file(entry.path())?;
            } else {
                used = used.saturating_add(entry.metadata()?.len());
            }
        }
        Ok(Self { directory, used: AtomicU64::new(used), limit })
    }

    fn path(&self, digest: ModuleDigest) -> PathBuf {
        self.directory.join(digest.to_string())
    }

    fn publish(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut name = [0u8; 8];
        aws_lc_rs::rand::fill(&mut name).map_err(|_| std::io::Error::other("no random bytes"))?;
        let temporary = self.directory.join(format!(".{}", hex::encode(name)));
        let written = std::fs::File::create_new(&temporary)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&temporary, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }
}

impl MediaBackend for Files {
    fn read(&self, digest: ModuleDigest, limit: u64, _: &Until) -> Result<Vec<u8>, MediaError> {
        let missing = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => MediaError::NotFound,
            _ => MediaError::File(error),
        };
        let path = self.path(digest);
        if std::fs::metadata(&path).map_err(missing)?.len() > limit {
            return Err(MediaError::TooLarge);
        }
        std::fs::read(&path).map_err(missing)
    }

    fn write(&self, digest: ModuleDigest, _: &str, bytes: &[u8], _: &Until) -> Result<(), MediaError> {
        let path = self.path(digest);
        if path.exists() {
            return Ok(());
        }
        let length = bytes.len() as u64;
        // Taken before the first byte is written: uploads at the same time share the quota. Two of the same object count twice
        // until the next start, which counts what is there.
        let more = |used: u64| Some(used.saturating_add(length)).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| MediaError::Quota)?;
        self.publish(&path, bytes).map_err(|error| {
            self.used.fetch_sub(length, Ordering::Relaxed);
            error.into()
        })
    }
}
