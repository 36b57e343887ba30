//! The acknowledgement levels of one log: sequenced, published, witnessed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fixture::{Fixture, PlainSigner, add, entry, os};
use log_store::{
    Ack, Cosigner, Entry, Error, Log, LogKind, LogParts, Receipt, Refusal, Result, Witnessing, WriterId,
    Writing, plan_repair,
};
use tlog::consistency::ConsistencyProof;
use tlog::hash::TreeHead;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

const LINE: &[u8] = "— witness\n".as_bytes();

/// Witnesses that answer or not.
#[derive(Debug, Default)]
struct Quorum {
    reached: AtomicBool,
    asked: AtomicU64,
}

impl Cosigner for Quorum {
    fn cosignatures<'a>(&self, note: &'a [u8]) -> Option<&'a [u8]> {
        note.ends_with(LINE).then(|| &note[note.len() - LINE.len()..])
    }

    fn cosign(
        &self,
        note: &[u8],
        _: &TreeHead,
        consistency: &dyn Fn(u64) -> Result<ConsistencyProof>,
    ) -> Result<Vec<u8>> {
        consistency(0)?;
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.reached.load(Ordering::SeqCst) {
            Ok([note, LINE].concat())
        } else {
            Err(Error::WitnessQuorum("0 of 1".to_owned()))
        }
    }
}

fn open(fixture: &Fixture, quorum: &Arc<Quorum>) -> Log {
    try_open(fixture, quorum).unwrap()
}

fn try_open(fixture: &Fixture, quorum: &Arc<Quorum>) -> Result<Log> {
    let signer = Arc::new(PlainSigner(fixture.options.origin.clone()));
    let parts = LogParts { disk: os(), clock: fixture.clock.clone(), signer, cosigner: Some(quorum.clone()) };
    Log::open(&fixture.options, parts)
}

fn submit(log: &Log, i: u64, ack: Ack) -> oneshot::Receiver<Result<Receipt>> {
    log.submit(WriterId(1), Entry::plain(entry(i).into()).unwrap(), ack).unwrap()
}

#[test]
fn on_request_only_who_asks_for_witnesses_waits_for_them() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.witnessing = Witnessing::OnRequest { pause: Duration::ZERO, refresh: None };
    let quorum = Arc::new(Quorum::default());
    let log = open(&fixture, &quorum);
    let mut witnessed = submit(&log, 0, Ack::Witnessed);
    let published = add(&log, &entry(1), Ack::Published).unwrap();
    assert!(!published.publication.unwrap().note().ends_with(LINE));
    while quorum.asked.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    assert_eq!(witnessed.try_recv().unwrap_err(), TryRecvError::Empty, "no answer without the quorum");
    assert!(log.witnessed().is_none());
    assert_eq!(log.publication().unwrap().tree().size, 2);

    quorum.reached.store(true, Ordering::SeqCst);
    let receipt = Log::wait(witnessed).unwrap();
    let cosigned = receipt.publication.unwrap();
    assert!(receipt.index < cosigned.tree().size && cosigned.note().ends_with(LINE));
    assert_eq!(log.witnessed().unwrap().tree(), cosigned.tree());
    let again = add(&log, &entry(0), Ack::Witnessed).unwrap();
    assert_eq!(again.index, receipt.index, "a retry gets the same index");
    log.close();
    fixture.check(&[(0, entry(0)), (1, entry(1))]);
}

