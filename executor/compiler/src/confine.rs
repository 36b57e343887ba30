//! Giving everything up before the first untrusted byte is read.
//!
//! | layer | what it leaves |
//! |---|---|
//! | descriptors | the three standard ones, which are pipes to the executor; where another one was left open, nothing begins |
//! | resource limits | one process, bounded time and memory, no file of its own, no dump |
//! | `no_new_privs`, no capabilities | nothing to gain |
//! | landlock | no file, no TCP port, as far as the kernel has it |
//! | seccomp, a list of what is allowed | memory, and reading and writing what is open; no signal, not even to itself |
//!
//! They are those of the processes that run guests, from the same functions ([`executor_engine::confinement`]), but for namespaces and an
//! empty root: this process is started by the executor itself, which cannot make any. No name of a file leads anywhere
//! here, because no system call takes one. Landlock depends on the kernel and is an addition; every other layer is required, and what
//! they should have stopped is tried before anything is read.

use anyhow::{Context as _, anyhow, bail};
use executor_engine::Profile;
use executor_engine::confinement::{
    allow_only, connects, drop_capabilities, landlock_nothing, limit, opens_folders, stray,
};
use landlock::RulesetStatus;
use rustix::process::Resource;
use seccompiler::{BackendError, BpfProgram};

/// System calls of a process that computes, and reads and writes what is open: memory, its own end, time, random numbers. None has the
/// name of a file, not even to ask when one was changed, and none does anything to a process by its number: this one shares its user and its
/// processes with the executor. Who aborts, out of memory for instance, sends itself a signal, and so ends by the filter instead.
const ALLOWED: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Input, output, and what is said to the executor's log.
const DESCRIPTORS: usize = 3;

/// Most descriptors: room for what confining itself needs.
const MAX_DESCRIPTORS: u64 = 16;

/// Closes the sandbox around this process, with what a profile gives to one job. There is no way back.
///
/// # Errors
///
/// When a required layer cannot be installed, or one does not hold; the caller must not read its input then.
pub(crate) fn close(profile: Profile) -> anyhow::Result<()> {
    if let Some(stray) = stray(DESCRIPTORS) {
        bail!("{stray}");
    }
    limit(&[
        (Resource::As, profile.compile_address_space()),
        (Resource::Core, 0),
        (Resource::Cpu, profile.compile_cpu_seconds()),
        (Resource::Fsize, 0),
        (Resource::Memlock, 0),
        (Resource::Nofile, MAX_DESCRIPTORS),
        (Resource::Nproc, 0),
    ])
    .map_err(|(what, errno)| anyhow!(errno).context(what))?;
    rustix::thread::set_no_new_privs(true).context("no_new_privs")?;
    drop_capabilities().map_err(|left| anyhow!(left).context("capabilities"))?;
    // The names of what is enforced in part are those of newer kernels.
    if landlock_nothing().context("landlock")? == RulesetStatus::FullyEnforced {
        if opens_folders() {
            bail!("it could open a folder");
        }
        if connects() {
            bail!("it could connect");
        }
    }
    let filter = filter().context("building the seccomp filter")?;
    seccompiler::apply_filter(&filter)
        .context("installing the seccomp filter (kernel without CONFIG_SECCOMP_FILTER?)")
}

fn filter() -> Result<BpfProgram, BackendError> {
    allow_only(ALLOWED.iter().map(|call| (*call, Vec::new())))
}

/// Tries one forbidden act, for the self-test: `Some(true)` when it succeeded. The process is normally killed
/// before this returns.
pub(crate) fn attempt(act: &str) -> Option<bool> {
    match act {
        // Its only call that is on no list is the one that signals a thread.
        "abort" => std::process::abort(),
        "connect" => Some(std::net::TcpStream::connect("127.0.0.1:9").is_ok()),
        "exec" => Some(std::process::Command::new("/bin/true").status().is_ok()),
        "open" => Some(std::fs::File::open("/etc/passwd").is_ok()),
        "signal" => Some(rustix::process::test_kill_process(rustix::process::getpid()).is_ok()),
        "stat" => Some(std::fs::metadata("/etc/passwd").is_ok()),
        "thread" => Some(std::thread::Builder::new().spawn(|| ()).is_ok()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_each_call_once_and_none_that_leads_out_or_has_the_name_of_a_file() {
        assert!(!filter().unwrap().is_empty());
        let mut numbers = ALLOWED.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ALLOWED.len());
        for leads_out in [
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_statx,
            libc::SYS_newfstatat,
            libc::SYS_readlinkat,
            libc::SYS_faccessat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_execve,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_ptrace,
            libc::SYS_unshare,
            libc::SYS_mount,
            libc::SYS_memfd_create,
            libc::SYS_ioctl,
            libc::SYS_prctl,
        ] {
            assert!(!ALLOWED.contains(&leads_out), "{leads_out}");
        }
    }
}
