//! What confines a worker, and what is tried against it.

/// What a worker tries inside its closed sandbox, and must not live to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Open a connection.
    Connect,
    /// Start a program.
    Exec,
    /// Open a file.
    Open,
    /// Send a signal to another process.
    Signal,
}

impl Act {
    /// Every act.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Exec, Self::Open, Self::Signal];

    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Exec => "exec",
            Self::Open => "open",
            Self::Signal => "signal",
        }
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Self::Connect => 1,
            Self::Exec => 2,
            Self::Open => 3,
            Self::Signal => 4,
        }
    }
}

/// What confines a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// No capability of the kernel is left.
    Capabilities,
    /// A root folder with nothing in it.
    EmptyRoot,
    /// No file.
    Landlock,
    /// Nothing gains rights.
    NoNewPrivileges,
    /// Own namespaces of users, processes, network, mounts, IPC and host names.
    Namespaces,
    /// Resource limits, no memory dumps.
    ProcessLimits,
    /// Few system calls.
    Seccomp,
    /// What must not succeed was tried.
    SelfTest,
    /// The engine.
    Engine,
}

impl Mechanism {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Capabilities,
        Self::EmptyRoot,
        Self::Landlock,
        Self::NoNewPrivileges,
        Self::Namespaces,
        Self::ProcessLimits,
        Self::Seccomp,
        Self::SelfTest,
        Self::Engine,
    ];

    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capabilities => "capabilities",
            Self::EmptyRoot => "empty-root",
            Self::Landlock => "landlock",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::Namespaces => "namespaces",
            Self::ProcessLimits => "process-limits",
            Self::Seccomp => "seccomp",
            Self::SelfTest => "self-test",
            Self::Engine => "engine",
        }
    }

    /// What the host must have, and what to do where it has not.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Capabilities => "the worker kept a capability of the kernel; report this as a defect",
            Self::EmptyRoot => {
                "allow mount and chroot inside user namespaces: CONFIG_TMPFS, and no container profile or AppArmor rule against them"
            }
            Self::Landlock => {
                "use a kernel with CONFIG_SECURITY_LANDLOCK (Linux 5.13 or newer) and boot with landlock in lsm="
            }
            Self::NoNewPrivileges => "use Linux 3.5 or newer",
            Self::Namespaces => {
                "allow user namespaces: CONFIG_USER_NS and CONFIG_NET_NS, user.max_user_namespaces above 0, and no \
                 container profile or AppArmor rule against unshare"
            }
            Self::ProcessLimits => "check the limits that the executor was started with",
            Self::Seccomp => "use a kernel with CONFIG_SECCOMP_FILTER; a container runtime may forbid it",
            Self::SelfTest => "the worker's sandbox leaks on this host; report this as a defect",
            Self::Engine => {
                "see the reason; address space and memory are limited by `ulimit -v` and vm.overcommit_memory"
            }
        }
    }

    pub(super) fn code(self) -> u8 {
        Self::ALL.iter().position(|one| *one == self).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
    }
}
