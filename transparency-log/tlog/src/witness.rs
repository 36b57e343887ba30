//! Bodies of the witness protocol (C2SP tlog-witness) and the decisions a witness takes on them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use crate::checkpoint::Checkpoint;
use crate::consistency::ConsistencyProof;
use crate::decimal;
use crate::error::Error;
use crate::hash::{EMPTY_ROOT, Hash, TreeHead};
use crate::note::{MAX_NOTE_SIZE, Note};
use crate::path::MAX_PROOF_HASHES;
use crate::subtree::{Subtree, SubtreeProof};

/// Largest request body: header, 63 hashes and a note.
pub const MAX_REQUEST_SIZE: usize = MAX_NOTE_SIZE + 4096;

/// `Content-Type` of a 409 answer.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// Body of `POST <prefix>/add-checkpoint`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddCheckpointRequest {
    /// Size the caller believes the witness has recorded.
    pub old_size: u64,
    /// Proof from that size to the checkpoint's.
    pub proof: ConsistencyProof,
    /// The checkpoint with its signatures, none of them verified.
    pub note: Note,
}

/// Why a witness does not cosign a checkpoint that its log did sign; in the order of the checks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The old size is larger than the checkpoint's.
    OldSizeTooLarge,
    /// The old size is not the recorded one.
    Conflict {
        /// The recorded size; [`size_body`] is the answer's body.
        recorded: u64,
    },
    /// The checkpoint contradicts itself or the record. Worth keeping: the log signed it.
    Inconsistent(Error),
}

impl Refusal {
    /// The HTTP status that says so.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::OldSizeTooLarge => 400,
            Self::Conflict { .. } => 409,
            Self::Inconsistent(_) => 422,
        }
    }
}

impl AddCheckpointRequest {
    /// Reads a body; the note's text is parsed as a checkpoint too.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::Malformed`]: status 400.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let (header, note) = split(body)?;
        let mut lines = header.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(decimal::parse)
            .ok_or_else(|| Error::malformed("request does not begin with the old size", 0))?;
        Ok(Self { old_size, proof: ConsistencyProof { path: hashes(lines)? }, note })
    }

    /// The body.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        body(alloc::format!("old {}\n", self.old_size), &self.proof.path, &self.note)
    }

    /// The checkpoint in the note.
    ///
    /// # Errors
    /// [`Error::Malformed`]; never after [`parse`](Self::parse).
    pub fn checkpoint(&self) -> Result<Checkpoint, Error> {
        Checkpoint::parse(self.note.text())
    }

    /// Decides on a checkpoint whose log signature was verified, given what is recorded for its origin
    /// ([`TreeHead::EMPTY`] when nothing is). On success the checkpoint's head is to be recorded by
    /// compare-and-set, durably, before the cosignature leaves.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies.
    pub fn evaluate(&self, recorded: &TreeHead) -> Result<TreeHead, Refusal> {
        let head = *self.checkpoint().map_err(Refusal::Inconsistent)?.head();
        if self.old_size > head.size {
            return Err(Refusal::OldSizeTooLarge);
        }
        if self.old_size != recorded.size {
            return Err(Refusal::Conflict { recorded: recorded.size });
        }
        if head.size == 0 && head.root != EMPTY_ROOT {
            return Err(Refusal::Inconsistent(Error::RootMismatch { head }));
        }
        self.proof.verify(recorded, &head).map_err(Refusal::Inconsistent)?;
        Ok(head)
    }
}

/// Body of `POST <prefix>/sign-subtree`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignSubtreeRequest {
    /// The subtree.
    pub subtree: Subtree,
    /// Its hash.
    pub hash: Hash,
    /// Proof that it is part of the checkpoint's tree.
    pub proof: SubtreeProof,
    /// A checkpoint with a cosignature of the witness that is asked, not verified yet.
    pub note: Note,
}

impl SignSubtreeRequest {
    /// Reads a body; the note's text is parsed as a checkpoint too.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`], [`Error::InvalidSubtree`], [`Error::SizeTooLarge`]: status 400.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let (header, note) = split(body)?;
        let mut lines = header.split('\n');
        let (start, end) = lines
            .next()
            .and_then(|line| line.strip_prefix("subtree "))
            .and_then(|line| line.split_once(' '))
            .and_then(|(start, end)| Some((decimal::parse(start)?, decimal::parse(end)?)))
            .ok_or_else(|| Error::malformed("request does not begin with the subtree", 0))?;
        let subtree = Subtree::new(start, end)?;
        let hash = Hash::from_base64(lines.next().unwrap_or_default())?;
        Ok(Self { subtree, hash, proof: SubtreeProof { path: hashes(lines)? }, note })
    }

    /// The body.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (start, end) = (self.subtree.start(), self.subtree.end());
        body(
            alloc::format!("subtree {start} {end}\n{}\n", self.hash.to_base64()),
            &self.proof.path,
            &self.note,
        )
    }
}

/// Body of a 409 answer: the recorded size.
#[must_use]
pub fn size_body(recorded: u64) -> String {
    alloc::format!("{recorded}\n")
}

/// Reads the body of a 409 answer.
///
/// # Errors
/// [`Error::Malformed`].
pub fn parse_size_body(body: &str) -> Result<u64, Error> {
    body.strip_suffix('\n')
        .and_then(decimal::parse)
        .ok_or_else(|| Error::malformed("body is not a decimal and a newline", 0))
}

/// Header without its last newline, and the note after the first empty line.
fn split(body: &[u8]) -> Result<(&str, Note), Error> {
    if body.len() > MAX_REQUEST_SIZE {
        return Err(Error::TooLarge { what: "witness request", limit: MAX_REQUEST_SIZE });
    }
    let text = core::str::from_utf8(body)
        .map_err(|error| Error::malformed("witness request is not UTF-8", error.valid_up_to()))?;
    let (header, note) = text
        .split_once("\n\n")
        .ok_or_else(|| Error::malformed("witness request has no empty line after its header", text.len()))?;
    let note = Note::parse(note.as_bytes())?;
    Checkpoint::parse(note.text())?;
    Ok((header, note))
}

pub(crate) fn hashes<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Hash>, Error> {
    let mut hashes = Vec::new();
    for line in lines {
        if hashes.len() == MAX_PROOF_HASHES {
            return Err(Error::TooLarge { what: "proof", limit: MAX_PROOF_HASHES });
        }
        hashes.push(Hash::from_base64(line)?);
    }
    Ok(hashes)
}

fn body(mut header: String, hashes: &[Hash], note: &Note) -> Vec<u8> {
    for hash in hashes {
        // Writing to a string cannot fail.
        let _ = writeln!(header, "{}", hash.to_base64());
    }
    let _ = write!(header, "\n{note}");
    header.into_bytes()
}
