//! Writes head, second copy and note file anew from the entries, after verifying the entries against every record of
//! what was signed that can still be read.
//!
//! It never shortens the log: a record that knows more than the entries hold is a refusal. What it cannot know is what
//! was signed and is recorded nowhere here any more; the operator compares with a witness before the first start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tlog::compact::CompactRange;
use tlog::hash::TreeHead;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::entry_file::{EntryFile, SEGMENT_HEADER};
use crate::error::{Error, Refusal, Result};
use crate::head_file::{Head, HeadFile};
use crate::note_file::NoteFile;
use crate::options::LogOptions;
use crate::scan::{Scan, Scanned};

/// What [`repair_log`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairReport {
    /// The tree that the entries give; compare it with a witness's record.
    pub tree: TreeHead,
    /// Records that were verified against the entries.
    pub verified: Vec<PathBuf>,
    /// Records that could not be read and were set aside with the suffix `.damaged`.
    pub set_aside: Vec<PathBuf>,
}

/// Repairs a log that refuses to start because of its head, its second copy, or both. The log must not be open.
///
/// # Errors
/// [`Refusal::Locked`]; [`Refusal::EntriesMissing`], [`Refusal::RecordDamaged`] and [`Refusal::HeadsDiffer`] when the
/// entries do not hold what was signed: then only a backup of the entries helps, and nothing was changed.
pub fn repair_log(options: &LogOptions, disk: &Arc<dyn Disk>, clock: &dyn Clock) -> Result<RepairReport> {
    let identity = options.identity();
    let mut known: Vec<(PathBuf, TreeHead)> = Vec::new();
    let (mut set_aside, mut last) = (Vec::new(), clock.unix_millis());
    let mut missing = Vec::new();
    for path in [&options.head, &options.head_copy] {
        match HeadFile::open(&**disk, path, identity) {
            Ok(file) => {
                known.push((path.clone(), file.load().tree));
                last = last.max(file.load().time_millis);
            }
            Err(Error::Refused(Refusal::HeadMissing { .. })) => missing.push(path.clone()),
            Err(Error::Refused(Refusal::HeadDamaged { .. })) => set_aside.push(path.clone()),
            Err(error) => return Err(error),
        }
    }
    if let Some(note) = NoteFile::open(&**disk, &options.note_file(), identity)?.current() {
        known.push((options.note_file(), note.tree));
        last = last.max(note.time_millis);
    }

    let (tree, tail) = verify_entries(options, disk, &known)?;
    // Everything is verified: from here on files change.
    for path in &set_aside {
        let aside = path.with_extension("damaged");
        disk.rename(path, &aside).map_err(|error| Error::io("set aside", path, error))?;
        missing.push(path.clone());
    }
    let head = Head { tree, time_millis: last, tail };
    for path in [&options.head_copy, &options.head] {
        if missing.contains(path) {
            HeadFile::create(&**disk, path, identity, head)?;
        } else {
            let mut file = HeadFile::open(&**disk, path, identity)?;
            let old = file.load();
            if old.tree != head.tree {
                file.compare_and_swap(&old, head)?;
            }
        }
    }
    Ok(RepairReport { tree, verified: known.into_iter().map(|(path, _)| path).collect(), set_aside })
}

/// Walks all entries; every record of what was signed must be one of the trees on the way.
fn verify_entries(
    options: &LogOptions,
    disk: &Arc<dyn Disk>,
    known: &[(PathBuf, TreeHead)],
) -> Result<(TreeHead, u64)> {
    let entries =
        EntryFile::open(disk.clone(), &options.entries_directory(), options.identity(), options.sizes)?;
    let mut scan = Scan::new(&entries, 0, SEGMENT_HEADER, None);
    let (mut range, mut tail) = (CompactRange::new(), SEGMENT_HEADER);
    let torn = loop {
        for (path, tree) in known {
            if tree.size == range.size() && tree.root != range.root() {
                return Err(differ(&entries, path, tree).into());
            }
        }
        match scan.step()? {
            Scanned::Record { index, body, end } => {
                let leaf =
                    options.kind.leaf_hash(scan.bytes(body)).ok_or_else(|| Refusal::RecordDamaged {
                        file: entries.segment_of(end),
                        offset: end % options.sizes.segment,
                        index,
                        detail: "not an entry of this kind of log",
                    })?;
                range.push(leaf);
                tail = end;
            }
            Scanned::End { .. } => break None,
            Scanned::Torn { position, detail } => break Some((position, detail)),
        }
    };
    let expected = known.iter().map(|(_, tree)| tree.size).max().unwrap_or(0);
    if range.size() < expected {
        return Err(match torn {
            Some((position, detail)) => Refusal::RecordDamaged {
                file: entries.segment_of(position),
                offset: position % options.sizes.segment,
                index: range.size(),
                detail,
            },
            None => {
                Refusal::EntriesMissing { entries: entries.segment_of(tail), found: range.size(), expected }
            }
        }
        .into());
    }
    entries.sync_all()?;
    Ok((range.head(), tail))
}

fn differ(entries: &EntryFile, path: &Path, tree: &TreeHead) -> Refusal {
    Refusal::HeadsDiffer {
        head: path.to_owned(),
        other: entries.directory().to_owned(),
        detail: format!("the entries give another root at size {}", tree.size),
    }
}
