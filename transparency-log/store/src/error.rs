//! What can go wrong, with the file concerned and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A failure of a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The clock was set back a little; nothing is taken or signed until it is there again. Not fatal.
    #[error("the clock was set back and is {behind_millis} ms behind the log; retry when it is there again")]
    ClockBehind {
        /// By how much, milliseconds.
        behind_millis: u64,
    },
    /// The clock went back far behind a time the log has already used. Fatal: the log stops writing.
    #[error(
        "the clock reads {now_millis} ms, before {last_millis} ms which the log has used already; correct the clock and restart"
    )]
    ClockBackwards {
        /// What the clock says, Unix milliseconds.
        now_millis: u64,
        /// The latest time in the log, Unix milliseconds.
        last_millis: u64,
    },
    /// Stored bytes do not verify.
    #[error("{} is damaged: {detail}", file.display())]
    Damaged {
        /// The file concerned.
        file: PathBuf,
        /// What does not hold.
        detail: String,
    },
    /// No space to accept more; nothing was given an index. Not fatal.
    #[error("no space for new entries in {}; free some or move the log", file.display())]
    DiskFull {
        /// The file that could not grow.
        file: PathBuf,
    },
    /// The log is configured read-only.
    #[error("the log is frozen and takes no more entries")]
    Frozen,
    /// Another writer committed a different successor of the head. Fatal.
    #[error("the head in {} is not the one this process committed last; another process writes this log", file.display())]
    HeadConflict {
        /// The head file.
        file: PathBuf,
    },
    /// A computed head does not follow from the last one. Fatal: nothing is signed.
    #[error("refusing to go from size {old} to size {new}: {detail}")]
    Inconsistent {
        /// Size of the trusted head.
        old: u64,
        /// Size of the computed head.
        new: u64,
        /// What does not hold.
        detail: &'static str,
    },
    /// A call to the operating system failed.
    #[error("cannot {operation} {}: {source}", file.display())]
    Io {
        /// What was tried: `read`, `write`, `sync`, `open`, ...
        operation: &'static str,
        /// The file concerned.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The log has no witness policy, so that nothing of it is ever witnessed.
    #[error("the log has no witness policy; ask for `published`")]
    NoWitnesses,
    /// The entry, tile or size asked for is not (yet) part of the published log.
    #[error("not in the published log")]
    NotFound,
    /// The queue is full; try again later. Not fatal.
    #[error("the log is at capacity; retry in {} s", retry_after.as_secs().max(1))]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The answer did not come in time; the entry may be in the log and a retry finds it there.
    #[error("not {level} within the deadline; a retry answers with the same index")]
    Pending {
        /// What was waited for: `sequenced`, `published` or `witnessed`.
        level: &'static str,
    },
    /// The log refuses to start.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A key could not sign. Publication stops until it can.
    #[error("cannot sign the checkpoint: {0}")]
    Signer(String),
    /// The writer has stopped after a fatal failure; reads go on.
    #[error("the log has stopped accepting entries: {0}; restart the server after the cause is removed")]
    Stopped(String),
    /// The entry is larger than the format allows.
    #[error("entry of {size} bytes; the format allows {limit}")]
    TooLarge {
        /// Bytes submitted.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The witness quorum was not reached, and a witness has recorded a larger tree than the one it was asked about. Nothing
    /// is published as witnessed. Where the larger one is published, asking about the newest helps; else an old copy of the log
    /// was restored.
    #[error("witness quorum not reached: {detail}; a witness has recorded size {recorded}")]
    WitnessAhead {
        /// The largest size that a witness named.
        recorded: u64,
        /// Who cosigned.
        detail: String,
    },
    /// The witness quorum was not reached. Nothing is published without it.
    #[error("witness quorum not reached: {0}")]
    WitnessQuorum(String),
    /// The entry's form does not belong to this kind of log.
    #[error("a {kind} log does not take this form of entry")]
    WrongKind {
        /// The kind of the log.
        kind: &'static str,
    },
}

/// Why a log does not start, or is not repaired. Each variant names the file and the repair; the runbook
/// `docs/operations/log-refusals.md` has a section for each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The clock is behind the log.
    #[error("the clock is {behind_millis} ms behind the last time in {}; correct the clock, then start again", head.display())]
    ClockBehind {
        /// The head file.
        head: PathBuf,
        /// By how much.
        behind_millis: u64,
    },
    /// The second copy of the head is older than what was signed.
    #[error("{} holds size {copy_size}, but size {signed_size} was signed already: an old copy was restored; run `transparency-log repair --config FILE`", copy.display())]
    CopyBehind {
        /// The second copy.
        copy: PathBuf,
        /// Its size.
        copy_size: u64,
        /// The size of the newest stored signed checkpoint.
        signed_size: u64,
    },
    /// Entries that the head covers are missing.
    #[error("{} ends at entry {found}, but the head covers {expected}: the file is older than the head or data was lost; restore the newest backup of the entries, the head stays as it is", entries.display())]
    EntriesMissing {
        /// The entry file.
        entries: PathBuf,
        /// Entries found.
        found: u64,
        /// Entries the head covers.
        expected: u64,
    },
    /// The entries do not hash to the head.
    #[error("the entries in {} do not have the root recorded in {}: {detail}; restore the entries from a backup", entries.display(), head.display())]
    EntriesDiffer {
        /// The entry file.
        entries: PathBuf,
        /// The head file.
        head: PathBuf,
        /// Where they differ.
        detail: String,
    },
    /// A log exists already where a new one should be made.
    #[error("{} exists already; a log is initialised once, nothing was changed", file.display())]
    Exists {
        /// What was found.
        file: PathBuf,
    },
    /// The file belongs to another log or another format version.
    #[error("{} belongs to another log or format ({detail}); check the paths in the configuration", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What differs.
        detail: String,
    },
    /// The head is older than a copy of itself.
    #[error("{} holds size {head_size}, but {} holds size {newer_size}: an old head was restored; run `transparency-log repair --config FILE`", head.display(), newer.display())]
    HeadBehind {
        /// The head file.
        head: PathBuf,
        /// Its size.
        head_size: u64,
        /// The file that knows more.
        newer: PathBuf,
        /// The size there.
        newer_size: u64,
    },
    /// No slot of the head file is intact.
    #[error("{} has no intact slot; run `transparency-log repair --config FILE`", head.display())]
    HeadDamaged {
        /// The head file.
        head: PathBuf,
    },
    /// Head and copy disagree about one size.
    #[error("{} and {} disagree about the tree: {detail}; one of them was altered: compare with a witness's record before any repair", head.display(), other.display())]
    HeadsDiffer {
        /// The head file.
        head: PathBuf,
        /// The other record.
        other: PathBuf,
        /// Where they differ.
        detail: String,
    },
    /// The head file does not exist.
    #[error("{} does not exist; run `transparency-log repair --config FILE`", head.display())]
    HeadMissing {
        /// The head file.
        head: PathBuf,
    },
    /// Neither the head nor its second copy can be read, and the log was started before.
    #[error("neither {} nor {} holds a head, and the entries alone do not say what was acknowledged; restore the newest backup of either, then run `transparency-log repair --config FILE`", head.display(), copy.display())]
    HeadsLost {
        /// The head file.
        head: PathBuf,
        /// The second copy.
        copy: PathBuf,
    },
    /// Another process has the log open.
    #[error("{} is locked: another process writes this log", head.display())]
    Locked {
        /// The head file.
        head: PathBuf,
    },
    /// A record of the entry file is damaged before the head's size.
    #[error("{} is damaged at byte {offset} (entry {index}): {detail}; restore that file from a backup", file.display())]
    RecordDamaged {
        /// The segment file.
        file: PathBuf,
        /// Byte position in that file.
        offset: u64,
        /// The entry expected there.
        index: u64,
        /// What does not hold.
        detail: &'static str,
    },
    /// A derived file does not match the entries.
    #[error("{} does not match the entries ({detail}); delete that file: it is rebuilt from the entries at the next start", file.display())]
    DerivedDamaged {
        /// The derived file.
        file: PathBuf,
        /// What differs.
        detail: String,
    },
}

