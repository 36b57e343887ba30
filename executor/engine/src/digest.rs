//! The name of a module: the SHA-256 digest of the bytes that were signed.

use std::fmt;

use sha2::{Digest, Sha256};

/// SHA-256 of a module's bytes exactly as its signer published them.
///
/// Everything that the executor remembers about a module is keyed by this value, never by a name the module
/// or its manifest gives itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleDigest(pub [u8; 32]);

impl ModuleDigest {
    /// Digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits, with or without a leading `sha256:`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("sha256:").unwrap_or(text);
        if text.len() != 64 {
            return None;
        }
        let mut out = [0u8; 32];
        for (slot, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *slot = (nibble(*high)? << 4) | nibble(*low)?;
        }
        Some(Self(out))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for ModuleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ModuleDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_read_back() {
        let digest = ModuleDigest::of(b"abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(ModuleDigest::parse(&digest.to_string()), Some(digest));
        assert_eq!(ModuleDigest::parse(&format!("sha256:{digest}")), Some(digest));
    }

    #[test]
    fn refuses_other_spellings() {
        let upper = ModuleDigest::of(b"abc").to_string().to_uppercase();
        for text in [upper.as_str(), "", "sha256:", "ba78", &"g".repeat(64)] {
            assert_eq!(ModuleDigest::parse(text), None, "{text}");
        }
    }
}
