//! Finds entries by digest, identity, publisher, serial and type, in a derived SQLite index.
//!
//! A follower fills it from published entries. Every answer says how much of the log the index covers, and every entry is
//! read from the log and checked to have the term before it is shown: the index only suggests. Nor does an answer claim to
//! cover anything before the whole index was read and found as it was written; that is repeated while the server runs, and
//! an index that is not is made anew. `transparency-log index` makes it anew as well; so does deleting the file, and
//! finding that it was made from another tree.

mod index_file;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use log_store::{LogKind, Publication};
use serde_json::{Value, json};
use service::{Problem, StartRefusal};
use tlog::hash::TreeHead;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::api::{Handled, evidence, json as json_answer, of_store, parameter, published};
use crate::logs::ServedLog;
use crate::settings::Settings;
use crate::terms::{self, Term, TermKind};
pub(crate) use index_file::IndexError;
use index_file::{Covered, IndexFile, Opening, TermSum, Verification};

/// Entries per transaction.
const STEP: u64 = 1000;
/// Pause when there is nothing more.
const PAUSE: Duration = Duration::from_millis(100);
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

/// The index of one log.
#[derive(Debug)]
pub(crate) struct Lookup {
    file: IndexFile,
    covered: AtomicU64,
    /// How often the file was begun anew: what a search found in two files covers nothing.
    begun: AtomicU64,
    /// Searches that may run at once.
    turns: Semaphore,
}

impl Lookup {
    /// Opens or makes the index file.
    pub(crate) async fn open(path: &Path) -> Result<Self, StartRefusal> {
        let file = IndexFile::open(path, Opening::Serve).await.map_err(|error| unusable(path, error))?;
        Ok(Self {
            file,
            covered: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            turns: Semaphore::new(SEARCHES),
        })
    }

    /// Entries of the log that the index holds, as was verified since the start.
    pub(crate) fn covered(&self) -> u64 {
        self.covered.load(Ordering::Acquire)
    }

    /// Follows a log until the task is dropped.
    pub(crate) async fn follow(log: Arc<ServedLog>) {
        let Some(lookup) = &log.lookup else { return };
        let mut follower = loop {
            match lookup.resume(&log).await {
                Ok(sum) => break Follower { lookup, log: &log, sum, check: None, pauses: 0 },
                Err(error) => lookup.recover(&log, &error).await,
            }
        };
        loop {
            if let Err(error) = follower.advance().await {
                lookup.recover(&log, &error).await;
                if matches!(error, IndexError::Damaged(_)) {
                    follower =
                        Follower { lookup, log: &log, sum: TermSum::default(), check: None, pauses: 0 };
                }
            }
        }
    }

