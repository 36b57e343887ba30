//! How far an executor's audit log reached, said in its receipt log.
//!
//! The chain of an audit log has no key: whoever may write the file may shorten it and its head, or write all of it anew. A
//! receipt log has checkpoints, and heads of it stand in the event log. So each receipt names the last durable audit record at
//! its time, and an entry of its own does where records come without receipts. The newest of them is enough: it fixes every
//! record before it.

use serde::{Deserialize, Serialize};

use crate::audit::AuditHead;

/// The only value of [`AttestedHead::format`].
pub const FORMAT: &str = "mentat-audit-head-v1";

/// An entry of the receipt log that says nothing else. Members in alphabetical order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestedHead {
    /// Hash of that record, lower-case hexadecimal.
    pub audit_hash: String,
    /// Sequence of the last durable record of the audit log.
    pub audit_sequence: u64,
    /// [`FORMAT`].
    pub format: String,
    /// When, Unix milliseconds.
    pub time_ms: u64,
}

impl AttestedHead {
    /// An entry about this head.
    #[must_use]
    pub fn of(head: &AuditHead, time_ms: u64) -> Self {
        Self {
            audit_hash: hex::encode(head.hash),
            audit_sequence: head.sequence,
            format: FORMAT.to_owned(),
            time_ms,
        }
    }
}

/// The two members, wherever they stand.
#[derive(Deserialize)]
struct Members {
    audit_hash: Option<String>,
    audit_sequence: Option<u64>,
}

/// The head that an entry of a receipt log names: a receipt, or an [`AttestedHead`]. Nothing of other entries, and of receipts that were
/// written before there was this.
#[must_use]
pub fn head_of(entry: &[u8]) -> Option<AuditHead> {
    let members: Members = serde_json::from_slice(entry).ok()?;
    let mut hash = [0; 32];
    hex::decode_to_slice(members.audit_hash?, &mut hash).ok()?;
    Some(AuditHead { sequence: members.audit_sequence?, hash })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_form_is_frozen_and_a_head_is_read_from_whatever_names_one() {
        let head = AuditHead { sequence: 7, hash: [0xab; 32] };
        let frozen = format!(
            "{{\"audit_hash\":\"{}\",\"audit_sequence\":7,\"format\":\"mentat-audit-head-v1\",\"time_ms\":9}}",
            "ab".repeat(32)
        );
        assert_eq!(serde_json::to_string(&AttestedHead::of(&head, 9)).unwrap(), frozen);
        assert_eq!(head_of(frozen.as_bytes()), Some(head));
        let receipt =
            format!("{{\"agent\":\"a\",\"audit_hash\":\"{}\",\"audit_sequence\":7}}", "ab".repeat(32));
        assert_eq!(head_of(receipt.as_bytes()), Some(head));
        for nothing in ["{\"agent\":\"a\"}", "{\"audit_hash\":\"ab\",\"audit_sequence\":7}", "[]", "x"] {
            assert_eq!(head_of(nothing.as_bytes()), None, "{nothing}");
        }
    }
}
