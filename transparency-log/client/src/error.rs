//! What can go wrong between a client and a log.

use std::path::PathBuf;

use tlog::TreeHead;

/// Two checkpoints of one log that cannot both be true, each with the log's own signature.
///
/// Keep both notes: together they prove that the log showed two histories, to anybody who has its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForkEvidence {
    /// The note that was verified earlier.
    pub known: Vec<u8>,
    /// The note that contradicts it.
    pub served: Vec<u8>,
}

/// Why a client has no answer it can rely on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log answered with something that is not an answer to this request.
    #[error("the log's answer is not {what}")]
    Answer {
        /// What was expected.
        what: &'static str,
    },
    /// The base URL cannot be used.
    #[error("not a usable base URL (http or https, no query): {url}")]
    BaseUrl {
        /// The URL.
        url: String,
    },
    /// A file of a copy cannot be read.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The log signed two histories.
    #[error("the log signed two histories: a checkpoint of {} leaves contradicts the one known", served.size)]
    Fork {
        /// Head that was verified earlier.
        known: TreeHead,
        /// Head that contradicts it.
        served: TreeHead,
        /// Both signed notes.
        evidence: Box<ForkEvidence>,
    },
    /// A format, proof or signature was refused.
    #[error(transparent)]
    Log(#[from] tlog::Error),
    /// The log was still overloaded or unavailable after the last attempt.
    #[error("the log is overloaded or unavailable (status {status} after {attempts} attempts)")]
    Overloaded {
        /// Status of the last answer: 429, 502, 503 or 504.
        status: u16,
        /// How often it was asked.
        attempts: u32,
    },
    /// The log serves a smaller tree than it did: a stale copy, or a log restored from an old one.
    #[error("the log went back from {} to {} leaves", known.size, served.size)]
    Rollback {
        /// Head that was verified earlier.
        known: TreeHead,
        /// Smaller head, consistent with the known one as far as it could be checked.
        served: TreeHead,
    },
    /// The state file cannot be read or written.
    #[error("state file {}: {source}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What the operating system said, or that the content is not a state.
        source: std::io::Error,
    },
    /// The log refused the request.
    #[error("the log answered status {status}: {detail}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// Code and detail of the problem document, or the beginning of the answer; without control characters.
        detail: String,
    },
    /// An answer was larger than it may be; the rest was not read.
    #[error("the log's answer exceeds {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// No answer came.
    #[error("the log cannot be reached")]
    Transport(#[source] reqwest::Error),
}

impl Error {
    /// A stable, documented word for the kind of failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Answer { .. } => "bad_answer",
            Self::BaseUrl { .. } => "bad_base_url",
            Self::Folder { .. } => "unreadable_copy",
            Self::Fork { .. } => "fork",
            Self::Log(error) => error.code(),
            Self::Overloaded { .. } => "overloaded",
            Self::Rollback { .. } => "rollback",
            Self::State { .. } => "state_file",
            Self::Status { .. } => "status",
            Self::TooLarge { .. } => "too_large",
            Self::Transport(_) => "unreachable",
        }
    }

    /// True when the log contradicts itself or what is known of it: a matter for people, not for a retry.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::Fork { .. } | Self::Rollback { .. })
    }
}
