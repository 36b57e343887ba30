//! Writes a lost or outdated head, or its second copy, anew from the newest record of what was committed or signed that
//! is left (head, second copy, stored notes), after verifying the entries against all of them.
//!
//! It never shortens the log: a record that knows more than the entries hold is a refusal. What it cannot know is what
//! was acknowledged and is recorded nowhere here any more; the operator compares with a witness before the next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tlog::compact::CompactRange;
use tlog::hash::{EMPTY_ROOT, TreeHead};

use crate::disk::Disk;
use crate::entry_file::{EntryFile, SEGMENT_HEADER};
use crate::error::{Error, Refusal, Result};
use crate::head_file::{Head, HeadFile};
use crate::note_file::NoteFile;
use crate::options::LogOptions;
use crate::scan::{Scan, Scanned};

/// What was found, and what a repair writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairReport {
    /// The newest recorded tree; compare it with a witness's record.
    pub tree: TreeHead,
    /// The file that it is recorded in; `None` for a log that never started.
    pub source: Option<PathBuf>,
    /// Whole entries found. Those beyond [`tree`](Self::tree) are completed by the next start.
    pub entries: u64,
    /// Records that were verified against the entries, with their trees.
    pub verified: Vec<(PathBuf, TreeHead)>,
    /// Files to be written anew. Empty: nothing is to be repaired.
    pub rewritten: Vec<PathBuf>,
    /// Those of them that cannot be read; they are kept with the suffix `.damaged`.
    pub set_aside: Vec<PathBuf>,
}

/// A repair that was found sound and not carried out yet. What is left of head and second copy stays locked.
#[derive(Debug)]
pub struct Repair {
    disk: Arc<dyn Disk>,
    identity: [u8; 32],
    /// The head file first.
    files: [(PathBuf, Kept); 2],
    head: Head,
    report: RepairReport,
}

/// What is left of a head file.
#[derive(Debug)]
enum Kept {
    Intact(HeadFile),
    Damaged,
    Missing,
}

/// A tree that was committed or signed.
#[derive(Debug)]
struct Record {
    path: PathBuf,
    tree: TreeHead,
    time_millis: u64,
    /// Where the entries end, in records that say it.
    tail: Option<u64>,
}

/// Plans the repair of a log that is not open, and changes nothing.
///
/// # Errors
/// [`Refusal::Locked`]; [`Refusal::HeadsLost`]; [`Refusal::EntriesMissing`], [`Refusal::RecordDamaged`],
/// [`Refusal::EntriesDiffer`] and [`Refusal::HeadsDiffer`] when the entries do not hold all that was recorded.
pub fn plan_repair(options: &LogOptions, disk: &Arc<dyn Disk>) -> Result<Repair> {
    let identity = options.identity();
    let open = |path: &PathBuf| match HeadFile::open(&**disk, path, identity) {
        Ok(file) => Ok((path.clone(), Kept::Intact(file))),
        Err(Error::Refused(Refusal::HeadDamaged { .. })) => Ok((path.clone(), Kept::Damaged)),
        Err(Error::Refused(Refusal::HeadMissing { .. })) => Ok((path.clone(), Kept::Missing)),
        Err(error) => Err(error),
    };
    let files = [open(&options.head)?, open(&options.head_copy)?];
    let mut records = Vec::new();
    for (path, kept) in &files {
        if let Kept::Intact(file) = kept {
            let Head { tree, time_millis, tail } = file.load();
            records.push(Record { path: path.clone(), tree, time_millis, tail: Some(tail) });
        }
    }
    let heads_lost = records.is_empty();
    for path in [options.note_file(), options.cosigned_file()] {
        records.extend(stored_note(path, identity, &**disk)?);
    }

    let entries = EntryFile::open(disk.clone(), &options.entries_directory(), identity, options.sizes)?;
    let newest = newest(&records).map_or(0, |record| record.tree.size);
    if entries.segment_count() == 0 && !heads_lost {
        let entries = entries.segment_of(0);
        return Err(Refusal::EntriesMissing { entries, found: 0, expected: newest }.into());
    }
    let walked = walk(options, &entries, &records)?;
    // An initialisation that was interrupted left an empty entry file and nothing signed.
    if heads_lost && (walked.entries > 0 || !records.is_empty() || entries.segment_count() == 0) {
        return Err(Refusal::HeadsLost { head: options.head.clone(), copy: options.head_copy.clone() }.into());
    }
    if let Some((newer, expected)) = options.beyond(disk, walked.entries)? {
        tracing::warn!(file = %newer.display(), "it was derived from entries that are missing");
        let entries = entries.segment_of(walked.tail);
        return Err(Refusal::EntriesMissing { entries, found: walked.entries, expected }.into());
    }
    plan(disk, identity, files, records, walked)
}

