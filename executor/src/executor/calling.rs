//! One call, from its name to its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executor_engine::ModuleDigest;

use super::Executor;
use crate::admission::Denied;
use crate::agents::Agent;
use crate::clock;
use crate::deployments::Served;
use crate::records::{audit_unavailable, call_denied, receipts_unavailable};
use crate::runtime::{Call, Cancel, KillCause, Lowered, Outcome, Registration};

/// Ends a call whose caller went away: dropping the future that waits for it raises the flag. After the call ended
/// the flag means nothing.
struct CallerGuard(Cancel);

impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.0.raise(KillCause::CallerGone);
    }
}

/// Longest name of a caller's session, bytes.
const MAX_SESSION: usize = 256;

/// What a caller says about a call besides its input.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Wall time; it lowers the limit and never raises it.
    pub deadline: Option<Duration>,
    /// Calls of one session are served by one release while another takes over.
    pub session: Option<String>,
}

/// A call that found its agent and is in the list of what can be stopped.
pub(super) struct Placed {
    pub(super) agent: Arc<Agent>,
    /// By which route, if there is one.
    pub(super) served: Option<Served>,
    pub(super) registration: Registration,
}

/// A call that ran to its end.
#[derive(Debug)]
pub struct Executed {
    /// Digest of the module that ran.
    pub digest: ModuleDigest,
    /// What came back.
    pub outcome: Outcome,
}

impl Executor {
    /// Runs an agent once.
    ///
    /// # Errors
    ///
    /// A denial when the agent is unknown or may not run now, or the reason why the call has no result.
    pub async fn execute(
        self: &Arc<Self>,
        name: &str,
        input: Bytes,
        terms: Terms,
    ) -> Result<Executed, Denied> {
        let Terms { deadline, session } = terms;
        if session.as_ref().is_some_and(|session| session.len() > MAX_SESSION) {
            let text = format!("`session` has at most {MAX_SESSION} bytes");
            return Err(Denied::new("invalid_argument", text));
        }
        let slot = self.parts.audit.room().await.map_err(audit_unavailable)?;
        let receipt = self.parts.receipts.room().await.map_err(|_| receipts_unavailable())?;
        let caller = CallerGuard(Cancel::default());
        let Placed { agent, served, registration } = self.register(name, session.as_deref(), &caller.0)?;
        self.may_run(&agent)?;
        let place = self.queue.enter().await?;
        let call = Call {
            input: input.clone(),
            lowered: Lowered { wall: deadline, ..Lowered::default() },
            cancel: caller.0.clone(),
        };
        let (executor, running) = (Arc::clone(self), Arc::clone(&agent));
        // The caller may go away and this future with it. What runs keeps its place until it ends, and is recorded.
        let call = tokio::task::spawn_blocking(move || {
            let (began_ms, began) = (clock::unix_millis(), clock::monotonic());
            let ended = executor.parts.runtime.call_registered(&running.prepared, call, &registration);
            drop(place);
            if let Some(served) = &served {
                Self::count_call(served, &ended, clock::monotonic().saturating_duration_since(began));
            }
            slot.record(executor.execution_event(&running, registration.id, &ended));
            let instance = registration.id;
            receipt.record(instance, executor.receipt(&running, instance, began_ms, &input, &ended));
            ended
        });
        let ended = call
            .await
            .map_err(|error| Denied::new("internal", "the call failed").for_operator(error.to_string()))?;
        match ended {
            Ok(outcome) => Ok(Executed { digest: agent.digest, outcome }),
            Err(error) => Err(call_denied(&error, &agent)),
        }
    }

    /// Finds an agent and puts a call of it into the list of what can be stopped, before anybody asks whether it may
    /// run: a verdict that changes from here on reaches the call, wherever it waits.
    pub(super) fn register(
        &self,
        name: &str,
        session: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Placed, Denied> {
        loop {
            let served = self.deployments.choose(name, session);
            let agent = match &served {
                Some(served) => self.release_of(name, served.digest)?,
                None => self.find_loaded(name)?,
            };
            let registration = self.parts.runtime.register(&agent.prepared, cancel);
            if !agent.is_retired() {
                return Ok(Placed { agent, served, registration });
            }
            // Replaced or unloaded in between: look again.
        }
    }

    /// The agent of this name, unless a later release of the last run waits for its verdict.
    fn find_loaded(&self, name: &str) -> Result<Arc<Agent>, Denied> {
        let found = self.agents.find(name);
        let order = match &found {
            Ok(agent) if agent.id() != name => return found,
            Ok(agent) => Some(agent.order),
            Err(_) => None,
        };
        match self.waiting.denial(name, order) {
            Some(denied) => Err(denied),
            None => found,
        }
    }
}
