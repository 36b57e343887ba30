//! A log does what it says: indices, proofs, duplicates, publication, restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Fixture, add, add_all, entry};
use log_store::{
    Ack, CertificateEntry, CertificateRecord, CheckpointSigner, Cosigner, Entry, Error, HeadFile, Log,
    LogKind, LogParts, Novelty, OsDisk, Refusal, Result, WriterId, Writing,
};
use tlog::consistency::ConsistencyProof;
use tlog::hash::{TreeHead, leaf_hash};

#[test]
fn every_entry_is_provable_after_growth_and_restart() {
    let fixture = Fixture::new(LogKind::Raw);
    let mut log = fixture.open().unwrap();
    let (mut acknowledged, mut heads) = (Vec::new(), Vec::new());
    for round in 0..12_u64 {
        let count = round * round * 13 % 400 + 1;
        let from = acknowledged.len() as u64;
        acknowledged.extend(add_all(&log, from..from + count));
        let last = add(&log, &entry(from + count), Ack::Published).unwrap();
        acknowledged.push((last.index, entry(from + count)));
        let publication = last.publication.unwrap();
        assert!(publication.tree().size > last.index);
        for old in &heads {
            let proof = log.consistency_proof(TreeHead::clone(old).size, &publication).unwrap();
            proof.verify(old, &publication.tree()).unwrap();
        }
        heads.push(publication.tree());
        for (index, bytes) in acknowledged.iter().step_by(7).chain(acknowledged.last()) {
            let proof = log.inclusion_proof(*index, &publication).unwrap();
            let _ = proof.verify(&leaf_hash(bytes), &publication.tree()).unwrap();
            assert_eq!(&log.entry(*index, &publication).unwrap(), bytes);
            assert_eq!(log.index_of(&leaf_hash(bytes), &publication).unwrap(), *index);
        }
        if round % 3 == 2 {
            log.close();
            fixture.check(&acknowledged);
            log = fixture.open().unwrap();
            assert_eq!(log.publication().unwrap().tree(), *heads.last().unwrap());
        }
    }
    log.close();
    let report = fixture.check(&acknowledged);
    assert_eq!(report.tree.size, acknowledged.len() as u64);
}

#[test]
fn tiles_are_served_for_every_published_width_and_no_other() {
    let fixture = Fixture::new(LogKind::Raw);
    let log = fixture.open().unwrap();
    add_all(&log, 0..600);
    let publication = add(&log, &entry(600), Ack::Published).unwrap().publication.unwrap();
    assert_eq!(publication.tree().size, 601);
    for (level, index, width, served) in [
        (0, 0, 256, true),
        (0, 1, 256, true),
        (0, 1, 17, true),
        (0, 2, 89, true),
        (0, 2, 90, false),
        (0, 2, 256, false),
        (0, 3, 1, false),
        (1, 0, 2, true),
        (1, 0, 3, false),
        (2, 0, 1, false),
        (63, 0, 1, false),
    ] {
        let tile = log.tile(level, index, width, &publication);
        match tile {
            Ok(bytes) => assert!(served && bytes.len() == usize::from(width) * 32, "{level}/{index}/{width}"),
            Err(Error::NotFound) => assert!(!served, "{level}/{index}/{width}"),
            Err(error) => panic!("{error}"),
        }
    }
    let first = log.tile(0, 0, 256, &publication).unwrap();
    assert_eq!(first[..32], *leaf_hash(&entry(0)).as_bytes());
    log.close();
}

#[test]
fn a_duplicate_gets_the_index_it_has_in_the_batch_across_batches_and_after_restart() {
    let fixture = Fixture::new(LogKind::Raw);
    let log = fixture.open().unwrap();
    let twice = [7, 8, 7, 7].map(|i| Entry::plain(entry(i).into()).unwrap());
    let answers = log.submit_all(WriterId(1), twice.into(), Ack::Sequenced).unwrap();
    let receipts: Vec<_> = answers.into_iter().map(|answer| Log::wait(answer).unwrap()).collect();
    assert_eq!(receipts.iter().map(|r| r.index).collect::<Vec<_>>(), [0, 1, 0, 0]);
    assert_eq!(receipts[0].novelty, Novelty::New);
    assert_eq!(receipts[2].novelty, Novelty::Duplicate);
    add_all(&log, 100..1100);
    let again = add(&log, &entry(8), Ack::Published).unwrap();
    assert_eq!((again.index, again.novelty), (1, Novelty::Duplicate));
    assert!(again.publication.unwrap().tree().size >= 2);
    log.close();
    let log = fixture.open().unwrap();
    for i in 100..1100 {
        let again = add(&log, &entry(i), Ack::Sequenced).unwrap();
        assert_eq!((again.index, again.novelty), (i - 98, Novelty::Duplicate));
    }
    log.close();
    assert_eq!(fixture.check(&[]).tree.size, 1002);
}

