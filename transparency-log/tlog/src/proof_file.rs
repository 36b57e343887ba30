//! Proof files (C2SP tlog-proof, extension `.tlog-proof`): an inclusion proof with its checkpoint as text.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! index 42
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! example.com/log
//! …
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::VerifiedCheckpoint;
use crate::decimal;
use crate::error::Error;
use crate::hash::LeafHash;
use crate::inclusion::{InclusionProof, VerifiedInclusion};
use crate::note::{MAX_NOTE_SIZE, Note};
use crate::policy::Policy;
use crate::signature::SignatureVerifier;
use crate::witness::hashes;

/// Largest file: a note, 63 hashes and 64 KiB of extra data in base64.
pub const MAX_PROOF_FILE_SIZE: usize = MAX_NOTE_SIZE + 96 * 1024;

const HEADER: &str = "c2sp.org/tlog-proof@v1\n";

/// A proof file, nothing of it verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProofFile {
    /// Data of the application. Not authenticated: never trusted by itself.
    pub extra: Option<Vec<u8>>,
    /// Index and path.
    pub proof: InclusionProof,
    /// The checkpoint with its signatures.
    pub checkpoint: Note,
}

impl ProofFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::Malformed`], also for files of older tools without the first line.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_PROOF_FILE_SIZE {
            return Err(Error::TooLarge { what: "proof file", limit: MAX_PROOF_FILE_SIZE });
        }
        let text = core::str::from_utf8(bytes)
            .map_err(|error| Error::malformed("proof file is not UTF-8", error.valid_up_to()))?;
        let rest = text
            .strip_prefix(HEADER)
            .ok_or_else(|| Error::malformed("proof file does not begin with its type", 0))?;
        let (fields, note) = rest.split_once("\n\n").ok_or_else(|| {
            Error::malformed("proof file has no empty line before its checkpoint", text.len())
        })?;
        let mut lines = fields.split('\n').peekable();
        let extra = match lines.peek().and_then(|line| line.strip_prefix("extra ")) {
            Some(data) => {
                lines.next();
                let data = STANDARD.decode(data);
                Some(data.map_err(|_| Error::malformed("extra data is not canonical base64", HEADER.len()))?)
            }
            None => None,
        };
        let leaf_index = lines
            .next()
            .and_then(|line| line.strip_prefix("index "))
            .and_then(decimal::parse)
            .ok_or_else(|| Error::malformed("proof file has no index line", HEADER.len()))?;
        let path = hashes(lines)?;
        Ok(Self {
            extra,
            proof: InclusionProof { leaf_index, path },
            checkpoint: Note::parse(note.as_bytes())?,
        })
    }

    /// Verifies the checkpoint under a policy, then the inclusion of `leaf` in it.
    ///
    /// # Errors
    /// As [`Policy::open`] and [`InclusionProof::verify`].
    pub fn verify(
        &self,
        leaf: &LeafHash,
        policy: &Policy,
        verifier: &dyn SignatureVerifier,
    ) -> Result<(VerifiedCheckpoint, VerifiedInclusion), Error> {
        let checkpoint = policy.open(&self.checkpoint.to_bytes(), verifier)?;
        let inclusion = self.proof.verify(leaf, checkpoint.head())?;
        Ok((checkpoint, inclusion))
    }
}

impl fmt::Display for ProofFile {
    /// The file's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        if let Some(extra) = &self.extra {
            let extra: String = STANDARD.encode(extra);
            writeln!(f, "extra {extra}")?;
        }
        writeln!(f, "index {}", self.proof.leaf_index)?;
        self.proof.path.iter().try_for_each(|hash| writeln!(f, "{}", hash.to_base64()))?;
        write!(f, "\n{}", self.checkpoint)
    }
}
