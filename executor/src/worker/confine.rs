//! What a worker gives up before it hears of any guest.
//!
//! | layer | what it leaves |
//! |---|---|
//! | namespaces (made by the [`holder`](super::holder)) | no other process, no network but a loopback that is down |
//! | an empty root folder | no name that leads anywhere, not even to when a file was changed |
//! | `no_new_privs`, no capabilities | nothing to gain |
//! | resource limits | memory as its calls need it, no files of its own, a few hundred descriptors |
//! | landlock | no file, no TCP port |
//! | seccomp, a list of what is allowed | memory, descriptors that are open, clocks, its own threads |
//!
//! All of them are required. What one of them should have stopped is tried before a worker serves; what seccomp stops is
//! tried in processes of their own at the executor's start, because it must end them.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use executor_engine::confinement::{
    self, connects, drop_capabilities, landlock_nothing, opens_folders, stray,
};
use executor_engine::frames::{Act, Mechanism};
use landlock::RulesetStatus;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mount::MountFlags;
use rustix::process::{Resource, Signal};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::artifact_map::share_memory;

/// What is missing, and what the system said.
pub(super) type Missing = (Mechanism, String);

/// Descriptors of one worker: lanes, sealed code while it is mapped, the engine's own.
const MAX_DESCRIPTORS: u64 = 512;

/// Where the empty root is made: a folder that is there wherever a worker could be started.
const OVER: &str = "/proc";

/// Names of what is in force in a worker that serves.
pub(crate) const ENFORCED: &[&str] = &[
    "namespaces (user, pid, net, mount, ipc, uts)",
    "empty root folder",
    "no-new-privileges",
    "capabilities dropped",
    "landlock (nothing allowed)",
    "seccomp (allow-list)",
    "memory limit",
    "no-dumps",
];

/// System calls of a worker that serves; any other one ends it, or is [`REFUSED`]. None opens a file, makes a socket, starts a program or a
/// thread, or reaches another process.
const ALLOWED: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_tgkill, // an abort; there is no other process to name
    libc::SYS_write,
    libc::SYS_writev,
];

/// What is asked by those who go on without an answer, which is [`NO_SUCH_CALL`], so that it ends no worker whose guest did
/// nothing. The C library opens a file at a moment nobody chooses: its allocator reads the system's rule for overcommitted
/// memory before it gives a thread's heap back. The engine keeps what a memory begins with in a file without a name, and copies
/// it where there are none: such files are memory that no limit of a process counts.
const REFUSED: &[i64] = &[libc::SYS_memfd_create, libc::SYS_openat];

/// Kinds of mappings that are refused like that: what processes share is memory that no limit of one counts, either. Any kind but
/// these and the private one ends the worker.
const SHARED: [libc::c_int; 2] = [libc::MAP_SHARED, libc::MAP_SHARED_VALIDATE];

/// What refused calls get. Not what landlock says, so that a test can tell which of the two refused.
const NO_SUCH_CALL: libc::c_int = libc::ENOSYS;

/// What belongs to one architecture: older names of two of them, and what makes code that was mapped visible to every processor.
const ALSO_ALLOWED: &[i64] = also_allowed();

#[cfg(target_arch = "x86_64")]
const fn also_allowed() -> &'static [i64] {
    &[libc::SYS_epoll_wait, libc::SYS_poll]
}

#[cfg(target_arch = "aarch64")]
const fn also_allowed() -> &'static [i64] {
    &[libc::SYS_membarrier]
}

#[cfg(target_arch = "riscv64")]
const fn also_allowed() -> &'static [i64] {
    // `riscv_flush_icache`, by its number in the kernel's list.
    &[259]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const fn also_allowed() -> &'static [i64] {
    &[]
}

