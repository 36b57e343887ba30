//! What a start looks at before the log may sign anything.
//!
//! Lock and load the head → compare with its second copy, the stored note and the cosigned one → re-derive the right edge
//! from the entries and compare its root with the head → complete valid records beyond the head → cut a torn tail.
//! Whatever does not fit is a [`Refusal`] that names the file and the repair.

use std::path::Path;
use std::sync::Arc;

use tlog::compact::CompactRange;
use tlog::hash::{Hash, TreeHead};

use crate::clock::{Clock, reach};
use crate::dedup::{self, Dedup, Work};
use crate::disk::Disk;
use crate::edge::{Edge, FullTile, TileNodes, items};
use crate::entry_file::{EntryFile, EntryWriter, SEGMENT_HEADER, STRIDE};
use crate::error::{Error, Refusal, Result};
use crate::head_file::{Head, HeadFile};
use crate::kind::{EntryKey, LogKind};
use crate::note_file::NoteFile;
use crate::options::LogOptions;
use crate::scan::{Scan, Scanned};
use crate::sequencer::check_consistency;
use crate::tile_store::{TileStore, TreeNodes};

/// A log's files, opened and found consistent.
pub(crate) struct Recovered {
    pub(crate) head: HeadFile,
    pub(crate) copy: HeadFile,
    pub(crate) note: NoteFile,
    pub(crate) entries: Arc<EntryFile>,
    pub(crate) writer: EntryWriter,
    pub(crate) tiles: TileStore,
    pub(crate) edge: Edge,
    pub(crate) range: CompactRange,
    pub(crate) last_time_millis: u64,
}

pub(crate) fn recover(options: &LogOptions, disk: &Arc<dyn Disk>, clock: &dyn Clock) -> Result<Recovered> {
    let identity = options.identity();
    let mut head = HeadFile::open(&**disk, &options.head, identity)?;
    let copy = HeadFile::open(&**disk, &options.head_copy, identity)?;
    let note = NoteFile::find(&**disk, &options.note_file(), identity)?;
    let cosigned = NoteFile::find(&**disk, &options.cosigned_file(), identity)?;
    let notes: Vec<&NoteFile> = note.iter().chain(&cosigned).collect();
    let last_time_millis = compare_heads(&head, &copy, &notes)?;
    reach(clock, last_time_millis)
        .map_err(|behind_millis| Refusal::ClockBehind { head: head.path().to_owned(), behind_millis })?;

    let entries = EntryFile::open(disk.clone(), &options.entries_directory(), identity, options.sizes)?;
    let tiles = TileStore::open(disk.clone(), &options.tiles_directory())?;
    let mut walk = Walk::start(
        options.kind,
        &entries,
        &tiles,
        note.as_ref().and_then(NoteFile::current).map_or(0, |note| note.derived),
        head.load(),
    )?;
    walk.walk_to_head(head.load(), head.path())?;
    let expected = head.load().tree;
    if walk.root()? != expected.root {
        return Err(diagnose(options.kind, &entries, &tiles, &head).into());
    }
    check_history(&walk, &head, copy.path(), copy.load().tree)?;
    for note in notes {
        note.current().map_or(Ok(()), |stored| check_history(&walk, &head, note.path(), stored.tree))?;
    }
    walk.beyond_head()?;
    // Only committed entries are derived from: more of them than there are entries are the trace of a log that was longer.
    if let Some((newer, newer_size)) = options.beyond(disk, walk.edge.size())? {
        let (head_size, head) = (expected.size, head.path().to_owned());
        return Err(Refusal::HeadBehind { head, head_size, newer, newer_size }.into());
    }
    let now = reach(clock, walk.latest_millis)
        .map_err(|behind_millis| Refusal::ClockBehind { head: head.path().to_owned(), behind_millis })?;

    let Walk { edge, every, tail, .. } = walk;
    let range = {
        let nodes = TreeNodes { edge: &edge, store: &tiles };
        let range = CompactRange::load(edge.size(), &nodes).map_err(Error::from)?;
        if edge.size() > expected.size {
            tracing::info!(
                log = %options.origin, from = expected.size, to = edge.size(),
                "completing entries that were stored but not committed"
            );
            entries.sync_all()?;
            check_consistency(&expected, &range.head(), &nodes)?;
            let old = head.load();
            // Not before any time that is bound to an entry it covers: the clock was compared with all of them.
            let time_millis = now.max(old.time_millis);
            head.compare_and_swap(&old, Head { tree: range.head(), time_millis, tail })?;
        }
        range
    };
    entries.reset(edge.size(), tail, every);
    let entries = Arc::new(entries);
    let writer = EntryWriter::new(entries.clone())?;
    tiles.sync()?;
    let note = match note {
        Some(note) => note,
        None => NoteFile::create(&**disk, &options.note_file(), identity)?,
    };
    Ok(Recovered { head, copy, note, entries, writer, tiles, edge, range, last_time_millis })
}

