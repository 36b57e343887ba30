//! The one error of this crate: which file, and what is wrong with it.

use std::io;
use std::path::{Path, PathBuf};

use trust_store::{Denial, ReasonCode, UnixTime};

/// Why a file was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The content breaks a rule of its format, or is not supported.
    #[error("{}: {denial}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The rule, with its stable code.
        denial: Denial,
    },
    /// Distributed trust metadata was refused.
    #[cfg(feature = "tuf")]
    #[error("{detail}")]
    Distribution {
        /// The reason, with its stable text.
        refusal: crate::tuf::Refusal,
        /// What exactly was refused.
        detail: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The path is not that of a regular file: a directory, a device or a pipe.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The attestation block cannot be put into this text without changing another part of it.
    #[error("{}: the attestation block cannot be written without changing the rest of the file: {detail}", path.display())]
    NotPreserved {
        /// The manifest.
        path: PathBuf,
        /// What stands in the way, and what to do.
        detail: &'static str,
    },
    /// The lifetime beside a trusted root is that of another root.
    #[error(
        "{} belongs to another trusted root: a newer one was distributed, or an update did not come to its end; run `mentatctl \
         trust update`, and restart what has the older root in use",
        path.display()
    )]
    OtherRoot {
        /// The lifetime's file.
        path: PathBuf,
    },
    /// The metadata that distributed the trusted root has expired, and with it the root.
    #[error(
        "the trusted root was valid until {} ({}): the mirror was cut off, or nobody asked it since; run `mentatctl trust update`",
        expires.to_rfc3339(),
        path.display()
    )]
    RootExpired {
        /// The lifetime's file.
        path: PathBuf,
        /// The root's last second.
        expires: UnixTime,
    },
    /// The file is larger than what is read of its kind; it was not parsed.
    #[error("{}: larger than the limit of {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn content<D: Into<Denial>>(path: &Path) -> impl FnOnce(D) -> Self {
        let path = path.to_path_buf();
        move |denial| Self::Content { path, denial: denial.into() }
    }

    /// The reason code of verification step 1 that this error stands for, where the content is at fault.
    pub fn code(&self) -> Option<ReasonCode> {
        match self {
            Self::Content { denial, .. } => Some(denial.code),
            Self::TooLarge { .. } => Some(ReasonCode::TooLarge),
            Self::NotAFile { .. }
            | Self::Io { .. }
            | Self::NotPreserved { .. }
            | Self::OtherRoot { .. }
            | Self::RootExpired { .. } => None,
            #[cfg(feature = "tuf")]
            Self::Distribution { .. } => None,
        }
    }

    /// The stable code of a trusted root that may not be used: that of the metadata which it came with.
    pub fn trust_code(&self) -> Option<&'static str> {
        match self {
            Self::OtherRoot { .. } => Some("tuf_mixed"),
            Self::RootExpired { .. } => Some("tuf_expired"),
            _ => None,
        }
    }

    /// Why distributed metadata was refused, where that is what happened.
    #[cfg(feature = "tuf")]
    pub fn refusal(&self) -> Option<crate::tuf::Refusal> {
        match self {
            Self::Distribution { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }
}
