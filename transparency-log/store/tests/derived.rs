//! What is derived from the entries (deduplication keys, positions, tiles) never hides or outlives what it came from.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fixture::{Fixture, add, add_all, copy_tree, entry, os};
use log_store::{
    Access, Ack, Deduplication, Disk, DiskFile, Entry, Error, Log, LogKind, OsDisk, Refusal, WriterId,
    check_and_hold, check_log, plan_repair,
};
use tlog::hash::leaf_hash;

/// A disk whose reads of deduplication runs wait, and whose writes of entries fail half-way, as long as the test says.
#[derive(Debug, Clone, Default)]
struct Moody {
    runs_wait: Arc<AtomicBool>,
    waiting: Arc<AtomicBool>,
    entries_fail: Arc<AtomicBool>,
}

#[derive(Debug)]
struct MoodyFile {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    mood: Moody,
}

impl Disk for Moody {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir_all(path)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = OsDisk.open(path, access)?;
        Ok(Arc::new(MoodyFile { file, path: path.to_owned(), mood: self.clone() }))
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

impl DiskFile for MoodyFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // A run is made under another name and renamed.
        while self.path.components().any(|part| part.as_os_str() == "dedup")
            && self.mood.runs_wait.load(Ordering::SeqCst)
        {
            self.mood.waiting.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        if self.path.extension().is_some_and(|kind| kind == "entries")
            && self.mood.entries_fail.load(Ordering::SeqCst)
        {
            // Whole records among what is left behind would be completed by the next start.
            self.file.write_at(&buffer[..10], offset)?;
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.write_at(buffer, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.file.allocate(offset, length)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

fn small() -> Fixture {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.dedup_table = 100;
    fixture
}

fn runs(fixture: &Fixture) -> Vec<PathBuf> {
    let listed = std::fs::read_dir(fixture.path("dedup")).unwrap().map(|found| found.unwrap().path());
    listed.filter(|path| path.extension().is_some_and(|kind| kind == "run")).collect()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what} did not come");
}

#[test]
fn keys_of_entries_that_were_never_committed_are_never_believed() {
    let fixture = small();
    let mood = Moody::default();
    let log = fixture.open_on(Arc::new(mood.clone())).unwrap();
    add_all(&log, 0..90);
    // The batch that fills the table is not stored.
    mood.entries_fail.store(true, Ordering::SeqCst);
    let lost = (90..110).map(|i| Entry::plain(entry(i).into()).unwrap()).collect();
    for answer in log.submit_all(WriterId(1), lost, Ack::Sequenced).unwrap() {
        Log::wait(answer).unwrap_err();
    }
    // The follower has time enough to write what it must not.
    std::thread::sleep(Duration::from_millis(500));
    log.close();
    assert_eq!(runs(&fixture), Vec::<PathBuf>::new());

    // Others take the places, and the log is closed before their keys are written.
    let log = fixture.open().unwrap();
    let others = add_all(&log, 200..230);
    assert_eq!(others[0].0, 90);
    log.close();
    let log = fixture.open().unwrap();
    for (index, bytes) in &others {
        assert_eq!(add(&log, bytes, Ack::Sequenced).unwrap().index, *index);
    }
    assert_eq!(add(&log, &entry(95), Ack::Sequenced).unwrap().index, 120, "it was never stored");
    log.close();
}

#[test]
fn keys_of_another_history_are_not_believed() {
    let (fixture, other) = (small(), small());
    let log = fixture.open().unwrap();
    let acknowledged = add_all(&log, 0..150);
    wait_for("a run", || !runs(&fixture).is_empty());
    log.close();
    let log = other.open().unwrap();
    add_all(&log, 1000..1150);
    wait_for("a run", || !runs(&other).is_empty());
    log.close();
    // A run with the same name and whole in itself, from another log of the same size.
    std::fs::remove_dir_all(fixture.path("dedup")).unwrap();
    copy_tree(&other.path("dedup"), &fixture.path("dedup"));
    let found = check_log(&fixture.options, &os(), |_, _| {});
    assert!(matches!(&found, Err(Error::Damaged { file, .. }) if *file == runs(&fixture)[0]), "{found:?}");
    let log = fixture.open().unwrap();
    for (index, bytes) in &acknowledged {
        assert_eq!(add(&log, bytes, Ack::Sequenced).unwrap().index, *index, "a retry got another index");
    }
    wait_for("the run made anew", || check_runs(&fixture));
    log.close();
    assert_eq!(fixture.check(&acknowledged).keys, 100);
}

/// Whether the runs are those of the log itself: its root is in them.
fn check_runs(fixture: &Fixture) -> bool {
    runs(fixture).first().is_some_and(|path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.get(40..60) == Some(&tlog_root(100)[..20])
    })
}

/// Root of the first `size` entries.
fn tlog_root(size: u64) -> [u8; 32] {
    let mut range = tlog::compact::CompactRange::new();
    (0..size).for_each(|i| range.push(leaf_hash(&entry(i))));
    range.root().0
}

#[test]
fn keys_of_entries_that_are_gone_refuse_a_log_that_was_put_back() {
    let fixture = small();
    let log = fixture.open().unwrap();
    add_all(&log, 0..50);
    log.close();
    let old = tempfile::tempdir().unwrap();
    copy_tree(fixture.directory.path(), old.path());
    let log = fixture.open().unwrap();
    let acknowledged = add_all(&log, 50..150);
    wait_for("a run", || !runs(&fixture).is_empty());
    log.close();
    let new = tempfile::tempdir().unwrap();
    copy_tree(fixture.directory.path(), new.path());

    let restore = |from: &Path| {
        for name in ["entries", "head"] {
            std::fs::remove_dir_all(fixture.path(name)).unwrap();
            copy_tree(&from.join("log").join(name), &fixture.path(name));
        }
        std::fs::copy(from.join("log/checkpoint"), fixture.path("checkpoint")).unwrap();
        std::fs::copy(from.join("copy/head"), &fixture.options.head_copy).unwrap();
    };
    restore(old.path());
    let run = runs(&fixture)[0].clone();
    // A check says what the next start will.
    let checked = check_log(&fixture.options, &os(), |_, _| {}).unwrap_err();
    let refusal = fixture.open().unwrap_err();
    assert_eq!(checked.to_string(), refusal.to_string());
    assert!(
        matches!(&refusal, Error::Refused(Refusal::HeadBehind { newer, newer_size: 100, head_size: 50, .. }) if *newer == run),
        "{refusal}"
    );
    let refusal = plan_repair(&fixture.options, &os()).unwrap_err();
    assert!(
        matches!(&refusal, Error::Refused(Refusal::EntriesMissing { found: 50, expected: 100, .. })),
        "{refusal}"
    );
    assert!(run.exists(), "the trace of the loss is gone");
    // What the refusal asks for.
    restore(new.path());
    fixture.open().unwrap().close();
    fixture.check(&acknowledged);
}

#[test]
fn keys_that_are_made_anew_are_written_as_soon_as_a_table_is_full() {
    let fixture = small();
    let log = fixture.open().unwrap();
    let acknowledged = add_all(&log, 0..950);
    log.close();
    std::fs::remove_dir_all(fixture.path("dedup")).unwrap();
    let mood = Moody::default();
    // The follower merges runs as soon as it can, and reads them for it.
    mood.runs_wait.store(true, Ordering::SeqCst);
    let log = fixture.open_on(Arc::new(mood.clone())).unwrap();
    assert_eq!(runs(&fixture).len(), 9, "the keys of whole tables stayed in memory");
    mood.runs_wait.store(false, Ordering::SeqCst);
    for (index, bytes) in &acknowledged {
        assert_eq!(add(&log, bytes, Ack::Sequenced).unwrap().index, *index);
    }
    log.close();
}

#[test]
fn a_reader_that_waits_for_the_disk_does_not_hold_up_writers() {
    let fixture = small();
    let mood = Moody::default();
    let log = fixture.open_on(Arc::new(mood.clone())).unwrap();
    add_all(&log, 0..150);
    wait_for("a run", || !runs(&fixture).is_empty());
    // Until the follower has put the run in the table's place.
    std::thread::sleep(Duration::from_millis(300));
    let publication = add(&log, &entry(150), Ack::Published).unwrap().publication.unwrap();
    mood.runs_wait.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| log.index_of(&leaf_hash(&entry(5)), &publication));
        wait_for("the reader", || mood.waiting.load(Ordering::SeqCst));
        let answer =
            log.submit(WriterId(2), Entry::plain(entry(151).into()).unwrap(), Ack::Sequenced).unwrap();
        let mut answer = answer;
        let mut written = None;
        for _ in 0..4000 {
            written = answer.try_recv().ok();
            if written.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        mood.runs_wait.store(false, Ordering::SeqCst);
        assert_eq!(written.expect("the writer waited for a reader").unwrap().index, 151);
        assert_eq!(reader.join().unwrap().unwrap(), 5);
    });
    log.close();
}

