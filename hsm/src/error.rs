//! One error type for every backend.
//!
//! What a caller has to do depends only on the [`ErrorClass`]: wait and retry, stop, refuse, or record that a
//! signature may exist.

use std::io;
use std::path::PathBuf;

use crate::algorithm::SignatureAlgorithm;
use crate::intent::Purpose;

/// What a caller must do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request was submitted and its outcome is unknown: a signature may exist. Record it; never sign again.
    Ambiguous,
    /// Credentials were refused. Stop at once: repeating can lock the token.
    AuthFailed,
    /// The key's policy forbids the operation.
    Denied,
    /// No such key.
    NotFound,
    /// Will fail again until an operator acts.
    Permanent,
    /// May succeed later; nothing was signed.
    Transient,
    /// The backend or the algorithm cannot do this.
    Unsupported,
}

/// Why a key's policy refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeniedReason {
    /// The audit sink did not accept the record of the use, so there is no use.
    #[error("the audit sink refused the record: {detail}")]
    Audit {
        /// What the sink said.
        detail: String,
    },
    /// The key was not made for this purpose.
    #[error("the key may not be used for {purpose}; it was made for: {allowed}")]
    Purpose {
        /// The purpose asked for.
        purpose: Purpose,
        /// The purposes the key has, comma-separated.
        allowed: String,
    },
    /// The key's rate limit is used up for this second.
    #[error("the key's limit of {per_second} signatures a second is used up")]
    Rate {
        /// The limit.
        per_second: u32,
    },
}

/// Everything that can go wrong with keys. Texts never contain key material or passphrases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key with this label exists already; nothing was overwritten.
    #[error("a key named {label:?} exists already; choose another label or remove the old key first")]
    AlreadyExists {
        /// The label.
        label: String,
    },
    /// The outcome of a submitted request is unknown: a signature may exist.
    #[error("the outcome is unknown, a signature may exist: {detail}")]
    Ambiguous {
        /// What happened.
        detail: String,
    },
    /// Wrong passphrase, PIN or credential.
    #[error("wrong passphrase for {what}; check the passphrase source in the configuration")]
    AuthFailed {
        /// What the credential was for.
        what: String,
    },
    /// A key file or keystore is damaged or was altered.
    #[error("{} is damaged or was altered ({reason}); restore it from the backup", path.display())]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
    /// The key's policy forbids the operation.
    #[error("denied: {reason}")]
    Denied {
        /// Why.
        reason: DeniedReason,
    },
    /// A value is outside what this crate accepts.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A key URI does not follow the grammar.
    #[error("invalid key URI at byte {position}: {reason}")]
    InvalidUri {
        /// Byte offset into the text.
        position: usize,
        /// What is wrong.
        reason: String,
    },
    /// A file operation failed.
    #[error("{}: {action} failed: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The public key is not the pinned one.
    #[error("the key is not the pinned one: spki-sha256 is {found}, configured is {expected}")]
    KeyMismatch {
        /// The pinned digest, hex.
        expected: String,
        /// The digest of the key that was found, hex.
        found: String,
    },
    /// No such key or file.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// Will fail again until an operator acts.
    #[error("{detail}")]
    Permanent {
        /// What happened and what to do.
        detail: String,
    },
    /// A secret file can be read by others, or is not a regular file.
    #[error("{}: {reason}", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A signature did not verify against the key's own public half and was withheld.
    #[error(
        "a {algorithm} signature did not verify against the pinned public key and was withheld; the key is damaged"
    )]
    SelfCheck {
        /// The algorithm.
        algorithm: SignatureAlgorithm,
    },
    /// May succeed later; nothing was signed.
    #[error("temporarily unavailable: {detail}")]
    Transient {
        /// What happened.
        detail: String,
    },
    /// The backend or the algorithm cannot do this.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why not, and what to use.
        reason: &'static str,
    },
}

impl Error {
    /// What the caller must do.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Ambiguous { .. } => ErrorClass::Ambiguous,
            Self::AuthFailed { .. } => ErrorClass::AuthFailed,
            Self::Denied { reason: DeniedReason::Rate { .. } } | Self::Transient { .. } => {
                ErrorClass::Transient
            }
            Self::Denied { .. } => ErrorClass::Denied,
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::Unsupported { .. } => ErrorClass::Unsupported,
            Self::AlreadyExists { .. }
            | Self::Corrupted { .. }
            | Self::Invalid { .. }
            | Self::InvalidUri { .. }
            | Self::Io { .. }
            | Self::KeyMismatch { .. }
            | Self::Permanent { .. }
            | Self::Permissions { .. }
            | Self::SelfCheck { .. } => ErrorClass::Permanent,
        }
    }

    /// A stable code for logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AlreadyExists { .. } => "already_exists",
            Self::Ambiguous { .. } => "ambiguous",
            Self::AuthFailed { .. } => "auth_failed",
            Self::Corrupted { .. } => "corrupted",
            Self::Denied { reason: DeniedReason::Audit { .. } } => "denied_audit",
            Self::Denied { reason: DeniedReason::Purpose { .. } } => "denied_purpose",
            Self::Denied { reason: DeniedReason::Rate { .. } } => "denied_rate",
            Self::Invalid { .. } => "invalid",
            Self::InvalidUri { .. } => "invalid_uri",
            Self::Io { .. } => "io",
            Self::KeyMismatch { .. } => "key_mismatch",
            Self::NotFound { .. } => "not_found",
            Self::Permanent { .. } => "permanent",
            Self::Permissions { .. } => "permissions",
            Self::SelfCheck { .. } => "self_check",
            Self::Transient { .. } => "transient",
            Self::Unsupported { .. } => "unsupported",
        }
    }
}