#[test]
fn issuance_entries_get_index_and_time_from_the_sequencer() {
    let fixture = Fixture::new(LogKind::Issuance);
    let log = fixture.open().unwrap();
    let certificate =
        |i: u8| CertificateEntry::precertificate([i; 32], vec![i; 300], vec![i; 400], vec![[9; 32]]);
    let submit = |i: u8| {
        let entry = Entry::certificate(certificate(i)).unwrap();
        Log::wait(log.submit(WriterId(1), entry, Ack::Published).unwrap()).unwrap()
    };
    for i in 0..3 {
        fixture.clock.set(2_000_000 + u64::from(i));
        let receipt = submit(i);
        assert_eq!((receipt.index, receipt.time_millis), (u64::from(i), 2_000_000 + u64::from(i)));
    }
    let again = submit(1);
    assert_eq!((again.index, again.time_millis, again.novelty), (1, 2_000_001, Novelty::Duplicate));
    let publication = log.publication().unwrap();
    let record = CertificateRecord::parse(&log.entry(1, &publication).unwrap()).unwrap();
    assert_eq!((record.index, record.time_millis), (1, 2_000_001));
    assert_eq!(record.entry, certificate(1));
    let leaf = leaf_hash(&record.entry.sct_input(1, 2_000_001));
    let _ = log.inclusion_proof(1, &publication).unwrap().verify(&leaf, &publication.tree()).unwrap();
    let plain = log.submit(WriterId(1), Entry::plain(vec![1].into()).unwrap(), Ack::Sequenced);
    assert!(matches!(plain, Err(Error::WrongKind { kind: "issuance" })));
    log.close();
    fixture.check(&[]);
}

#[test]
fn a_small_step_back_of_the_clock_is_waited_for() {
    let fixture = Fixture::new(LogKind::Issuance);
    let submit = |log: &Log, i: u8| {
        let entry = Entry::certificate(CertificateEntry::certificate(vec![i; 300], vec![[9; 32]])).unwrap();
        Log::wait(log.submit(WriterId(1), entry, Ack::Published).unwrap())
    };
    fixture.clock.set(2_000_000);
    let log = fixture.open().unwrap();
    assert_eq!(submit(&log, 0).unwrap().time_millis, 2_000_000);
    let shown = log.publication().unwrap();
    for behind in [50, 10_000, 1] {
        fixture.clock.set(2_000_000 - behind);
        let error = submit(&log, 1).unwrap_err();
        assert!(
            matches!(error, Error::ClockBehind { behind_millis } if behind_millis == behind),
            "{behind}: {error}"
        );
        assert_eq!((log.failure(), log.committed().size), (None, 1));
    }
    fixture.clock.set(2_000_000);
    let receipt = submit(&log, 1).unwrap();
    assert_eq!((receipt.index, receipt.time_millis), (1, 2_000_000));
    assert!(receipt.publication.unwrap().time_millis() >= shown.time_millis());
    log.close();
    fixture.check(&[]);
}

