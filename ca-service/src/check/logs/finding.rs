//! What is wrong between the records and the logs.

use std::fmt;

use serde::Serialize;

/// Findings that are said one by one; of further ones only the number.
const MAX_FINDINGS: usize = 1_000;

/// What kind of thing is wrong. The words are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogFindingCode {
    /// The event log has the hash of an audit record that the trail does not have.
    AnchorMismatch,
    /// What the log serves is not what its checkpoint commits to, is missing, or names a key that did not sign it.
    EntriesInvalid,
    /// An entry about a recorded certificate is not what is recorded.
    EntryDiffers,
    /// A record says that the log has it, and the log does not, or not there.
    EntryMissing,
    /// A key of the authority signed a certificate of which there is no record.
    EntryUnknown,
    /// A record says that the event log has its revocation or anchor, and the log does not, or not there.
    EventMissing,
    /// A copy of the log ends before entries that records name.
    LogBehind,
    /// The log's checkpoint is not signed by its key, or contradicts the one before.
    LogInvalid,
    /// A record names a log of which `check.log_keys` says nothing.
    LogUnknown,
    /// The log does not answer: nothing is known.
    LogUnreachable,
    /// The event log was never told of a revocation.
    RevocationUnlogged,
    /// The event log has a revocation that the authority signed, and the record is not revoked.
    RevocationUnrecorded,
    /// A recorded promise of the log is not about the entry that the log has.
    SctMismatch,
}

impl LogFindingCode {
    /// Whether it says that something could not be compared, not that it is wrong.
    #[must_use]
    pub fn is_silence(self) -> bool {
        matches!(self, Self::LogBehind | Self::LogUnreachable)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogFinding {
    /// Its kind.
    pub code: LogFindingCode,
    /// Origin of the log.
    pub origin: String,
    /// What it is about, for people.
    pub detail: String,
}

/// What was wrong, up to a limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogFindings {
    /// The first ones.
    pub findings: Vec<LogFinding>,
    /// How many more there are.
    pub left_out: u64,
}

impl LogFindings {
    /// Whether nothing was wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    pub(super) fn add(&mut self, code: LogFindingCode, origin: &str, detail: impl fmt::Display) {
        if self.findings.len() >= MAX_FINDINGS {
            self.left_out += 1;
            return;
        }
        self.findings.push(LogFinding { code, origin: origin.to_owned(), detail: detail.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_have_stable_words_and_an_end() {
        let mut found = LogFindings::default();
        for number in 0..MAX_FINDINGS + 3 {
            found.add(LogFindingCode::EntryUnknown, "log.example", number);
        }
        assert_eq!((found.findings.len(), found.left_out), (MAX_FINDINGS, 3));
        assert_eq!(
            serde_json::to_string(&found.findings[7]).unwrap(),
            r#"{"code":"entry_unknown","origin":"log.example","detail":"7"}"#
        );
    }
}