#[test]
fn witnesses_are_asked_no_oftener_than_the_pause_and_one_request_serves_all_who_wait() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.witnessing = Witnessing::OnRequest { pause: Duration::from_secs(3600), refresh: None };
    let quorum = Arc::new(Quorum { reached: AtomicBool::new(true), asked: AtomicU64::new(0) });
    let log = open(&fixture, &quorum);
    assert_eq!(add(&log, &entry(0), Ack::Witnessed).unwrap().index, 0);
    let waiting: Vec<_> = (1..5).map(|i| submit(&log, i, Ack::Witnessed)).collect();
    assert_eq!(add(&log, &entry(5), Ack::Published).unwrap().index, 5);
    assert_eq!(quorum.asked.load(Ordering::SeqCst), 1);
    log.close();
    for answer in waiting {
        // Nobody is left without an answer, and nobody gets a promise that was not kept.
        assert!(matches!(Log::wait(answer), Err(Error::Stopped(_))));
    }
    let log = open(&fixture, &quorum);
    assert_eq!(add(&log, &entry(3), Ack::Witnessed).unwrap().index, 3);
    log.close();
}

#[test]
fn a_log_without_witnesses_refuses_to_promise_them() {
    let fixture = Fixture::new(LogKind::Raw);
    let log = fixture.open().unwrap();
    assert!(matches!(add(&log, &entry(0), Ack::Witnessed), Err(Error::NoWitnesses)));
    assert_eq!(log.committed().size, 0, "nothing was queued");
    log.close();
}

#[test]
fn where_every_checkpoint_is_witnessed_both_levels_are_the_same() {
    let fixture = Fixture::new(LogKind::Raw);
    let quorum = Arc::new(Quorum { reached: AtomicBool::new(true), asked: AtomicU64::new(0) });
    let log = open(&fixture, &quorum);
    for (i, ack) in [(0, Ack::Published), (1, Ack::Witnessed)] {
        let publication = add(&log, &entry(i), ack).unwrap().publication.unwrap();
        assert!(publication.note().ends_with(LINE));
    }
    assert_eq!(log.witnessed().unwrap().tree().size, 2);
    log.close();
}

#[test]
fn a_failing_quorum_is_asked_no_oftener_than_the_pause_however_many_wait() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.witnessing = Witnessing::OnRequest { pause: Duration::from_secs(3600), refresh: None };
    let quorum = Arc::new(Quorum::default());
    let log = open(&fixture, &quorum);
    for i in 0..100 {
        drop(submit(&log, i, Ack::Witnessed));
        // Each is published by itself, and so wakes the thread that asks by itself.
        add(&log, &entry(1000 + i), Ack::Published).unwrap();
    }
    log.close();
    assert_eq!(quorum.asked.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_shown_is_signed_anew_and_keeps_its_cosignatures() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.witnessing = Witnessing::OnRequest { pause: Duration::ZERO, refresh: None };
    fixture.options.publishing.idle = Duration::from_millis(20);
    let quorum = Arc::new(Quorum { reached: AtomicBool::new(true), asked: AtomicU64::new(0) });
    let log = open(&fixture, &quorum);
    add(&log, &entry(0), Ack::Witnessed).unwrap();
    let first = log.checkpoint().unwrap();
    assert!(first.ends_with(LINE));
    fixture.clock.set(2_000_000);
    while log.publication().unwrap().time_millis() < 2_000_000 {
        std::thread::yield_now();
    }
    let later = log.checkpoint().unwrap();
    assert!(later.starts_with(log.publication().unwrap().note()) && later.ends_with(LINE));
    assert_ne!(first, later);
    assert_eq!(quorum.asked.load(Ordering::SeqCst), 1);
    // The lines are over this tree only.
    add(&log, &entry(1), Ack::Published).unwrap();
    assert_eq!(log.checkpoint().unwrap(), *log.publication().unwrap().note());
    log.close();
}

#[test]
fn cosignatures_of_an_unchanged_tree_are_renewed_unasked() {
    let mut fixture = Fixture::new(LogKind::Raw);
    let refresh = Some(Duration::from_millis(20));
    fixture.options.witnessing = Witnessing::OnRequest { pause: Duration::ZERO, refresh };
    let quorum = Arc::new(Quorum { reached: AtomicBool::new(true), asked: AtomicU64::new(0) });
    let log = open(&fixture, &quorum);
    while quorum.asked.load(Ordering::SeqCst) < 3 {
        std::thread::yield_now();
    }
    assert!(log.checkpoint().unwrap().ends_with(LINE));
    log.close();
}

