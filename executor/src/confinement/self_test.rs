//! What must fail once the sandbox is closed, tried before anybody is served.
//!
//! Only what the rules forbid here is tried: without landlock files are open, a place may be the root folder, and a kernel that knows
//! only some of landlock's rules knows none about signals.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use executor_engine::confinement::opens_folders;
use landlock::RulesetStatus;
use rustix::process::{chroot, getppid, test_kill_process};
use rustix::thread::UnshareFlags;

use super::Places;

/// Something that the sandbox forbids, harmless where it succeeds.
#[derive(Clone, Copy)]
pub(super) struct Act {
    name: &'static str,
    succeeds: fn() -> bool,
}

/// Succeeds for root without the filter.
const CHROOT: Act = Act { name: "another root folder", succeeds: || chroot("/").is_ok() };
/// Succeeds for everybody without the filter.
const UNSHARE: Act = Act { name: "namespaces of its own", succeeds: unshares };
const READ: Act = Act { name: "reading a folder that is none of its places", succeeds: opens_folders };
const EXEC: Act = Act { name: "starting a program that is none of its own", succeeds: starts_itself };
const SIGNAL: Act = Act { name: "a signal to the process that started it", succeeds: signals_parent };

/// What is forbidden to a process with these places, where landlock is in force to this extent.
pub(super) fn forbidden(places: &Places, landlock: Option<&RulesetStatus>) -> Vec<Act> {
    let mut acts = vec![CHROOT, UNSHARE];
    let (files, signals) = match landlock {
        Some(RulesetStatus::FullyEnforced) => (true, true),
        Some(RulesetStatus::PartiallyEnforced) => (true, false),
        Some(RulesetStatus::NotEnforced) | None => (false, false),
    };
    let readable = [&places.state, &places.read, &places.execute];
    if files && !readable.into_iter().any(|places| are_around(places, Path::new("/"))) {
        acts.push(READ);
    }
    // A program whose file is gone already may lie in any of them.
    let own = std::env::current_exe().and_then(|own| own.canonicalize());
    if files && own.is_ok_and(|own| !are_around(&places.execute, &own)) {
        acts.push(EXEC);
    }
    if signals {
        acts.push(SIGNAL);
    }
    acts
}

/// Tries them.
///
/// # Errors
///
/// The first one that succeeds.
pub(super) fn attempt(acts: &[Act]) -> Result<(), &'static str> {
    acts.iter().find(|act| (act.succeeds)()).map_or(Ok(()), |act| Err(act.name))
}

/// Whether one of these places is the file, named without links, or a folder that it lies in.
fn are_around(places: &[PathBuf], file: &Path) -> bool {
    places.iter().filter_map(|place| place.canonicalize().ok()).any(|place| file.starts_with(place))
}

fn unshares() -> bool {
    #[allow(
        deprecated,
        reason = "deprecated for tables of descriptors that threads share; nothing is unshared here"
    )]
    let unshared = rustix::thread::unshare(UnshareFlags::empty());
    unshared.is_ok()
}

/// Whether this program can be started again, which says its version and ends.
fn starts_itself() -> bool {
    let mut again = Command::new("/proc/self/exe");
    again.arg("--version").env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    again.status().is_ok()
}

/// Whether the parent could be signalled; none is sent.
fn signals_parent() -> bool {
    getppid().is_some_and(|parent| test_kill_process(parent).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(acts: &[Act]) -> Vec<&str> {
        acts.iter().map(|act| act.name).collect()
    }

    #[test]
    fn what_is_not_confined_is_seen_to_be_open_act_by_act() {
        // The first succeeds for root only.
        for act in [UNSHARE, READ, EXEC, SIGNAL] {
            assert_eq!(attempt(&[act]), Err(act.name));
        }
        assert_eq!(attempt(&[]), Ok(()));
    }

    #[test]
    fn only_what_the_rules_forbid_is_tried() {
        let full = Some(&RulesetStatus::FullyEnforced);
        let calls = [CHROOT.name, UNSHARE.name];
        let (none, own) = (Places::default(), std::env::current_exe().unwrap());
        let with = |names: &[&'static str]| [&calls[..], names].concat();
        assert_eq!(names(&forbidden(&none, None)), calls);
        assert_eq!(names(&forbidden(&none, Some(&RulesetStatus::NotEnforced))), calls);
        assert_eq!(names(&forbidden(&none, full)), with(&[READ.name, EXEC.name, SIGNAL.name]));
        assert_eq!(
            names(&forbidden(&none, Some(&RulesetStatus::PartiallyEnforced))),
            with(&[READ.name, EXEC.name])
        );
        // A policy that lies in the root folder, and a program among those that it may start.
        let root = Places { read: vec!["/".into()], ..Places::default() };
        assert_eq!(names(&forbidden(&root, full)), with(&[EXEC.name, SIGNAL.name]));
        let beside = Places { execute: vec![own.parent().unwrap().into()], ..Places::default() };
        assert_eq!(names(&forbidden(&beside, full)), with(&[READ.name, SIGNAL.name]));
    }
}
