//! Whether the audit log takes records, and why not.

use std::io::{Error, ErrorKind};
use std::sync::atomic::{AtomicU8, Ordering};

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuditUnavailable {
    /// The log cannot be written, or so much waits for the disk that there is no room.
    #[error("the audit log does not take records")]
    Failed,
    /// Its disk is full.
    #[error("the disk of the audit log is full")]
    Full,
}

/// The last attempt to write: shared by the writer and everybody who asks.
#[derive(Debug, Default)]
pub(super) struct Refusing(AtomicU8);

impl Refusing {
    /// The last attempt failed; true when the one before had not.
    pub(super) fn failed(&self, error: &Error) -> bool {
        let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        self.0.swap(if full { 2 } else { 1 }, Ordering::AcqRel) == 0
    }

    /// The last attempt succeeded; true when the one before had not.
    pub(super) fn succeeded(&self) -> bool {
        self.0.swap(0, Ordering::AcqRel) != 0
    }

    /// Whether records are taken.
    pub(super) fn check(&self) -> Result<(), AuditUnavailable> {
        match self.0.load(Ordering::Acquire) {
            0 => Ok(()),
            2 => Err(AuditUnavailable::Full),
            _ => Err(AuditUnavailable::Failed),
        }
    }
}