fn plan(
    disk: &Arc<dyn Disk>,
    identity: [u8; 32],
    files: [(PathBuf, Kept); 2],
    records: Vec<Record>,
    walked: Walked,
) -> Result<Repair> {
    let newest = newest(&records);
    let tree = newest.map_or(TreeHead { size: 0, root: EMPTY_ROOT }, |record| record.tree);
    let time_millis = records.iter().map(|record| record.time_millis).max().unwrap_or_default();
    let signed = records.iter().filter(|record| record.tail.is_none()).map(|record| record.tree.size).max();
    let (mut rewritten, mut set_aside) = (Vec::new(), Vec::new());
    for ((path, kept), least) in files.iter().zip([tree.size, signed.unwrap_or_default()]) {
        match kept {
            Kept::Intact(file) if file.load().tree.size >= least => continue,
            Kept::Intact(_) | Kept::Missing => {}
            Kept::Damaged => set_aside.push(path.clone()),
        }
        rewritten.push(path.clone());
    }
    // A torn tail was never acknowledged as long as a head bounds what was; without it nobody knows.
    let head_is_lost = files.first().is_some_and(|(path, _)| rewritten.contains(path));
    if let (true, Some(torn)) = (head_is_lost, walked.torn) {
        return Err(torn.into());
    }
    let report = RepairReport {
        tree,
        source: newest.map(|record| record.path.clone()),
        entries: walked.entries,
        verified: records.iter().map(|record| (record.path.clone(), record.tree)).collect(),
        rewritten,
        set_aside,
    };
    let head = Head { tree, time_millis, tail: walked.tail };
    Ok(Repair { disk: disk.clone(), identity, files, head, report })
}

impl Repair {
    /// What was found, and what [`apply`](Self::apply) writes.
    #[must_use]
    pub fn report(&self) -> &RepairReport {
        &self.report
    }

    /// Writes what the report names, durably.
    ///
    /// # Errors
    /// I/O errors. The repair can then be planned again.
    pub fn apply(self) -> Result<RepairReport> {
        // The locks are held until both files are written.
        let mut written = Vec::new();
        for (path, kept) in self.files {
            if !self.report.rewritten.contains(&path) {
                written.push(kept);
                continue;
            }
            let file = match kept {
                Kept::Intact(mut file) => {
                    let old = file.load();
                    file.compare_and_swap(&old, self.head)?;
                    file
                }
                Kept::Missing => HeadFile::create(&*self.disk, &path, self.identity, self.head)?,
                Kept::Damaged => {
                    let aside = path.with_extension("damaged");
                    self.disk.rename(&path, &aside).map_err(|error| Error::io("set aside", &path, error))?;
                    HeadFile::create(&*self.disk, &path, self.identity, self.head)?
                }
            };
            written.push(Kept::Intact(file));
        }
        drop(written);
        Ok(self.report)
    }
}

fn newest(records: &[Record]) -> Option<&Record> {
    records.iter().max_by_key(|record| record.tree.size)
}

