#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
//! Conversations with workers that lie.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;
use executor_engine::frames::frame;

use super::*;
use crate::runtime::{CallLimits, GuestState};
use crate::worker::account::tests::{write, written};
use crate::worker::channel::{Beside, Channel, Stops};
use crate::worker::verdict;

/// Memory that the workers of these tests may take.
const MEMORY: u64 = 64 << 20;

/// A conversation about one call with a worker that `says` something, and the state that it left behind.
fn talk(limits: CallLimits, says: impl FnOnce(UnixStream) + Send + 'static) -> (Carried, GuestState) {
    talk_with_account(limits, |far, _| says(far))
}

/// The same with one that also has the kernel's account of itself, which says at first that nothing is used.
fn talk_with_account(
    limits: CallLimits,
    says: impl FnOnce(UnixStream, [std::fs::File; 2]) + Send + 'static,
) -> (Carried, GuestState) {
    talk_about(Bytes::new(), limits, says)
}

/// The same about a call with an input.
fn talk_about(
    input: Bytes,
    limits: CallLimits,
    says: impl FnOnce(UnixStream, [std::fs::File; 2]) + Send + 'static,
) -> (Carried, GuestState) {
    let (meter, account_files) = written(Duration::ZERO, 1 << 20);
    let spawner = Arc::new(crate::testing::spawner().unwrap());
    let pairs = [(); 3].map(|()| UnixStream::pair().unwrap());
    let [(control, _control), (stops, far_stops), (lane, far)] = pairs;
    let control = Channel::new(control, Beside::Nothing).unwrap();
    let lane = Lane { number: 0, channel: Channel::new(lane, Beside::Nothing).unwrap() };
    let sockets = (control, Stops::new(stops).unwrap(), Vec::new());
    let process = Process::over(&spawner, 1, sockets, meter, MEMORY);
    // Its end stays open when it has said everything.
    let kept = far.try_clone().unwrap();
    let worker = std::thread::spawn(move || says(far, account_files));
    let mut state = crate::testing::guest_state_under(limits);
    state.input = input;
    let account = process.open_account(limits.cpu);
    let carried = Talk::new(&process, lane, 7, &account).carry(1, &mut state, Trial::Call);
    worker.join().unwrap();
    drop((far_stops, kept));
    (carried, state)
}

fn ended(call: u64, end: End<'static>, output: &'static [u8]) -> Vec<u8> {
    let ended = Ended { end, output, ..verdict::unknown_module(call) };
    frame(&FromWorker::Ended(ended).encode())
}

fn why(carried: Carried) -> String {
    match carried {
        Carried::Lost(why, None) => why,
        Carried::Lost(why, Some(stop)) => format!("{stop:?}: {why}"),
        Carried::Over(result) => panic!("believed: {result:?}"),
    }
}

#[test]
fn a_worker_that_says_what_no_worker_says_is_given_up() {
    let limits = CallLimits { output: 4, ..CallLimits::default() };
    let long = u32::try_from(MAX_TRANSFER_BYTES + OVERHEAD + 1).unwrap();
    for (bytes, expected) in [
        (long.to_le_bytes().to_vec(), "length"),
        (vec![0; 4], "length"),
        (frame(b"\xff garbage"), "question"),
        (frame(&[5, 9, 0, 0, 0, b'x']), "truncated"),
        (ended(8, End::Exit(0), b""), "call that is none"),
        (frame(&FromWorker::Line { level: 2, text: "unasked" }.encode()), "lines that nobody reads"),
        (frame(&FromWorker::Missed { lines: 1 }.encode()), "lines that nobody reads"),
        (ended(7, End::Exit(0), b"12345"), "more than the call may write"),
        (ended(7, End::Failed { reason: "revoked", detail: "" }, b""), "reason that no worker gives"),
        (ended(7, End::Failed { reason: "killed", detail: "" }, b""), "reason that no worker gives"),
        (Vec::new(), "gone"),
    ] {
        let (carried, state) = talk(limits, move |mut far| match bytes.as_slice() {
            [] => far.shutdown(std::net::Shutdown::Both).unwrap(),
            bytes => far.write_all(bytes).unwrap(),
        });
        let why = why(carried);
        assert!(why.contains(expected), "{expected}: {why}");
        assert!(state.output.is_empty());
    }
}

