//! What becomes of calls in flight of an agent that was admitted and may run no longer.

use std::sync::Arc;
use std::time::Duration;

use executor_api::audit::AuditEvent;

use super::Executor;
use super::holding::withheld;
use crate::Metrics;
use crate::admission::Denied;
use crate::agents::Agent;
use crate::audit::Audit;
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
    runtime: Arc<Runtime>,
    metrics: Metrics,
    audit: Audit,
    cause: KillCause,
}

impl Executor {
    /// Acts on a refusal of an agent that was admitted, after `before`: no time is given twice for one reason.
    pub(super) fn withdraw(
        &self,
        agent: &Arc<Agent>,
        before: Option<&Denied>,
        denied: &Denied,
        held: Option<Withdrawal>,
    ) {
        let held = held.filter(|_| denied.code == withheld().code);
        let is_new = before.map(|before| before.code) != Some(denied.code);
        // That other evidence has grown old as well gives no further time.
        let is_stale_still = before.is_some_and(Denied::is_about_evidence) && denied.is_about_evidence();
        let gives_time = is_new && !is_stale_still;
        let refusal = if gives_time { agent.refused_anew() } else { agent.last_refusal() };
        if is_new {
            self.say_refused(agent, denied);
        }
        let (withdrawal, cause) = match held {
            Some(ordered) => (ordered, KillCause::Operator),
            None if denied.is_about_evidence() => (self.parts.on_stale, KillCause::Stale),
            None if denied.is_about_policy() => (self.parts.withdrawal, KillCause::Revoked),
            None => (Withdrawal::Stop, KillCause::Revoked),
        };
        let stopper = Stopper {
            runtime: Arc::clone(&self.parts.runtime),
            metrics: self.parts.metrics.clone(),
            audit: self.parts.audit.clone(),
            cause,
        };
        match withdrawal {
            // At every look, also what was registered since the last one.
            Withdrawal::Stop => stopper.stop(agent, denied),
            Withdrawal::Drain(time) if gives_time => stopper.stop_after(time, agent, refusal),
            Withdrawal::Drain(_) => {}
        }
        // Files take their time, so after the stop. What may be wanted again as it is, is not compiled again.
        if is_new && held.is_none() && !denied.is_about_evidence() {
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
    fn stop(&self, agent: &Agent, denied: &Denied) {
        let stopped = self.runtime.stop(&Selector::admission(agent.admission()), self.cause);
        self.metrics.stopped(stopped);
        if stopped == 0 {
            return;
        }
        let event = AuditEvent {
            event_type: "withdrawal".into(),
            agent: Some(audit_agent(agent)),
            detail: Some(format!("{stopped} instances stopped: {}", denied.code)),
            policy: Some(hex::encode(agent.verdict().policy)),
            ..AuditEvent::default()
        };
        if self.audit.record(event).is_err() {
            tracing::error!(agent = agent.id(), stopped, "that instances were stopped could not be recorded");
        }
    }

    /// Stops what still runs when its time is up, unless the agent may run again by then. A refusal after that gives its own time.
    fn stop_after(self, time: Duration, agent: &Arc<Agent>, refusal: u64) {
        let agent = Arc::clone(agent);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if agent.last_refusal() == refusal
                && let Some(denied) = agent.verdict().denied
            {
                self.stop(&agent, &denied);
            }
        });
    }
}
