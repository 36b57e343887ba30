//! Cosignatures (C2SP tlog-cosignature): the bytes that witnesses, and logs with ML-DSA-44, sign.
//!
//! Both types put a u64 time (POSIX seconds) in front of the signature. An Ed25519 cosignature (0x04) covers the
//! whole checkpoint text, an ML-DSA-44 one (0x06) a statement about a subtree: for a checkpoint the subtree
//! `[0, size)`.

use alloc::vec::Vec;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::hash::{HASH_SIZE, Hash, MAX_SIZE};
use crate::subtree::Subtree;

/// Longest name of a cosigner or origin in a subtree statement.
pub const MAX_NAME_SIZE: usize = 255;

const SUBTREE_LABEL: &[u8; 12] = b"subtree/v1\n\0";

/// Time and signature: the body of lines of type 0x04 and 0x06.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimestampedSignature {
    /// POSIX time in seconds, at most 2^63-1.
    pub time: u64,
    /// The signature proper: 64 bytes for Ed25519, 2420 for ML-DSA-44.
    pub signature: Vec<u8>,
}

impl TimestampedSignature {
    /// Reads a body.
    ///
    /// # Errors
    /// [`Error::Malformed`] when there is no signature after the time, [`Error::SizeTooLarge`] for the time.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        match body.split_first_chunk::<8>() {
            Some((time, signature)) if !signature.is_empty() => {
                let time = u64::from_be_bytes(*time);
                if time > MAX_SIZE {
                    return Err(Error::SizeTooLarge { value: time });
                }
                Ok(Self { time, signature: signature.to_vec() })
            }
            _ => Err(Error::malformed("cosignature is shorter than its time", body.len())),
        }
    }

    /// The body: what follows the key ID in a signature line.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.time.to_be_bytes(), self.signature.as_slice()].concat()
    }
}

/// The bytes an Ed25519 cosignature (0x04) signs: header, time, and the whole note text.
#[must_use]
pub fn v1_message(time: u64, checkpoint_text: &str) -> Vec<u8> {
    alloc::format!("cosignature/v1\ntime {time}\n{checkpoint_text}").into_bytes()
}

/// What an ML-DSA-44 cosignature (0x06) says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SubtreeStatement<'a> {
    /// Name of the key that signs: the log's origin or a witness.
    pub cosigner: &'a str,
    /// POSIX seconds; 0 makes no statement that this is the largest tree seen.
    pub time: u64,
    /// Origin of the log.
    pub origin: &'a str,
    /// First leaf.
    pub start: u64,
    /// One past the last leaf.
    pub end: u64,
    /// Hash of the subtree; for a checkpoint the root.
    pub hash: Hash,
}

impl<'a> SubtreeStatement<'a> {
    /// The statement about the whole tree of a checkpoint.
    #[must_use]
    pub fn of_checkpoint(cosigner: &'a str, time: u64, checkpoint: &'a Checkpoint) -> Self {
        let head = checkpoint.head();
        Self { cosigner, time, origin: checkpoint.origin(), start: 0, end: head.size, hash: head.root }
    }

    /// The bytes that are signed.
    ///
    /// # Errors
    /// [`Error::Malformed`] when a name is empty, longer than 255 bytes or holds a newline, or a time is given
    /// for a subtree that does not start at 0; [`Error::InvalidSubtree`]; [`Error::SizeTooLarge`].
    pub fn message(&self) -> Result<Vec<u8>, Error> {
        if self.time > MAX_SIZE {
            return Err(Error::SizeTooLarge { value: self.time });
        }
        if self.start != 0 && self.time != 0 {
            return Err(Error::malformed("a cosigned subtree that does not start at 0 has time 0", 0));
        }
        Subtree::new(self.start, self.end)?;
        let mut message = Vec::with_capacity(
            SUBTREE_LABEL.len() + 26 + self.cosigner.len() + self.origin.len() + HASH_SIZE,
        );
        message.extend_from_slice(SUBTREE_LABEL);
        push_name(&mut message, self.cosigner)?;
        message.extend_from_slice(&self.time.to_be_bytes());
        push_name(&mut message, self.origin)?;
        message.extend_from_slice(&self.start.to_be_bytes());
        message.extend_from_slice(&self.end.to_be_bytes());
        message.extend_from_slice(self.hash.as_bytes());
        Ok(message)
    }
}

fn push_name(message: &mut Vec<u8>, name: &str) -> Result<(), Error> {
    match u8::try_from(name.len()) {
        Ok(length) if length > 0 && !name.contains('\n') => {
            message.push(length);
            message.extend_from_slice(name.as_bytes());
            Ok(())
        }
        _ => Err(Error::malformed("a cosigned name has 1 to 255 bytes and no newline", 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::TreeHead;
    use alloc::string::ToString as _;

    #[test]
    fn signed_bytes_are_frozen() {
        let head = TreeHead { size: 0x0102, root: Hash([0xab; 32]) };
        let checkpoint = Checkpoint::new("log.example", head).unwrap();
        let root = Hash([0xab; 32]).to_base64();
        assert_eq!(
            v1_message(1_700_000_000, &checkpoint.to_string()),
            alloc::format!("cosignature/v1\ntime 1700000000\nlog.example\n258\n{root}\n").into_bytes()
        );
        let message =
            SubtreeStatement::of_checkpoint("w.example", 0x6553_f100, &checkpoint).message().unwrap();
        let expected = [
            b"subtree/v1\n\0".as_slice(),
            b"\x09w.example",
            b"\0\0\0\0\x65\x53\xf1\0",
            b"\x0blog.example",
            &[0; 8],
            b"\0\0\0\0\0\0\x01\x02",
            &[0xab; 32],
        ]
        .concat();
        assert_eq!(message, expected);
    }

    #[test]
    fn refuses_statements_the_specification_does_not_allow() {
        let good =
            SubtreeStatement { cosigner: "w", time: 0, origin: "o", start: 4, end: 8, hash: Hash([0; 32]) };
        assert!(good.message().is_ok());
        let long = "n".repeat(256);
        for bad in [
            SubtreeStatement { time: 1, ..good },
            SubtreeStatement { cosigner: "", ..good },
            SubtreeStatement { origin: "a\nb", ..good },
            SubtreeStatement { cosigner: &long, ..good },
            SubtreeStatement { end: 9, ..good },
            SubtreeStatement { start: 0, time: MAX_SIZE + 1, ..good },
        ] {
            assert!(bad.message().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bodies_need_a_signature_and_a_possible_time() {
        assert_eq!(TimestampedSignature::parse(&[0; 8]).unwrap_err().code(), "malformed");
        assert_eq!(TimestampedSignature::parse(&[0xff; 9]).unwrap_err().code(), "size_too_large");
        let body = [0, 0, 0, 0, 0, 0, 0, 7, 1, 2];
        let parsed = TimestampedSignature::parse(&body).unwrap();
        assert_eq!(parsed, TimestampedSignature { time: 7, signature: alloc::vec![1, 2] });
        assert_eq!(parsed.to_bytes(), body);
    }
}
