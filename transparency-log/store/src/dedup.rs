//! Finds the entry that has a key: exact, with bounded memory.
//!
//! The newest keys stand in an in-memory table of (80-bit prefix, 48-bit index) words. When it is full it is frozen and
//! written by the follower as a sorted run (see [`run`](crate::dedup_run)). A hit only names candidates: the caller
//! re-reads the entry and compares. Everything here is derived; a run that is missing is rebuilt from the tiles.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tlog::hash::Hash;

use crate::dedup_run::{self, Run};
use crate::disk::Disk;
use crate::error::Result;
use crate::kind::EntryKey;

/// Bits of a word that hold the index.
pub(crate) const INDEX_BITS: u32 = 48;
/// Runs that are merged into one of the next size.
const FAN: usize = 8;

/// An open-addressing table of words; zero marks a free slot.
#[derive(Debug)]
pub(crate) struct Table {
    /// Entries `first .. first + count` are in the table.
    first: u64,
    count: u64,
    slots: Vec<u128>,
    used: usize,
}

impl Table {
    pub(crate) fn new(first: u64) -> Self {
        Self { first, count: 0, slots: vec![0; 1024], used: 0 }
    }

    fn insert(&mut self, prefix: u128, index: u64) {
        if self.used * 4 >= self.slots.len() * 3 {
            let larger = vec![0; self.slots.len() * 2];
            let old = std::mem::replace(&mut self.slots, larger);
            for word in old.into_iter().filter(|word| *word != 0) {
                self.place(word);
            }
        }
        self.place(word(prefix, index));
        self.used += 1;
        self.count = index + 1 - self.first;
    }