#[test]
fn a_clock_that_goes_back_far_stops_the_log_and_then_refuses_to_start() {
    let fixture = Fixture::new(LogKind::Raw);
    let log = fixture.open().unwrap();
    let acknowledged = add_all(&log, 0..5);
    fixture.clock.set(1_000_000 - 10_001);
    let error = add(&log, &entry(9), Ack::Sequenced).unwrap_err();
    assert!(matches!(error, Error::Stopped(_)), "{error}");
    assert!(log.failure().unwrap().contains("clock"), "{:?}", log.failure());
    assert_eq!(log.entry(3, &log.publication().unwrap()).unwrap_or(entry(3)), entry(3));
    log.close();
    let refusal = fixture.open().unwrap_err();
    assert!(
        matches!(refusal, Error::Refused(Refusal::ClockBehind { behind_millis: 10_001, .. })),
        "{refusal}"
    );
    // After a small step a start waits, as the running log does; a clock that stands still it does not wait for.
    fixture.clock.set(1_000_000 - 300);
    let refusal = fixture.open().unwrap_err();
    assert!(matches!(refusal, Error::Refused(Refusal::ClockBehind { behind_millis: 300, .. })), "{refusal}");
    let clock = fixture.clock.clone();
    let runs = std::thread::spawn(move || {
        // As fast as time passes, however seldom this thread has its turn.
        let (time, start) = (log_store::SystemClock, 1_000_000 - 300);
        let began = log_store::Clock::elapsed(&time);
        let mut now = start;
        while now < 1_000_000 {
            let passed = log_store::Clock::elapsed(&time) - began;
            now = start + u64::try_from(passed.as_millis()).unwrap();
            clock.set(now.min(1_000_000));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
    fixture.open().unwrap().close();
    runs.join().unwrap();
    fixture.check(&acknowledged);
}

#[test]
fn a_frozen_log_signs_and_serves_but_takes_nothing() {
    let mut fixture = Fixture::new(LogKind::Raw);
    let log = fixture.open().unwrap();
    add_all(&log, 0..5);
    log.close();
    fixture.options.writing = Writing::Frozen;
    let log = fixture.open().unwrap();
    assert!(matches!(add(&log, &entry(9), Ack::Sequenced), Err(Error::Frozen)));
    assert_eq!(log.publication().unwrap().tree().size, 5);
    log.close();
}

#[test]
fn an_idle_log_signs_again_so_that_its_time_stays_fresh() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.publishing.idle = Duration::from_millis(5);
    let log = fixture.open().unwrap();
    let first = log.publication().unwrap();
    fixture.clock.set(1_000_500);
    while log.publication().unwrap().time_millis() == first.time_millis() {
        std::thread::yield_now();
    }
    assert_eq!(log.publication().unwrap().tree(), first.tree());
    log.close();
}

#[derive(Debug)]
struct Quorum(parking_lot::Mutex<bool>);

impl Cosigner for Quorum {
    fn cosignatures<'a>(&self, _: &'a [u8]) -> Option<&'a [u8]> {
        None
    }

    fn cosign(
        &self,
        note: &[u8],
        _: &TreeHead,
        consistency: &dyn Fn(u64) -> Result<ConsistencyProof>,
    ) -> Result<Vec<u8>> {
        consistency(0)?;
        if *self.0.lock() {
            Ok([note, "— witness\n".as_bytes()].concat())
        } else {
            Err(Error::WitnessQuorum("0 of 1".to_owned()))
        }
    }
}

#[test]
fn nothing_is_published_without_the_quorum_and_everything_sequenced_is_published_with_it() {
    let fixture = Fixture::new(LogKind::Raw);
    let quorum = Arc::new(Quorum(parking_lot::Mutex::new(false)));
    let signer: Arc<dyn CheckpointSigner> = Arc::new(fixture::PlainSigner(fixture.options.origin.clone()));
    let parts = LogParts {
        disk: fixture::os(),
        clock: fixture.clock.clone(),
        signer,
        cosigner: Some(quorum.clone()),
    };
    let log = Log::open(&fixture.options, parts).unwrap();
    assert!(log.publication().is_none());
    let waiting = log.submit(WriterId(1), Entry::plain(entry(0).into()).unwrap(), Ack::Published).unwrap();
    assert_eq!(add(&log, &entry(1), Ack::Sequenced).unwrap().index, 1);
    assert!(log.publication().is_none());
    *quorum.0.lock() = true;
    let receipt = Log::wait(waiting).unwrap();
    let publication = receipt.publication.unwrap();
    assert!(publication.note().ends_with("— witness\n".as_bytes()));
    log.close();
    fixture.check(&[(0, entry(0)), (1, entry(1))]);
}

#[test]
fn a_head_completed_after_a_crash_is_not_older_than_its_entries() {
    let fixture = Fixture::new(LogKind::Issuance);
    let log = fixture.open().unwrap();
    log.close();
    let old = tempfile::tempdir().unwrap();
    fixture::copy_tree(fixture.directory.path(), old.path());
    fixture.clock.set(5_000_000);
    let log = fixture.open().unwrap();
    let certificate = CertificateEntry::certificate(vec![7; 300], vec![[9; 32]]);
    let entry = Entry::certificate(certificate).unwrap();
    Log::wait(log.submit(WriterId(1), entry, Ack::Sequenced).unwrap()).unwrap();
    log.close();
    // As after a crash between the sync of the entries and that of the head.
    for name in ["log/head/head", "copy/head", "log/checkpoint"] {
        std::fs::copy(old.path().join(name), fixture.directory.path().join(name)).unwrap();
    }
    fixture.clock.set(4_999_000);
    let refusal = fixture.open().unwrap_err();
    assert!(matches!(refusal, Error::Refused(Refusal::ClockBehind { behind_millis: 1000, .. })), "{refusal}");
    fixture.clock.set(5_000_001);
    fixture.open().unwrap().close();
    let identity =
        tlog::Hash::digest(format!("mentat log\nissuance\n{}\n", fixture.options.origin).as_bytes());
    let head = HeadFile::open(&OsDisk, &fixture.options.head, identity.0).unwrap().load();
    assert_eq!((head.tree.size, head.time_millis >= 5_000_000), (1, true));
}
