//! The one error of reading: what was read, and what is wrong with it.
//!
//! A reading error is step 1 of the verification order; [`Error::code`] says which of its three reason codes applies.

use alloc::string::{String, ToString};
use core::fmt;

use crate::reason::{Denial, ReasonCode};

/// Why bytes were refused while they were being read. Nothing of a secret ever enters a `detail`: this crate reads
/// public material only.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The input broke a rule of its format.
    Malformed {
        /// The noun of what was being read, for example `bundle`.
        what: &'static str,
        /// The rule that was broken, with the position where there is one.
        detail: String,
    },
    /// The input is longer than this crate reads; it was not parsed at all.
    TooLarge {
        /// The noun of what was being read.
        what: &'static str,
        /// The limit in bytes (or in items, where `what` is a list).
        limit: usize,
    },
    /// The input is well-formed but of a version or kind that this crate does not read.
    Unsupported {
        /// The noun of what was being read.
        what: &'static str,
        /// The version or kind that was found, and what is read instead.
        detail: String,
    },
}

impl Error {
    /// The reason code of verification step 1 that this error stands for.
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Malformed { .. } => ReasonCode::Malformed,
            Self::TooLarge { .. } => ReasonCode::TooLarge,
            Self::Unsupported { .. } => ReasonCode::Unsupported,
        }
    }

    /// A broken rule of the format of `what`.
    pub fn malformed(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Malformed { what, detail: detail.into() }
    }

    /// A version or kind of `what` that is not read.
    pub fn unsupported(what: &'static str, detail: impl Into<String>) -> Self {
        Self::Unsupported { what, detail: detail.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { what, detail } => write!(f, "malformed {what}: {detail}"),
            Self::TooLarge { what, limit } => write!(f, "{what} is over the limit of {limit}"),
            Self::Unsupported { what, detail } => write!(f, "unsupported {what}: {detail}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<Error> for Denial {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
