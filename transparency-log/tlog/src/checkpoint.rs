//! Checkpoints (C2SP tlog-checkpoint): a log's origin, tree size and root hash as a signed note.
//!
//! ```text
//! example.com/behind-the-sofa
//! 20852163
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//! ```

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use crate::decimal;
use crate::error::Error;
use crate::hash::{EMPTY_ROOT, Hash, MAX_SIZE, TreeHead};
use crate::note::{Note, SignedTime, VerifiedSignature, VerifierKey};
use crate::signature::SignatureVerifier;

/// The text of a checkpoint: says what a log claims, not that it does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    origin: String,
    head: TreeHead,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// A checkpoint without extension lines, the only kind this product signs.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an empty origin or one with a control character, [`Error::SizeTooLarge`],
    /// [`Error::RootMismatch`] for size 0 with another root than that of the empty tree.
    pub fn new(origin: &str, head: TreeHead) -> Result<Self, Error> {
        if origin.is_empty() || origin.bytes().any(|byte| byte < b' ') {
            return Err(Error::malformed("origin is empty or holds a control character", 0));
        }
        if head.size > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: head.size });
        }
        check_empty(&head)?;
        Ok(Self { origin: origin.to_string(), head, extensions: Vec::new() })
    }

    /// Reads the text of a note. A size of 0 with a wrong root is read: who trusts the checkpoint refuses it
    /// ([`VerifiedCheckpoint::open`]), a witness answers it with its own status.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the offset of the offending line.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let body = text
            .strip_suffix('\n')
            .ok_or_else(|| Error::malformed("checkpoint does not end in a newline", text.len()))?;
        let mut lines = body.split('\n');
        let mut at = 0;
        let mut next = |what| {
            let start = at;
            match lines.next() {
                Some("") => Err(Error::malformed("checkpoint has an empty line", start)),
                Some(line) if line.bytes().any(|byte| byte < b' ') => {
                    Err(Error::malformed("checkpoint holds a control character", start))
                }
                Some(line) => {
                    at += line.len() + 1;
                    Ok((line, start))
                }
                None => Err(Error::malformed(what, start)),
            }
        };
        let (origin, _) = next("checkpoint has no origin")?;
        let (size, size_at) = next("checkpoint has no size")?;
        let (root, root_at) = next("checkpoint has no root hash")?;
        let size = decimal::parse(size)
            .ok_or_else(|| Error::malformed("checkpoint size is not a canonical decimal", size_at))?;
        let root = Hash::from_base64(root)
            .map_err(|_| Error::malformed("checkpoint root is not canonical base64 of 32 bytes", root_at))?;
        let mut extensions = Vec::new();
        for line in lines {
            if line.is_empty() {
                return Err(Error::malformed("checkpoint has an empty extension line", root_at));
            }
            extensions.push(line.to_string());
        }
        Ok(Self { origin: origin.to_string(), head: TreeHead { size, root }, extensions })
    }

    /// Name of the log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Size and root.
    #[must_use]
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// Lines after the root hash: accepted and ignored.
    #[must_use]
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

impl fmt::Display for Checkpoint {
    /// The note text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.head.size, self.head.root.to_base64())?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A checkpoint that a trusted key of its log signed; only [`open`](Self::open) makes one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
    log_signatures: Vec<VerifiedSignature>,
    cosignatures: Vec<VerifiedSignature>,
}

impl VerifiedCheckpoint {
    /// Reads a note, verifies every line of a known key and demands that one of them is the log's: its name is
    /// `origin`, its type one with which logs sign, and `origin` the first line of the text.
    ///
    /// `keys` may hold witness keys as well; their lines are then verified and listed as
    /// [`cosignatures`](Self::cosignatures). Whether they suffice is the business of a
    /// [`Policy`](crate::policy::Policy).
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`], [`Error::OriginMismatch`], [`Error::SignatureInvalid`],
    /// [`Error::NoTrustedSignature`], [`Error::RootMismatch`] for size 0 with a root that is not the empty one.
    pub fn open(
        note: &[u8],
        origin: &str,
        keys: &[VerifierKey],
        verifier: &dyn SignatureVerifier,
    ) -> Result<Self, Error> {
        Self::open_note(Note::parse(note)?, origin, keys, verifier)
    }

    /// As [`open`](Self::open), for a note that was parsed before.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_note(
        note: Note,
        origin: &str,
        keys: &[VerifierKey],
        verifier: &dyn SignatureVerifier,
    ) -> Result<Self, Error> {
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin != origin {
            return Err(Error::OriginMismatch);
        }
        let (mut log_signatures, mut cosignatures) = (Vec::new(), Vec::new());
        for signature in note.verify(keys, verifier)? {
            if signature.name() == origin && signature.kind().signs_checkpoints() {
                log_signatures.push(signature);
            } else if signature.name() != origin && signature.kind().cosigns() {
                cosignatures.push(signature);
            }
        }
        if log_signatures.is_empty() {
            return Err(Error::NoTrustedSignature);
        }
        check_empty(&checkpoint.head)?;
        Ok(Self { checkpoint, note, log_signatures, cosignatures })
    }

    /// Size and root: what every proof is verified against.
    #[must_use]
    pub fn head(&self) -> &TreeHead {
        &self.checkpoint.head
    }

    /// Name of the log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.checkpoint.origin
    }

    /// The checkpoint's text, parsed.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note as it was read, with all its lines.
    #[must_use]
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// Verified lines of the log itself, at least one.
    #[must_use]
    pub fn log_signatures(&self) -> &[VerifiedSignature] {
        &self.log_signatures
    }

    /// Verified lines of witnesses.
    #[must_use]
    pub fn cosignatures(&self) -> &[VerifiedSignature] {
        &self.cosignatures
    }

    /// Latest time in POSIX seconds that a verified line of the log or of a witness carries.
    #[must_use]
    pub fn signed_at(&self) -> Option<u64> {
        self.log_signatures
            .iter()
            .chain(&self.cosignatures)
            .filter_map(|line| line.time().map(SignedTime::as_seconds))
            .max()
    }

    /// Latest time in POSIX seconds that a verified line of the log itself carries (types 0x05 and 0x06).
    #[must_use]
    pub fn log_signed_at(&self) -> Option<u64> {
        self.log_signatures.iter().filter_map(|line| line.time().map(SignedTime::as_seconds)).max()
    }
}

fn check_empty(head: &TreeHead) -> Result<(), Error> {
    if head.size == 0 && head.root != EMPTY_ROOT {
        return Err(Error::RootMismatch { head: *head });
    }
    Ok(())
}
