//! Power cuts under a real file system: an ext4 of its own is shut down without flushing its journal while a process
//! writes to it, and mounted again. What that process acknowledged must be there.
//!
//! Two controls must fail in the same harness, or it proves nothing: the same log without its syncs, and a sled store,
//! whose `flush` is the measured reason why it was replaced (ADR 0008).
//!
//! Needs root, loop devices, `mkfs.ext4` and `perl` (for one ioctl); runs when `MENTAT_POWER=1` is set, as `make crash`
//! does, and says that it is skipped otherwise. When it is set and something is missing, the tests fail: a green run has
//! shown what it says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests: a failure must stop with the place it happened"
)]

mod volume;
mod writer;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use volume::Volume;
use writer::{ROLE, Role, Said};

/// Promises after which the power fails: in the middle of something else each time.
const CUTS: [usize; 6] = [40, 97, 180, 333, 471, 800];

fn skipped(test: &str) -> bool {
    if std::env::var_os("MENTAT_POWER").is_none() {
        mentat_tests::skip::skipped(format_args!("{test}: MENTAT_POWER is not set"));
        return true;
    }
    if let Some(why) = volume::missing() {
        panic!("{test} cannot cut the power: {why}");
    }
    false
}

/// Lets writers run until the power fails; how many of their promises are broken: records acknowledged, and heads
/// published.
fn lost(role: Role, after: usize) -> usize {
    let mut volume = Volume::new();
    writer::prepare(role, volume.path());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_log_survives_power_cuts", "--nocapture"])
        .env(ROLE, format!("{}:{}", role.name(), volume.path().display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        for said in output.lines().map_while(Result::ok).filter_map(|line| Said::read(&line)) {
            if tell.send(said).is_err() {
                return;
            }
        }
    });
    let wait = Duration::from_secs(30);
    let mut said: Vec<Said> = (0..after).map(|_| told.recv_timeout(wait).unwrap()).collect();
    volume.cut_power();
    child.kill().unwrap();
    child.wait().unwrap();
    reading.join().unwrap();
    said.extend(told.try_iter());
    volume.power_on();
    let gone = writer::broken(role, volume.path(), &said);
    println!("{}: {} promises, {gone} broken", role.name(), said.len());
    gone
}

#[test]
fn the_log_survives_power_cuts() {
    if let Ok(role) = std::env::var(ROLE) {
        return writer::run(&role);
    }
    if skipped("the_log_survives_power_cuts") {
        return;
    }
    for after in CUTS {
        assert_eq!(lost(Role::Log, after), 0, "after {after} promises");
    }
}

#[test]
fn the_harness_catches_a_log_whose_syncs_are_removed() {
    if skipped("the_harness_catches_a_log_whose_syncs_are_removed") {
        return;
    }
    assert!(CUTS.iter().any(|after| lost(Role::LogWithoutSyncs, *after) > 0));
}

#[test]
fn the_harness_catches_sled() {
    if skipped("the_harness_catches_sled") {
        return;
    }
    // Its own thread writes back now and then, so that some cuts are lucky.
    assert!(CUTS.iter().rev().cycle().take(4 * CUTS.len()).any(|after| lost(Role::Sled, *after) > 0));
}