/// Everything but the list of system calls, for a worker that may write to so many bytes of memory and was given so many
/// descriptors. Called before the first thread besides this one exists: landlock binds a thread and those it starts.
pub(super) fn close_early(memory: u64, descriptors: usize) -> Result<(), Missing> {
    let missing =
        |mechanism: Mechanism, what: &str, error: std::io::Error| (mechanism, format!("{what}: {error}"));
    let limits = |what, errno: rustix::io::Errno| missing(Mechanism::ProcessLimits, what, errno.into());
    confinement::limit(&[
        (Resource::Core, 0),
        // Address space that is only reserved is not counted, so the pool of the engine fits.
        (Resource::Data, memory),
        (Resource::Fsize, 0),
        (Resource::Memlock, 0),
        (Resource::Nofile, MAX_DESCRIPTORS),
    ])
    .map_err(|(what, errno)| limits(what, errno))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|errno| limits("the signal at the executor's end", errno))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| missing(Mechanism::NoNewPrivileges, "no_new_privs", errno.into()))?;
    // The last look at what the root that is left now knows.
    let stray = stray(descriptors);
    empty_root().map_err(|(what, error)| missing(Mechanism::EmptyRoot, what, error))?;
    drop_capabilities().map_err(|left| (Mechanism::Capabilities, left))?;
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        return Err((Mechanism::Namespaces, "it is not the first process of a namespace of its own".into()));
    }
    match landlock_nothing() {
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => {}
        Ok(RulesetStatus::NotEnforced) => {
            return Err((Mechanism::Landlock, "this kernel does not have it".into()));
        }
        Err(error) => return Err((Mechanism::Landlock, error.to_string())),
    }
    let leaks = |what: &str| Err((Mechanism::SelfTest, what.to_owned()));
    match (stray, leak(memory)) {
        (None, None) => Ok(()),
        (Some(stray), _) => leaks(&stray),
        (None, Some(leak)) => leaks(leak),
    }
}

/// Puts an empty folder in the place of the root. Whoever is in one that was put there so makes no further namespaces of users.
fn empty_root() -> Result<(), (&'static str, std::io::Error)> {
    let failed = |what| move |errno: rustix::io::Errno| (what, std::io::Error::from(errno));
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("empty", OVER, "tmpfs", flags, c"size=4k,nr_inodes=1,mode=0555")
        .map_err(failed("mount"))?;
    rustix::process::chdir(OVER).and_then(|()| rustix::process::chroot(".")).map_err(failed("chroot"))?;
    rustix::process::chdir("/").map_err(failed("chdir"))
}

/// The list of system calls, for every thread. There is no way back.
pub(super) fn close_late() -> Result<(), Missing> {
    let failed = |error: &dyn std::fmt::Display| (Mechanism::Seccomp, error.to_string());
    // Of what two filters say, the system takes the stricter: the first lets through only what the second then refuses.
    for filter in [refusals(), filter()] {
        let filter = filter.map_err(|error| failed(&error))?;
        seccompiler::apply_filter_all_threads(&filter).map_err(|error| failed(&error))?;
    }
    let is_refused = |error: std::io::Error| error.raw_os_error() == Some(NO_SUCH_CALL);
    let leaks = |what: &str| Err((Mechanism::SelfTest, what.to_owned()));
    if !memfd_create(c"none", MemfdFlags::CLOEXEC).is_err_and(|errno| is_refused(errno.into())) {
        return leaks("it could make a file without a name");
    }
    if !share_memory().is_err_and(is_refused) {
        return leaks("it could take memory that is counted as nobody's");
    }
    Ok(())
}

/// Tries what ends the process by now; what the system said, if it does not. Each makes one system call that is on no list, and
/// none before it, so that it cannot die of another one.
pub(super) fn attempt(act: Act) -> std::io::Result<()> {
    match act {
        // Standard input is the control socket; it is connected, which no system gets to say here.
        Act::Connect => {
            let nobody = rustix::net::SocketAddrUnix::new_abstract_name(b"nobody")?;
            rustix::net::connect(std::io::stdin(), &nobody)?;
        }
        Act::Exec => return Err(Command::new("/").env_clear().exec()),
        // The usual way is answered; another one is on neither list.
        Act::Open => drop(rustix::fs::readlinkat(rustix::fs::CWD, "/", Vec::new())?),
        Act::Signal => rustix::process::test_kill_process(rustix::process::getpid())?,
    }
    Ok(())
}

/// What can be done that must not be, without seccomp yet.
pub(super) fn leak(memory: u64) -> Option<&'static str> {
    // Landlock says nothing about this one: only a root without names does.
    if ["/proc/self/status", "/etc", "/usr", "/dev/null", "/tmp"]
        .iter()
        .any(|path| std::fs::metadata(path).is_ok())
    {
        return Some("it could see the host's files");
    }
    if opens_folders() {
        return Some("it could open a folder");
    }
    // A way there is proof of a network as well.
    let has_route = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9")).is_ok();
    if connects() || has_route {
        return Some("it could connect");
    }
    // With the descriptors that it has: to open others for it would fail first.
    if Command::new("/proc/self/exe").arg("--version").env_clear().status().is_ok() {
        return Some("it could start a program");
    }
    // Everybody but itself: nobody is there.
    if rustix::process::test_kill_process_group(rustix::process::Pid::INIT).is_ok() {
        return Some("it could send signals");
    }
    let more = usize::try_from(memory).unwrap_or(usize::MAX);
    if Vec::<u8>::new().try_reserve_exact(more).is_ok() {
        return Some("it could take more memory than it may");
    }
    None
}

