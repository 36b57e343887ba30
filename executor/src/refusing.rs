//! Whether a log that every call needs takes records, and why not.

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicU8, Ordering};

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The log cannot be written, or so much waits for the disk that there is no room.
    #[error("it does not take records")]
    Failed,
    /// Its disk is full.
    #[error("its disk is full")]
    Full,
}

impl Unavailable {
    /// What a failed write says about the disk.
    pub(crate) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Failed,
        }
    }
}

/// The last attempt to write: shared by the writer and everybody who asks.
#[derive(Debug, Default)]
pub(crate) struct Refusing(AtomicU8);

impl Refusing {
    /// The last attempt failed; true when the one before had not.
    pub(crate) fn failed(&self, why: Unavailable) -> bool {
        let code = match why {
            Unavailable::Failed => 1,
            Unavailable::Full => 2,
        };
        self.0.swap(code, Ordering::AcqRel) == 0
    }

    /// The last attempt succeeded; true when the one before had not.
    pub(crate) fn succeeded(&self) -> bool {
        self.0.swap(0, Ordering::AcqRel) != 0
    }

    /// Whether records are taken.
    pub(crate) fn check(&self) -> Result<(), Unavailable> {
        match self.0.load(Ordering::Acquire) {
            0 => Ok(()),
            2 => Err(Unavailable::Full),
            _ => Err(Unavailable::Failed),
        }
    }
}