/// Looks at all records of what was committed, signed and cosigned. Returns the latest time in them.
fn compare_heads(head: &HeadFile, copy: &HeadFile, notes: &[&NoteFile]) -> Result<u64, Refusal> {
    let (committed, copied) = (head.load(), copy.load());
    let mut last = committed.time_millis.max(copied.time_millis);
    let mut others = vec![(copy.path(), copied.tree)];
    for note in notes {
        let Some(stored) = note.current() else { continue };
        last = last.max(stored.time_millis);
        others.push((note.path(), stored.tree));
    }
    for (path, tree) in &others {
        if tree.size > committed.tree.size {
            return Err(Refusal::HeadBehind {
                head: head.path().to_owned(),
                head_size: committed.tree.size,
                newer: (*path).to_owned(),
                newer_size: tree.size,
            });
        }
        if tree.size > copied.tree.size {
            return Err(Refusal::CopyBehind {
                copy: copy.path().to_owned(),
                copy_size: copied.tree.size,
                signed_size: tree.size,
            });
        }
    }
    Ok(last)
}

/// Every tree that was signed must be a prefix of the one that the entries give.
fn check_history(walk: &Walk<'_>, head: &HeadFile, path: &Path, signed: TreeHead) -> Result<()> {
    if walk.root_at(signed.size)? == signed.root {
        return Ok(());
    }
    Err(Refusal::HeadsDiffer {
        head: head.path().to_owned(),
        other: path.to_owned(),
        detail: format!("the tree of size {} has another root", signed.size),
    }
    .into())
}

/// Derives the tree from the entries, from a point where the derived files are known to be durable.
struct Walk<'a> {
    kind: LogKind,
    entries: &'a EntryFile,
    tiles: &'a TileStore,
    edge: Edge,
    every: Vec<u64>,
    /// One past the last record walked.
    tail: u64,
    /// The latest time bound to an entry beyond the head.
    latest_millis: u64,
    full: Vec<FullTile>,
}

impl<'a> Walk<'a> {
    fn start(
        kind: LogKind,
        entries: &'a EntryFile,
        tiles: &'a TileStore,
        derived: u64,
        head: Head,
    ) -> Result<Self> {
        let mut walk = Self {
            kind,
            entries,
            tiles,
            edge: Edge::empty(),
            every: Vec::new(),
            tail: SEGMENT_HEADER,
            latest_millis: 0,
            full: Vec::new(),
        };
        let start = derived.min(head.tree.size) / 256 * 256;
        if start == 0 {
            return Ok(walk);
        }
        if !tiles.covers(start)? {
            tracing::warn!(
                directory = %tiles.positions_path().parent().unwrap_or(Path::new("")).display(),
                "derived files are missing or short; rebuilding them from the entries"
            );
            return Ok(walk);
        }
        walk.every = tiles.read_positions(start / 256)?.map_err(|group| Refusal::DerivedDamaged {
            file: tiles.positions_path(),
            detail: format!("checksum of group {group}"),
        })?;
        walk.edge = load_edge(tiles, start)?;
        walk.tail = walk.check_last_bundle(start)?;
        Ok(walk)
    }

    /// Re-hashes the last full bundle against its tile; returns where it ends.
    fn check_last_bundle(&self, size: u64) -> Result<u64> {
        let first = size - 256;
        let tile = TileNodes::from_bytes(&self.tiles.raw(0, first / 256)?);
        let multiple = usize::try_from(first / STRIDE).unwrap_or(usize::MAX);
        let position = self.every.get(multiple).copied().unwrap_or(SEGMENT_HEADER);
        let mut scan = Scan::new(self.entries, first, position, None);
        let mut tail = position;
        while scan.index() < size {
            let step = scan.step()?;
            let Scanned::Record { index, body, end } = step else {
                return Err(missing(self.entries, &scan, step, size).into());
            };
            let leaf = self.kind.leaf_hash(scan.bytes(body)).map(|leaf| leaf.hash());
            let place = usize::try_from(index % 256).unwrap_or(usize::MAX);
            if leaf != tile.as_ref().and_then(|tile| tile.node(0, place)) {
                return Err(Refusal::DerivedDamaged {
                    file: self.tiles.level_path(0),
                    detail: format!("the hash of entry {index} differs"),
                }
                .into());
            }
            tail = end;
        }
        Ok(tail)
    }

