//! Why a step of a pipeline failed.

use super::call_error::CallError;
use crate::admission::Denied;

/// Why a step has no output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepFailure {
    /// The call has no result.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Its agent is not loaded, or may not run now; or nothing that runs can be recorded.
    #[error("{}", .0.message)]
    Denied(Denied),
    /// Its guest says so itself.
    #[error("the guest ended with code {code}")]
    Guest {
        /// What `process` returned.
        code: i32,
    },
    /// The outputs that later steps wait for are larger than one call may hold.
    #[error("the outputs of its steps take more than {limit} bytes together")]
    Held {
        /// The limit, bytes.
        limit: usize,
    },
}

impl StepFailure {
    /// The stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Call(error) => error.code(),
            Self::Denied(denied) => denied.code,
            Self::Guest { .. } => "guest_error",
            Self::Held { .. } => "pipeline_output_limit",
        }
    }

    /// What only the operator reads.
    pub(super) fn operator(&self) -> &str {
        match self {
            Self::Call(error) => error.operator(),
            Self::Denied(denied) => &denied.operator,
            Self::Guest { .. } | Self::Held { .. } => "",
        }
    }

    /// Whether it says nothing about the guest.
    #[cfg(any(test, feature = "deployments", feature = "pipelines"))]
    pub(super) fn is_of_others(&self) -> bool {
        match self {
            Self::Call(error) => error.is_of_others(),
            Self::Denied(_) => true,
            Self::Guest { .. } | Self::Held { .. } => false,
        }
    }

    /// Whether a further attempt may end otherwise. What was stopped or refused stays so.
    #[cfg(any(test, feature = "pipelines"))]
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Call(CallError::Pool { .. } | CallError::Host { .. }) | Self::Guest { .. } => true,
            Self::Call(CallError::InputTooLarge { .. } | CallError::InWorker { .. })
            | Self::Denied(_)
            | Self::Held { .. } => false,
            Self::Call(error) => !error.is_of_others(),
        }
    }
}
