//! Signed notes (C2SP signed-note): a text and lines of signatures.
//!
//! ```text
//! This is an example message.
//!
//! — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
//! ```
//!
//! The text ends in a newline; the *last* empty line of the file separates it from the signature lines, each an
//! em dash, a space, the key's name, a space and base64 of the key's 4-byte ID followed by the signature.
//!
//! Verification ignores lines of unknown keys (name *and* ID must match), refuses the whole note when a line of a
//! known key fails, and refuses a note without any valid line. Order and number of lines carry no meaning.

mod key;

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use key::{Curve, KeyKind, VerifierKey, verifier_keys};

use crate::error::Error;
use crate::signature::SignatureVerifier;

/// Largest note that is parsed: 64 signature lines of ML-DSA-44 and a text.
pub const MAX_NOTE_SIZE: usize = 256 * 1024;

/// Most signature lines that are parsed. The specification demands at least 16.
pub const MAX_SIGNATURES: usize = 64;

/// What begins every signature line: U+2014 and a space.
const DASH: &str = "\u{2014} ";

/// First four bytes of a hash over name and key: a hint which key to try, no security property.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    /// Eight lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// One signature line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoteSignature {
    name: String,
    key_id: KeyId,
    signature: Vec<u8>,
}

impl NoteSignature {
    /// A line of the key `name` with `key_id`; `signature` is what follows the ID, at least one byte.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the name is not a key name or the signature is empty.
    pub fn new(name: &str, key_id: KeyId, signature: Vec<u8>) -> Result<Self, Error> {
        if !is_key_name(name) {
            return Err(Error::malformed(
                "key name is empty or holds a space, a control character or '+'",
                0,
            ));
        }
        if signature.is_empty() {
            return Err(Error::malformed("signature is empty", 0));
        }
        Ok(Self { name: name.to_string(), key_id, signature })
    }

    /// Name of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// ID of the key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// What follows the key ID; its form depends on the type of the key.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Reads one line without its newline; `at` is its offset, for error messages.
    fn parse_line(line: &str, at: usize) -> Result<Self, Error> {
        let rest = line
            .strip_prefix(DASH)
            .ok_or_else(|| Error::malformed("signature line does not begin with a dash", at))?;
        let (name, body) = rest
            .split_once(' ')
            .ok_or_else(|| Error::malformed("signature line has no space after the name", at))?;
        let bytes = STANDARD.decode(body).map_err(|_| {
            Error::malformed("signature is not canonical base64", at + line.len() - body.len())
        })?;
        match bytes.split_first_chunk::<4>() {
            Some((id, signature)) if !signature.is_empty() && is_key_name(name) => {
                Ok(Self { name: name.to_string(), key_id: KeyId(*id), signature: signature.to_vec() })
            }
            Some((_, signature)) if !signature.is_empty() => {
                Err(Error::malformed("key name is not valid", at))
            }
            _ => Err(Error::malformed("signature has fewer than five bytes", at)),
        }
    }
}

impl fmt::Display for NoteSignature {
    /// The line with its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut body = Vec::with_capacity(4 + self.signature.len());
        body.extend_from_slice(&self.key_id.0);
        body.extend_from_slice(&self.signature);
        writeln!(f, "{DASH}{} {}", self.name, STANDARD.encode(body))
    }
}

/// Reads signature lines alone, as a witness answers them: each ends in a newline.
///
/// # Errors
/// [`Error::TooLarge`] or [`Error::Malformed`].
pub fn parse_signature_lines(text: &str) -> Result<Vec<NoteSignature>, Error> {
    if text.len() > MAX_NOTE_SIZE {
        return Err(Error::TooLarge { what: "signature lines", limit: MAX_NOTE_SIZE });
    }
    signature_lines(text, 0)
}

/// Makes the signature part of one line.
///
/// A signer of a type that carries a time (0x04, 0x05, 0x06) is made for one signature, with its time. The
/// result is the body after the key ID. Implementations SHOULD verify what they signed before they return it.
pub trait NoteSigner: Send + Sync {
    /// Name of the key.
    fn name(&self) -> &str;

    /// ID of the key.
    fn key_id(&self) -> KeyId;

    /// Signs the whole note text, which ends in a newline.
    ///
    /// # Errors
    /// Whatever kept the key from signing. Nothing was signed then.
    fn sign(&self, text: &str) -> Result<Vec<u8>, Box<dyn core::error::Error + Send + Sync>>;
}

/// When a line says it was signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SignedTime {
    /// POSIX time in milliseconds (type 0x05).
    Milliseconds(u64),
    /// POSIX time in seconds (types 0x04 and 0x06).
    Seconds(u64),
}

impl SignedTime {
    /// POSIX time in whole seconds.
    #[must_use]
    pub fn as_seconds(self) -> u64 {
        match self {
            Self::Milliseconds(time) => time / 1000,
            Self::Seconds(time) => time,
        }
    }
}

/// A line that verified; only [`Note::verify`] makes one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VerifiedSignature {
    key: usize,
    name: String,
    key_id: KeyId,
    kind: KeyKind,
    time: Option<SignedTime>,
}

