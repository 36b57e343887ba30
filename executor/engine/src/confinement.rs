//! What every confined process of the executor gives up in the same way: those that run guests and those that compile.
//!
//! Each layer is a function of its own, because the two kinds need them in another order and report what is missing in another
//! form. Which limits and which system calls a process has is said where it is confined.

use std::net::TcpStream;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetError, RulesetStatus, Scope,
};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule};

/// A filter that ends the process at any system call that is not listed, or is listed with rules and fits none of them.
///
/// # Errors
///
/// When this processor architecture has no filter.
pub fn allow_only(
    calls: impl IntoIterator<Item = (i64, Vec<SeccompRule>)>,
) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let rules = calls.into_iter().collect();
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}

/// Sets each limit so that it cannot be raised again, and forbids memory dumps. A lower one that this process was started under stays:
/// whoever runs it may give it less than it would take, and root would raise what others cannot.
///
/// # Errors
///
/// What the system refused.
pub fn limit(resources: &[(Resource, u64)]) -> Result<(), (&'static str, Errno)> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|errno| ("memory dumps", errno))?;
    for &(resource, limit) in resources {
        let limit = getrlimit(resource).maximum.map_or(limit, |given| given.min(limit));
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
            .map_err(|errno| ("resource limits", errno))?;
    }
    Ok(())
}

/// Gives up every capability of the kernel, and looks whether that is so.
///
/// # Errors
///
/// When some are left.
pub fn drop_capabilities() -> Result<(), String> {
    let failed = |errno: Errno| std::io::Error::from(errno).to_string();
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).map_err(failed)?;
    let left = rustix::thread::capabilities(None).map_err(failed)?;
    if left.permitted.is_empty() && left.effective.is_empty() {
        Ok(())
    } else {
        Err(format!("{:?} are left", left.permitted))
    }
}

/// Denies every file, every TCP port and every signal to processes outside, as far as this kernel can.
///
/// # Errors
///
/// When the system fails to do what it has.
pub fn landlock_nothing() -> Result<RulesetStatus, RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))?
        .handle_access(AccessNet::from_all(ABI::V6))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?;
    ruleset.restrict_self().map(|status| status.ruleset)
}

/// What is open besides as many descriptors as were given, if anything: it would reach whatever it belongs to, through every layer.
/// Called while `/proc` can be read.
pub fn stray(given: usize) -> Option<String> {
    let listed = std::fs::read_dir("/proc/self/fd").and_then(|open| {
        open.map(|one| Ok(one?.file_name().to_string_lossy().into_owned()))
            .collect::<std::io::Result<Vec<_>>>()
    });
    match listed {
        // With the list itself.
        Ok(open) if open.len() <= given + 1 => None,
        Ok(open) => Some(format!("descriptors were left open for it: {} instead of {given}", open.len() - 1)),
        Err(error) => Some(format!("its descriptors cannot be listed: {error}")),
    }
}

/// Whether a folder can be opened.
pub fn opens_folders() -> bool {
    std::fs::read_dir("/").is_ok()
}

/// Whether a connection gets as far as an answer. Nobody listens there; a refusal by the other side is proof of a network.
pub fn connects() -> bool {
    TcpStream::connect("127.0.0.1:9")
        .map_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionRefused, |_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_confined_is_seen_to_be_open() {
        assert!(opens_folders());
        assert!(stray(0).expect("what a test has open").contains("instead of 0"));
        assert_eq!(stray(100_000), None);
    }
}
