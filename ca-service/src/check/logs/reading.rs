//! One log as it is read: a verified checkpoint, and entries that are proven to be in its tree.

use std::collections::{BTreeSet, VecDeque};

use futures_util::future::join_all;
use service::exit::one_line;
use tlog_client::{BundleId, Error, TreeHead, VerifiedEntry};
use trust_store::provider::AwsLc;

use super::finding::{LogFindingCode, LogFindings};
use super::source::Source;
use crate::error::CaError;

/// Entries of a bundle.
pub(super) const WIDTH: u64 = 256;
/// Bundles that are read at once.
const AHEAD: usize = 8;
/// Entries between two words about the progress.
const SAID_EVERY: u64 = 100_000;

/// Compares entries with records, one by one.
pub(super) trait Judge {
    /// An entry that is proven to be in a log.
    async fn entry(
        &mut self,
        source: &Source,
        entry: &VerifiedEntry,
        findings: &mut LogFindings,
    ) -> Result<(), CaError>;

    /// Whether the entry of a record was found.
    fn has_found(&self, row: i64) -> bool;
}

/// A log, and how far it was read.
pub(super) struct Log<'a> {
    pub(super) source: &'a Source,
    /// Of the newest verified checkpoint; none where there is none.
    pub(super) head: Option<TreeHead>,
    /// It did not answer, or not to its end: what was not found may be there.
    pub(super) is_silent: bool,
    /// Entries that were read.
    pub(super) entries: u64,
}

impl<'a> Log<'a> {
    /// Fetches the checkpoint.
    pub(super) async fn open(source: &'a Source, findings: &mut LogFindings) -> Self {
        let mut log = Self { source, head: None, is_silent: false, entries: 0 };
        log.head = log.checkpoint(findings).await;
        log
    }

    /// Leaves in the tree; 0 where there is no checkpoint.
    pub(super) fn size(&self) -> u64 {
        self.head.map_or(0, |head| head.size)
    }

    /// Whether what is not found is not there.
    pub(super) fn is_conclusive(&self) -> bool {
        self.head.is_some() && !self.is_silent
    }

    /// Fetches a newer checkpoint, which must extend the present one; whether there was one.
    pub(super) async fn follow(&mut self, findings: &mut LogFindings) -> bool {
        let (Some(known), Some(served)) = (self.head, self.checkpoint(findings).await) else { return false };
        if served.size <= known.size {
            return false;
        }
        match self.source.client.tree(served).consistency_proof(&known).await {
            Ok(_) => {
                self.head = Some(served);
                true
            }
            Err(error) => {
                self.fail(
                    &error,
                    LogFindingCode::LogInvalid,
                    "its checkpoint does not extend the one before",
                    findings,
                );
                false
            }
        }
    }

    /// Reads bundles and hands on what is in them.
    pub(super) async fn read(
        &mut self,
        bundles: BTreeSet<u64>,
        judge: &mut impl Judge,
        findings: &mut LogFindings,
    ) -> Result<(), CaError> {
        let Some(head) = self.head else { return Ok(()) };
        let mut bundles: VecDeque<BundleId> =
            bundles.into_iter().filter_map(|index| BundleId::in_tree(index, head.size)).collect();
        let tree = self.source.client.tree(head);
        while !bundles.is_empty() {
            let some: Vec<BundleId> = bundles.drain(..AHEAD.min(bundles.len())).collect();
            let read = join_all(some.iter().map(|bundle| tree.entries(*bundle, self.source.format()))).await;
            for (bundle, entries) in some.iter().zip(read) {
                let entries = match entries {
                    Ok(entries) => entries,
                    Err(error) => {
                        let what = format!("entries {} and after", bundle.first_entry());
                        self.fail(&error, LogFindingCode::EntriesInvalid, &what, findings);
                        if self.is_silent {
                            return Ok(());
                        }
                        continue;
                    }
                };
                for entry in &entries {
                    judge.entry(self.source, entry, findings).await?;
                    self.entries += 1;
                    if self.entries.is_multiple_of(SAID_EVERY) {
                        let (origin, read) = (&self.source.origin, self.entries);
                        tracing::info!(origin, read, size = head.size, "entries compared");
                    }
                }
            }
        }
        Ok(())
    }

    async fn checkpoint(&mut self, findings: &mut LogFindings) -> Option<TreeHead> {
        let Source { origin, keys, client, .. } = self.source;
        match client.checkpoint(origin, keys, &AwsLc).await {
            Ok(checkpoint) => Some(*checkpoint.head()),
            Err(error) => {
                self.fail(&error, LogFindingCode::LogInvalid, "its checkpoint", findings);
                None
            }
        }
    }

    /// Tells silence from an answer that is wrong.
    fn fail(&mut self, error: &Error, otherwise: LogFindingCode, what: &str, findings: &mut LogFindings) {
        let code = if is_silence(error) { LogFindingCode::LogUnreachable } else { otherwise };
        self.is_silent |= code.is_silence();
        findings.add(code, &self.source.origin, format_args!("{what}: {}", one_line(error)));
    }
}

/// Whether a failure says nothing about what the log holds.
fn is_silence(error: &Error) -> bool {
    match error {
        Error::Transport(_) | Error::Overloaded { .. } | Error::Folder { .. } => true,
        // What a log does not serve of the tree that it signed is missing.
        Error::Status { status, .. } => !matches!(status, 404 | 410),
        _ => false,
    }
}

/// The bundles of a tree.
pub(super) fn every_bundle(size: u64) -> BTreeSet<u64> {
    (0..size.div_ceil(WIDTH)).collect()
}

/// The bundles with these entries, and as many of the others, spread evenly, as have so many entries; always the last.
pub(super) fn some_bundles(size: u64, wanted: &BTreeSet<u64>, entries: u32) -> BTreeSet<u64> {
    let all = size.div_ceil(WIDTH);
    let spread = u64::from(entries).div_ceil(WIDTH).clamp(1, all.max(1));
    let spread = (1..=spread).map(|part| (all.saturating_mul(part) / spread).saturating_sub(1));
    let wanted = wanted.iter().map(|index| index / WIDTH);
    spread.chain(wanted).filter(|bundle| *bundle < all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_all_there_are_or_those_that_are_wanted_some_others_and_the_last() {
        assert_eq!(every_bundle(0), BTreeSet::new());
        assert_eq!(every_bundle(257), BTreeSet::from([0, 1]));
        let some = |size, wanted: &[u64], entries| {
            some_bundles(size, &wanted.iter().copied().collect(), entries).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(some(0, &[3], 10), Vec::<u64>::new());
        assert_eq!(some(300, &[], 1), [1]);
        assert_eq!(some(2560, &[700, 5000], 512), [2, 4, 9]);
        assert_eq!(some(600, &[], u32::MAX), [0, 1, 2]);
    }
}
