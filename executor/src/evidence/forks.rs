//! Proofs that a log signed two histories, kept beside its last checkpoint in `fork-ORIGIN.json`.
//!
//! Such a log vouches for nothing any more, whatever it shows later: one that goes back to the history it showed first looks in order
//! to whoever has forgotten the other one. So the proof is on disk before anybody acts on it, and only a person takes it away.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tlog_client::ForkEvidence;
use trust_store_files::Error;
use trust_store_files::atomic::{self, Readers};

/// Largest file, bytes: two notes of checkpoints with their cosignatures.
const MAX_FILE: u64 = 2 << 20;

const VERSION: u32 = 1;

/// What one log proved against itself, if it did.
pub(super) struct Fork {
    file: PathBuf,
    origin: String,
    proof: Option<Proof>,
    /// Why the proof is not on disk yet.
    unkept: Option<String>,
}

/// Two checkpoints with the log's own signature that cannot both be true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proof {
    version: u32,
    origin: String,
    /// What contradicts what, in words.
    detail: String,
    /// The note that was verified first.
    known: String,
    /// The one that contradicts it.
    served: String,
}

/// Why the proof of an earlier run is not believed and not ignored either.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForkFileError {
    /// It is about another log, or of a version that this program does not know.
    #[error("{}: not a proof about this log that this version reads", file.display())]
    Another {
        /// The file.
        file: PathBuf,
    },
    /// It is no proof.
    #[error("{}: {source}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] Error),
}

impl Fork {
    /// What the last run knew. There is no file where nothing was proven.
    pub(super) fn open(folder: &Path, origin: &str) -> Result<Self, ForkFileError> {
        let file = folder.join(format!("fork-{origin}.json"));
        let mut fork = Self { file, origin: origin.to_owned(), proof: None, unkept: None };
        // A file that cannot even be asked for may be there.
        if matches!(fork.file.try_exists(), Ok(false)) {
            return Ok(fork);
        }
        let bytes = atomic::read(&fork.file, MAX_FILE)?;
        let file = || fork.file.clone();
        let proof: Proof = serde_json::from_slice(&bytes)
            .map_err(|source| ForkFileError::Content { file: file(), source })?;
        if proof.version != VERSION || proof.origin != origin {
            return Err(ForkFileError::Another { file: file() });
        }
        fork.proof = Some(proof);
        Ok(fork)
    }

    /// What is wrong with the log, if it is proven.
    pub(super) fn detail(&self) -> Option<&str> {
        self.proof.as_ref().map(|proof| proof.detail.as_str())
    }

    /// Keeps the first proof. One that cannot be written counts all the same, and is written when that is possible.
    pub(super) fn prove(&mut self, detail: &str, evidence: &ForkEvidence) {
        if self.proof.is_none() {
            let text = |note: &[u8]| String::from_utf8_lossy(note).into_owned();
            self.proof = Some(Proof {
                version: VERSION,
                origin: self.origin.clone(),
                detail: detail.to_owned(),
                known: text(&evidence.known),
                served: text(&evidence.served),
            });
            self.keep();
            let file = self.file.display();
            tracing::error!(origin = %self.origin, detail, %file, "the log forked: nothing is admitted by it any more");
        }
    }

    /// Writes what is not on disk yet.
    pub(super) fn keep_at_last(&mut self) {
        if self.unkept.is_some() {
            self.keep();
        }
    }

    /// Why a restart would forget the proof.
    pub(super) fn problem(&self) -> Option<String> {
        self.unkept.as_ref().map(|why| format!("the proof that the log forked is not on disk: {why}"))
    }

    fn keep(&mut self) {
        let Some(proof) = &self.proof else { return };
        let written = serde_json::to_vec_pretty(proof).map_err(|error| error.to_string()).and_then(|bytes| {
            atomic::write(&self.file, &bytes, Readers::Owner).map_err(|error| error.to_string())
        });
        self.unkept = written.err();
    }
}