    fn place(&mut self, word: u128) {
        let mask = self.slots.len() - 1;
        let mut at = slot(word >> INDEX_BITS) & mask;
        while let Some(found) = self.slots.get_mut(at) {
            if *found == 0 {
                *found = word;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn find(&self, prefix: u128, found: &mut Vec<u64>) {
        let mask = self.slots.len() - 1;
        let mut at = slot(prefix) & mask;
        while let Some(word) = self.slots.get(at).filter(|word| **word != 0) {
            if word >> INDEX_BITS == prefix {
                found.push(index_of(*word));
            }
            at = (at + 1) & mask;
        }
    }

    /// Reads the slot at which a search begins.
    fn touch(&self, prefix: u128) -> u64 {
        let word = self.slots.get(slot(prefix) & (self.slots.len() - 1)).copied().unwrap_or_default();
        u64::try_from(word & u128::from(u64::MAX)).unwrap_or_default()
    }

    pub(crate) fn sorted(&self) -> Vec<u128> {
        let mut words: Vec<u128> = self.slots.iter().copied().filter(|word| *word != 0).collect();
        words.sort_unstable();
        words
    }

    /// The entries covered.
    pub(crate) fn range(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.count
    }
}

/// Low bits of the prefix: uniformly distributed, as it is a hash.
fn slot(prefix: u128) -> usize {
    usize::try_from(prefix & 0xffff_ffff).unwrap_or_default()
}

fn word(prefix: u128, index: u64) -> u128 {
    // The index is stored plus one, so that no word is zero.
    prefix << INDEX_BITS | u128::from(index + 1)
}

/// The index in a word.
pub(crate) fn index_of(word: u128) -> u64 {
    u64::try_from(word & ((1 << INDEX_BITS) - 1)).unwrap_or_default().saturating_sub(1)
}

/// Keys of all entries of a log.
#[derive(Debug)]
pub(crate) struct Dedup {
    active: Table,
    frozen: Vec<Arc<Table>>,
    runs: Arc<Vec<Arc<Run>>>,
    /// Entries per table before it is frozen.
    capacity: u64,
}

/// What the follower should do next.
#[derive(Debug)]
pub(crate) enum Work {
    /// Write a table as a run.
    Spill(Arc<Table>),
    /// Merge neighbouring runs.
    Merge(Vec<Arc<Run>>),
}

impl Dedup {
    /// Opens the runs that cover entries `0..n` without a gap and were made from this log, whose root at a size `root_at`
    /// says; the caller inserts the keys from [`covered`](Self::covered) on.
    pub(crate) fn open(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        size: u64,
        capacity: u64,
        root_at: impl Fn(u64) -> Result<Hash>,
    ) -> Result<Self> {
        let runs = dedup_run::open_all(disk, directory, size, root_at)?;
        let covered = runs.last().map_or(0, |run| run.range().end);
        Ok(Self { active: Table::new(covered), frozen: Vec::new(), runs: Arc::new(runs), capacity })
    }

    /// The first entry whose key is not known yet.
    pub(crate) fn covered(&self) -> u64 {
        self.active.range().end
    }

    /// Adds the key of the next entry.
    pub(crate) fn insert(&mut self, key: &EntryKey, index: u64) {
        self.active.insert(key.prefix(), index);
        if self.active.count >= self.capacity {
            let full = std::mem::replace(&mut self.active, Table::new(index + 1));
            self.frozen.push(Arc::new(full));
        }
    }

    /// Indices of entries whose key may be this one.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged) naming the run that does not verify.
    pub(crate) fn candidates(&self, key: &EntryKey) -> Result<Vec<u64>> {
        self.search(key).candidates()
    }

    /// Looks in memory, and says what is left to be read from disk: without the lock that keeps the writer out.
    pub(crate) fn search(&self, key: &EntryKey) -> Search {
        let prefix = key.prefix();
        let mut found = Vec::new();
        self.active.find(prefix, &mut found);
        for table in &self.frozen {
            table.find(prefix, &mut found);
        }
        Search { prefix, found, runs: self.runs.clone() }
    }

    /// Touches the memory that looking these keys up will need. The misses of a whole batch then overlap, instead of being
    /// waited for one by one: that is what keeps appends as fast in a log of many runs as in a small one.
    pub(crate) fn warm(&self, keys: &[EntryKey]) {
        let prefixes: Vec<u128> = keys.iter().map(EntryKey::prefix).collect();
        let mut seen = 0;
        for table in std::iter::once(&self.active).chain(self.frozen.iter().map(|table| &**table)) {
            seen = prefixes.iter().fold(seen, |seen, prefix| seen ^ table.touch(*prefix));
        }
        for run in self.runs.iter() {
            seen = prefixes.iter().fold(seen, |seen, prefix| seen ^ run.touch(*prefix));
        }
        std::hint::black_box(seen);
    }

    /// What there is to do off the writer's path.
    ///
    /// A table whose entries are not all among the first `committed` waits: on disk it would speak of entries that a crash
    /// may replace by others.
    pub(crate) fn work(&self, committed: u64) -> Option<Work> {
        if let Some(table) = self.frozen.first().filter(|table| table.range().end <= committed) {
            return Some(Work::Spill(table.clone()));
        }
        let (first, _) = self.runs.windows(FAN).enumerate().find(|(_, runs)| {
            let tier = |run: &Arc<Run>| (run.range().end - run.range().start).ilog2() / FAN.ilog2();
            runs.first().map(tier) == runs.last().map(tier)
                && runs.windows(2).all(|pair| pair.first().map(tier) == pair.last().map(tier))
        })?;
        Some(Work::Merge(self.runs.get(first..first + FAN)?.to_vec()))
    }

    /// Takes a finished run in place of the table or the runs it was made of.
    pub(crate) fn adopt(&mut self, run: Arc<Run>) {
        let range = run.range();
        self.frozen.retain(|table| table.range() != range);
        let runs = Arc::make_mut(&mut self.runs);
        runs.retain(|old| old.range().start < range.start || old.range().end > range.end);
        runs.push(run);
        runs.sort_by_key(|run| run.range().start);
    }
}

/// A search for one key, with what was found in memory.
#[derive(Debug)]
pub(crate) struct Search {
    prefix: u128,
    found: Vec<u64>,
    runs: Arc<Vec<Arc<Run>>>,
}

impl Search {
    /// Indices of entries whose key may be the one that is looked for.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged) naming the run that does not verify.
    pub(crate) fn candidates(mut self) -> Result<Vec<u64>> {
        for run in self.runs.iter() {
            run.find(self.prefix, &mut self.found)?;
        }
        Ok(self.found)
    }
}

/// Does the work and returns the run, with the files it replaces. `root_at` is the log's root at a size.
pub(crate) fn perform(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    work: &Work,
    root_at: impl Fn(u64) -> Result<Hash>,
) -> Result<(Arc<Run>, Vec<PathBuf>)> {
    match work {
        Work::Spill(table) => {
            let (range, words) = (table.range(), table.sorted().into_iter().map(Ok));
            let run = dedup_run::write(disk, directory, range.clone(), &root_at(range.end)?, words)?;
            Ok((run, Vec::new()))
        }
        Work::Merge(runs) => {
            let run = dedup_run::merge(disk, directory, runs)?;
            Ok((run, runs.iter().map(|run| run.path().to_owned()).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::OsDisk;
    use tlog::hash::leaf_hash;

    fn key(i: u64) -> EntryKey {
        leaf_hash(&i.to_be_bytes()).into()
    }

    /// A root for each size.
    fn root(size: u64) -> Result<Hash> {
        Ok(Hash::digest(&size.to_be_bytes()))
    }

    #[test]
    fn finds_every_key_through_tables_runs_merges_and_a_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let mut dedup = Dedup::open(&disk, dir.path(), 0, 100, root).unwrap();
        for i in 0..2050 {
            assert_eq!(dedup.candidates(&key(i)).unwrap(), Vec::<u64>::new());
            dedup.insert(&key(i), i);
            if i % 3 == 0
                && let Some(work) = dedup.work(i + 1)
            {
                let (run, replaced) = perform(&disk, dir.path(), &work, root).unwrap();
                dedup.adopt(run);
                for path in replaced {
                    disk.remove(&path).unwrap();
                }
            }
        }
        while let Some(work) = dedup.work(2050) {
            let (run, replaced) = perform(&disk, dir.path(), &work, root).unwrap();
            dedup.adopt(run);
            for path in replaced {
                disk.remove(&path).unwrap();
            }
        }
        assert!(dedup.runs.iter().any(|run| run.range() == (0..800)), "{:?}", dedup.runs);
        for i in 0..2050 {
            assert_eq!(dedup.candidates(&key(i)).unwrap(), [i]);
        }
        let reopened = Dedup::open(&disk, dir.path(), 2050, 100, root).unwrap();
        assert_eq!(reopened.covered(), 2000);
        for i in 0..2000 {
            assert_eq!(reopened.candidates(&key(i)).unwrap(), [i]);
        }
        // Runs of another tree hold keys of entries that are not here.
        let other = |size: u64| Ok(Hash::digest(&(size ^ 1).to_be_bytes()));
        assert_eq!(Dedup::open(&disk, dir.path(), 2050, 100, other).unwrap().covered(), 0);
        // A run beyond the head belongs to a future that was rolled back: it is not used, and stays as the trace of it.
        assert_eq!(Dedup::open(&disk, dir.path(), 900, 100, root).unwrap().covered(), 800);
        let (newer, end) = dedup_run::beyond(&disk, dir.path(), 900).unwrap().unwrap();
        assert!(end > 900 && newer.exists());
        assert_eq!(dedup_run::beyond(&disk, dir.path(), 2050).unwrap(), None);
    }

    #[test]
    fn a_table_is_not_written_before_its_entries_are_committed() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let mut dedup = Dedup::open(&disk, dir.path(), 0, 100, root).unwrap();
        (0..150).for_each(|i| dedup.insert(&key(i), i));
        assert!(dedup.work(90).is_none());
        assert!(matches!(dedup.work(100), Some(Work::Spill(table)) if table.range() == (0..100)));
    }
}
