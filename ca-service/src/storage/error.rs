//! Why the store did not do what was asked.

use super::queue::QueueLimit;

/// Why a store call did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process took the records over; nothing was changed, and nothing will be by this one.
    #[error("another server serves these records")]
    AnotherServes,
    /// Somebody who shares a name or an address with the approver approved it already; nothing was changed.
    #[error("the approver has approved it under another name")]
    ApproverRepeated,
    /// The database has not said for so long whose the records are that another process may have taken them over.
    #[error("whether another server serves these records is not known")]
    SuccessorUnknown,
    /// The certificate that was to be renewed is not good, or its key is known as compromised; nothing was changed.
    #[error("the certificate that is renewed was revoked")]
    CertificateRevoked,
    /// A row does not say what this program writes; nothing was changed.
    #[error("the database is damaged: {0}")]
    Corrupted(String),
    /// The identity token is for one certificate, and served, or may have before a restore; nothing was changed.
    #[error("the identity token was used")]
    IdentityTokenUsed,
    /// A certificate for this key was revoked because the key was compromised; nothing was changed.
    #[error("the key is recorded as compromised")]
    KeyCompromised,
    /// There is no space for the change; nothing was changed.
    #[error("the disk of the database is full: {0}")]
    Full(String),
    /// As many requests wait for approval as may; nothing was changed.
    #[error("too many requests wait for approval")]
    QueueFull(QueueLimit),
    /// There is no such row.
    #[error("no such record")]
    NotFound,
    /// The certificate was renewed under this request id; nothing was changed.
    #[error("the request id served for a renewal")]
    RenewedAlready,
    /// As many certificates came of this one as may; nothing was changed.
    #[error("the certificate was renewed too often")]
    RenewedTooOften,
    /// What came of a revoked certificate of the identity is still to be ended; nothing was changed.
    #[error("renewals of the identity are being ended")]
    RenewalsEnding,
    /// The database is of another schema than this program writes, and was to be read as it is; nothing was changed.
    #[error("the database has schema {found}, this program has {known}")]
    SchemaDiffers {
        /// Number of the database's schema.
        found: i64,
        /// Number of the program's.
        known: i64,
    },
    /// The row is not in the state this transition starts from; nothing was changed.
    #[error("the record is not in the expected state")]
    StateConflict,
    /// The token expired; nothing was changed.
    #[error("the token has expired")]
    TokenExpired,
    /// The token was used by another issuance; nothing was changed.
    #[error("the token was used")]
    TokenUsed,
    /// The store failed, or could not make the change durable. Whether it was made is unknown to the caller, who must
    /// look before acting again.
    #[error("the database is not available: {0}")]
    Unavailable(String),
}

impl StoreError {
    /// Whether the store failed, in place of refusing: something may be written already, and nothing of the transaction may
    /// be committed.
    pub(super) fn spoils(&self) -> bool {
        matches!(
            self,
            Self::AnotherServes
                | Self::Corrupted(_)
                | Self::Full(_)
                | Self::SuccessorUnknown
                | Self::Unavailable(_)
        )
    }
}