    /// Begins a damaged index anew, and waits after a failure.
    async fn recover(&self, log: &ServedLog, error: &IndexError) {
        let log = &log.settings.name;
        if matches!(error, IndexError::Damaged(_)) {
            tracing::error!(log, %error, "the lookup index is damaged; making it anew from the log");
            while let Err(error) = self.start_over().await {
                tracing::error!(log, %error, "the lookup index cannot be made anew");
                tokio::time::sleep(PAUSE * 100).await;
            }
        } else {
            tracing::error!(log, %error, "the lookup index cannot be read or written");
            tokio::time::sleep(PAUSE * 100).await;
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
        let why = if same_tree { "has no sum of its terms" } else { "was made from another tree" };
        tracing::warn!(log = log.settings.name, size, "the lookup index {why}; rebuilding it");
        self.start_over().await?;
        Ok(TermSum::default())
    }

    /// Begins the file anew. Searches that are under way see that it was.
    async fn start_over(&self) -> Result<(), IndexError> {
        self.covered.store(0, Ordering::Release);
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.file.start_over().await
    }

    /// Entries that may have a term, from an index on: a page of them.
    pub(crate) async fn candidates(
        &self,
        kind: TermKind,
        key: &[u8],
        from: u64,
    ) -> Result<Vec<u64>, Problem> {
        self.file.candidates(kind, key, from, PAGE).await.map_err(Problem::internal)
    }
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

/// Compares the index of a log that is not running with its entries.
#[derive(Debug)]
pub(crate) struct IndexCheck {
    file: IndexFile,
    covered: Covered,
    kind: LogKind,
    /// What the terms of the entries add up to.
    sum: TermSum,
    entries: u64,
}

impl IndexCheck {
    /// Opens the index file, if there is one that covers anything; nothing is changed.
    pub(crate) async fn begin(path: &Path, kind: LogKind) -> Result<Option<Self>, IndexError> {
        if !path.exists() {
            return Ok(None);
        }
        let file = IndexFile::open(path, Opening::Read).await?;
        let Some(covered) = file.covered().await? else { return Ok(None) };
        Ok(Some(Self { file, covered, kind, sum: TermSum::default(), entries: 0 }))
    }

    /// Takes the next entry of the log.
    pub(crate) fn add(&mut self, index: u64, stored: &[u8]) {
        self.entries = self.entries.max(index.saturating_add(1));
        if index < self.covered.size {
            // Only a number that no log reaches is refused.
            let _ = self.sum.add_entry(index, terms::terms(self.kind, stored));
        }
    }

    /// Reads the index, and returns how many entries it covers.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] when it does not have exactly their terms.
    pub(crate) async fn finish(self) -> Result<u64, IndexError> {
        let size = self.covered.size;
        let checked = if size > self.entries {
            Err(IndexError::Damaged(format!("it covers {size} entries, and the log has {}", self.entries)))
        } else if self.covered.terms != Some(self.sum) {
            Err(IndexError::Damaged("its sum is not that of the entries' terms".to_owned()))
        } else {
            Verification::new(size, self.sum).finish(&self.file).await
        };
        self.file.close().await;
        checked.map(|()| size)
    }
}

/// A new index file that is filled from the first entry on.
#[derive(Debug)]
pub(crate) struct Rebuild {
    file: IndexFile,
    pending: Vec<(u64, Vec<Term>)>,
    sum: TermSum,
}

impl Rebuild {
    /// Makes the file, which must not exist.
    pub(crate) async fn begin(path: &Path) -> Result<Self, StartRefusal> {
        let file = IndexFile::open(path, Opening::New).await.map_err(|error| {
            StartRefusal::new(format!("cannot make {}", path.display()), "check the folder's permissions")
                .because(error)
        })?;
        Ok(Self { file, pending: Vec::new(), sum: TermSum::default() })
    }

    /// Takes the terms of the next entry.
    pub(crate) fn add(&mut self, index: u64, terms: Vec<Term>) {
        self.pending.push((index, terms));
    }

    /// Writes what was added.
    pub(crate) async fn flush(&mut self) -> Result<(), IndexError> {
        self.sum = self.file.insert(std::mem::take(&mut self.pending), self.sum, None).await?;
        Ok(())
    }

    /// Writes the rest and what the index covers.
    pub(crate) async fn finish(self, tree: &TreeHead) -> Result<(), IndexError> {
        self.file.insert(self.pending, self.sum, Some(tree)).await?;
        self.file.close().await;
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> IndexError {
    IndexError::Failed(error.to_string())
}

/// `GET <base>/api/v1/lookup?digest=HEX|identity=TEXT|publisher=TEXT|serial=HEX|type=TEXT[&from=N]`: entries with fresh
/// proofs, oldest first; `next` says where to go on.
pub(crate) async fn answer(log: &Arc<ServedLog>, query: &str) -> Handled {
    let lookup = log.lookup.as_ref().ok_or_else(|| Problem::not_found("this log has no lookup index"))?;
    let (kind, key) = term(query)?;
    let from = match parameter(query, "from")? {
        Some(text) => {
            text.parse().map_err(|_| Problem::bad_request("malformed", "from is not a decimal number"))?
        }
        None => 0,
    };
    let _turn = tokio::time::timeout(TURN, lookup.turns.acquire())
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| Problem::unavailable("busy", 1).with_detail("too many searches at once"))?;
    // Before the search, so that the answer never claims more than was looked at.
    let (begun, covered) = (lookup.begun.load(Ordering::Acquire), lookup.covered());
    let publication = published(log)?;
    let candidates = lookup.candidates(kind, &key, from).await?;
    let covered = if lookup.begun.load(Ordering::Acquire) == begun { covered } else { 0 };
    let next = match candidates.last() {
        Some(last) if u32::try_from(candidates.len()) == Ok(PAGE) => Value::from(last + 1),
        _ => Value::Null,
    };
    let size = publication.tree().size;
    let reader = log.clone();
    // Up to a page of entries and proofs is read from disk: not on the threads that answer writers.
    let read = move || {
        let checked = candidates.into_iter().map(|index| checked(&reader, index, kind, &key, &publication));
        checked.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()
    };
    let entries = tokio::task::spawn_blocking(read).await.map_err(Problem::internal)??;
    Ok(json_answer(
        StatusCode::OK,
        &json!({ "covered_size": covered, "tree_size": size, "entries": entries, "next": next }),
    ))
}

/// The entry, if it is published and really has the term.
fn checked(
    log: &ServedLog,
    index: u64,
    kind: TermKind,
    key: &[u8],
    publication: &Publication,
) -> Result<Option<Value>, Problem> {
    if index >= publication.tree().size {
        return Ok(None);
    }
    let stored = log.log.entry(index, publication).map_err(of_store)?;
    if !terms::terms(log.kind, &stored).iter().any(|(found, term)| *found == kind && term == key) {
        tracing::warn!(
            log = log.settings.name,
            index,
            "the lookup index names an entry that does not have the term"
        );
        return Ok(None);
    }
    let json = evidence(log, index, stored, publication)?.to_json().map_err(Problem::internal)?;
    serde_json::from_slice(&json).map(Some).map_err(Problem::internal)
}

fn term(query: &str) -> Result<(TermKind, Vec<u8>), Problem> {
    let malformed = |detail: &str| Problem::bad_request("malformed", detail.to_owned());
    let mut found = None;
    for (name, kind) in [
        ("digest", TermKind::Digest),
        ("identity", TermKind::Identity),
        ("publisher", TermKind::Publisher),
        ("serial", TermKind::Serial),
        ("type", TermKind::Type),
    ] {
        if let Some(text) = parameter(query, name)? {
            if found.is_some() || text.is_empty() {
                return Err(malformed("give exactly one of digest, identity, publisher, serial and type"));
            }
            let hex = || {
                let digits = text.strip_prefix("sha256:").unwrap_or(&text).replace(':', "");
                let even = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
                hex::decode(even).map_err(|_| malformed("digests and serials are hexadecimal"))
            };
            found = Some(match kind {
                TermKind::Digest => (kind, hex()?),
                TermKind::Serial => (kind, terms::serial(&hex()?)),
                _ => (kind, text.into_bytes()),
            });
        }
    }
    found.ok_or_else(|| malformed("give one of digest, identity, publisher, serial and type"))
}