#[test]
fn a_worker_that_does_not_obey_is_given_up_with_the_reason_of_the_stop() {
    // One that spins, and one that sleeps, as far as the kernel says.
    for (spins, at_least, at_most) in
        [(true, OBEY, OBEY_AT_LATEST), (false, OBEY_AT_LATEST, Duration::from_secs(60))]
    {
        let began = clock::monotonic();
        let (carried, _) = talk_with_account(overdue(), move |far, files| {
            // Says nothing until the executor has had enough.
            let mut far = Channel::new(far, Beside::Nothing).unwrap();
            far.receive(1 << 20, Duration::from_secs(60)).unwrap().unwrap();
            if spins {
                std::thread::sleep(Duration::from_millis(300));
                write(&files, OBEY + Duration::from_millis(100), 1 << 20);
            }
            while far.receive(1 << 20, Duration::from_secs(60)).is_ok_and(|body| body.is_some()) {}
        });
        let why = why(carried);
        assert!(why.starts_with("WallDeadline: it did not end"), "{why}");
        let took = began.elapsed();
        assert!(took >= at_least && took < at_most, "{took:?}");
    }
}

#[test]
fn a_worker_that_is_slow_to_take_its_call_has_no_more_time_to_obey() {
    let began = clock::monotonic();
    let (tell, told) = std::sync::mpsc::channel();
    // More than a socket holds: it is told to end the call while that is still being sent.
    let input = Bytes::from(vec![7; 2 << 20]);
    let (carried, _) = talk_about(input, overdue(), move |far, _| {
        tell.send(clock::monotonic()).unwrap();
        std::thread::sleep(OBEY_AT_LATEST - Duration::from_millis(300));
        let mut far = Channel::new(far, Beside::Nothing).unwrap();
        far.receive(4 << 20, Duration::from_secs(60)).unwrap().unwrap();
        while far.receive(4 << 20, Duration::from_secs(60)).is_ok_and(|body| body.is_some()) {}
    });
    let why = why(carried);
    assert!(why.starts_with("WallDeadline: it did not end"), "{why}");
    // Its spawner was made meanwhile. With time of its own from when it took the call it would be almost twice as long.
    let (least, most) = (began.elapsed(), told.recv().unwrap().elapsed());
    assert!(least >= OBEY_AT_LATEST, "{least:?}");
    assert!(most < OBEY_AT_LATEST * 2 - Duration::from_millis(400), "{most:?}");
}

/// A call whose time is up almost at once.
fn overdue() -> CallLimits {
    CallLimits { wall: Duration::from_millis(20), ..CallLimits::default() }
}

#[test]
fn a_worker_that_the_machine_does_not_let_run_is_none_that_does_not_obey() {
    let (carried, _) = talk(overdue(), |mut far| {
        let mut near = Channel::new(far.try_clone().unwrap(), Beside::Nothing).unwrap();
        near.receive(1 << 20, Duration::from_secs(60)).unwrap().unwrap();
        // It was told long ago when it gets to run, and then it obeys at once.
        std::thread::sleep(3 * OBEY);
        far.set_nonblocking(false).unwrap();
        far.write_all(&ended(7, End::Failed { reason: "killed", detail: "" }, b"")).unwrap();
    });
    assert!(matches!(carried, Carried::Over(Err(CallError::Stopped(Stop::WallDeadline)))));
}

#[test]
fn what_a_worker_claims_is_cut_to_what_the_call_may_use() {
    let limits = CallLimits { log_lines: 1, metrics: 1, ..CallLimits::default() };
    let (carried, mut state) = talk(limits, |mut far| {
        let ended = Ended {
            end: End::Exit(3),
            memory: u64::MAX,
            ticks: u64::MAX,
            refused_growths: u64::MAX,
            dropped_log_lines: u64::MAX,
            fuel: u64::MAX,
            log: vec![(2, "one\n[forged]"), (2, "two"), (9, "no level")],
            metrics: vec![("a", 1.0), ("b", 2.0), ("no name", f64::NAN)],
            ..verdict::unknown_module(7)
        };
        far.write_all(&frame(&FromWorker::Ended(ended).encode())).unwrap();
    });
    assert!(matches!(carried, Carried::Over(Ok(3))));
    assert_eq!((state.limiter.memory(), state.claimed_fuel()), (limits.memory, limits.fuel));
    assert!(state.ticks() < 1_000_000);
    assert_eq!(state.extras().log.dropped(), u64::MAX);
    let lines = std::mem::take(&mut state.extras().log).into_records();
    assert_eq!((lines.len(), lines[0].text.as_str()), (1, "one\\n[forged]"));
    assert_eq!(std::mem::take(&mut state.extras().metrics).into_records().len(), 1);
}

