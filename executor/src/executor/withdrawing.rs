//! What becomes of calls in flight of an agent that was admitted and may run no longer.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use executor_api::audit::AuditEvent;

use super::Executor;
use super::holding::withheld;
use crate::Metrics;
use crate::admission::Denied;
use crate::agents::{Agent, Renewed};
use crate::audit::Audit;
use crate::clock;
use crate::grace::{Due, Ending};
use crate::records::audit_agent;
use crate::runtime::{KillCause, Runtime, Selector};

/// What becomes of calls in flight when a changed policy admits their agent no longer, when the evidence for it has grown older than
/// policy allows, or when an operator holds it. New calls are refused in any case; what is revoked, and whatever a forked log
/// vouched for, ends at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    /// They may end by themselves within this time.
    Drain(Duration),
    /// They are stopped.
    Stop,
}

impl Withdrawal {
    /// The one that leaves them less time.
    pub(crate) fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Drain(one), Self::Drain(other)) => Self::Drain(one.min(other)),
            _ => Self::Stop,
        }
    }
}

/// What stops calls, now or when their time is up.
struct Stopper {
    executor: Weak<Executor>,
    runtime: Arc<Runtime>,
    metrics: Metrics,
    audit: Audit,
}

impl Executor {
    /// How an order ends calls.
    pub(super) fn ordered_ending(withdrawal: Withdrawal) -> Ending {
        Ending { withdrawal, cause: KillCause::Operator, code: withheld().code }
    }

    /// How a denial of what was admitted ends calls.
    pub(super) fn ending_of(&self, denied: &Denied) -> Ending {
        let (withdrawal, cause) = if denied.is_about_evidence() {
            (self.parts.on_stale, KillCause::Stale)
        } else if denied.is_about_policy() {
            (self.parts.withdrawal, KillCause::Revoked)
        } else {
            (Withdrawal::Stop, KillCause::Revoked)
        };
        Ending { withdrawal, cause, code: denied.code }
    }

    /// Acts on a refusal of an agent that was admitted.
    pub(super) fn withdraw(&self, agent: &Arc<Agent>, denied: &Denied, renewed: &Renewed) {
        let is_new = renewed.before.as_ref().map(|before| before.code) != Some(denied.code);
        if is_new {
            self.say_refused(agent, denied);
        }
        let stopper = Stopper {
            executor: Weak::clone(&self.this),
            runtime: Arc::clone(&self.parts.runtime),
            metrics: self.parts.metrics.clone(),
            audit: self.parts.audit.clone(),
        };
        match renewed.due {
            Due::Now(ending) => stopper.stop(agent, ending),
            Due::At(time) => stopper.stop_at(time, agent),
            Due::Nothing => {}
        }
        // Files take their time, so after the stop. What may be wanted again as it is, is not compiled again.
        if is_new && denied.code != withheld().code && !denied.is_about_evidence() {
            self.parts.cache.purge(agent.digest);
        }
    }

    fn say_refused(&self, agent: &Agent, denied: &Denied) {
        self.parts.metrics.withdrawn(denied.code);
        if self.parts.audit.record(self.denial_event(denied, Some(agent))).is_err() {
            tracing::error!(agent = agent.id(), code = denied.code, "a denial could not be recorded");
        }
        tracing::warn!(agent = agent.id(), digest = %agent.digest, code = denied.code,
            reason = %denied.message, "an admitted agent may not run any more");
    }
}

impl Stopper {
    /// Stops what runs of a refused agent.
    fn stop(&self, agent: &Agent, ending: Ending) {
        let stopped = self.runtime.stop(&Selector::admission(agent.admission()), ending.cause);
        self.metrics.stopped(stopped);
        if stopped == 0 {
            return;
        }
        let event = AuditEvent {
            event_type: "withdrawal".into(),
            agent: Some(audit_agent(agent)),
            detail: Some(format!("{stopped} instances stopped: {}", ending.code)),
            policy: Some(hex::encode(agent.policy())),
            ..AuditEvent::default()
        };
        if self.audit.record(event).is_err() {
            tracing::error!(agent = agent.id(), stopped, "that instances were stopped could not be recorded");
        }
    }

    /// Stops what still runs at a time, if it is its last one by then: the agent may run again, or calls may have ended before. By the
    /// newest evidence: an upload may have brought some that nobody else was judged by.
    fn stop_at(self, time: Instant, agent: &Arc<Agent>) {
        let agent = Arc::clone(agent);
        tokio::spawn(async move {
            tokio::time::sleep(time.saturating_duration_since(clock::monotonic())).await;
            // They may have ended, and the agent have been unloaded since.
            if !self.runtime.live().has(agent.admission()) {
                return;
            }
            if let Some(executor) = self.executor.upgrade() {
                // The outcome is stored in the agent.
                let _ = executor.may_run(&agent);
            }
            if let Some(ending) = agent.over(clock::monotonic()) {
                self.stop(&agent, ending);
            }
        });
    }
}