    /// Walks the committed entries that the derived files do not cover.
    fn walk_to_head(&mut self, head: Head, head_path: &Path) -> Result<()> {
        let mut scan = Scan::new(self.entries, self.edge.size(), self.tail, None);
        while self.edge.size() < head.tree.size {
            let start = scan.position();
            match scan.step()? {
                Scanned::Record { body, end, index } => {
                    self.append(index, start, scan.bytes(body), end)?;
                }
                other => return Err(missing(self.entries, &scan, other, head.tree.size).into()),
            }
        }
        if self.tail != head.tail {
            return Err(Refusal::EntriesDiffer {
                entries: self.entries.segment_of(self.tail),
                head: head_path.to_owned(),
                detail: format!("the entries end at position {}, the head says {}", self.tail, head.tail),
            }
            .into());
        }
        Ok(())
    }

    /// Takes in the valid records that follow the head.
    fn beyond_head(&mut self) -> Result<()> {
        let mut scan = Scan::new(self.entries, self.edge.size(), self.tail, None);
        loop {
            let start = scan.position();
            match scan.step()? {
                Scanned::Record { index, body, end } => {
                    let stored = scan.bytes(body);
                    self.latest_millis = self.latest_millis.max(self.kind.bound_time(stored).unwrap_or(0));
                    self.append(index, start, stored, end)?;
                }
                Scanned::End { .. } => return Ok(()),
                Scanned::Torn { position, detail } => {
                    tracing::info!(
                        file = %self.entries.segment_of(position).display(), position, detail,
                        "cutting a torn tail behind the last acknowledged entry"
                    );
                    return Ok(());
                }
            }
        }
    }

    fn append(&mut self, index: u64, start: u64, stored: &[u8], end: u64) -> Result<()> {
        let leaf = self.kind.leaf_hash(stored).ok_or_else(|| Refusal::RecordDamaged {
            file: self.entries.segment_of(start),
            offset: start % self.entries.sizes().segment,
            index,
            detail: "not an entry of this kind of log",
        })?;
        if index.is_multiple_of(STRIDE) {
            // A record that begins a segment stands behind the segment's header, not where the one before ended.
            self.every.push(end - (crate::record::HEADER + stored.len()) as u64);
        }
        self.edge.push(leaf, &mut self.full);
        self.tail = end;
        for tile in std::mem::take(&mut self.full) {
            if tile.level == 0 {
                let first = usize::try_from(tile.index * 4).unwrap_or(usize::MAX);
                let group = self.every.get(first..).and_then(|rest| rest.first_chunk::<4>());
                self.tiles.write_positions(tile.index, *group.ok_or(Error::NotFound)?)?;
            }
            self.tiles.write(&tile)?;
        }
        Ok(())
    }

    fn root(&self) -> Result<Hash> {
        self.root_at(self.edge.size())
    }

    fn root_at(&self, size: u64) -> Result<Hash> {
        root_of(&self.edge, self.tiles, size)
    }
}

/// The root that the tree of an edge had at a size.
pub(crate) fn root_of(edge: &Edge, tiles: &TileStore, size: u64) -> Result<Hash> {
    Ok(tlog::node::read_root(size, &TreeNodes { edge, store: tiles }).map_err(Error::from)?.root)
}

/// The partial tiles of a tree of `size` leaves, a multiple of 256, from the files of full tiles.
fn load_edge(tiles: &TileStore, size: u64) -> Result<Edge> {
    let mut levels = Vec::new();
    for level in 1..8 {
        let count = items(size, level);
        if count == 0 {
            break;
        }
        let mut partial = TileNodes::empty();
        for child in count / 256 * 256..count {
            let root = TileNodes::from_bytes(&tiles.raw(level - 1, child)?).and_then(|tile| tile.root());
            let root = root.ok_or_else(|| Refusal::DerivedDamaged {
                file: tiles.level_path(level - 1),
                detail: format!("tile {child} is incomplete"),
            })?;
            partial.push(root);
        }
        levels.push(partial);
    }
    Ok(Edge::from_levels(size / 256, levels))
}

