//! The record in which machine code is kept between runs.
//!
//! ```text
//! record = head artifact tag(32)
//! head   = "MTAR" version(1) kind(u8) digest(32) profile(text) wasmtime(text) target(text)
//!          cpu(text) compatibility(32) length(u64)
//! ```
//!
//! `tag` is HMAC-SHA-256 over head and artifact under a key that only this node's executor holds. The format is
//! here; key and tag are the executor's business. A record is believed only after its tag was recomputed from
//! the very bytes that will be mapped, and its head equals the one expected ([`RecordHead::expect`]).

use crate::fields::{Fields, put_text};
use crate::job::ModuleKind;
use crate::{FormatError, ModuleDigest, ProfileId, limits};

const MAGIC: &[u8; 4] = b"MTAR";
const VERSION: u8 = 1;

/// Size of a record's authentication tag, bytes.
pub const TAG_SIZE: usize = 32;

/// Longest head this format can have, bytes: enough to read before the artifact.
pub const MAX_HEAD: usize = 4096;

/// Everything that must be equal before an artifact may be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHead {
    /// What was compiled.
    pub kind: ModuleKind,
    /// Digest of the module that was compiled.
    pub digest: ModuleDigest,
    /// Name of the settings ([`ProfileId`]).
    pub profile: String,
    /// Exact wasmtime release.
    pub wasmtime: String,
    /// Target triple.
    pub target: String,
    /// Processor features the code may use, as this node reports them.
    pub cpu: String,
    /// The worker's statement of wasmtime's precompile compatibility hash.
    pub compatibility: [u8; 32],
    /// Bytes of the artifact that follows.
    pub length: u64,
}

/// Which field of a record's head differs from what this node would write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cached artifact is for another {field}")]
pub struct HeadMismatch {
    /// The first field that differs.
    pub field: &'static str,
}

impl RecordHead {
    /// The head's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[VERSION, self.kind.to_code()]);
        out.extend_from_slice(&self.digest.0);
        for text in [&self.profile, &self.wasmtime, &self.target, &self.cpu] {
            put_text(&mut out, text);
        }
        out.extend_from_slice(&self.compatibility);
        out.extend_from_slice(&self.length.to_le_bytes());
        out
    }

    /// Reads a head from the start of `bytes`; also returns its length.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), FormatError> {
        let mut fields = Fields::new(bytes);
        fields.header(MAGIC, "artifact record", VERSION)?;
        let kind = ModuleKind::from_code(fields.u8()?).ok_or(FormatError::Field { field: "kind" })?;
        let digest = ModuleDigest(fields.array()?);
        let profile = fields.text("profile")?.to_owned();
        let wasmtime = fields.text("wasmtime")?.to_owned();
        let target = fields.text("target")?.to_owned();
        let cpu = fields.text("cpu")?.to_owned();
        let compatibility = fields.array()?;
        let length = fields.u64()?;
        if length > limits::MAX_ARTIFACT_BYTES as u64 {
            return Err(FormatError::Field { field: "length" });
        }
        let head = Self { kind, digest, profile, wasmtime, target, cpu, compatibility, length };
        Ok((head, fields.offset()))
    }

    /// Compares with what this node needs. The tag has been checked before; this catches a genuine record that
    /// was made for another module, for other settings or by another release.
    pub fn expect(
        &self,
        digest: ModuleDigest,
        kind: ModuleKind,
        profile: ProfileId,
        wasmtime: &str,
        cpu: &str,
    ) -> Result<(), HeadMismatch> {
        let checks = [
            ("digest", self.digest == digest),
            ("kind", self.kind == kind),
            ("profile", self.profile == profile.as_str()),
            ("wasmtime", self.wasmtime == wasmtime),
            ("cpu", self.cpu == cpu),
        ];
        match checks.into_iter().find(|(_, equal)| !equal) {
            Some((field, _)) => Err(HeadMismatch { field }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Profile;

    fn head() -> RecordHead {
        RecordHead {
            kind: ModuleKind::Core,
            digest: ModuleDigest([1; 32]),
            profile: "standard-1".into(),
            wasmtime: "48.0.8".into(),
            target: "x86_64-unknown-linux-gnu".into(),
            cpu: "avx2".into(),
            compatibility: [2; 32],
            length: 5,
        }
    }

    #[test]
    fn head_bytes_are_frozen() {
        let mut expected = b"MTAR\x01\x01".to_vec();
        expected.extend_from_slice(&[1; 32]);
        for text in ["standard-1", "48.0.8", "x86_64-unknown-linux-gnu", "avx2"] {
            expected.extend_from_slice(&(text.len() as u16).to_le_bytes());
            expected.extend_from_slice(text.as_bytes());
        }
        expected.extend_from_slice(&[2; 32]);
        expected.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(head().encode(), expected);
        assert_eq!(RecordHead::decode(&expected), Ok((head(), expected.len())));
        assert!(expected.len() < MAX_HEAD);
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = head().encode();
        for cut in 0..bytes.len() {
            assert!(RecordHead::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn each_field_is_compared() {
        let id = Profile::Standard.id();
        let check = |head: &RecordHead| {
            head.expect(ModuleDigest([1; 32]), ModuleKind::Core, id, "48.0.8", "avx2").map_err(|e| e.field)
        };
        assert_eq!(check(&head()), Ok(()));
        assert_eq!(check(&RecordHead { digest: ModuleDigest([9; 32]), ..head() }), Err("digest"));
        assert_eq!(check(&RecordHead { kind: ModuleKind::Component, ..head() }), Err("kind"));
        assert_eq!(check(&RecordHead { profile: "deterministic-1".into(), ..head() }), Err("profile"));
        assert_eq!(check(&RecordHead { wasmtime: "48.0.9".into(), ..head() }), Err("wasmtime"));
        assert_eq!(check(&RecordHead { cpu: "sse2".into(), ..head() }), Err("cpu"));
    }
}