#[test]
fn the_self_check_goes_on_under_steady_load() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.deduplication = Deduplication::Off;
    let log = fixture.open().unwrap();
    // A full tile at least every few milliseconds: the follower is never without work for long.
    let mut first = 0;
    while log.metrics().scrubbed < 2 * 256 {
        add_all(&log, first..first + 256);
        first += 256;
        assert!(first < 4_000_000, "the self-check never ran");
    }
    log.close();
}

#[test]
fn a_check_compares_positions_and_keys_and_creates_nothing() {
    let fixture = small();
    let log = fixture.open().unwrap();
    let acknowledged = add_all(&log, 0..600);
    wait_for("the runs", || runs(&fixture).len() >= 6);
    log.close();
    fixture.open().unwrap().close();
    assert_eq!(fixture.check(&acknowledged).keys, 600);
    let damaged = |path: &Path, word: &str| match check_log(&fixture.options, &os(), |_, _| {}) {
        Err(Error::Damaged { file, detail }) => {
            assert_eq!(file, path);
            assert!(detail.contains(word), "{detail}");
        }
        other => panic!("{}: {other:?}", path.display()),
    };

    // Both are whole in themselves, and wrong.
    let positions = fixture.path("tiles/positions");
    let good = std::fs::read(&positions).unwrap();
    let mut bad = good.clone();
    bad[15] ^= 1;
    let checksum = crc32c::crc32c(&bad[..32]).to_be_bytes();
    bad[32..36].copy_from_slice(&checksum);
    std::fs::write(&positions, &bad).unwrap();
    damaged(&positions, "entry 64");
    std::fs::write(&positions, &good).unwrap();

    let run = fixture.path("dedup/100-200.run");
    let good = std::fs::read(&run).unwrap();
    let mut bad = good.clone();
    bad[64 + 16 * 50 + 3] ^= 1;
    let checksum = crc32c::crc32c(&bad[64..64 + 4080]).to_be_bytes();
    bad[64 + 4080..64 + 4084].copy_from_slice(&checksum);
    std::fs::write(&run, &bad).unwrap();
    damaged(&run, "the key of entry 1");
    std::fs::write(&run, &good).unwrap();

    // What is derived is left out of a backup.
    let (tiles, aside) = (fixture.path("tiles"), fixture.path("aside"));
    std::fs::rename(&tiles, &aside).unwrap();
    assert_eq!(fixture.check(&acknowledged).tiles, 0);
    std::fs::rename(&aside, &tiles).unwrap();
    for gone in ["checkpoint", "tiles/positions", "tiles/0.tiles"] {
        let (path, aside) = (fixture.path(gone), fixture.path("aside"));
        std::fs::rename(&path, &aside).unwrap();
        damaged(&path, "missing");
        assert!(!path.exists(), "the check made {gone}");
        std::fs::rename(&aside, &path).unwrap();
    }
    fixture.check(&acknowledged);
}

#[test]
fn a_checked_log_stays_closed_until_it_is_let_go() {
    let fixture = small();
    fixture.open().unwrap().close();
    let (_, held) = check_and_hold(&fixture.options, &os(), |_, _| {}).unwrap();
    assert!(matches!(fixture.open(), Err(Error::Refused(Refusal::Locked { .. }))));
    drop(held);
    fixture.open().unwrap().close();
}
