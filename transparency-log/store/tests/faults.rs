//! Each call to storage fails once, in turn; each file is rolled back, damaged or removed. The result is always the same:
//! nothing acknowledged is lost and no second history is signed, or a refusal that names the file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use fixture::{Fixture, add, add_all, copy_tree, entry, os};
use log_store::{
    Access, Ack, Disk, DiskFile, Entry, Error, Log, LogKind, OsDisk, Refusal, WriterId, plan_repair,
};
use tlog::hash::TreeHead;

/// The operating system's disk on which one call fails.
#[derive(Debug, Clone)]
struct Faulty {
    /// Calls until the failure; it happens once, or from then on.
    left: Arc<AtomicI64>,
    errno: i32,
    lasting: bool,
}

impl Faulty {
    fn at(call: i64, errno: i32, lasting: bool) -> Self {
        Self { left: Arc::new(AtomicI64::new(call)), errno, lasting }
    }

    fn call<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left == 0 || (self.lasting && left < 0) {
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        work()
    }

    fn happened(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }
}

impl Disk for Faulty {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.call(|| OsDisk.create_dir_all(path))
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.call(|| {
            let file = OsDisk.open(path, access)?;
            Ok(Arc::new(FaultyFile { file, faults: self.clone() }) as Arc<dyn DiskFile>)
        })
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.call(|| OsDisk.list(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|| OsDisk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|| OsDisk.remove(path))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call(|| OsDisk.sync_dir(path))
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Arc<dyn DiskFile>,
    faults: Faulty,
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        self.faults.call(|| self.file.length())
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.faults.call(|| self.file.read_at(buffer, offset))
    }
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.faults.call(|| self.file.write_at(buffer, offset)).inspect_err(|_| {
            // A failing write may leave a part of itself behind.
            let _ = self.file.write_at(&buffer[..buffer.len() / 2], offset);
        })
    }
    fn sync_data(&self) -> io::Result<()> {
        self.faults.call(|| self.file.sync_data())
    }
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.faults.call(|| self.file.allocate(offset, length))
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.faults.call(|| self.file.set_len(length))
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.faults.call(|| self.file.try_lock())
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Runs a log on a faulty disk; returns what was acknowledged and the heads that were published.
fn exercise(fixture: &Fixture, faults: &Faulty) -> (Vec<(u64, Vec<u8>)>, Vec<TreeHead>) {
    let (mut acknowledged, mut heads) = (Vec::new(), Vec::new());
    let Ok(log) = fixture.open_on(Arc::new(faults.clone())) else { return (acknowledged, heads) };
    heads.extend(log.publication().map(|publication| publication.tree()));
    // Two full tiles in a few batches, then single entries of both levels.
    for round in 0..4_u64 {
        let range = round * 150..round * 150 + 140;
        let entries = range.clone().map(|i| Entry::plain(entry(i).into()).unwrap()).collect();
        if let Ok(answers) = log.submit_all(WriterId(1), entries, Ack::Sequenced) {
            for (answer, i) in answers.into_iter().zip(range.clone()) {
                acknowledged.extend(Log::wait(answer).ok().map(|receipt| (receipt.index, entry(i))));
            }
        }
        for i in range.end..range.end + 3 {
            if let Ok(receipt) =
                add(&log, &entry(i), if i % 2 == 0 { Ack::Published } else { Ack::Sequenced })
            {
                acknowledged.push((receipt.index, entry(i)));
                heads.extend(receipt.publication.map(|publication| publication.tree()));
            }
        }
    }
    heads.extend(log.publication().map(|publication| publication.tree()));
    log.close();
    (acknowledged, heads)
}

/// Reopens on a sound disk and verifies that every promise holds.
fn verify(fixture: &Fixture, acknowledged: &[(u64, Vec<u8>)], heads: &[TreeHead], what: &str) {
    let log = fixture.open().unwrap_or_else(|error| panic!("{what}: {error}"));
    let publication = add(&log, b"one more", Ack::Published).unwrap().publication.unwrap();
    for head in heads {
        let proof =
            log.consistency_proof(head.size, &publication).unwrap_or_else(|error| panic!("{what}: {error}"));
        proof
            .verify(head, &publication.tree())
            .unwrap_or_else(|error| panic!("{what}: a second history: {error}"));
    }
    log.close();
    fixture.check(acknowledged);
}

/// Fails each call in turn, until a run makes fewer calls than that. Three threads make the calls, so that their order is
/// not the same in each run; but every run fails another one.
fn each_call_fails(errno: i32, lasting: bool) {
    for call in 0..4000 {
        let mut fixture = Fixture::new(LogKind::Raw);
        fixture.options.publishing.unhurried = Duration::from_millis(50);
        let faults = Faulty::at(call, errno, lasting);
        let (acknowledged, heads) = exercise(&fixture, &faults);
        let what = format!("call {call}, errno {errno}, lasting {lasting}");
        verify(&fixture, &acknowledged, &heads, &what);
        if !faults.happened() {
            assert!(call > 100, "only {call} calls");
            return;
        }
    }
    panic!("never ran past the last call");
}

