#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
//! When the tier of workers starts, and when it does not.

use executor_engine::Profile;
use seccompiler::{SeccompAction, SeccompFilter};

use super::{WorkerLimits, WorkerTier};
use crate::testing::{spawner, trial_code};

/// Starts the tier from a thread whose system calls fail as on a host that lacks them.
fn tier_without(calls: &[i64], errno: i32) -> WorkerTier {
    let rules = calls.iter().map(|number| (*number, Vec::new())).collect();
    let refused = SeccompAction::Errno(errno.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter: seccompiler::BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap().try_into().unwrap();
    let code = trial_code(Profile::Standard);
    std::thread::spawn(move || {
        seccompiler::apply_filter(&filter).unwrap();
        WorkerTier::start(spawner(), Profile::Standard, WorkerLimits::default(), code)
    })
    .join()
    .unwrap()
}

#[test]
fn where_a_mechanism_is_missing_the_tier_does_not_start_and_names_it() {
    for (calls, errno, mechanism, remedy) in [
        (&[libc::SYS_unshare][..], libc::EPERM, "namespaces", "user namespaces"),
        (&[libc::SYS_landlock_create_ruleset], libc::ENOSYS, "landlock", "CONFIG_SECURITY_LANDLOCK"),
        (&[libc::SYS_seccomp], libc::EINVAL, "seccomp", "CONFIG_SECCOMP_FILTER"),
        (&[libc::SYS_mount], libc::EPERM, "empty-root", "inside user namespaces"),
        (&[libc::SYS_chroot], libc::EPERM, "empty-root", "inside user namespaces"),
    ] {
        let tier = tier_without(calls, errno);
        let why = tier.missing().expect(mechanism);
        assert!(why.starts_with(mechanism) && why.contains(remedy), "{why}");
    }
}

#[test]
fn what_the_executor_was_started_with_reaches_no_worker() {
    // As a shell or a supervisor leaves it.
    let left_open = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    // A worker that finds it refuses to serve.
    let tier = WorkerTier::start(
        spawner(),
        Profile::Standard,
        WorkerLimits::default(),
        trial_code(Profile::Standard),
    );
    assert_eq!(tier.missing(), None);
}
