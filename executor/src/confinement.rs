//! What the operating system takes away from this process before it serves anybody.
//!
//! Required for the tier of trusted signers, whose modules run in this process: `no_new_privs` and seccomp. Without
//! them the executor does not start. Landlock, which shuts the file system except for what the executor needs, is
//! installed where the kernel has it and warned of where it has not. What these forbid is tried before anybody is served.

mod self_test;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use service::StartRefusal;

/// What confines the process and what does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Mechanisms in force.
    pub enforced: Vec<String>,
    /// Mechanisms that this host does not provide, with the reason.
    pub missing: Vec<String>,
}

/// What no process does for itself.
const LEFT_TO_OTHERS: &str = "namespaces and cgroups: left to the service manager";

impl Confinement {
    /// Mechanisms that are missing and that a host of this kind could have.
    pub fn lacking(&self) -> impl Iterator<Item = &str> {
        self.missing.iter().map(String::as_str).filter(|missing| *missing != LEFT_TO_OTHERS)
    }
}

/// The places the executor touches.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Read and write.
    pub state: Vec<PathBuf>,
    /// Read.
    pub read: Vec<PathBuf>,
    /// Read and execute.
    pub execute: Vec<PathBuf>,
}

/// System calls that neither a WebAssembly host nor an HTTP server needs, and that exploits do. They fail with
/// EPERM, for this process and for everything it starts.
const REFUSED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Closes the sandbox. Called once, before the first thread besides this one exists: landlock binds a thread and
/// those it starts.
///
/// # Errors
///
/// When a required mechanism is missing, naming the kernel feature and what to do.
pub fn close(places: &Places) -> Result<Confinement, StartRefusal> {
    let mut confinement = Confinement::default();
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|errno| refuse("memory dumps cannot be switched off", "check the process limits", errno))?;
    confinement.enforced.push("no-dumps".into());

    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| refuse("no_new_privs cannot be set", "use Linux 3.5 or newer", errno))?;
    confinement.enforced.push("no-new-privileges".into());

    let landlock = landlock(places);
    match &landlock {
        Ok(RulesetStatus::FullyEnforced) => confinement.enforced.push("landlock".into()),
        Ok(RulesetStatus::PartiallyEnforced) => {
            confinement.enforced.push("landlock (partly)".into());
            confinement
                .missing
                .push("landlock: the kernel knows only some of the rules (ABI 6 is Linux 6.12)".into());
        }
        Ok(RulesetStatus::NotEnforced) => {
            confinement.missing.push("landlock: not in this kernel; boot with lsm=landlock,…".into());
        }
        Err(error) => confinement.missing.push(format!("landlock: {error}")),
    }

    let filter = filter().map_err(|error| {
        StartRefusal::new("the seccomp filter cannot be built", "run on x86-64, aarch64 or riscv64")
            .because(error)
    })?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|error| {
        let remedy = "use a kernel with CONFIG_SECCOMP_FILTER; a container runtime may forbid it";
        StartRefusal::new("seccomp cannot be installed, and without it no module may run", remedy)
            .because(error)
    })?;
    confinement.enforced.push("seccomp".into());
    confinement.missing.push(LEFT_TO_OTHERS.into());
    let forbidden = self_test::forbidden(places, landlock.ok().as_ref());
    self_test::attempt(&forbidden).map_err(|act| {
        StartRefusal::new(
            format!("the sandbox is closed and still let this happen: {act}"),
            "report this as a defect",
        )
    })?;
    Ok(confinement)
}

fn refuse(what: &str, remedy: &str, errno: rustix::io::Errno) -> StartRefusal {
    StartRefusal::new(what, remedy).because(std::io::Error::from(errno))
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> =
        REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn landlock(places: &Places) -> Result<RulesetStatus, landlock::RulesetError> {
    let abi = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    // Never: device nodes, and execution of what was written.
    let write = AccessFs::from_all(abi) & !(AccessFs::Execute | AccessFs::MakeBlock | AccessFs::MakeChar);
    let groups: [(&[PathBuf], BitFlags<AccessFs>); 3] =
        [(&places.state, write), (&places.read, read), (&places.execute, read | AccessFs::Execute)];
    for (paths, access) in groups {
        for path in paths {
            // What does not exist cannot be opened either.
            let Ok(descriptor) = PathFd::new(path) else { continue };
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(abi) };
            ruleset = ruleset.add_rule(PathBeneath::new(descriptor, access))?;
        }
    }
    ruleset.restrict_self().map(|status| status.ruleset)
}

/// The folders every process on Linux reads: libraries of the worker, name resolution, time zones, own limits.
pub fn system_places(compiler: &Path) -> Places {
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    let mut execute = paths(&["/lib", "/lib64", "/usr/lib", "/usr/lib64"]);
    execute.push(compiler.to_owned());
    Places {
        state: paths(&["/dev/null"]),
        read: paths(&[
            "/etc",
            "/proc",
            "/sys/fs/cgroup",
            "/sys/devices/system/cpu",
            "/usr/share",
            "/dev/urandom",
        ]),
        execute,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_builds_and_names_each_call_once() {
        assert!(!filter().unwrap().is_empty());
        let mut numbers = REFUSED.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), REFUSED.len());
    }

    /// What is in the way first (`component::wasi_tests`) is left out here: names are followed wherever they lead.
    #[test]
    fn the_kernel_refuses_a_second_time_what_leads_out_of_a_directory_that_was_opened_to_guests() {
        use std::io::ErrorKind;
        use std::sync::atomic::{AtomicBool, Ordering};

        use rustix::fs::{CWD, RenameFlags, renameat_with};

        let host = tempfile::tempdir().unwrap();
        let inside = host.path().join("inside");
        std::fs::create_dir_all(inside.join("swap")).unwrap();
        std::fs::write(inside.join("file"), b"text").unwrap();
        std::fs::write(host.path().join("secret"), b"secret").unwrap();
        std::os::unix::fs::symlink("..", inside.join("link")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (swap, link) = (inside.join("swap"), inside.join("link"));
                    renameat_with(CWD, swap, CWD, link, RenameFlags::EXCHANGE).unwrap();
                }
            });
            // A thread of its own: what it gave up stays given up.
            let confined = scope.spawn(|| {
                let read = || std::fs::read(inside.join("swap/secret"));
                while read().is_err() {}
                let places = Places { state: vec![inside.clone()], ..Places::default() };
                if landlock(&places).unwrap() == RulesetStatus::NotEnforced {
                    crate::skip::skipped(
                        "what leads out of a directory of guests: this kernel has no landlock",
                    );
                    return Ok(());
                }
                assert_eq!(std::fs::read(inside.join("file")).unwrap(), b"text");
                let mut refused = 0;
                for looks in 0..1_000_000 {
                    match read() {
                        Ok(_) => return Err("what lies outside was read"),
                        Err(error) => refused += u32::from(error.kind() == ErrorKind::PermissionDenied),
                    }
                    if refused > 100 && looks > 2_000 {
                        return Ok(());
                    }
                }
                Err("the kernel refused nothing")
            });
            let ended = confined.join();
            done.store(true, Ordering::Relaxed);
            assert_eq!(ended.unwrap(), Ok(()));
        });
    }
}
