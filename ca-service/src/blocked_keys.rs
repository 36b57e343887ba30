//! Keys that others reported as compromised or weak (C9; CSBR §6.1.1.3), such as those that Debian's generator made in 2008: whoever has
//! the lists writes them into a file. What this authority revoked for a compromise it knows by its own records.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use service::StartRefusal;

/// Largest file: a line has 65 octets, so about a million keys.
const MAX_FILE: u64 = 64 * 1024 * 1024;
const FIELD: &str = "enrolment.blocked_keys_file";

/// The keys, by the SHA-256 of their SubjectPublicKeyInfo.
#[derive(Debug, Clone, Default)]
pub struct BlockedKeys(Arc<[[u8; 32]]>);

impl BlockedKeys {
    /// Reads a file.
    ///
    /// # Errors
    /// [`StartRefusal`] when it cannot be read, is too large, or has a line that is no digest: a key that is not read is not blocked.
    pub fn read(path: &Path) -> Result<Self, StartRefusal> {
        let refuse = |what: String| {
            StartRefusal::new(
                format!("{FIELD} {}: {what}", path.display()),
                "give a text with the SHA-256 of one SubjectPublicKeyInfo on each line, or leave the field out",
            )
        };
        let mut text = String::new();
        let file = File::open(path).map_err(|error| refuse(error.to_string()))?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|error| refuse(error.to_string()))?;
        if text.len() as u64 > MAX_FILE {
            return Err(refuse(format!("it has more than {MAX_FILE} octets")));
        }
        Self::parse(&text).map_err(|line| refuse(format!("line {line} is no SHA-256")))
    }

    /// The keys of a text, or the number of the first line that is not understood.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut keys = Vec::new();
        for (line, number) in text.lines().zip(1_usize..) {
            let digest = line.split('#').next().unwrap_or_default().trim();
            if digest.is_empty() {
                continue;
            }
            let mut octets = [0; 32];
            hex::decode_to_slice(digest, &mut octets).map_err(|_| number)?;
            keys.push(octets);
        }
        keys.sort_unstable();
        Ok(Self(keys.into()))
    }

    /// Whether a key is among them.
    #[must_use]
    pub fn contains(&self, spki_sha256: &[u8; 32]) -> bool {
        self.0.binary_search(spki_sha256).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_and_everything_else_is_refused_by_its_line() {
        let text = format!("# reported in May\n{}\n\n  {}  # by mail\n", "ab".repeat(32), "CD".repeat(32));
        let keys = BlockedKeys::parse(&text).unwrap();
        assert!(keys.contains(&[0xab; 32]) && keys.contains(&[0xcd; 32]) && !keys.contains(&[0; 32]));
        for (text, line) in [("ab", 1), ("\n\nzz", 3), (&*"ab".repeat(33), 1)] {
            assert_eq!(BlockedKeys::parse(text).unwrap_err(), line);
        }
        assert!(!BlockedKeys::default().contains(&[0; 32]));
    }
}
