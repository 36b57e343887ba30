//! Writes what is derived from committed entries, off the acknowledgement path: full tiles, positions, deduplication
//! runs; and re-verifies old entries in the background.
//!
//! A failure here loses no entry, but what is served and signed rests on these files: the log stops accepting entries,
//! reads go on, and the next start re-derives what is missing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::dedup;
use crate::edge::Edge;
use crate::entry_file::STRIDE;
use crate::error::{Error, Result};
use crate::recovery::root_of;
use crate::sequencer::Completed;
use crate::shared::Shared;
use crate::tile_store::TileStore;

/// Level-0 tiles between two syncs of the derived files.
const SYNC_EVERY: u64 = 256;
/// Time between two syncs when fewer tiles came.
const SYNC_AFTER: Duration = Duration::from_secs(10);
/// Pause between two steps of the self-check, however much is being written; each re-reads one bundle. Ten million
/// entries are gone through in little more than an hour, for about a hundredth of a CPU.
const SCRUB_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) shared: Arc<Shared>,
    pub(crate) completed: Receiver<Completed>,
    pub(crate) dedup_directory: PathBuf,
    /// Full level-0 tiles written so far.
    pub(crate) written: u64,
    /// Next bundle that the self-check looks at.
    pub(crate) scrub: u64,
}

impl Follower {
    /// Works until the sequencer ends.
    pub(crate) fn run(mut self) {
        let mut last_sync = self.shared.clock.elapsed();
        let mut last_scrub = last_sync;
        loop {
            match self.completed.recv_timeout(SCRUB_PAUSE) {
                Ok(completed) => {
                    if let Err(error) = self.write(&completed) {
                        self.shared.fail(&error);
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.shared.clock.elapsed() >= last_scrub + SCRUB_PAUSE {
                last_scrub = self.shared.clock.elapsed();
                if let Err(error) = self.scrub() {
                    self.shared.fail(&error);
                    return;
                }
            }
            let unsynced = self.written - self.shared.derived.load(Ordering::Acquire) / 256;
            let now = self.shared.clock.elapsed();
            if unsynced >= SYNC_EVERY || unsynced > 0 && now >= last_sync + SYNC_AFTER {
                last_sync = now;
                if let Err(error) = self.sync() {
                    self.shared.fail(&error);
                    return;
                }
            }
            if let Err(error) = self.index() {
                self.shared.fail(&error);
                return;
            }
        }
        if let Err(error) = self.sync() {
            tracing::warn!(log = %self.shared.origin, %error, "derived files not synced; the next start re-derives them");
        }
    }

    fn write(&mut self, completed: &Completed) -> Result<()> {
        for tile in &completed.tiles {
            if tile.level == 0 {
                let mut positions = [0; 4];
                for (place, multiple) in positions.iter_mut().zip(tile.index * (256 / STRIDE)..) {
                    *place = self.shared.entries.position(multiple).ok_or(Error::NotFound)?;
                }
                self.shared.tiles.write_positions(tile.index, positions)?;
                self.written = tile.index + 1;
            }
            self.shared.tiles.write(tile)?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.shared.tiles.sync()?;
        self.shared.derived.store(self.written * 256, Ordering::Release);
        Ok(())
    }

    /// Spills and merges deduplication keys.
    fn index(&self) -> Result<()> {
        let committed = self.shared.committed();
        let Some(work) = self.shared.dedup.lock().work(committed.head.tree.size) else { return Ok(()) };
        let root_at = |size| root_of(&committed.edge, &self.shared.tiles, size);
        let (run, replaced) = dedup::perform(&self.shared.disk, &self.dedup_directory, &work, root_at)?;
        self.shared.dedup.lock().adopt(run);
        for path in replaced {
            self.shared.disk.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        Ok(())
    }

    /// Re-reads one full bundle and compares it with its authenticated tile; with the last bundle below a full tile of a
    /// higher level, that tile too.
    fn scrub(&mut self) -> Result<()> {
        let committed = self.shared.committed();
        let full = committed.edge.size() / 256;
        if full == 0 {
            return Ok(());
        }
        if self.scrub >= full {
            self.scrub = 0;
        }
        verify_bundle(&self.shared, self.scrub, &committed.edge)?;
        self.shared.metrics.scrubbed.fetch_add(256, Ordering::Relaxed);
        self.scrub += 1;
        Ok(())
    }
}

/// Re-hashes the entries of a full bundle against the level-0 tile, read afresh from its file.
pub(crate) fn verify_bundle(shared: &Shared, bundle: u64, edge: &Edge) -> Result<()> {
    verify_above(&shared.tiles, bundle, edge)?;
    let tile = shared.tiles.fresh_tile(0, bundle, edge)?;
    let mut wrong = None;
    shared.entries.read(bundle * 256, 256, |index, stored| {
        let place = usize::try_from(index % 256).unwrap_or(usize::MAX);
        if shared.kind.leaf_hash(stored).map(|leaf| leaf.hash()) != tile.node(0, place) {
            wrong.get_or_insert(index);
        }
    })?;
    match wrong {
        None => Ok(()),
        Some(index) => {
            let position = shared.entries.position(index / STRIDE).unwrap_or(0);
            Err(Error::damaged(
                &shared.entries.segment_of(position),
                format!("entry {index} does not have the hash that the tree has"),
            ))
        }
    }
}

/// Re-reads the full tiles of higher levels that end with this level-0 tile. Readers get them from the same files.
fn verify_above(tiles: &TileStore, bundle: u64, edge: &Edge) -> Result<()> {
    let (mut end, mut level) = (bundle + 1, 1);
    while end.is_multiple_of(256) {
        end /= 256;
        tiles.fresh_tile(level, end - 1, edge)?;
        level += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, OsDisk};
    use tlog::hash::leaf_hash;

    #[test]
    fn the_self_check_reads_tiles_of_every_level() {
        let directory = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let tiles = TileStore::open(disk.clone(), directory.path()).unwrap();
        let (mut edge, mut full) = (Edge::empty(), Vec::new());
        for index in 0..65_537_u64 {
            edge.push(leaf_hash(&index.to_be_bytes()), &mut full);
        }
        full.iter().for_each(|tile| tiles.write(tile).unwrap());
        (0..256).for_each(|bundle| verify_above(&tiles, bundle, &edge).unwrap());
        let path = directory.path().join("1.tiles");
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 8192);
        bytes[77] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        (0..255).for_each(|bundle| verify_above(&tiles, bundle, &edge).unwrap());
        assert!(matches!(verify_above(&tiles, 255, &edge), Err(Error::Damaged { file, .. }) if file == path));
    }
}
