//! The two small processes between the executor and its workers.
//!
//! The executor gives up `unshare` for itself and everything it starts, so workers are started by a **spawner**: a process of
//! the same program, started before the sandbox closes, with one thread and two orders. "Spawn" takes a number and a
//! descriptor, "end" a number; programs, arguments and paths are not among what it is told. For each worker it starts a
//! **holder**, which makes the namespaces, starts the worker as first process in them, and waits. Whoever ends the holder
//! ends the worker, and the spawner's end is the end of all.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use executor_engine::frames::{Mechanism, Report};
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::channel::{Beside, Channel};

/// The program itself, whatever became of its file.
const PROGRAM: &str = "/proc/self/exe";

/// Longest order and answer, bytes.
pub(super) const MAX_ORDER: usize = 16;

/// "Start a worker with this number"; its control socket comes beside it. Answered with 0, or the system's error.
pub(super) const SPAWN: u8 = 1;
/// "End the worker with this number". Answered with the wait status of its holder.
pub(super) const END: u8 = 2;
/// The same about one that seems to have ended: its holder gets a moment to say how.
pub(super) const ENDED: u8 = 3;

/// How often, and after how long each time, the holder of a worker that has ended is looked at.
const LOOKS: (u32, Duration) = (40, Duration::from_millis(5));

/// Exit codes of holder and worker.
pub(super) mod exit {
    /// The namespaces could not be made, or the sandbox not closed.
    pub(crate) const NOT_CONFINED: u8 = 70;
    /// The executor sent what a worker does not understand, or is gone.
    pub(crate) const CONVERSATION: u8 = 74;
    /// Added to the number of the signal that ended a worker.
    pub(crate) const SIGNAL: i32 = 128;
}

fn own_end() -> std::io::Result<UnixStream> {
    std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from)
}

/// The spawner's whole life. Exit code 0: the executor is gone.
pub(super) fn spawn_for_the_executor() -> u8 {
    inherit_nothing();
    let ready = set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .and_then(|()| rustix::thread::set_no_new_privs(true));
    let channel = own_end().and_then(|socket| Channel::new(socket, Beside::Descriptors));
    let (Ok(()), Ok(mut channel)) = (ready, channel) else { return exit::NOT_CONFINED };
    let mut holders = BTreeMap::new();
    let code = loop {
        let Ok(order) = channel.receive_patiently(MAX_ORDER) else { break 0 };
        let Some((what, number)) = read_order(&order) else { break exit::CONVERSATION };
        let answer = match what {
            SPAWN => match start_holder(channel.take_descriptors()) {
                Ok(holder) => {
                    holders.insert(number, holder);
                    0
                }
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            },
            END | ENDED => {
                let looks = if what == ENDED { LOOKS.0 } else { 0 };
                holders.remove(&number).map_or(0, |holder| end(holder, looks).map_or(0, ExitStatus::into_raw))
            }
            _ => break exit::CONVERSATION,
        };
        // The order comes first, so that the answer to one is never taken for the answer to another.
        let answer = [&order[..], &answer.to_le_bytes()].concat();
        let told = channel.send(&answer, &[], Duration::from_secs(1), &mut || true);
        if told.is_err() {
            break 0;
        }
    };
    for holder in holders.into_values() {
        let _ = end(holder, 0);
    }
    code
}

/// An order's bytes.
pub(super) fn order(what: u8, number: u64) -> Vec<u8> {
    let mut out = vec![what];
    out.extend_from_slice(&number.to_le_bytes());
    out
}

fn read_order(bytes: &[u8]) -> Option<(u8, u64)> {
    let (what, number) = bytes.split_first()?;
    Some((*what, u64::from_le_bytes(number.try_into().ok()?)))
}

/// What is answered to this order, if the answer is to this one.
pub(super) fn answered(order: &[u8], answer: &[u8]) -> Option<i32> {
    answer.strip_prefix(order)?.try_into().ok().map(i32::from_le_bytes)
}

/// Closes, whenever a program is started from here on, every descriptor but the standard three.
pub(crate) fn inherit_nothing() {
    close_fds::set_fds_cloexec(3, &[]);
}

fn start_holder(descriptors: Vec<std::os::fd::OwnedFd>) -> std::io::Result<Child> {
    let mut descriptors = descriptors.into_iter();
    let (Some(control), None) = (descriptors.next(), descriptors.next()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    program(super::HOLDER).stdin(control).process_group(0).spawn()
}

/// Ends a holder; how it ended is how the worker did, unless it had to be ended.
fn end(mut holder: Child, looks: u32) -> std::io::Result<ExitStatus> {
    for look in 0..=looks {
        if look > 0 {
            std::thread::sleep(LOOKS.1);
        }
        if let Some(status) = holder.try_wait()? {
            return Ok(status);
        }
    }
    holder.kill()?;
    holder.wait()
}

fn program(what: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg(what).env_clear().current_dir("/").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The holder's whole life: namespaces, the worker, and its end.
pub(super) fn hold() -> u8 {
    inherit_nothing();
    // Where memory runs out, what a guest took goes first, and not the executor. The worker inherits it; a system without this file
    // chooses by itself.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // Namespaces of processes are for children, so this process stays outside and starts one.
    #[allow(
        deprecated,
        reason = "deprecated for tables of descriptors that threads share; none is unshared here"
    )]
    let unshared = rustix::thread::unshare(
        UnshareFlags::NEWUSER
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWNS
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS,
    );
    let bound = unshared.and_then(|()| set_parent_process_death_signal(Some(Signal::KILL)));
    if let Err(errno) = bound {
        tell_missing(Mechanism::Namespaces, &format!("unshare: {}", std::io::Error::from(errno)));
        return exit::NOT_CONFINED;
    }
    if let Err(errno) = hand_on(FOR_AN_EMPTY_ROOT) {
        tell_missing(Mechanism::EmptyRoot, &format!("capabilities: {}", std::io::Error::from(errno)));
        return exit::NOT_CONFINED;
    }
    let ended = program(super::WORKER).stdin(Stdio::inherit()).status();
    match ended {
        Ok(status) => {
            let code = status.signal().map_or(status.code(), |signal| Some(exit::SIGNAL + signal));
            code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
        }
        Err(error) => {
            tell_missing(Mechanism::Engine, &format!("the worker cannot be started: {error}"));
            exit::NOT_CONFINED
        }
    }
}

/// What the worker needs to put an empty folder in the place of its root, in its own namespace of mounts, before it gives
/// everything up. It is started from a file, so its root cannot be empty before.
const FOR_AN_EMPTY_ROOT: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_CHROOT);

/// Keeps these for the program that is started next. They count in this user namespace and in no other.
fn hand_on(kept: CapabilitySet) -> rustix::io::Result<()> {
    let own = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: kept, ..own })?;
    kept.iter().try_for_each(|one| rustix::thread::configure_capability_in_ambient_set(one, true))
}

/// Says on the control socket why there will be no worker.
fn tell_missing(mechanism: Mechanism, detail: &str) {
    let told = own_end().and_then(|socket| Channel::new(socket, Beside::Nothing)).map(|channel| {
        let report = Report::Refused { mechanism, detail }.encode();
        channel.send(&report, &[], Duration::from_secs(1), &mut || false)
    });
    // Nobody else listens; the exit code says it as well.
    drop(told);
}
