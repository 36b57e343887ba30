//! The audit log's form: JSON lines, each of which names the hash of the one before.
//!
//! ```text
//! {"sequence":1,"previous":"00…","timestamp":"…","event_type":"…",…,"hash":"…"}
//! ```
//!
//! `hash` is the last member: SHA-256 over the line's own bytes without `,"hash":"…"`. It is checked on the text as
//! it stands in the file, so that no second implementation of a JSON writer has to agree with the first. `previous`
//! is the hash of the line before, 64 zeros for the first. Sequences start at 1 and leave no gap.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Longest line, bytes. Whoever writes one cuts its texts to fit.
pub const MAX_LINE: usize = 64 << 10;

/// One record, without the chain.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AuditEvent {
    /// What happened: `admission`, `denial`, `agent_execution`, `kill`, `evidence`, `cache_refusal`, `start`, …
    pub event_type: String,
    /// The agent concerned. Shared: it is the same in each record of a release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Arc<AuditAgent>>,
    /// The execution concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<AuditExecution>,
    /// Decisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<AuditSecurity>,
    /// SHA-256 of the trust policy in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Anything else an operator needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The agent of a record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AuditAgent {
    /// Agent id.
    pub id: String,
    /// Version.
    pub version: String,
    /// `wasm`.
    pub runtime: String,
    /// SHA-256 of the module.
    pub digest: String,
    /// Index in the signing log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_index: Option<u64>,
    /// What was verified.
    pub attestation: AuditAttestation,
}

/// The attestation of a record's agent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AuditAttestation {
    /// Whether it was verified.
    pub verified: bool,
    /// Verified signer name.
    pub signer: String,
    /// Trust level.
    pub trust_level: String,
}

/// An execution.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AuditExecution {
    /// Instance name.
    pub instance_id: String,
    /// Capabilities the manifest asks for.
    pub capabilities_requested: Arc<[String]>,
    /// Largest memory, MiB rounded up.
    pub memory_used_mb: u64,
    /// Wall time, milliseconds rounded up.
    pub execution_time_ms: u64,
    /// `success`, `guest_error`, or the reason code of the end.
    pub result: String,
    /// Who called: `administrator:NAME`, `caller:NAME` or `certificate:SUBJECT`; absent where nobody is asked who he is, and for steps
    /// of a pipeline, whose own record has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
}

/// Decisions of a record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AuditSecurity {
    /// What the guest tried against its limits.
    pub sandbox_violations: Vec<String>,
    /// Checks made, or the one that failed.
    pub policy_checks: Vec<String>,
    /// Capabilities granted.
    pub capability_grants: Arc<[String]>,
    /// Capabilities or reasons denied.
    pub capability_denials: Vec<String>,
}

#[derive(Serialize)]
struct Chained<'a> {
    sequence: u64,
    previous: &'a str,
    timestamp: &'a str,
    #[serde(flatten)]
    event: &'a AuditEvent,
}

/// Where a chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditHead {
    /// Sequence of the last record; 0 for an empty log.
    pub sequence: u64,
    /// Its hash; zeros for an empty log.
    pub hash: [u8; 32],
}

/// What is wrong with an audit log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// A line's text does not have the hash it names.
    #[error("record {line} was altered")]
    Altered {
        /// Line number, from 1.
        line: u64,
    },
    /// A record is missing before this line, or lines were reordered.
    #[error("the chain is broken before record {line}")]
    Broken {
        /// Line number, from 1.
        line: u64,
    },
    /// A line is not a record.
    #[error("line {line} is not an audit record")]
    Malformed {
        /// Line number, from 1.
        line: u64,
    },
    /// The record cannot be written as JSON.
    #[error("an audit record cannot be written")]
    Unwritable,
}

impl AuditHead {
    /// The head of an empty log.
    pub const EMPTY: Self = Self { sequence: 0, hash: [0; 32] };