/// Answers what is [`REFUSED`], and has no say in anything else.
fn refusals() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|number| (*number, Vec::new())).collect();
    rules.insert(libc::SYS_mmap, SHARED.into_iter().map(mapping).collect::<Result<_, _>>()?);
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(NO_SUCH_CALL.cast_unsigned()),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

/// Mappings of one kind.
fn mapping(kind: libc::c_int) -> Result<SeccompRule, seccompiler::BackendError> {
    let of_kind = SeccompCmpOp::MaskedEq(u64::from(libc::MAP_TYPE.cast_unsigned()));
    let kind = u64::from(kind.cast_unsigned());
    SeccompRule::new(vec![SeccompCondition::new(3, SeccompCmpArgLen::Dword, of_kind, kind)?])
}

/// Ends the process at everything that is on neither list.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALSO_ALLOWED).chain(REFUSED).map(|number| (*number, Vec::new())).collect();
    // The name of a thread, and of a mapping.
    let first = |value: libc::c_int| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value.cast_unsigned()))
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    let kinds = SHARED.into_iter().chain([libc::MAP_PRIVATE]);
    rules.insert(libc::SYS_mmap, kinds.map(mapping).collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_prctl, vec![first(libc::PR_SET_NAME)?, first(libc::PR_SET_VMA)?]);
    confinement::allow_only(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_each_call_once_and_none_that_leads_out() {
        assert!(!filter().unwrap().is_empty() && !refusals().unwrap().is_empty());
        assert!(REFUSED.iter().all(|number| !ALLOWED.contains(number) && !ALSO_ALLOWED.contains(number)));
        let mut numbers: Vec<i64> = ALLOWED.iter().chain(ALSO_ALLOWED).copied().collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
        for leads_out in [
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_kill,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_ioctl,
            libc::SYS_io_uring_setup,
            libc::SYS_prctl,
        ] {
            assert!(!numbers.contains(&leads_out), "{leads_out}");
        }
    }

    #[test]
    fn memory_that_is_shared_is_refused_and_memory_of_its_own_is_not() {
        let tried = std::thread::spawn(|| {
            seccompiler::apply_filter(&refusals().unwrap()).unwrap();
            // More than an allocator has left: it asks the system.
            (share_memory().map_err(|error| error.raw_os_error()), vec![1u8; 8 << 20].len())
        });
        assert_eq!(tried.join().unwrap(), (Err(Some(NO_SUCH_CALL)), 8 << 20));
        share_memory().unwrap();
    }

    #[test]
    fn a_process_that_is_not_confined_does_not_pass_the_self_test() {
        assert_eq!(leak(1 << 20), Some("it could see the host's files"));
        assert!(stray(0).unwrap().contains("instead of 0"));
        assert_eq!(stray(100_000), None);
    }

    #[test]
    fn each_attempt_makes_the_system_call_that_it_is_about_and_no_other_that_is_on_no_list() {
        // Not `exec`: it changes what the whole process does with a signal before it asks the system.
        const NAMED: libc::c_int = libc::EXFULL;
        const OTHER: libc::c_int = libc::EBADE;
        for (act, named) in [
            (Act::Connect, libc::SYS_connect),
            (Act::Open, libc::SYS_readlinkat),
            (Act::Signal, libc::SYS_kill),
        ] {
            let tried = std::thread::spawn(move || {
                let arch = || std::env::consts::ARCH.try_into().unwrap();
                let listed = ALLOWED.iter().chain(ALSO_ALLOWED).chain([&libc::SYS_prctl, &libc::SYS_seccomp]);
                let known = listed.chain([&named]).map(|number| (*number, Vec::new())).collect();
                let filters = [
                    (known, SeccompAction::Errno(OTHER.cast_unsigned()), SeccompAction::Allow),
                    (
                        [(named, Vec::new())].into(),
                        SeccompAction::Allow,
                        SeccompAction::Errno(NAMED.cast_unsigned()),
                    ),
                ];
                for (rules, otherwise, listed) in filters {
                    let filter = SeccompFilter::new(rules, otherwise, listed, arch()).unwrap();
                    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
                }
                attempt(act).map_err(|error| error.raw_os_error())
            });
            assert_eq!(tried.join().unwrap(), Err(Some(NAMED)), "{act:?}");
        }
    }
}
