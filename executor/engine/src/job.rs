//! What the executor says to one compile worker, and what it hears back.
//!
//! A job travels on the worker's standard input, the reply on its standard output; each worker handles one job
//! and exits. All integers are little-endian; texts are a 16-bit length and UTF-8.
//!
//! ```text
//! job   = "MTWJ" version(1) profile(u8) kind(u8) digest(32) length(u64) module
//! reply = "MTWR" version(1) status(u8)
//!         status 0: target(text) compatibility(32) length(u64) artifact
//!         status 1: code(text) detail(text)
//! ```

use crate::fields::{Fields, put_text};
use crate::{FormatError, ModuleDigest, Profile, limits};

const JOB_MAGIC: &[u8; 4] = b"MTWJ";
const REPLY_MAGIC: &[u8; 4] = b"MTWR";
const VERSION: u8 = 1;

/// The two kinds of WebAssembly binaries, told apart by the layer field of their preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModuleKind {
    /// A component (`0d 00 01 00` after the magic).
    Component,
    /// A core module (version 1).
    Core,
}

impl ModuleKind {
    /// Reads the preamble; `None` when the bytes are no WebAssembly binary of a known layer.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.get(..8)? {
            b"\0asm\x01\0\0\0" => Some(Self::Core),
            b"\0asm\x0d\0\x01\0" => Some(Self::Component),
            _ => None,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Core => 1,
            Self::Component => 2,
        }
    }

    pub(crate) const fn to_code(self) -> u8 {
        self.code()
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Core, Self::Component].into_iter().find(|kind| kind.code() == code)
    }
}

/// The fixed-size head of a job; the module's bytes follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobHeader {
    /// Settings to compile under.
    pub profile: Profile,
    /// What the bytes are.
    pub kind: ModuleKind,
    /// Digest the bytes must have; the worker checks it again before it parses.
    pub digest: ModuleDigest,
    /// Number of module bytes that follow.
    pub length: u64,
}

impl JobHeader {
    /// Size of the encoded header, bytes.
    pub const SIZE: usize = 4 + 1 + 1 + 1 + 32 + 8;

    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::SIZE);
        out.extend_from_slice(JOB_MAGIC);
        out.extend_from_slice(&[VERSION, self.profile.code(), self.kind.code()]);
        out.extend_from_slice(&self.digest.0);
        out.extend_from_slice(&self.length.to_le_bytes());
        out
    }

    /// Reads a header of exactly [`Self::SIZE`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        fields.header(JOB_MAGIC, "compile job", VERSION)?;
        let profile = Profile::from_code(fields.u8()?).ok_or(FormatError::Field { field: "profile" })?;
        let kind = ModuleKind::from_code(fields.u8()?).ok_or(FormatError::Field { field: "kind" })?;
        let digest = ModuleDigest(fields.array()?);
        let length = fields.u64()?;
        if length > limits::MAX_MODULE_BYTES as u64 {
            return Err(FormatError::Field { field: "length" });
        }
        match fields.offset() {
            offset if offset == bytes.len() => Ok(Self { profile, kind, digest, length }),
            offset => Err(FormatError::Trailing { offset }),
        }
    }
}

/// Why a worker refused a module. The text form is part of the documented reason codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// The bytes do not have the digest the job names.
    DigestMismatch,
    /// The worker could not do its work (an error of the host, not of the module).
    Internal,
    /// The bytes fail validation under the profile's features.
    InvalidModule,
    /// The bytes are machine code.
    NativeCodeRefused,
}

impl RefusalCode {
    const ALL: [Self; 4] =
        [Self::DigestMismatch, Self::Internal, Self::InvalidModule, Self::NativeCodeRefused];

    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DigestMismatch => "digest_mismatch",
            Self::Internal => "compile_failed",
            Self::InvalidModule => "invalid_module",
            Self::NativeCodeRefused => "native_code_refused",
        }
    }
}

/// What a worker answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The module was compiled.
    Compiled {
        /// Target triple of the code.
        target: &'a str,
        /// SHA-256 over wasmtime's precompile compatibility hash.
        compatibility: [u8; 32],
        /// The artifact's bytes.
        artifact: &'a [u8],
    },
    /// The module was refused.
    Refused {
        /// Why.
        code: RefusalCode,
        /// For the operator: section and offset where they are known.
        detail: &'a str,
    },
}

