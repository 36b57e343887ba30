//! Two sequencers on one log, on a file system that does not honour locks: the second one stops before it writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::io;
use std::path::Path;
use std::sync::Arc;

use fixture::{Fixture, add, add_all, entry};
use log_store::{Access, Ack, Disk, DiskFile, Error, Head, HeadFile, LogKind, OsDisk};
use tlog::hash::{Hash, TreeHead};

/// The operating system's disk, on which everybody gets every lock.
#[derive(Debug)]
struct Unlocked;

impl Disk for Unlocked {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir_all(path)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(UnlockedFile(OsDisk.open(path, access)?)))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.sync_dir(path)
    }
}

#[derive(Debug)]
struct UnlockedFile(Arc<dyn DiskFile>);

impl DiskFile for UnlockedFile {
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(buffer, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.allocate(offset, length)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}

#[test]
fn the_second_sequencer_stops_before_it_overwrites_what_the_first_acknowledged() {
    let fixture = Fixture::new(LogKind::Raw);
    let first = fixture.open_on(Arc::new(Unlocked)).unwrap();
    let second = fixture.open_on(Arc::new(Unlocked)).unwrap();
    let mut acknowledged = add_all(&first, 0..20);
    let refused = add(&second, &entry(100), Ack::Sequenced).unwrap_err();
    assert!(matches!(refused, Error::Stopped(_)), "{refused}");
    assert!(second.failure().unwrap().contains("another process"), "{:?}", second.failure());
    acknowledged.push((add(&first, &entry(20), Ack::Published).unwrap().index, entry(20)));
    second.close();
    first.close();
    assert_eq!(fixture.check(&acknowledged).tree.size, 21);
}

#[test]
fn a_head_is_swapped_only_for_what_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head");
    let head = |size: u64| Head {
        tree: TreeHead { size, root: Hash([u8::try_from(size).unwrap(); 32]) },
        time_millis: size,
        tail: size,
    };
    drop(HeadFile::create(&Unlocked, &path, [1; 32], head(1)).unwrap());
    let mut first = HeadFile::open(&Unlocked, &path, [1; 32]).unwrap();
    let mut second = HeadFile::open(&Unlocked, &path, [1; 32]).unwrap();
    first.compare_and_swap(&head(1), head(2)).unwrap();
    let refused = second.compare_and_swap(&head(1), head(3)).unwrap_err();
    assert!(matches!(refused, Error::HeadConflict { .. }), "{refused}");
    first.compare_and_swap(&head(2), head(4)).unwrap();
    assert_eq!(HeadFile::open(&Unlocked, &path, [1; 32]).unwrap().load(), head(4));
}