/// A stored note.
fn stored_note(path: PathBuf, identity: [u8; 32], disk: &dyn Disk) -> Result<Option<Record>> {
    let note = NoteFile::find(disk, &path, identity)?;
    let stored = note.as_ref().and_then(NoteFile::current);
    Ok(stored.map(|note| Record { path, tree: note.tree, time_millis: note.time_millis, tail: None }))
}

/// What the entries hold.
struct Walked {
    entries: u64,
    /// Where the newest recorded tree ends.
    tail: u64,
    /// Bytes that follow the last whole entry and are no entry.
    torn: Option<Refusal>,
}

/// Walks all entries; every recorded tree must be one of the trees on the way.
fn walk(options: &LogOptions, entries: &EntryFile, records: &[Record]) -> Result<Walked> {
    let expected = newest(records).map_or(0, |record| record.tree.size);
    let mut scan = Scan::new(entries, 0, SEGMENT_HEADER, None);
    let (mut range, mut tail, mut newest_tail) = (CompactRange::new(), SEGMENT_HEADER, SEGMENT_HEADER);
    let damaged = |position, index, detail| Refusal::RecordDamaged {
        file: entries.segment_of(position),
        offset: position % options.sizes.segment,
        index,
        detail,
    };
    let torn = loop {
        for record in records.iter().filter(|record| record.tree.size == range.size()) {
            compare(entries, record, &range.head(), tail, expected)?;
        }
        if range.size() == expected {
            newest_tail = tail;
        }
        let start = scan.position();
        match scan.step()? {
            Scanned::Record { index, body, end } => {
                let leaf = options
                    .kind
                    .leaf_hash(scan.bytes(body))
                    .ok_or_else(|| damaged(start, index, "not an entry of this kind of log"))?;
                range.push(leaf);
                tail = end;
            }
            Scanned::End { position } => {
                let follows = something_follows(entries, position)?;
                break follows
                    .then(|| damaged(position, range.size(), "the record is missing, others follow"));
            }
            Scanned::Torn { position, detail } => break Some(damaged(position, range.size(), detail)),
        }
    };
    if range.size() < expected {
        return Err(match torn {
            Some(refusal) => refusal.into(),
            None => {
                Refusal::EntriesMissing { entries: entries.segment_of(tail), found: range.size(), expected }
                    .into()
            }
        });
    }
    Ok(Walked { entries: range.size(), tail: newest_tail, torn })
}

fn compare(
    entries: &EntryFile,
    record: &Record,
    tree: &TreeHead,
    tail: u64,
    expected: u64,
) -> Result<(), Refusal> {
    let detail = if record.tree.root != tree.root {
        format!("the entries give another root at size {}", tree.size)
    } else if record.tail.is_some_and(|recorded| recorded != tail) {
        format!("the entries of size {} end at position {tail}", tree.size)
    } else {
        return Ok(());
    };
    let (path, directory) = (record.path.clone(), entries.directory().to_owned());
    Err(if record.tree.size == expected {
        Refusal::EntriesDiffer { entries: directory, head: path, detail }
    } else {
        Refusal::HeadsDiffer { head: path, other: directory, detail }
    })
}

/// Whether anything but zeros stands behind `position`.
fn something_follows(entries: &EntryFile, position: u64) -> Result<bool> {
    let segment = entries.sizes().segment;
    let mut buffer = vec![0; 1 << 16];
    for number in position / segment..entries.segment_count() {
        let Some(file) = entries.segment(number) else { break };
        let path: &Path = &entries.segment_of(number * segment);
        let mut at = if number == position / segment { position % segment } else { SEGMENT_HEADER };
        loop {
            let count = file.read_at(&mut buffer, at).map_err(|error| Error::io("read", path, error))?;
            if buffer.iter().take(count).any(|byte| *byte != 0) {
                return Ok(true);
            }
            if count == 0 {
                break;
            }
            at += count as u64;
        }
    }
    Ok(false)
}