impl<'a> Reply<'a> {
    /// Everything up to the artifact (which the caller writes after it), or the whole refusal.
    pub fn encode_head(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(REPLY_MAGIC);
        out.push(VERSION);
        match self {
            Self::Compiled { target, compatibility, artifact } => {
                out.push(0);
                put_text(&mut out, target);
                out.extend_from_slice(compatibility);
                out.extend_from_slice(&(artifact.len() as u64).to_le_bytes());
            }
            Self::Refused { code, detail } => {
                out.push(1);
                put_text(&mut out, code.as_str());
                put_text(&mut out, detail);
            }
        }
        out
    }

    /// Reads a whole reply. Its writer handled hostile bytes and is believed in nothing but the bounds.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        fields.header(REPLY_MAGIC, "compile reply", VERSION)?;
        let reply = match fields.u8()? {
            0 => {
                let target = fields.text("target")?;
                let compatibility = fields.array()?;
                let length = usize::try_from(fields.u64()?).unwrap_or(usize::MAX);
                if length > limits::MAX_ARTIFACT_BYTES {
                    return Err(FormatError::Field { field: "length" });
                }
                Self::Compiled { target, compatibility, artifact: fields.bytes(length)? }
            }
            1 => {
                let name = fields.text("code")?;
                let code = RefusalCode::ALL
                    .into_iter()
                    .find(|code| code.as_str() == name)
                    .ok_or(FormatError::Field { field: "code" })?;
                Self::Refused { code, detail: fields.text("detail")? }
            }
            _ => return Err(FormatError::Field { field: "status" }),
        };
        match fields.offset() {
            offset if offset == bytes.len() => Ok(reply),
            offset => Err(FormatError::Trailing { offset }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> JobHeader {
        JobHeader {
            profile: Profile::Standard,
            kind: ModuleKind::Core,
            digest: ModuleDigest([0xab; 32]),
            length: 8,
        }
    }

    #[test]
    fn job_bytes_are_frozen() {
        let mut expected = b"MTWJ\x01\x01\x01".to_vec();
        expected.extend_from_slice(&[0xab; 32]);
        expected.extend_from_slice(&[8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(header().encode(), expected);
        assert_eq!(expected.len(), JobHeader::SIZE);
        assert_eq!(JobHeader::decode(&expected), Ok(header()));
    }

    #[test]
    fn job_of_too_many_bytes_is_refused() {
        let bytes = JobHeader { length: limits::MAX_MODULE_BYTES as u64 + 1, ..header() }.encode();
        assert_eq!(JobHeader::decode(&bytes), Err(FormatError::Field { field: "length" }));
    }

    #[test]
    fn replies_round_trip_and_truncation_is_noticed() {
        let compiled =
            Reply::Compiled { target: "x86_64-unknown-linux-gnu", compatibility: [7; 32], artifact: b"code" };
        let mut bytes = compiled.encode_head();
        bytes.extend_from_slice(b"code");
        assert_eq!(Reply::decode(&bytes), Ok(compiled));
        for cut in 0..bytes.len() {
            assert!(Reply::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        bytes.push(0);
        assert_eq!(Reply::decode(&bytes), Err(FormatError::Trailing { offset: bytes.len() - 1 }));

        let refused = Reply::Refused { code: RefusalCode::InvalidModule, detail: "at offset 9" };
        assert_eq!(Reply::decode(&refused.encode_head()), Ok(refused));
    }

    #[test]
    fn kinds_are_told_apart_by_the_preamble() {
        assert_eq!(ModuleKind::of(b"\0asm\x01\0\0\0rest"), Some(ModuleKind::Core));
        assert_eq!(ModuleKind::of(b"\0asm\x0d\0\x01\0"), Some(ModuleKind::Component));
        assert_eq!(ModuleKind::of(b"\x7fELF\x02\x01\x01\0"), None);
        assert_eq!(ModuleKind::of(b"\0asm"), None);
    }
}
