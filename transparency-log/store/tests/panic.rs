//! A panic in a thread of the log ends the process, although release builds unwind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fixture;

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fixture::{Fixture, PlainSigner, add, entry, os};
use log_store::{Ack, Clock, Log, LogKind, LogParts, SystemClock};

const CHILD: &str = "MENTAT_TEST_PANICKING_THREAD";
const SIGABRT: i32 = 6;

/// Panics in the thread of this name, once armed.
#[derive(Debug)]
struct Panicking {
    thread: String,
    armed: AtomicBool,
}

impl Clock for Panicking {
    fn unix_millis(&self) -> u64 {
        let here = std::thread::current();
        assert!(
            !self.armed.load(Ordering::SeqCst) || here.name() != Some(self.thread.as_str()),
            "a panic for the test"
        );
        SystemClock.unix_millis()
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }
}

#[test]
fn a_panic_of_the_sequencer_or_the_publisher_ends_the_process() {
    if let Ok(thread) = std::env::var(CHILD) {
        let fixture = Fixture::new(LogKind::Raw);
        let clock = Arc::new(Panicking { thread, armed: AtomicBool::new(false) });
        let signer = Arc::new(PlainSigner(fixture.options.origin.clone()));
        let parts = LogParts { disk: os(), clock: clock.clone(), signer, cosigner: None };
        let log = Log::open(&fixture.options, parts).unwrap();
        clock.armed.store(true, Ordering::SeqCst);
        // Unwinding may tell who waits that the log stopped, but never that it took the entry; then the process is gone.
        assert!(add(&log, &entry(0), Ack::Published).is_err());
        std::thread::sleep(Duration::from_secs(60));
        panic!("the process goes on");
    }
    for thread in ["log-sequencer", "log-publisher"] {
        let name = "a_panic_of_the_sequencer_or_the_publisher_ends_the_process";
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, thread)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(SIGABRT), "{thread}: {status}");
    }
}