    /// Writes the next record: its line without line break, and the head after it.
    ///
    /// # Errors
    ///
    /// [`AuditError::Unwritable`] for a record longer than [`MAX_LINE`].
    pub fn append(&self, timestamp: &str, event: &AuditEvent) -> Result<(String, Self), AuditError> {
        let sequence = self.sequence.checked_add(1).ok_or(AuditError::Unwritable)?;
        let previous = hex(&self.hash);
        let chained = Chained { sequence, previous: &previous, timestamp, event };
        let mut line = serde_json::to_string(&chained).map_err(|_| AuditError::Unwritable)?;
        let hash: [u8; 32] = Sha256::digest(line.as_bytes()).into();
        if line.pop() != Some('}') || line.len() > MAX_LINE - 80 {
            return Err(AuditError::Unwritable);
        }
        line.push_str(",\"hash\":\"");
        line.push_str(&hex(&hash));
        line.push_str("\"}");
        Ok((line, Self { sequence, hash }))
    }

    /// Checks that `line` (without line break) is the next record; gives the head after it.
    ///
    /// # Errors
    ///
    /// What is wrong with the line.
    pub fn check(&self, line: &str) -> Result<Self, AuditError> {
        #[derive(Deserialize)]
        struct Links {
            sequence: u64,
            previous: String,
        }
        let number = self.sequence.saturating_add(1);
        let malformed = AuditError::Malformed { line: number };
        if line.len() > MAX_LINE {
            return Err(malformed);
        }
        // `,"hash":"` + 64 digits + `"}`
        let cut = line.len().checked_sub(75).ok_or(malformed.clone())?;
        let (body, tail) = line.split_at_checked(cut).ok_or(malformed.clone())?;
        let named =
            tail.strip_prefix(",\"hash\":\"").and_then(|t| t.strip_suffix("\"}")).ok_or(malformed.clone())?;
        let hash: [u8; 32] = Sha256::new().chain_update(body.as_bytes()).chain_update(b"}").finalize().into();
        if named != hex(&hash) {
            return Err(AuditError::Altered { line: number });
        }
        let links: Links = serde_json::from_str(line).map_err(|_| malformed)?;
        if links.sequence != number || links.previous != hex(&self.hash) {
            return Err(AuditError::Broken { line: number });
        }
        Ok(Self { sequence: number, hash })
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Vec<String> {
        let mut head = AuditHead::EMPTY;
        (0..count)
            .map(|index| {
                let event = AuditEvent { event_type: format!("e{index}"), ..AuditEvent::default() };
                let (line, next) = head.append("2030-01-01T00:00:00Z", &event).unwrap();
                head = next;
                line
            })
            .collect()
    }

    fn check(lines: &[String]) -> Result<AuditHead, AuditError> {
        lines.iter().try_fold(AuditHead::EMPTY, |head, line| head.check(line))
    }

    #[test]
    fn the_form_is_frozen() {
        assert_eq!(
            lines(1)[0],
            concat!(
                r#"{"sequence":1,"previous":"0000000000000000000000000000000000000000000000000000000000000000","#,
                r#""timestamp":"2030-01-01T00:00:00Z","event_type":"e0","#,
                r#""hash":"e3d60c0f22bc97467ae3368e8ab627c7d16a5083f808333a8295cc887959e5df"}"#
            )
        );
    }

    #[test]
    fn removed_reordered_and_altered_records_are_found() {
        let good = lines(5);
        assert_eq!(check(&good).unwrap().sequence, 5);
        let mut removed = good.clone();
        removed.remove(2);
        assert_eq!(check(&removed), Err(AuditError::Broken { line: 3 }));
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        assert_eq!(check(&swapped), Err(AuditError::Broken { line: 2 }));
        let mut altered = good.clone();
        altered[3] = altered[3].replace("\"e3\"", "\"e4\"");
        assert_eq!(check(&altered), Err(AuditError::Altered { line: 4 }));
        let mut cut = good;
        cut[4].pop();
        assert_eq!(check(&cut), Err(AuditError::Malformed { line: 5 }));
    }
}
