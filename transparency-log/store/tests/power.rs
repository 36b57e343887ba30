//! The power fails at every step: nothing acknowledged is lost, no second history is signed, and the log starts again.
//! The same harness must find a log whose syncs are removed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;
mod power_disk;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Fixture, add, entry};
use log_store::{Access, Ack, Disk, Entry, Log, LogKind, WriterId, check_log};
use power_disk::{PowerDisk, Syncs, Unsynced};
use tlog::hash::TreeHead;

/// What the outside world was told before the power failed.
#[derive(Default)]
struct Told {
    acknowledged: Vec<(u64, Vec<u8>)>,
    heads: Vec<TreeHead>,
}

fn fixture() -> Fixture {
    let mut fixture = Fixture::uninitialised(LogKind::Raw);
    fixture.options.publishing.unhurried = Duration::from_millis(1);
    fixture.options.sizes.segment = 128 * 1024;
    fixture.options.sizes.reserve = 16 * 1024;
    fixture
}

/// Runs a log over full tiles, a second segment and a spilled run of deduplication keys, until the power fails.
fn exercise(fixture: &Fixture, disk: &PowerDisk) -> Told {
    let mut told = Told::default();
    let Ok(log) = fixture.open_on(Arc::new(disk.clone())) else { return told };
    told.heads.extend(log.publication().map(|publication| publication.tree()));
    for round in 0..5_u64 {
        let range = round * 120..round * 120 + 110;
        let entries = range.clone().map(|i| Entry::plain(entry(i).into()).unwrap()).collect();
        if let Ok(answers) = log.submit_all(WriterId(1), entries, Ack::Sequenced) {
            for (answer, i) in answers.into_iter().zip(range.clone()) {
                told.acknowledged.extend(Log::wait(answer).ok().map(|receipt| (receipt.index, entry(i))));
            }
        }
        for i in range.end..range.end + 3 {
            let ack = if i % 2 == 0 { Ack::Published } else { Ack::Sequenced };
            if let Ok(receipt) = add(&log, &entry(i), ack) {
                told.acknowledged.push((receipt.index, entry(i)));
                told.heads.extend(receipt.publication.map(|publication| publication.tree()));
            }
        }
        told.heads.extend(log.publication().map(|publication| publication.tree()));
    }
    log.close();
    told
}

/// Starts the log on what the power cut left; says which promise is broken.
fn verify(fixture: &Fixture, image: &PowerDisk, told: &Told) -> Result<(), String> {
    let disk: Arc<dyn Disk> = Arc::new(image.clone());
    let log = fixture.open_on(disk.clone()).map_err(|error| format!("it does not start: {error}"))?;
    let receipt = add(&log, b"one more", Ack::Published).map_err(|error| error.to_string())?;
    let publication = receipt.publication.unwrap();
    for head in &told.heads {
        let consistent = log
            .consistency_proof(head.size, &publication)
            .map_err(|error| error.to_string())
            .and_then(|proof| proof.verify(head, &publication.tree()).map_err(|error| error.to_string()));
        consistent.map_err(|error| format!("a second history behind size {}: {error}", head.size))?;
    }
    log.close();
    let mut stored = Vec::new();
    check_log(&fixture.options, &disk, |_, bytes| stored.push(bytes.to_vec()))
        .map_err(|error| error.to_string())?;
    for (index, bytes) in &told.acknowledged {
        if stored.get(usize::try_from(*index).unwrap()) != Some(bytes) {
            return Err(format!("acknowledged entry {index} is gone"));
        }
    }
    Ok(())
}

/// Cuts the power at every `stride`-th step of a run; what was broken, and how many steps there were.
fn cut_everywhere(syncs: Syncs, stride: u64) -> (Vec<String>, u64) {
    let mut broken = Vec::new();
    for step in (0..).step_by(usize::try_from(stride).unwrap()) {
        let fixture = fixture();
        let disk = PowerDisk::new(syncs);
        let made: Arc<dyn Disk> = Arc::new(PowerDisk::clone(&disk));
        Log::create(&fixture.options, &made, &*fixture.clock).unwrap();
        // The control loses what it wrote, not the files that `create` made.
        let disk = if syncs == Syncs::Honoured { disk } else { disk.image(Unsynced::Kept).with(syncs) };
        disk.cut_at(step);
        let told = exercise(&fixture, &disk);
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step), Unsynced::Some(step + 1)] {
            if let Err(what) = verify(&fixture, &disk.image(unsynced), &told) {
                broken.push(format!("step {step}, unsynced writes {unsynced:?}: {what}"));
            }
        }
        if !disk.is_cut() {
            return (broken, step);
        }
    }
    unreachable!("the loop ends with the run");
}

#[test]
fn power_may_fail_at_every_step() {
    let (broken, steps) = cut_everywhere(Syncs::Honoured, 1);
    assert!(broken.is_empty(), "{} of {steps} steps:\n{}", broken.len(), broken.join("\n"));
    assert!(steps > 150, "the run had {steps} steps only");
}

#[test]
fn power_may_fail_while_a_log_is_made() {
    for step in 0..60 {
        let fixture = fixture();
        let disk = PowerDisk::new(Syncs::Honoured);
        disk.cut_at(step);
        let made: Arc<dyn Disk> = Arc::new(disk.clone());
        let done = Log::create(&fixture.options, &made, &*fixture.clock).is_ok();
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(step)] {
            let image = disk.image(unsynced);
            match fixture.open_on(Arc::new(image.clone())) {
                Ok(log) => {
                    assert_eq!(log.committed().size, 0);
                    log.close();
                }
                Err(error) => assert!(!done, "step {step}, {unsynced:?}: {error}"),
            }
        }
        if done {
            return;
        }
    }
    panic!("creation never ran to its end");
}

#[test]
fn a_torn_tail_that_was_cut_does_not_come_back_behind_a_full_segment() {
    let fixture = fixture();
    let disk = PowerDisk::new(Syncs::Honoured);
    let made: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::create(&fixture.options, &made, &*fixture.clock).unwrap();
    let fill = |log: &Log, length: usize, byte: u8| {
        add(log, &vec![byte; length], Ack::Published).unwrap();
    };
    // Two thirds of the first segment, so that one more such entry does not fit.
    let log = fixture.open_on(Arc::new(disk.clone())).unwrap();
    fill(&log, 40_000, 1);
    fill(&log, 40_000, 2);
    log.close();
    // The power fails in the middle of a third entry: a part of its record is there.
    let segment = fixture.options.entries_directory().join("00000000.entries");
    disk.open(&segment, Access::ReadWrite).unwrap().write_at(&[7; 600], 64 + 2 * 40_016).unwrap();
    let disk = disk.image(Unsynced::Kept);
    // The start cuts it off, the next batch goes to the next segment, and the power fails again.
    let log = fixture.open_on(Arc::new(disk.clone())).unwrap();
    fill(&log, 60_000, 3);
    for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Some(1), Unsynced::Some(2)] {
        let told = Told { acknowledged: vec![(2, vec![3; 60_000])], heads: Vec::new() };
        verify(&fixture, &disk.image(unsynced), &told).unwrap();
    }
    log.close();
}

/// The first control: the same log without its syncs.
#[test]
fn the_harness_finds_a_log_whose_syncs_are_removed() {
    for of in ["", "entries"] {
        let (broken, steps) = cut_everywhere(Syncs::Ignored(of), 7);
        let lost = broken.iter().filter(|what| what.contains("is gone") || what.contains("does not start"));
        assert!(lost.count() > 3, "syncs of {of:?} removed: {} broken in {steps} steps", broken.len());
    }
}