#[test]
fn a_worker_gets_nothing_that_was_not_granted() {
    let asks = [
        (Ask::Request { capability: "env:TOKEN" }, ErrorCode::NotInManifest),
        (Ask::Request { capability: "" }, ErrorCode::InvalidArgument),
        (Ask::Invoke { capability: "env:TOKEN", operation: "get", arguments: b"" }, ErrorCode::PolicyDenied),
        (Ask::Invoke { capability: "x", operation: "get", arguments: b"" }, ErrorCode::BadHandle),
        (Ask::Download { reference: "sha256:00" }, ErrorCode::PolicyDenied),
        (Ask::Upload { media_type: "text/plain", bytes: b"x" }, ErrorCode::PolicyDenied),
        (Ask::OpenStream { id: "s" }, ErrorCode::PolicyDenied),
        (Ask::WriteStream { stream: 0, bytes: b"x" }, ErrorCode::PolicyDenied),
        (Ask::EndStream { stream: u64::MAX }, ErrorCode::PolicyDenied),
    ];
    let (carried, mut state) = talk(CallLimits::default(), move |mut far| {
        let mut near = Channel::new(far.try_clone().unwrap(), Beside::Nothing).unwrap();
        near.receive_patiently(1 << 20).unwrap();
        for (ask, expected) in asks {
            near.send(&FromWorker::Ask(ask).encode(), &[], LOOK, &mut || true).unwrap();
            let answer = near.receive_patiently(1 << 20).unwrap();
            let refused = ToWorker::Answer(Err(expected as i32));
            assert_eq!(ToWorker::decode(&answer).unwrap(), refused, "{ask:?}");
        }
        near.send(&FromWorker::Ask(Ask::Environment).encode(), &[], LOOK, &mut || true).unwrap();
        let answer = near.receive_patiently(1 << 20).unwrap();
        assert_eq!(ToWorker::decode(&answer).unwrap(), ToWorker::Answer(Ok(b"")));
        far.set_nonblocking(false).unwrap();
        far.write_all(&ended(7, End::Exit(0), b"")).unwrap();
    });
    assert!(matches!(carried, Carried::Over(Ok(0))));
    assert_eq!(state.conduct().refusals(), [("capability_denied", 1)]);
}

#[test]
fn a_worker_that_takes_more_than_it_was_given_is_given_up() {
    let waits = |far: UnixStream| {
        let mut far = Channel::new(far, Beside::Nothing).unwrap();
        while far.receive(1 << 20, Duration::from_secs(60)).is_ok_and(|body| body.is_some()) {}
    };
    for (cpu, memory, expected) in [
        (Duration::ZERO, MEMORY + (1 << 20), "MiB of memory"),
        (Duration::from_secs(600), 1 << 20, "ms of processor time"),
    ] {
        let (carried, _) = talk_with_account(CallLimits::default(), move |far, files| {
            write(&files, cpu, memory);
            waits(far);
        });
        let why = why(carried);
        assert!(why.contains(expected), "{why}");
    }
    // An account that cannot be read is not one that says "nothing".
    let (carried, _) = talk_with_account(CallLimits::default(), move |far, files| {
        files.iter().for_each(|file| file.set_len(0).unwrap());
        waits(far);
    });
    let why = why(carried);
    assert!(why.contains("cannot be read"), "{why}");
}

#[test]
fn a_worker_is_believed_about_time_as_far_as_clock_and_kernel_say_the_same() {
    let says = |reason| {
        move |far: &mut UnixStream| far.write_all(&ended(7, End::Failed { reason, detail: "" }, b"")).unwrap()
    };
    for reason in ["deadline_exceeded", "cpu_budget"] {
        let (carried, _) = talk(CallLimits::default(), move |mut far| says(reason)(&mut far));
        let why = why(carried);
        assert!(why.contains("and it is not"), "{reason}: {why}");
    }
    // Less than what a look at the account lets pass: the look must not come before the answer here.
    let budget = Duration::from_millis(400);
    let short = CallLimits { cpu: budget, ..CallLimits::default() };
    let (carried, _) = talk_with_account(short, move |mut far, files| {
        write(&files, budget, 1 << 20);
        says("cpu_budget")(&mut far);
    });
    assert!(matches!(carried, Carried::Over(Err(CallError::Stopped(Stop::CpuBudget)))));
}