#[test]
fn who_has_gone_is_forgotten_and_who_waits_is_bounded() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.batching.queue_entries = 100;
    let log = open(&fixture, &Arc::new(Quorum::default()));
    let (mut taken, mut refused) = (0, 0);
    for i in 0..20_000 {
        let entry = Entry::plain(entry(i % 10).into()).unwrap();
        match log.submit(WriterId(1), entry, Ack::Published) {
            Ok(_) => taken += 1,
            Err(Error::Overloaded { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
        // Those in the queue come on top of those who are bounded.
        assert!(log.metrics().waiting <= 400, "{} wait", log.metrics().waiting);
    }
    assert!(taken > 100, "those who have gone keep their places: {taken} taken, {refused} refused");
    log.close();
}

/// Anybody may submit again what is published, and wait for its witnesses as long as they stay away.
#[test]
fn who_waits_for_witnesses_keeps_nobody_from_a_checkpoint_nor_new_entries_from_witnesses() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.witnessing = Witnessing::OnRequest { pause: Duration::ZERO, refresh: None };
    fixture.options.batching.queue_entries = 64;
    let quorum = Arc::new(Quorum::default());
    let log = open(&fixture, &quorum);
    add(&log, &entry(0), Ack::Published).unwrap();
    let mut answers = Vec::new();
    for _ in 0..256 {
        answers.push(submit(&log, 0, Ack::Witnessed));
        // One after the other: what is in the queue at once is bounded too.
        add(&log, &entry(0), Ack::Published).unwrap();
    }
    add(&log, &entry(200), Ack::Published).unwrap();
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for mut answer in answers {
        match answer.try_recv() {
            Err(TryRecvError::Empty) => waiting.push(answer),
            Ok(Err(Error::Overloaded { .. })) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((waiting.len(), refused), (16, 240));
    for i in 1..49 {
        waiting.push(submit(&log, i, Ack::Witnessed));
        assert_eq!(add(&log, &entry(100 + i), Ack::Published).unwrap().novelty, log_store::Novelty::New);
    }
    add(&log, &entry(201), Ack::Published).unwrap();
    assert!(waiting.iter_mut().all(|answer| answer.try_recv().is_err()));
    let full = log.submit(WriterId(1), Entry::plain(entry(99).into()).unwrap(), Ack::Witnessed);
    assert!(matches!(full, Err(Error::Overloaded { .. })));
    add(&log, &entry(99), Ack::Published).unwrap();
    quorum.reached.store(true, Ordering::SeqCst);
    for answer in waiting {
        assert!(Log::wait(answer).unwrap().publication.unwrap().note().ends_with(LINE));
    }
    log.close();
}

/// Feeders bring witnesses what is public, so a witness may know more than what it is asked about.
#[test]
fn a_witness_that_knows_a_newer_published_tree_is_asked_about_it_at_once() {
    /// Waits at the first question until the log has published more, and knows that then.
    #[derive(Debug)]
    struct Fed(std::sync::mpsc::Sender<()>, Mutex<std::sync::mpsc::Receiver<()>>, AtomicU64);

    impl Cosigner for Fed {
        fn cosignatures<'a>(&self, note: &'a [u8]) -> Option<&'a [u8]> {
            Some(&note[note.len()..])
        }

        fn cosign(
            &self,
            note: &[u8],
            head: &TreeHead,
            _: &dyn Fn(u64) -> Result<ConsistencyProof>,
        ) -> Result<Vec<u8>> {
            if self.2.fetch_add(1, Ordering::SeqCst) == 0 {
                self.0.send(()).unwrap();
                self.1.lock().unwrap().recv().unwrap();
            }
            match head.size {
                2 => Ok([note, LINE].concat()),
                _ => Err(Error::WitnessAhead { recorded: 2, detail: String::new() }),
            }
        }
    }

    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.witnessing = Witnessing::OnRequest { pause: Duration::from_secs(3600), refresh: None };
    let ((asked, was_asked), (go_on, may_go_on)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    let fed = Arc::new(Fed(asked, Mutex::new(may_go_on), AtomicU64::new(0)));
    let signer = Arc::new(PlainSigner(fixture.options.origin.clone()));
    let parts = LogParts { disk: os(), clock: fixture.clock.clone(), signer, cosigner: Some(fed.clone()) };
    let log = Log::open(&fixture.options, parts).unwrap();
    let witnessed = submit(&log, 0, Ack::Witnessed);
    was_asked.recv().unwrap();
    add(&log, &entry(1), Ack::Published).unwrap();
    go_on.send(()).unwrap();
    assert_eq!(Log::wait(witnessed).unwrap().publication.unwrap().tree().size, 2);
    assert_eq!(fed.2.load(Ordering::SeqCst), 2);
    log.close();
}

#[test]
fn entries_that_a_checkpoint_covers_make_no_other_one() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.publishing.unhurried = Duration::from_secs(60);
    let quorum = Arc::new(Quorum { reached: AtomicBool::new(true), asked: AtomicU64::new(0) });
    let log = open(&fixture, &quorum);
    let first = add(&log, &entry(0), Ack::Published).unwrap();
    let before = log.metrics().publications;
    for ack in [Ack::Published, Ack::Witnessed].repeat(50) {
        let again = add(&log, &entry(0), ack).unwrap();
        assert_eq!(again.index, first.index);
        assert!(again.publication.unwrap().note().ends_with(LINE));
    }
    assert_eq!(log.metrics().publications, before);
    log.close();
}

#[test]
fn a_start_without_witnesses_shows_the_last_checkpoint_that_had_them() {
    let fixture = Fixture::new(LogKind::Raw);
    let quorum = Arc::new(Quorum { reached: AtomicBool::new(true), asked: AtomicU64::new(0) });
    let log = open(&fixture, &quorum);
    for i in 0..600 {
        drop(submit(&log, i, Ack::Sequenced));
    }
    add(&log, &entry(600), Ack::Published).unwrap();
    let shown = log.publication().unwrap();
    quorum.reached.store(false, Ordering::SeqCst);
    // Committed, and never published.
    add(&log, &entry(601), Ack::Sequenced).unwrap();
    log.close();
    for _ in 0..3 {
        let log = open(&fixture, &quorum);
        let again = log.publication().unwrap();
        assert_eq!((again.tree(), again.note()), (shown.tree(), shown.note()));
        assert_eq!(log.committed().size, 602);
        let proof = log.inclusion_proof(600, &again).unwrap();
        let _ = proof.verify(&tlog::hash::leaf_hash(&entry(600)), &again.tree()).unwrap();
        assert_eq!(log.tile(0, 2, 89, &again).unwrap(), log.tile(0, 2, 89, &shown).unwrap());
        assert!(log.tile(0, 2, 90, &again).is_err(), "beyond what was published");
        log.close();
    }
    quorum.reached.store(true, Ordering::SeqCst);
    let log = open(&fixture, &quorum);
    assert_eq!(add(&log, &entry(602), Ack::Published).unwrap().index, 602);
    log.close();
}

#[test]
fn on_request_a_restart_keeps_what_was_cosigned_and_asks_at_once_for_what_was_not() {
    let mut fixture = Fixture::new(LogKind::Raw);
    fixture.options.witnessing = Witnessing::OnRequest { pause: Duration::ZERO, refresh: None };
    let quorum = Arc::new(Quorum { reached: AtomicBool::new(true), asked: AtomicU64::new(0) });
    let log = open(&fixture, &quorum);
    let tree = add(&log, &entry(0), Ack::Witnessed).unwrap().publication.unwrap().tree();
    log.close();
    for writing in [Writing::Open, Writing::Frozen] {
        fixture.options.writing = writing;
        let log = open(&fixture, &quorum);
        let shown = log.checkpoint().unwrap();
        assert!(shown.starts_with(log.publication().unwrap().note()) && shown.ends_with(LINE));
        assert_eq!(log.witnessed().unwrap().tree(), tree);
        log.close();
    }
    assert_eq!(quorum.asked.load(Ordering::SeqCst), 1, "this tree is cosigned");

    fixture.options.writing = Writing::Open;
    let log = open(&fixture, &quorum);
    add(&log, &entry(1), Ack::Published).unwrap();
    log.close();
    // Nobody can submit to a frozen log, so nobody else will ask.
    fixture.options.writing = Writing::Frozen;
    quorum.reached.store(false, Ordering::SeqCst);
    let log = open(&fixture, &quorum);
    assert_eq!(log.witnessed().unwrap().tree(), tree, "what there was is shown meanwhile");
    while quorum.asked.load(Ordering::SeqCst) < 3 {
        std::thread::yield_now();
    }
    quorum.reached.store(true, Ordering::SeqCst);
    while !log.checkpoint().unwrap().ends_with(LINE) {
        std::thread::yield_now();
    }
    assert_eq!(log.witnessed().unwrap().tree().size, 2);
    log.close();
}

/// Copies all records of what was committed and signed but the cosigned checkpoint from one folder to another.
fn restore(from: &std::path::Path, to: &Fixture) {
    for name in ["entries", "head"] {
        std::fs::remove_dir_all(to.path(name)).unwrap();
        fixture::copy_tree(&from.join("log").join(name), &to.path(name));
    }
    std::fs::copy(from.join("log/checkpoint"), to.path("checkpoint")).unwrap();
    std::fs::copy(from.join("copy/head"), &to.options.head_copy).unwrap();
}

#[test]
fn the_cosigned_checkpoint_refuses_a_log_that_was_put_back_behind_it() {
    let on_request = Witnessing::OnRequest { pause: Duration::ZERO, refresh: None };
    for witnessing in [Witnessing::EveryCheckpoint, on_request] {
        let (mut fixture, mut other) = (Fixture::new(LogKind::Raw), Fixture::new(LogKind::Raw));
        fixture.options.witnessing = witnessing;
        other.options.witnessing = witnessing;
        let quorum = Arc::new(Quorum { reached: AtomicBool::new(true), asked: AtomicU64::new(0) });
        let grow = |fixture: &Fixture, range: std::ops::Range<u64>| {
            let log = open(fixture, &quorum);
            range.for_each(|i| drop(add(&log, &entry(i), Ack::Witnessed).unwrap()));
            log.close();
        };
        grow(&fixture, 0..5);
        let old = tempfile::tempdir().unwrap();
        fixture::copy_tree(fixture.directory.path(), old.path());
        grow(&fixture, 5..20);
        grow(&other, 100..130);

        let cosigned = fixture.options.cosigned_file();
        restore(old.path(), &fixture);
        let refusal = try_open(&fixture, &quorum).unwrap_err();
        assert!(
            matches!(&refusal, Error::Refused(Refusal::HeadBehind { newer, newer_size: 20, head_size: 5, .. }) if *newer == cosigned),
            "{refusal}"
        );
        let refusal = plan_repair(&fixture.options, &os()).unwrap_err();
        assert!(
            matches!(&refusal, Error::Refused(Refusal::EntriesMissing { found: 5, expected: 20, .. })),
            "{refusal}"
        );
        restore(other.directory.path(), &fixture);
        let refusal = try_open(&fixture, &quorum).unwrap_err();
        assert!(
            matches!(&refusal, Error::Refused(Refusal::HeadsDiffer { other, .. }) if *other == cosigned),
            "{refusal}"
        );
    }
}
