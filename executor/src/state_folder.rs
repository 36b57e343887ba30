//! Whether the state folder takes what has to be kept, and why not.

use std::error::Error;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::admission::Denied;

const TAKES: u8 = 0;
const FAILED: u8 = 1;
const FULL: u8 = 2;

/// Bytes that are written to see whether there is room again: more than what a file's last block may have left.
const PROBE: usize = 64 << 10;

/// The folder of records and routes, and how the last attempt to write there went.
#[derive(Debug)]
pub(crate) struct StateFolder {
    directory: PathBuf,
    refusing: AtomicU8,
}

impl StateFolder {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), refusing: AtomicU8::new(TAKES) }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Something was written.
    pub(crate) fn written(&self) {
        self.refusing.store(TAKES, Ordering::Release);
    }

    /// Something was not written: what the caller is told.
    pub(crate) fn failed(&self, error: &(dyn Error + 'static), what: &str) -> Denied {
        let why = if is_full(error) { FULL } else { FAILED };
        self.refusing.store(why, Ordering::Release);
        let denied = match why {
            FULL => Denied::new(
                "storage_full",
                "the executor's disk is full, so that nothing can be kept; nothing was changed; free space on it",
            ),
            _ => Denied::new(
                "state_unavailable",
                "the executor's state folder cannot be written; nothing was changed",
            ),
        };
        denied.for_operator(format!("{what}: {error}: {:?}", error.source()))
    }

    /// Why nothing can be kept at present. After a failure nobody may ask for anything that is kept, so a file is
    /// written to see whether that still holds. Blocks for that time.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.refusing.load(Ordering::Acquire) != TAKES {
            match self.probe() {
                Ok(()) => self.written(),
                Err(error) => drop(self.failed(&error, "probe")),
            }
        }
        match self.refusing.load(Ordering::Acquire) {
            TAKES => None,
            FULL => Some("the disk of the state folder is full"),
            _ => Some("the state folder cannot be written"),
        }
    }

    fn probe(&self) -> std::io::Result<()> {
        let path = self.directory.join("probe.new");
        let written = std::fs::File::create(&path).and_then(|mut file| {
            file.write_all(&vec![0; PROBE])?;
            file.sync_all()
        });
        let removed = std::fs::remove_file(&path);
        written.and(removed)
    }
}

fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_and_noticed_until_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::new(&dir.path().join("state"));
        assert_eq!(state.problem(), None);
        let full = std::io::Error::from(ErrorKind::StorageFull);
        assert_eq!(state.failed(&full, "a record").code, "storage_full");
        // The folder is not even there: what was full cannot be written at all now.
        assert_eq!(state.problem(), Some("the state folder cannot be written"));
        std::fs::create_dir(state.directory()).unwrap();
        assert_eq!(state.problem(), None, "it goes on by itself");
        assert_eq!(std::fs::read_dir(state.directory()).unwrap().count(), 0);
        assert_eq!(
            state.failed(&std::io::Error::from(ErrorKind::PermissionDenied), "").code,
            "state_unavailable"
        );
    }
}
