//! Finds entries by digest, identity, publisher, serial and type, in a derived SQLite index.
//!
//! A follower fills it from published entries. Every answer says how much of the log the index covers, and every entry is
//! read from the log and checked to have the term before it is shown: the index only suggests. Nor does an answer claim to
//! cover anything before the whole index was read and found as it was written; that is repeated while the server runs, and
//! an index that is not is made anew. `transparency-log index` makes it anew as well; so does deleting the file, and
//! finding that it was made from another tree.

mod index_file;
mod offline;
mod search;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use service::{Problem, StartRefusal};
use tlog::hash::TreeHead;
use tokio::runtime::Handle;

use crate::api::{OF_ONE, Turns};
use crate::logs::ServedLog;
use crate::settings::Settings;
use crate::terms::{self, TermKind};
use index_file::{Covered, IndexError, IndexFile, Opening, TermSum, Verification};
pub(crate) use offline::{Compared, IndexCheck, Rebuild};
pub(crate) use search::answer;

/// Entries per transaction.
const STEP: u64 = 1000;
/// Pause when there is nothing more.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// Rows that the self-check reads in one pause: a percent of a processor.
const CHECKED_ROWS: u32 = 512;
/// Pauses between two readings of the whole table, ten minutes.
const CHECK_PAUSES: u32 = 6000;
/// Entries in one answer.
const PAGE: u32 = 50;
/// Searches at once. Each may read a page of entries and make their proofs; writers must not notice.
const SEARCHES: usize = 4;
/// Longest wait for one's turn.
const TURN: Duration = Duration::from_secs(5);
/// Half pauses in which the index reaches what was just published, two seconds.
const CATCHING_UP: u32 = 40;

/// The index of one log.
#[derive(Debug)]
pub(crate) struct Lookup {
    file: IndexFile,
    covered: AtomicU64,
    /// How often the file was begun anew: what a search found in two files covers nothing.
    begun: AtomicU64,
    /// Searches that may run at once.
    turns: Turns,
}

/// What a search may claim to have looked at, if the index is still the same when it ends.
#[derive(Debug, Clone, Copy)]
struct Claim {
    begun: u64,
    covered: u64,
}

impl Lookup {
    /// Opens or makes the index file.
    pub(crate) async fn open(path: &Path) -> Result<Self, StartRefusal> {
        let file = IndexFile::open(path, Opening::Serve).await.map_err(|error| unusable(path, error))?;
        Ok(Self {
            file,
            covered: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            turns: Turns::new(SEARCHES, OF_ONE, TURN),
        })
    }

    /// Entries of the log that the index holds, as was verified since the start.
    pub(crate) fn covered(&self) -> u64 {
        self.covered.load(Ordering::Acquire)
    }

    /// Waits until the index covers `size` entries, for a moment only.
    pub(crate) async fn reaches(&self, size: u64) -> bool {
        for _ in 0..CATCHING_UP {
            if self.covered() >= size {
                return true;
            }
            tokio::time::sleep(PAUSE / 2).await;
        }
        self.covered() >= size
    }

    /// Follows a log until the task is dropped.
    pub(crate) async fn follow(log: Arc<ServedLog>) {
        let Some(lookup) = &log.lookup else { return };
        let name = &log.settings.name;
        let mut follower = loop {
            match lookup.resume(&log).await {
                Ok(sum) => break Follower { lookup, log: &log, sum, check: None, pauses: 0 },
                Err(error) => lookup.recover(name, &error, AFTER_FAILURE).await,
            }
        };
        loop {
            if let Err(error) = follower.advance().await {
                lookup.recover(name, &error, AFTER_FAILURE).await;
                if error.demands_a_new_file() {
                    follower =
                        Follower { lookup, log: &log, sum: TermSum::default(), check: None, pauses: 0 };
                }
            }
        }
    }

    /// Begins an index anew that cannot be used as it is, however often that takes; pauses after any other failure.
    async fn recover(&self, log: &str, error: &IndexError, pause: Duration) {
        if !error.demands_a_new_file() {
            tracing::error!(log, %error, "the lookup index cannot be read or written");
            return tokio::time::sleep(pause).await;
        }
        if matches!(error, IndexError::Damaged(_)) {
            tracing::error!(log, %error, "the lookup index is damaged; making it anew from the log");
        } else {
            tracing::warn!(log, %error, "the lookup index is of another time; making it anew from the log");
        }
        while let Err(error) = self.start_over().await {
            tracing::error!(log, %error, "the lookup index cannot be made anew");
            tokio::time::sleep(pause).await;
        }
    }

    /// Finds where the index ends, and reads all of it; one that was made from another tree is emptied.
    async fn resume(&self, log: &Arc<ServedLog>) -> Result<TermSum, IndexError> {
        let Some(Covered { size, root, terms }) = self.file.covered().await? else {
            return Ok(TermSum::default());
        };
        // Only another root means another tree. As long as nothing so large is published nobody can say.
        let publication = loop {
            match log.log.publication() {
                Some(publication) if publication.tree().size >= size => break publication,
                _ => tokio::time::sleep(PAUSE).await,
            }
        };
        let reader = log.clone();
        let expected = tokio::task::spawn_blocking(move || reader.log.root_at(size, &publication));
        let same_tree = expected.await.map_err(failed)?.map_err(failed)?.0.as_slice() == root;
        if let (true, Some(terms)) = (same_tree, terms) {
            Verification::new(size, terms).finish(&self.file).await?;
            self.covered.store(size, Ordering::Release);
            return Ok(terms);
        }
        // Whoever called begins it anew, and goes on trying when that fails.
        let why = if same_tree {
            "has no sum of the terms that are indexed now"
        } else {
            "was made from another tree"
        };
        Err(IndexError::Outdated(format!("of {size} entries: it {why}")))
    }