impl VerifiedSignature {
    /// Position of the key in the list that was passed to [`Note::verify`].
    #[must_use]
    pub fn key_index(&self) -> usize {
        self.key
    }

    /// Name of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// ID of the key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Type of the key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// When it was signed, for types that say so. `None` also for a subtree cosignature with time 0, which
    /// makes no statement about the tree being the largest seen.
    #[must_use]
    pub fn time(&self) -> Option<SignedTime> {
        self.time
    }
}

/// A text with signature lines, none of them verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// A note without signatures yet.
    ///
    /// # Errors
    /// [`Error::Malformed`] unless the text ends in a newline and has no other control character;
    /// [`Error::TooLarge`].
    pub fn new(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_NOTE_SIZE {
            return Err(Error::TooLarge { what: "note text", limit: MAX_NOTE_SIZE });
        }
        check_characters(text)?;
        if !text.ends_with('\n') {
            return Err(Error::malformed("note text does not end in a newline", text.len()));
        }
        Ok(Self { text: text.to_string(), signatures: Vec::new() })
    }

    /// Reads text and at least one signature line.
    ///
    /// # Errors
    /// [`Error::TooLarge`] before anything is parsed, [`Error::Malformed`] with the offset.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_NOTE_SIZE {
            return Err(Error::TooLarge { what: "note", limit: MAX_NOTE_SIZE });
        }
        let whole = core::str::from_utf8(bytes)
            .map_err(|error| Error::malformed("note is not UTF-8", error.valid_up_to()))?;
        check_characters(whole)?;
        let split = last_empty_line(whole)
            .ok_or_else(|| Error::malformed("note has no empty line before its signatures", whole.len()))?;
        let (text, rest) = whole.split_at(split + 1);
        let lines = rest.get(1..).unwrap_or_default();
        let signatures = signature_lines(lines, split + 2)?;
        Ok(Self { text: text.to_string(), signatures })
    }

    /// The signed text with its final newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines in their order.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Adds a line at the end.
    pub fn push(&mut self, signature: NoteSignature) {
        self.signatures.push(signature);
    }

    /// Has the text signed and adds the line.
    ///
    /// # Errors
    /// What the signer reports, or [`Error::Malformed`] when its name or signature cannot be a line.
    pub fn sign(&mut self, signer: &dyn NoteSigner) -> Result<(), Box<dyn core::error::Error + Send + Sync>> {
        let body = signer.sign(&self.text)?;
        self.push(NoteSignature::new(signer.name(), signer.key_id(), body)?);
        Ok(())
    }

    /// Verifies every line of a known key and returns those lines. A key may stand for several lines.
    ///
    /// # Errors
    /// [`Error::SignatureInvalid`] when a line of a known key fails, [`Error::NoTrustedSignature`] when there is
    /// no line of a known key.
    pub fn verify(
        &self,
        keys: &[VerifierKey],
        verifier: &dyn SignatureVerifier,
    ) -> Result<Vec<VerifiedSignature>, Error> {
        let mut verified = Vec::new();
        for line in &self.signatures {
            let known =
                keys.iter().enumerate().find(|(_, key)| key.id() == line.key_id && key.name() == line.name);
            if let Some((index, key)) = known {
                let time = key.verify(&self.text, &line.signature, verifier)?;
                verified.push(VerifiedSignature {
                    key: index,
                    name: line.name.clone(),
                    key_id: line.key_id,
                    kind: key.kind(),
                    time,
                });
            }
        }
        if verified.is_empty() { Err(Error::NoTrustedSignature) } else { Ok(verified) }
    }

    /// The note as bytes; [`parse`](Self::parse) reads them back when there is a signature.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| line.fmt(f))
    }
}

/// True for a name that may stand in a signature line: not empty, no Unicode white space, no control
/// character, no `+`.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c < ' ' || c == '+')
}

fn check_characters(text: &str) -> Result<(), Error> {
    let is_bad = |byte: &u8| *byte < b' ' && *byte != b'\n';
    // In blocks without an early end, which the compiler turns into wide comparisons: notes with post-quantum lines are long.
    let any = |block: &[u8]| block.iter().fold(false, |bad, byte| bad | is_bad(byte));
    if !text.as_bytes().chunks(64).any(any) {
        return Ok(());
    }
    let at = text.as_bytes().iter().position(is_bad).unwrap_or_default();
    Err(Error::malformed("note holds a control character", at))
}

/// Offset of the newline before the last empty line.
fn last_empty_line(text: &str) -> Option<usize> {
    let mut after = None;
    text.rmatch_indices('\n').map(|(at, _)| at).find(|at| after.replace(*at) == Some(at + 1))
}

fn signature_lines(text: &str, at: usize) -> Result<Vec<NoteSignature>, Error> {
    let body = text
        .strip_suffix('\n')
        .ok_or_else(|| Error::malformed("signature lines do not end in a newline", at + text.len()))?;
    let mut signatures = Vec::new();
    let mut offset = at;
    for line in body.split('\n') {
        if signatures.len() == MAX_SIGNATURES {
            return Err(Error::TooLarge { what: "signature lines", limit: MAX_SIGNATURES });
        }
        signatures.push(NoteSignature::parse_line(line, offset)?);
        offset += line.len() + 1;
    }
    Ok(signatures)
}