fn missing(entries: &EntryFile, scan: &Scan<'_>, step: Scanned, expected: u64) -> Refusal {
    match step {
        Scanned::Torn { position, detail } => Refusal::RecordDamaged {
            file: entries.segment_of(position),
            offset: position % entries.sizes().segment,
            index: scan.index(),
            detail,
        },
        Scanned::End { position } => {
            Refusal::EntriesMissing { entries: entries.segment_of(position), found: scan.index(), expected }
        }
        Scanned::Record { end, .. } => {
            Refusal::EntriesMissing { entries: entries.segment_of(end), found: scan.index(), expected }
        }
    }
}

/// The root is wrong: walks everything from the first entry to find the file at fault.
fn diagnose(kind: LogKind, entries: &EntryFile, tiles: &TileStore, head: &HeadFile) -> Refusal {
    let committed = head.load();
    let differ = |detail: String| Refusal::EntriesDiffer {
        entries: entries.directory().to_owned(),
        head: head.path().to_owned(),
        detail,
    };
    let mut scan = Scan::new(entries, 0, SEGMENT_HEADER, None);
    let (mut edge, mut full, mut range) = (Edge::empty(), Vec::new(), CompactRange::new());
    let mut bad_tile = None;
    while scan.index() < committed.tree.size {
        match scan.step() {
            Ok(Scanned::Record { body, index, .. }) => match kind.leaf_hash(scan.bytes(body)) {
                Some(leaf) => {
                    edge.push(leaf, &mut full);
                    range.push(leaf);
                }
                None => return differ(format!("entry {index} is not of this kind of log")),
            },
            Ok(other) => return missing(entries, &scan, other, committed.tree.size),
            Err(error) => return differ(error.to_string()),
        }
        for tile in full.drain(..) {
            let stored = tiles.raw(tile.level, tile.index).unwrap_or_default();
            if tile.nodes.bytes(256).is_some_and(|bytes| bytes != stored) {
                bad_tile.get_or_insert((tile.level, tile.index));
            }
        }
    }
    match bad_tile {
        Some((level, index)) if range.root() == committed.tree.root => {
            Refusal::DerivedDamaged { file: tiles.level_path(level), detail: format!("tile {index}") }
        }
        Some((level, index)) => differ(format!("first at tile {index} of level {level}")),
        None => differ("every checksum holds, so the head or an entry was replaced".to_owned()),
    }
}

/// Opens the deduplication index and adds the keys that no run holds yet.
pub(crate) fn load_dedup(
    options: &LogOptions,
    disk: &Arc<dyn Disk>,
    entries: &EntryFile,
    tiles: &TileStore,
    edge: &Edge,
) -> Result<Dedup> {
    let size = edge.size();
    let root_at = |size| root_of(edge, tiles, size);
    let directory = options.dedup_directory();
    let mut dedup = Dedup::open(disk, &directory, size, options.dedup_table, root_at)?;
    // A full table becomes a run at once: without runs a log's keys would all be in memory.
    let spill = |dedup: &mut Dedup| {
        if let Some(work @ Work::Spill(_)) = dedup.work(size) {
            dedup.adopt(dedup::perform(disk, &directory, &work, root_at)?.0);
        }
        Ok::<_, Error>(())
    };
    let mut next = dedup.covered();
    if options.kind.keyed_by_leaf() {
        while next < size {
            let tile = match edge.partial(0) {
                Some((at, tile)) if at == next / 256 => tile.clone(),
                _ => tiles.full_tile(0, next / 256, edge)?,
            };
            let place = usize::try_from(next % 256).unwrap_or(usize::MAX);
            let hash = tile.node(0, place).ok_or(Error::NotFound)?;
            dedup.insert(&EntryKey(hash), next);
            spill(&mut dedup)?;
            next += 1;
        }
        return Ok(dedup);
    }
    let mut added = Ok(());
    entries.read(next, size - next, |index, stored| {
        if added.is_err() {
            return;
        }
        added = match crate::certificate::CertificateRecord::parse(stored) {
            Some(record) => {
                dedup.insert(&record.entry.key(), index);
                spill(&mut dedup)
            }
            None => {
                Err(Error::damaged(entries.directory(), format!("entry {index} is no certificate entry")))
            }
        };
    })?;
    added.map(|()| dedup)
}