impl Error {
    pub(crate) fn io(operation: &'static str, file: &Path, source: io::Error) -> Self {
        Self::Io { operation, file: file.to_owned(), source }
    }

    pub(crate) fn damaged(file: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), detail: detail.into() }
    }
}

/// Shorthand of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each; the match makes a new variant an error here until it is added.
    fn every_refusal() -> Vec<Refusal> {
        let (head, copy, file) = (PathBuf::from("HEAD"), PathBuf::from("COPY"), PathBuf::from("FILE"));
        let all = vec![
            Refusal::ClockBehind { head: head.clone(), behind_millis: 1 },
            Refusal::CopyBehind { copy: copy.clone(), copy_size: 1, signed_size: 2 },
            Refusal::EntriesMissing { entries: file.clone(), found: 1, expected: 2 },
            Refusal::EntriesDiffer { entries: file.clone(), head: head.clone(), detail: "x".to_owned() },
            Refusal::Exists { file: file.clone() },
            Refusal::Foreign { file: file.clone(), detail: "x".to_owned() },
            Refusal::HeadBehind { head: head.clone(), head_size: 1, newer: copy.clone(), newer_size: 2 },
            Refusal::HeadDamaged { head: head.clone() },
            Refusal::HeadsDiffer { head: head.clone(), other: copy.clone(), detail: "x".to_owned() },
            Refusal::HeadMissing { head: head.clone() },
            Refusal::HeadsLost { head: head.clone(), copy },
            Refusal::Locked { head },
            Refusal::RecordDamaged { file: file.clone(), offset: 1, index: 2, detail: "x" },
            Refusal::DerivedDamaged { file, detail: "x".to_owned() },
        ];
        for refusal in &all {
            match refusal {
                Refusal::ClockBehind { .. }
                | Refusal::CopyBehind { .. }
                | Refusal::EntriesMissing { .. }
                | Refusal::EntriesDiffer { .. }
                | Refusal::Exists { .. }
                | Refusal::Foreign { .. }
                | Refusal::HeadBehind { .. }
                | Refusal::HeadDamaged { .. }
                | Refusal::HeadsDiffer { .. }
                | Refusal::HeadMissing { .. }
                | Refusal::HeadsLost { .. }
                | Refusal::Locked { .. }
                | Refusal::RecordDamaged { .. }
                | Refusal::DerivedDamaged { .. } => {}
            }
        }
        all
    }

    #[test]
    fn every_refusal_has_one_section_of_the_runbook() {
        let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/log-refusals.md");
        let runbook = std::fs::read_to_string(runbook).unwrap();
        let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        // The words of a heading stand in the message in their order; `…` is what differs.
        let belongs = |section: &str, message: &str| {
            let mut rest = Some(message);
            for part in section.split('…').map(str::trim) {
                rest = rest.and_then(|rest| rest.find(part).and_then(|at| rest.get(at + part.len()..)));
            }
            rest.is_some()
        };
        let mut used = std::collections::BTreeSet::new();
        for refusal in every_refusal() {
            let message = refusal.to_string();
            let found: Vec<_> =
                sections.iter().filter(|section| belongs(section, &message)).copied().collect();
            assert_eq!(found.len(), 1, "{message}: {found:?}");
            used.extend(found);
        }
        assert_eq!(used.len(), sections.len(), "a section that no refusal leads to: {sections:?}");
    }
}
