//! The transcript of a ceremony: one JSON object per line, each with the hash of the line before.
//!
//! `hash = SHA-256("mentat ceremony 1\n" ‖ sequence ‖ previous ‖ at ‖ len ‖ event ‖ len ‖ detail)`; numbers are big-endian,
//! `sequence` and `at` of eight octets, lengths of four; `detail` is the compact JSON text of the field of that name with
//! its keys in alphabetical order. The first line's `previous` is 32 zero octets.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use ca_pki::UnixTime;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trust_store::sorted_json::SortedJson;

/// Largest transcript that is read, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Position, from 1.
    pub sequence: u64,
    /// Seconds since 1970.
    pub at: i64,
    /// What was done.
    pub event: String,
    /// The particulars.
    pub detail: serde_json::Value,
    /// Hash of the line before, hexadecimal.
    pub previous: String,
    /// Hash of this line, hexadecimal.
    pub hash: String,
}

impl Line {
    fn expected_hash(&self) -> Option<String> {
        let previous: [u8; 32] = hex::decode(&self.previous).ok()?.try_into().ok()?;
        let detail = SortedJson::from(self.detail.clone());
        let mut hasher = Sha256::new();
        hasher.update(b"mentat ceremony 1\n");
        hasher.update(self.sequence.to_be_bytes());
        hasher.update(previous);
        hasher.update(self.at.to_be_bytes());
        for text in [self.event.as_str(), detail.as_str()] {
            hasher.update(u32::try_from(text.len()).ok()?.to_be_bytes());
            hasher.update(text.as_bytes());
        }
        Some(hex::encode(hasher.finalize()))
    }
}

/// A transcript that is being written. Every line is durable when [`Transcript::record`] returns.
pub struct Transcript {
    file: File,
    sequence: u64,
    previous: String,
}

impl Transcript {
    /// Begins a transcript. Never overwrites.
    ///
    /// # Errors
    /// The system's error, also when the file exists.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        // The name says that this ceremony was held: it outlives a power cut like the lines.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(Self { file, sequence: 0, previous: hex::encode([0; 32]) })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// The system's error.
    pub fn record(
        &mut self,
        event: &str,
        mut detail: serde_json::Value,
        at: UnixTime,
    ) -> std::io::Result<()> {
        detail.sort_all_objects();
        let mut line = Line {
            sequence: self.sequence + 1,
            at: at.0,
            event: event.to_owned(),
            detail,
            previous: self.previous.clone(),
            hash: String::new(),
        };
        line.hash =
            line.expected_hash().ok_or_else(|| std::io::Error::other("a transcript line is too long"))?;
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        self.file.sync_all()?;
        self.sequence = line.sequence;
        self.previous = line.hash;
        Ok(())
    }
}

/// Reads a transcript and checks its chain.
///
/// # Errors
/// The system's error, or [`std::io::ErrorKind::InvalidData`] naming the first line that does not follow.
pub fn verify(path: &Path) -> std::io::Result<Vec<Line>> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    let mut lines: Vec<Line> = Vec::new();
    for (index, text) in text.lines().enumerate() {
        let invalid = || {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("line {} does not follow", index + 1),
            )
        };
        let line: Line = serde_json::from_str(text).map_err(|_| invalid())?;
        let (sequence, previous) =
            lines.last().map_or((0, hex::encode([0; 32])), |last| (last.sequence, last.hash.clone()));
        if line.sequence != sequence + 1
            || line.previous != previous
            || line.expected_hash() != Some(line.hash.clone())
        {
            return Err(invalid());
        }
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chained_bytes_are_frozen() {
        let line = Line {
            sequence: 1,
            at: 1_700_000_000,
            event: "key.generated".into(),
            detail: serde_json::json!({"name": "root"}),
            previous: hex::encode([0; 32]),
            hash: String::new(),
        };
        assert_eq!(
            line.expected_hash().unwrap(),
            "d275c0d959183eb34fbd195cd7d86a4d2c8511d4060c3d8abd024d89333c1af6"
        );
    }

    #[test]
    fn the_order_in_which_a_line_names_its_particulars_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ceremony.jsonl");
        let detail =
            serde_json::json!({ "name": "root", "key": { "spki_sha256": "ab", "algorithm": "p384" } });
        Transcript::create(&path).unwrap().record("key.generated", detail, UnixTime(5)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let zeros = "0".repeat(64);
        let hash = "ecbf49bc9eab04ee206d1b55a521fc9bc5908fdb4e09693c19b8dbaeecee4152";
        assert_eq!(
            text,
            format!(
                r#"{{"sequence":1,"at":5,"event":"key.generated","detail":{{"key":{{"algorithm":"p384","spki_sha256":"ab"}},"name":"root"}},"previous":"{zeros}","hash":"{hash}"}}"#
            ) + "\n"
        );
        let sorted = r#"{"key":{"algorithm":"p384","spki_sha256":"ab"},"name":"root"}"#;
        let other = r#"{"name":"root","key":{"spki_sha256":"ab","algorithm":"p384"}}"#;
        std::fs::write(&path, text.replace(sorted, other)).unwrap();
        assert_eq!(verify(&path).unwrap().len(), 1);
    }

    #[test]
    fn an_edited_or_shortened_line_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ceremony.jsonl");
        let mut transcript = Transcript::create(&path).unwrap();
        for name in ["root", "code-signing"] {
            transcript.record("key.generated", serde_json::json!({"name": name}), UnixTime(5)).unwrap();
        }
        assert_eq!(verify(&path).unwrap().len(), 2);
        assert!(Transcript::create(&path).is_err());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("root", "boot", 1)).unwrap();
        assert_eq!(verify(&path).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
        std::fs::write(&path, text.lines().nth(1).unwrap()).unwrap();
        assert!(verify(&path).is_err());
    }
}