#[test]
fn every_storage_call_may_fail_once_with_an_io_error() {
    each_call_fails(EIO, false);
}

#[test]
fn every_storage_call_may_fail_with_an_io_error_for_good() {
    each_call_fails(EIO, true);
}

#[test]
fn every_storage_call_may_once_find_no_space() {
    each_call_fails(ENOSPC, false);
}

#[test]
fn every_storage_call_may_find_no_space_for_good() {
    each_call_fails(ENOSPC, true);
}

#[test]
fn creation_that_fails_leaves_nothing_that_is_taken_for_a_log() {
    for call in 0..40 {
        let fixture = Fixture::uninitialised(LogKind::Raw);
        let faults = Faulty::at(call, EIO, false);
        let disk: Arc<dyn Disk> = Arc::new(faults.clone());
        let made = Log::create(&fixture.options, &disk, &*fixture.clock);
        if !faults.happened() {
            made.unwrap();
            return;
        }
        made.unwrap_err();
        // Only the very last sync can fail after the log is whole.
        if let Ok(log) = fixture.open() {
            assert_eq!(log.committed().size, 0, "call {call}");
            log.close();
            fixture.check(&[]);
        }
    }
    panic!("creation never ran to its end");
}

#[test]
fn a_full_disk_refuses_entries_before_they_have_an_index_and_goes_on_when_there_is_space() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.publishing.unhurried = Duration::from_secs(60);
    let faults = Faulty::at(i64::MAX, ENOSPC, true);
    let log = fixture.open_on(Arc::new(faults.clone())).unwrap();
    let first = add(&log, &entry(0), Ack::Sequenced).unwrap();
    // Larger than what is reserved: the next call to storage, after the head's two slots were read, is the reservation.
    let large: Vec<Vec<u8>> = (0..2_u8).map(|i| vec![i; 65_500]).collect();
    faults.left.store(2, Ordering::SeqCst);
    let refused = add(&log, &large[0], Ack::Sequenced).unwrap_err();
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    assert_eq!(log.failure(), None);
    assert!(log.is_full());
    // Nobody writes, and still it finds out that there is space.
    faults.left.store(i64::MAX, Ordering::SeqCst);
    for _ in 0..1000 {
        if !log.is_full() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!log.is_full());
    assert_eq!(add(&log, &large[1], Ack::Sequenced).unwrap().index, first.index + 1);
    log.close();
    fixture.check(&[(0, entry(0)), (1, large[1].clone())]);
}

struct Grown {
    fixture: Fixture,
    acknowledged: Vec<(u64, Vec<u8>)>,
    old: PathBuf,
}

/// A log of 700 entries with a copy of its files from when it had 300.
fn grown() -> Grown {
    let fixture = Fixture::new(LogKind::Raw);
    let log = fixture.open().unwrap();
    let mut acknowledged = add_all(&log, 0..300);
    log.close();
    let old = fixture.directory.path().join("old");
    copy_tree(&fixture.options.directory, &old.join("log"));
    copy_tree(&fixture.directory.path().join("copy"), &old.join("copy"));
    let log = fixture.open().unwrap();
    acknowledged.extend(add_all(&log, 300..700));
    log.close();
    Grown { fixture, acknowledged, old }
}

fn refusal(fixture: &Fixture) -> Refusal {
    match fixture.open() {
        Err(Error::Refused(refusal)) => refusal,
        Err(other) => panic!("{other}"),
        Ok(log) => {
            log.close();
            panic!("the log started")
        }
    }
}

#[test]
fn an_old_head_is_noticed_by_its_second_copy() {
    let Grown { fixture, old, .. } = grown();
    std::fs::copy(old.join("log/head/head"), &fixture.options.head).unwrap();
    let refused = refusal(&fixture);
    assert!(
        matches!(&refused, Refusal::HeadBehind { head, head_size: 300, newer_size: 700, .. } if *head == fixture.options.head),
        "{refused}"
    );
}

#[test]
fn repair_rewrites_a_head_that_is_old_damaged_or_gone_and_never_shortens_the_log() {
    for (which, how) in [(0, "old"), (0, "gone"), (0, "damaged"), (1, "old"), (1, "gone"), (1, "damaged")] {
        let Grown { fixture, acknowledged, old } = grown();
        let (path, from) = [
            (&fixture.options.head, old.join("log/head/head")),
            (&fixture.options.head_copy, old.join("copy/head")),
        ]
        .into_iter()
        .nth(which)
        .unwrap();
        match how {
            "old" => drop(std::fs::copy(from, path).unwrap()),
            "gone" => std::fs::remove_file(path).unwrap(),
            _ => std::fs::write(path, vec![7; 8192]).unwrap(),
        }
        let _ = refusal(&fixture);
        let report = plan_repair(&fixture.options, &os()).unwrap().apply().unwrap();
        assert_eq!(report.tree.size, 700, "{which} {how}");
        assert!(report.verified.len() >= 2, "{which} {how}");
        let log = fixture.open().unwrap();
        assert_eq!(log.publication().unwrap().tree(), report.tree);
        log.close();
        fixture.check(&acknowledged);
    }
    let Grown { fixture, old, .. } = grown();
    std::fs::remove_dir_all(fixture.path("entries")).unwrap();
    copy_tree(&old.join("log/entries"), &fixture.path("entries"));
    let before = std::fs::read(&fixture.options.head).unwrap();
    let refused = plan_repair(&fixture.options, &os()).unwrap_err();
    assert!(
        matches!(refused, Error::Refused(Refusal::EntriesMissing { found: 300, expected: 700, .. })),
        "{refused}"
    );
    assert_eq!(std::fs::read(&fixture.options.head).unwrap(), before);
}

