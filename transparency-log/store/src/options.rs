//! Where a log lives and how it behaves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tlog::hash::Hash;

use crate::cosigning::Witnessing;
use crate::dedup_run;
use crate::disk::Disk;
use crate::entry_file::EntryFileSizes;
use crate::error::Result;
use crate::kind::{Deduplication, LogKind};
use crate::publisher::Publishing;
use crate::queue::Batching;

/// Whether a log takes entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writing {
    /// It does.
    #[default]
    Open,
    /// A frozen shard: reads only; its checkpoint goes on being signed so that its time stays fresh.
    Frozen,
}

/// Everything that [`Log::open`](crate::Log::open) needs to know about one log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// First line of its checkpoints; binds all files to this log.
    pub origin: String,
    /// What it holds.
    pub kind: LogKind,
    /// Directory for entries, tiles, deduplication keys and the signed note.
    pub directory: PathBuf,
    /// The head file. Best on another device than the entries.
    pub head: PathBuf,
    /// The head's second copy, outside [`directory`](Self::directory).
    pub head_copy: PathBuf,
    /// Whether duplicates are found.
    pub deduplication: Deduplication,
    /// Keys in memory before they are spilled to a run: 16 to 40 bytes each.
    pub dedup_table: u64,
    /// Sizes of the entry file.
    pub sizes: EntryFileSizes,
    /// Limits of queue and batches.
    pub batching: Batching,
    /// When checkpoints are published.
    pub publishing: Publishing,
    /// When witnesses are asked.
    pub witnessing: Witnessing,
    /// Whether it takes entries.
    pub writing: Writing,
    /// What others derived from committed entries, and of how many: a log with fewer was put back behind it.
    pub seen: Vec<(PathBuf, u64)>,
}

impl LogOptions {
    /// Default behaviour, with the head in `directory/head/` and its copy at `head_copy`.
    #[must_use]
    pub fn new(kind: LogKind, origin: &str, directory: &Path, head_copy: &Path) -> Self {
        Self {
            origin: origin.to_owned(),
            kind,
            directory: directory.to_owned(),
            head: directory.join("head").join("head"),
            head_copy: head_copy.to_owned(),
            deduplication: kind.default_deduplication(),
            dedup_table: if kind == LogKind::Issuance { 1 << 16 } else { 3 << 18 },
            sizes: EntryFileSizes::default(),
            batching: Batching::default(),
            publishing: Publishing::default(),
            witnessing: Witnessing::EveryCheckpoint,
            writing: Writing::Open,
            seen: Vec::new(),
        }
    }

    /// What was derived from more than `size` committed entries, and from how many: keys, or what [`seen`](Self::seen) says.
    pub(crate) fn beyond(&self, disk: &Arc<dyn Disk>, size: u64) -> Result<Option<(PathBuf, u64)>> {
        let keys = dedup_run::beyond(disk, &self.dedup_directory(), size)?;
        Ok(keys.or_else(|| self.seen.iter().find(|(_, seen)| *seen > size).cloned()))
    }

    /// Binds files to kind and origin.
    pub(crate) fn identity(&self) -> [u8; 32] {
        Hash::digest(format!("mentat log\n{}\n{}\n", self.kind.as_str(), self.origin).as_bytes()).0
    }

    /// Where segments of entries are kept.
    #[must_use]
    pub fn entries_directory(&self) -> PathBuf {
        self.directory.join("entries")
    }

    /// Where full tiles and positions are kept.
    #[must_use]
    pub fn tiles_directory(&self) -> PathBuf {
        self.directory.join("tiles")
    }

    /// Where deduplication runs are kept.
    #[must_use]
    pub fn dedup_directory(&self) -> PathBuf {
        self.directory.join("dedup")
    }

    /// The stored note that has its quorum.
    #[must_use]
    pub fn cosigned_file(&self) -> PathBuf {
        self.directory.join("cosigned")
    }

    /// The stored signed note.
    #[must_use]
    pub fn note_file(&self) -> PathBuf {
        self.directory.join("checkpoint")
    }
}