    /// Begins the file anew. Searches that are under way see that it was.
    async fn start_over(&self) -> Result<(), IndexError> {
        self.covered.store(0, Ordering::Release);
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.file.start_over().await
    }

    /// To be called before a search, so that its answer never claims more than was looked at.
    fn claim(&self) -> Claim {
        Claim { begun: self.begun.load(Ordering::Acquire), covered: self.covered() }
    }

    /// What a search that has ended covers: nothing, if the index was begun anew meanwhile.
    fn upheld(&self, claim: Claim) -> u64 {
        if self.begun.load(Ordering::Acquire) == claim.begun { claim.covered } else { 0 }
    }

    /// Entries that may have a term, from an index on: a page of them; and how many entries of the log were looked at.
    ///
    /// # Errors
    /// 503 while the index is begun anew.
    pub(crate) async fn search(
        &self,
        kind: TermKind,
        key: &[u8],
        from: u64,
    ) -> Result<(Vec<u64>, u64), Problem> {
        let claim = self.claim();
        let candidates = self.file.candidates(kind, key, from, PAGE).await.map_err(|error| match error {
            IndexError::Busy(_) => not_indexed("it is being made anew").with_internal(error),
            error => Problem::internal(error),
        })?;
        Ok((candidates, self.upheld(claim)))
    }
}

/// The log has what the index does not know yet.
pub(crate) fn not_indexed(why: &str) -> Problem {
    Problem::unavailable("not_indexed", 1)
        .with_detail(format!("the lookup index does not cover the log ({why}); repeat the call later"))
}

/// What fills an index and checks it.
struct Follower<'a> {
    lookup: &'a Lookup,
    log: &'a Arc<ServedLog>,
    /// What all terms of the index add up to.
    sum: TermSum,
    check: Option<Verification>,
    /// Since the last reading of the whole table.
    pauses: u32,
}

impl Follower<'_> {
    /// Indexes what there is; when that is little, pauses and checks a part of what is there.
    async fn advance(&mut self) -> Result<(), IndexError> {
        if self.step().await? == STEP {
            return Ok(());
        }
        // What comes meanwhile is indexed together.
        tokio::time::sleep(PAUSE).await;
        self.pauses = self.pauses.saturating_add(1);
        if self.check.is_none() && self.pauses >= CHECK_PAUSES {
            self.check = Some(Verification::new(self.lookup.covered(), self.sum));
        }
        if let Some(check) = &mut self.check
            && check.step(&self.lookup.file, CHECKED_ROWS).await?
        {
            self.check = None;
            self.pauses = 0;
        }
        Ok(())
    }

    /// Indexes the next entries; returns how many.
    async fn step(&mut self) -> Result<u64, IndexError> {
        let Some(publication) = self.log.log.publication() else { return Ok(0) };
        let from = self.lookup.covered();
        let count = publication.tree().size.saturating_sub(from).min(STEP);
        if count == 0 {
            return Ok(0);
        }
        let reader = self.log.clone();
        let (found, root) = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            reader.log.read(from, count, &publication, |index, stored| {
                found.push((index, terms::terms(reader.kind, stored)));
            })?;
            reader.log.root_at(from + count, &publication).map(|root| (found, root))
        })
        .await
        .map_err(failed)?
        .map_err(failed)?;
        let tree = TreeHead { size: from + count, root };
        self.sum = self.lookup.file.insert(found, self.sum, Some(&tree)).await?;
        self.lookup.covered.store(from + count, Ordering::Release);
        Ok(count)
    }
}

/// What the index file of a log says of its size, if there is one: it is made of published entries, so that no smaller
/// log may start beside it.
pub(crate) fn seen(path: &Path, runtime: &Handle) -> Result<Option<(PathBuf, u64)>, StartRefusal> {
    if !path.exists() {
        return Ok(None);
    }
    let covered = runtime.block_on(async {
        let file = IndexFile::open(path, Opening::Serve).await.map_err(IndexError::from)?;
        let covered = file.covered().await;
        file.close().await;
        covered
    });
    let covered = covered.map_err(|error| unusable(path, error))?;
    Ok(covered.map(|covered| (path.to_owned(), covered.size)))
}

fn unusable(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> StartRefusal {
    StartRefusal::new(
        format!("cannot use the lookup index {}", path.display()),
        "delete the file: it is rebuilt from the log",
    )
    .because(error)
}

/// Where the index of a log is.
pub(crate) fn path(settings: &Settings, log: &str) -> PathBuf {
    settings.data.join(log).join("lookup.sqlite")
}

fn failed(error: impl std::fmt::Display) -> IndexError {
    IndexError::Failed(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod tests;
