//! A file that says by its lock that somebody works with what stands beside it.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::Error;

/// A lock of this process, until it is dropped.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    /// Makes the file if it is not there, and locks it; `None` when somebody else holds it. Nobody is waited for: it may be a
    /// process that hangs.
    pub(crate) fn take(path: &Path) -> Result<Option<Self>, Error> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(Error::io(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::io(path)(error)),
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing is not enough: a process that is being started holds a copy of the handle for a moment.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_handle_in_a_process_that_is_being_started_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Locked::take(&path).unwrap().unwrap();
        // As a child has it between its beginning and its program.
        let copy = held.0.try_clone().unwrap();
        assert!(Locked::take(&path).unwrap().is_none());
        drop(held);
        drop(Locked::take(&path).unwrap().unwrap());
        drop(copy);
    }
}
