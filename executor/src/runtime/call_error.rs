//! Why a call has no result.

use super::control::KillCause;
use super::state::Stop;
use super::step::StepFailure;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The input is larger than this executor accepts.
    #[error("the input is larger than {limit} bytes")]
    InputTooLarge {
        /// The limit, bytes.
        limit: usize,
    },
    /// The instance needs more memory or table elements at its start than this call may use.
    #[error("the guest starts with more memory than it may use")]
    MemoryLimit,
    /// No slot of the pool was free, or the instance needs more than one slot holds.
    #[error("no instance slot is available")]
    Pool {
        /// For the operator.
        detail: String,
    },
    /// The host ended the guest.
    #[error(transparent)]
    Stopped(#[from] Stop),
    /// The guest trapped.
    #[error("the guest trapped: {trap}")]
    Trapped {
        /// wasmtime's name of the trap.
        trap: &'static str,
    },
    /// A component handed the host values that its types do not allow, or more than one host call may carry.
    #[error("the guest broke the rules of the component boundary")]
    Boundary {
        /// For the operator.
        detail: String,
    },
    /// A step of a pipeline failed, and the pipeline with it.
    #[error("the step `{step}` failed: {failure}")]
    Step {
        /// Name of the step.
        step: String,
        /// Why.
        failure: Box<StepFailure>,
    },
    /// The worker process that ran the guest ended, or had to be ended.
    #[error("the process that ran the guest was lost; retry")]
    WorkerLost {
        /// For the operator.
        detail: String,
    },
    /// The worker process that runs the guest says that it could not.
    #[error("the call failed in the process that runs the guest")]
    InWorker {
        /// The stable reason code.
        code: &'static str,
        /// For the operator.
        detail: String,
    },
    /// Something else went wrong on the host's side.
    #[error("the call failed")]
    Host {
        /// For the operator; never sent to callers.
        detail: String,
    },
}

impl CallError {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Step { failure, .. } => failure.code(),
            Self::InputTooLarge { .. } => "input_too_large",
            Self::MemoryLimit => "memory_limit",
            Self::Pool { .. } => "pool_exhausted",
            Self::Stopped(Stop::CpuBudget) => "cpu_budget",
            Self::Stopped(Stop::WallDeadline) => "deadline_exceeded",
            Self::Stopped(Stop::Killed(cause)) => cause.as_str(),
            Self::Boundary { .. } | Self::Trapped { .. } => "trap",
            Self::WorkerLost { .. } => "worker_lost",
            Self::InWorker { code, .. } => code,
            Self::Host { .. } => "internal",
        }
    }

    /// What only the operator reads; empty when there is nothing more to say.
    pub fn operator(&self) -> &str {
        match self {
            Self::Boundary { detail }
            | Self::Host { detail }
            | Self::InWorker { detail, .. }
            | Self::Pool { detail }
            | Self::WorkerLost { detail } => detail,
            Self::Step { failure, .. } => failure.operator(),
            Self::InputTooLarge { .. } | Self::MemoryLimit | Self::Stopped(_) | Self::Trapped { .. } => "",
        }
    }

    /// Why a verdict ended the call, if one did.
    pub(crate) fn verdict(&self) -> Option<KillCause> {
        let Self::Stopped(Stop::Killed(cause)) = self else { return None };
        Some(*cause).filter(|cause| cause.is_of_verdict())
    }

    /// Whether it says nothing about the guest: somebody else ended the call, or it never began.
    #[cfg(any(test, feature = "deployments", feature = "pipelines"))]
    pub(crate) fn is_of_others(&self) -> bool {
        match self {
            Self::Stopped(Stop::Killed(_))
            | Self::InputTooLarge { .. }
            | Self::Pool { .. }
            | Self::Host { .. } => true,
            Self::Step { failure, .. } => failure.is_of_others(),
            // A guest may be what its worker ended of.
            Self::Boundary { .. }
            | Self::InWorker { .. }
            | Self::MemoryLimit
            | Self::Stopped(_)
            | Self::Trapped { .. }
            | Self::WorkerLost { .. } => false,
        }
    }

    /// Containers and pipelines are not run by the engine; whoever asks it to is in error.
    pub(super) fn no_instance() -> Self {
        Self::Host { detail: "the engine was asked to run what is no module".into() }
    }
}
