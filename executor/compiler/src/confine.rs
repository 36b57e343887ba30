//! Giving everything up before the first untrusted byte is read.
//!
//! Four layers, none of which trusts another: resource limits, `no_new_privs`, landlock (no file, no TCP, no
//! signal to others) and a seccomp allow-list that kills the process on any other system call. The first, second
//! and fourth are required; landlock depends on the kernel and is an addition.

use anyhow::Context as _;
use executor_engine::limits;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, Scope,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// System calls that reading a pipe, allocating memory, compiling and writing a pipe need.
const ALLOWED: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
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
    libc::SYS_newfstatat, // on an open descriptor; there is no path left that could be opened
    libc::SYS_read,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Closes the sandbox around this process. There is no way back.
///
/// # Errors
///
/// When a required layer cannot be installed; the caller must not read its input then.
pub(crate) fn close() -> anyhow::Result<()> {
    for (resource, limit) in [
        (Resource::Cpu, limits::COMPILE_CPU_SECONDS),
        (Resource::As, limits::COMPILE_ADDRESS_SPACE),
        (Resource::Fsize, 0),
        (Resource::Nproc, 0),
        (Resource::Core, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
            .with_context(|| format!("setting the {resource:?} limit"))?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("forbidding memory dumps")?;
    rustix::thread::set_no_new_privs(true).context("no_new_privs")?;
    landlock_nothing().context("landlock")?;
    let filter: BpfProgram = SeccompFilter::new(
        ALLOWED.iter().map(|number| (*number, Vec::new())).collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into().context("this processor architecture has no seccomp filter")?,
    )
    .and_then(TryInto::try_into)
    .context("building the seccomp filter")?;
    seccompiler::apply_filter(&filter)
        .context("installing the seccomp filter (kernel without CONFIG_SECCOMP_FILTER?)")
}

/// Denies every file, every TCP port and every signal to processes outside, as far as this kernel can.
fn landlock_nothing() -> anyhow::Result<()> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))?
        .handle_access(AccessNet::from_all(ABI::V6))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .restrict_self()?;
    Ok(())
}

/// Tries one forbidden act, for the self-test: `Some(true)` when it succeeded. The process is normally killed
/// before this returns.
pub(crate) fn attempt(act: &str) -> Option<bool> {
    match act {
        "open" => Some(std::fs::File::open("/etc/passwd").is_ok()),
        "connect" => Some(std::net::TcpStream::connect("127.0.0.1:9").is_ok()),
        "exec" => Some(std::process::Command::new("/bin/true").status().is_ok()),
        "thread" => Some(std::thread::Builder::new().spawn(|| ()).is_ok()),
        _ => None,
    }
}