#[test]
fn an_old_second_copy_is_noticed_by_the_stored_note() {
    let Grown { fixture, old, .. } = grown();
    std::fs::copy(old.join("copy/head"), &fixture.options.head_copy).unwrap();
    let refused = refusal(&fixture);
    assert!(matches!(&refused, Refusal::CopyBehind { copy_size: 300, signed_size: 700, .. }), "{refused}");
}

#[test]
fn an_old_log_folder_is_noticed_by_the_second_copy() {
    let Grown { fixture, old, .. } = grown();
    std::fs::remove_dir_all(&fixture.options.directory).unwrap();
    copy_tree(&old.join("log"), &fixture.options.directory);
    let refused = refusal(&fixture);
    assert!(matches!(&refused, Refusal::HeadBehind { head_size: 300, newer_size: 700, .. }), "{refused}");
}

#[test]
fn old_entries_under_a_newer_head_are_a_refusal() {
    let Grown { fixture, old, .. } = grown();
    std::fs::remove_dir_all(fixture.path("entries")).unwrap();
    copy_tree(&old.join("log/entries"), &fixture.path("entries"));
    let refused = refusal(&fixture);
    assert!(matches!(&refused, Refusal::EntriesMissing { found: 300, expected: 700, .. }), "{refused}");
}

#[test]
fn derived_files_that_are_old_or_gone_are_rebuilt() {
    for name in ["tiles", "dedup"] {
        let Grown { fixture, acknowledged, old } = grown();
        std::fs::remove_dir_all(fixture.path(name)).unwrap();
        copy_tree(&old.join("log").join(name), &fixture.path(name));
        fixture.open().unwrap().close();
        fixture.check(&acknowledged);
        std::fs::remove_dir_all(fixture.path(name)).unwrap();
        let log = fixture.open().unwrap();
        assert_eq!(add(&log, &entry(5), Ack::Sequenced).unwrap().index, 5);
        log.close();
        fixture.check(&acknowledged);
    }
}

#[test]
fn an_old_stored_note_is_signed_anew() {
    let Grown { fixture, acknowledged, old } = grown();
    std::fs::copy(old.join("log/checkpoint"), fixture.path("checkpoint")).unwrap();
    let log = fixture.open().unwrap();
    assert_eq!(log.publication().unwrap().tree().size, 700);
    log.close();
    fixture.check(&acknowledged);
}

#[test]
fn a_head_or_copy_that_is_gone_is_a_refusal() {
    for which in 0..2 {
        let Grown { fixture, .. } = grown();
        let path = if which == 0 { fixture.options.head.clone() } else { fixture.options.head_copy.clone() };
        std::fs::remove_file(&path).unwrap();
        let refused = refusal(&fixture);
        assert!(matches!(&refused, Refusal::HeadMissing { head } if *head == path), "{refused}");
    }
}

#[test]
fn entries_stored_but_not_committed_are_completed_and_a_torn_tail_is_cut() {
    // The head and its copy and the note are from before: as after a crash between entry sync and head sync.
    let Grown { fixture, acknowledged, old } = grown();
    std::fs::copy(old.join("log/head/head"), &fixture.options.head).unwrap();
    std::fs::copy(old.join("copy/head"), &fixture.options.head_copy).unwrap();
    std::fs::copy(old.join("log/checkpoint"), fixture.path("checkpoint")).unwrap();
    let segment = fixture.path("entries/00000000.entries");
    let mut bytes = std::fs::read(&segment).unwrap();
    // A half-written record behind the last one.
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let torn = [0, 0, 0, 50, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 2, 188, b'x'];
    bytes.resize(bytes.len().max(end + torn.len()), 0);
    bytes[end..end + torn.len()].copy_from_slice(&torn);
    std::fs::write(&segment, bytes).unwrap();
    let log = fixture.open().unwrap();
    assert_eq!(log.committed().size, 700);
    assert_eq!(add(&log, &entry(700), Ack::Published).unwrap().index, 700);
    log.close();
    let report = fixture.check(&acknowledged);
    assert_eq!(report.tree.size, 701);
}
