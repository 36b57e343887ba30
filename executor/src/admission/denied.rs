//! A refusal, as the operator's log and the caller see it.

use trust_store::Denial;

use crate::runtime::Said;

/// Why something was not admitted or not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Denied {
    /// Number of the verification step; 0 for refusals outside the numbered steps.
    pub step: u8,
    /// Stable reason code.
    pub code: &'static str,
    /// One sentence for the caller.
    pub message: String,
    /// What only the operator reads; empty when there is no more to say.
    pub operator: String,
    /// What the guest said, when this is how a call ended.
    pub said: Option<Box<Said>>,
}

impl Denied {
    /// A refusal outside the numbered steps.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { step: 0, code, message: message.into(), operator: String::new(), said: None }
    }

    /// Adds what only the operator reads.
    #[must_use]
    pub fn for_operator(mut self, text: impl Into<String>) -> Self {
        self.operator = text.into();
        self
    }

    /// A refusal in a numbered step.
    pub fn in_step(step: u8, code: &'static str, message: impl Into<String>) -> Self {
        Self { step, ..Self::new(code, message) }
    }

    /// Whether the policy decided it, and nothing that was found out about the module, its signer or the log. An
    /// agent that was admitted once is refused for such a reason only after the policy changed.
    pub fn is_about_policy(&self) -> bool {
        self.step != 0 && !self.is_about_evidence() && !matches!(self.code, "revoked" | "log_inconsistent")
    }

    /// Whether it ends what runs, whatever anybody would give time for: something that was found out speaks against the module, its
    /// signer or the log.
    pub fn ends_at_once(&self) -> bool {
        !self.is_about_evidence() && !self.is_about_policy()
    }

    /// Whether evidence may arrive that changes the answer, without anybody touching the module.
    pub fn is_about_evidence(&self) -> bool {
        matches!(self.code, "checkpoint_stale" | "revocation_stale" | "revocation_unknown" | "tuf_expired")
    }

    /// Whether it says nothing against what was denied: evidence may arrive, or what was missing at that moment may be there at the
    /// next one.
    pub fn may_pass(&self) -> bool {
        self.is_about_evidence()
            || matches!(
                self.code,
                "audit_unavailable"
                    | "compile_failed"
                    | "compile_queue_full"
                    | "compiler_unavailable"
                    | "internal"
                    | "pool_exhausted"
                    | "receipts_unavailable"
                    | "restoring"
                    | "state_unavailable"
                    | "storage_full"
                    | "worker_lost"
            )
    }
}

impl From<Denial> for Denied {
    fn from(denial: Denial) -> Self {
        Self::in_step(denial.code.step(), denial.code.as_str(), denial.detail.into_owned())
    }
}
