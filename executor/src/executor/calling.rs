//! One call, from its name to its answer.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use executor_engine::ModuleDigest;
use tokio::sync::oneshot;

use super::Executor;
use super::recording::tell_operator;
use crate::admission::Denied;
use crate::agents::Agent;
use crate::callers::Caller;
use crate::clock;
use crate::deployments::Served;
use crate::receipts::Receipts;
use crate::records::{audit_unavailable, call_denied, not_loaded, receipts_unavailable};
use crate::runtime::{
    Call, CallError, Cancel, Code, Ended, KillCause, Lowered, Outcome, Registration, Said, Usage,
};
use crate::streams::{Pipe, StreamEvent};
use crate::telemetry::{Phase, Trace, TraceParent};
use crate::unread_results::Unread;

/// Ends a call whose caller went away: dropping the future that waits for it raises the flag. After the call ended
/// the flag means nothing.
struct CallerGuard(Cancel);

impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.0.raise(KillCause::CallerGone);
    }
}

/// Ends what a reader waits for, also when the thread of the call ends otherwise than it should.
struct Finish(Option<Arc<Pipe>>);

impl Drop for Finish {
    fn drop(&mut self) {
        if let Some(pipe) = &self.0 {
            pipe.finish();
        }
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
    /// By which the caller asks for the same answer again, and for no second run.
    pub idempotency_key: Option<String>,
    /// Whether the result waits for its receipt.
    pub receipt: bool,
    /// Whether what it streams is kept for a reader who comes back.
    pub resumable: bool,
    /// The trace that the call is part of.
    pub trace: Option<TraceParent>,
    /// Who calls.
    pub caller: Caller,
}

/// A call that found its agent and is in the list of what can be stopped.
pub(super) struct Placed {
    pub(super) agent: Arc<Agent>,
    /// By which route, if there is one.
    pub(super) served: Option<Served>,
    pub(super) registration: Registration,
}

/// How a call began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    /// Unix milliseconds.
    pub(super) at_ms: u64,
    /// SHA-256 of the policy it was admitted by.
    pub(super) policy: [u8; 32],
}

/// What came of a call, and what its guest said where nothing did.
type Came = (Result<Outcome, CallError>, Option<Box<Said>>);

/// A call under way. Dropping it ends the call.
pub(super) struct Running {
    agent: Arc<Agent>,
    call: tokio::task::JoinHandle<Came>,
    _caller: CallerGuard,
}

impl Running {
    pub(super) async fn ended(self) -> Result<Executed, Denied> {
        self.ended_and_ran().await.0
    }

    /// How it ended, and whether something of the guest may have run.
    pub(super) async fn ended_and_ran(self) -> (Result<Executed, Denied>, bool) {
        let (ended, said) = match self.call.await {
            Ok(came) => came,
            Err(error) => {
                let failed = Denied::new("internal", "the call failed").for_operator(error.to_string());
                return (Err(failed), true);
            }
        };
        match ended {
            Ok(outcome) => {
                (Ok(Executed { digest: self.agent.digest, outcome, repeated: false, receipt: None }), true)
            }
            Err(error) => {
                let ran = !matches!(error, CallError::InputTooLarge { .. } | CallError::Pool { .. });
                (Err(Denied { said, ..call_denied(&error, &self.agent) }), ran)
            }
        }
    }

    /// Whose call it is.
    pub(super) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Ends the call as well where it is dropped.
    fn guard(&self) -> CallerGuard {
        CallerGuard(self._caller.0.clone())
    }
}

/// A call whose streams are read. Dropping it ends the call.
pub struct Streaming {
    pipe: Arc<Pipe>,
    agent: Arc<Agent>,
    /// Comes when the call has ended; nothing once it was told.
    result: Option<oneshot::Receiver<Unread>>,
    /// When it ended, however far its reader has come; nothing while it runs.
    over: Arc<OnceLock<Instant>>,
    /// For a result that waits for its receipt.
    receipts: Option<Receipts>,
    _caller: CallerGuard,
}

/// What comes next of a call whose streams are read.
#[derive(Debug, Clone)]
pub enum Next {
    /// Something was streamed.
    Event(StreamEvent),
    /// The call is over; nothing follows.
    Ended(Result<Executed, Denied>),
}

impl Streaming {
    /// The agent that runs and its module.
    pub(super) fn release(&self) -> (&str, ModuleDigest) {
        (self.agent.id(), self.agent.digest)
    }

    /// When the call ended, once it has.
    pub(super) fn over(&self) -> &Arc<OnceLock<Instant>> {
        &self.over
    }

    /// The next thing; nothing after the end.
    pub async fn next(&mut self) -> Option<Next> {
        if let Some(event) = self.pipe.next().await {
            return Some(Next::Event(event));
        }
        let Ok(unread) = self.result.take()?.await else {
            return Some(Next::Ended(Err(Denied::new("internal", "the call failed"))));
        };
        let receipt = match (&self.receipts, unread.succeeded()) {
            (Some(receipts), Some(instance)) => receipts.covered(instance).await.ok(),
            _ => None,
        };
        Some(Next::Ended(unread.take().map(|done| Executed { receipt, ..done })))
    }
}

/// A call that ran to its end.
#[derive(Debug, Clone)]
pub struct Executed {
    /// Digest of the module that ran.
    pub digest: ModuleDigest,
    /// What came back.
    pub outcome: Outcome,
    /// Whether it ran for an earlier request under the same idempotency key.
    pub repeated: bool,
    /// Its receipt as proof file, for whoever asked for it and waited long enough.
    pub receipt: Option<Bytes>,
}

/// Runs a call to its end, also when a defect of this program ends it: what ran is recorded, however it ended.
fn on_record(run: impl FnOnce() -> Ended) -> Ended {
    // What the call had is dropped with it; what it shares with others is locks, which do not break.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| {
        let error = CallError::Host { detail: "a defect of the executor ended the call; see its log".into() };
        Ended::plain(Err(error), Usage::default())
    })
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
        if terms.resumable {
            let text = "`resumable` is for calls whose streams are read; `idempotency_key` is for this one";
            return Err(Denied::new("invalid_argument", text));
        }
        let receipt = terms.receipt;
        let mut done = match terms.idempotency_key.clone() {
            Some(key) => self.execute_once(name, input, terms, &key).await?,
            None => self.begin(name, input, terms, None).await?.ended().await?,
        };
        if receipt {
            // The call was made: whoever waited in vain has its result, and asks for the receipt again.
            done.receipt = self.receipts().covered(done.outcome.instance).await.ok();
        }
        Ok(done)
    }

    /// Runs an agent once, with a reader for what it streams.
    ///
    /// # Errors
    ///
    /// A denial when the agent is unknown or may not run now. How the call ended is the last thing that is read.
    pub async fn execute_streaming(
        self: &Arc<Self>,
        name: &str,
        input: Bytes,
        terms: Terms,
    ) -> Result<Streaming, Denied> {
        if terms.idempotency_key.is_some() {
            let text = "what a call streams is gone once it was read: such calls take no `idempotency_key`";
            return Err(Denied::new("invalid_argument", text));
        }
        let pipe = Arc::new(Pipe::default());
        let receipts = terms.receipt.then(|| self.receipts().clone());
        let owner = Arc::clone(terms.caller.name());
        let running = self.begin(name, input, terms, Some(Arc::clone(&pipe))).await?;
        let (agent, caller) = (Arc::clone(&running.agent), running.guard());
        let (told, result) = oneshot::channel();
        let (executor, over) = (Arc::clone(self), Arc::<OnceLock<Instant>>::default());
        let ends = Arc::clone(&over);
        // The reader may be stuck long before the end: what came of the call must not wait for him uncounted.
        tokio::spawn(async move {
            let ended = running.ended().await;
            let _ = ends.set(clock::monotonic()); // nobody else says so
            let (unread, made_room) = executor.unread.keep(owner, ended);
            if made_room > 0 {
                executor.parts.metrics.resumable("answer_not_kept", made_room);
            }
            let _ = told.send(unread); // whoever read may have gone
        });
        Ok(Streaming { pipe, agent, result: Some(result), over, receipts, _caller: caller })
    }

    /// Starts a call, and follows it if somebody wants to know.
    pub(super) async fn begin(
        self: &Arc<Self>,
        name: &str,
        input: Bytes,
        terms: Terms,
        pipe: Option<Arc<Pipe>>,
    ) -> Result<Running, Denied> {
        let mut trace = self.parts.tracer.as_ref().and_then(|tracer| tracer.begin(terms.trace));
        if let Some(trace) = &mut trace {
            trace.enter(Phase::Admission);
        }
        let begun = self.begin_followed(name, input, terms, pipe, &mut trace).await;
        if let (Err(denied), Some(trace)) = (&begun, &mut trace) {
            trace.end(denied.code);
        }
        begun
    }

    /// Starts a call on a thread of its own, which takes the trace along.
    async fn begin_followed(
        self: &Arc<Self>,
        name: &str,
        input: Bytes,
        terms: Terms,
        pipe: Option<Arc<Pipe>>,
        trace: &mut Option<Trace>,
    ) -> Result<Running, Denied> {
        let Terms { deadline, session, caller: of, .. } = terms;
        self.allow_name(&of, name)?;
        if session.as_ref().is_some_and(|session| session.len() > MAX_SESSION) {
            let text = format!("`session` has at most {MAX_SESSION} bytes");
            return Err(Denied::new("invalid_argument", text));
        }
        self.parts.audit.available().map_err(audit_unavailable)?;
        self.parts.receipts.available().map_err(receipts_unavailable)?;
        let Placed { agent, served, registration } = self.register(name, session.as_deref())?;
        self.allow(&of, agent.id())?;
        let caller = CallerGuard(registration.cancel());
        if let Some(trace) = trace {
            trace.of(agent.id(), agent.digest.to_string(), registration.id.to_string());
        }
        self.draining.refuse()?;
        let policy = self.admitted_by(&agent)?;
        if let Some(pipeline) = agent.prepared.pipeline() {
            self.steps_may_run(pipeline)?;
        }
        if let Some(trace) = trace {
            trace.enter(Phase::Queue);
        }
        let place = self.queue.enter(&agent.share).await?;
        // Not before: callers who wait must not hold the room that what runs needs to go on.
        let slot = self.parts.audit.room().await.map_err(audit_unavailable)?;
        let receipt = self.parts.receipts.room().await.map_err(receipts_unavailable)?;
        let mut trace = trace.take();
        let call = Call {
            input: input.clone(),
            lowered: Lowered { wall: deadline, ..Lowered::default() },
            cancel: None,
            seed: None,
        };
        // A time that the release's own limit would not have given anyway.
        let hurry = deadline.filter(|deadline| *deadline < agent.prepared.limits().wall);
        let (executor, running) = (Arc::clone(self), Arc::clone(&agent));
        let tokio = tokio::runtime::Handle::current();
        // The caller may go away and its future with it. What runs keeps its place until it ends, and is recorded.
        let call = tokio::task::spawn_blocking(move || {
            if let Some(trace) = &mut trace {
                trace.enter(Phase::Run);
            }
            let (began_ms, began) = (clock::unix_millis(), clock::monotonic());
            if let Some(served) = &served {
                served.begin();
            }
            let begun = Begun { at_ms: began_ms, policy };
            let finish = Finish(pipe.clone());
            let instance = registration.id;
            let ended = on_record(|| match running.prepared.pipeline() {
                // Its steps have no reader: what they stream would be nobody's.
                Some(pipeline) => executor.run_pipeline(&tokio, &running, pipeline, call, registration),
                None => executor.run_instance(&running, call, registration, pipe),
            });
            drop(finish);
            drop(place);
            if let Some(served) = &served {
                let took = clock::monotonic().saturating_duration_since(began);
                Self::count_call(served, &ended.result, took, hurry);
            }
            if let Some(trace) = &mut trace {
                trace.enter(Phase::Receipt);
            }
            slot.record(executor.call_event(&running, instance, &ended, &of));
            tell_operator(&running, instance, &ended);
            let written = executor.receipt(&running, instance, begun, &input, &ended);
            if let Some(trace) = &mut trace {
                trace.end(&written.reason);
            }
            receipt.record(instance, written);
            drop(trace);
            (ended.result, ended.said)
        });
        Ok(Running { agent, call, _caller: caller })
    }

    /// Runs an agent that is no pipeline to its end. Blocks.
    pub(super) fn run_instance(
        &self,
        agent: &Agent,
        call: Call,
        registration: Registration,
        pipe: Option<Arc<Pipe>>,
    ) -> Ended {
        match &agent.prepared.code {
            Code::Container(container) => container.run(*agent.prepared.limits(), call, registration),
            Code::Component(_) | Code::Core(_) | Code::Pipeline(_) | Code::Worker(_) => {
                self.parts.runtime.call_registered(&agent.prepared, call, registration, pipe)
            }
        }
    }

    /// Finds an agent and puts a call of it into the list of what can be stopped, before anybody asks whether it may
    /// run: a verdict that changes from here on reaches the call, wherever it waits.
    pub(super) fn register(&self, name: &str, session: Option<&str>) -> Result<Placed, Denied> {
        loop {
            let served = self.deployments.choose(name, session);
            let agent = match &served {
                Some(served) => self.release_of(name, served.digest())?,
                None => self.find_loaded(name)?,
            };
            let registration = self.parts.runtime.register(&agent.prepared, None);
            if !agent.is_retired() {
                return Ok(Placed { agent, served, registration });
            }
            // Replaced or unloaded in between: look again.
        }
    }

    /// A loaded release of an agent.
    pub(super) fn release_of(&self, id: &str, digest: ModuleDigest) -> Result<Arc<Agent>, Denied> {
        match self.agents.release(id, digest) {
            Some(agent) => Ok(agent),
            None => Err(self
                .waiting
                .denial_of_release(id, digest)
                .unwrap_or_else(|| not_loaded(&format!("{id} with the module {digest}")))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::panic, reason = "the test is about one")]
    fn a_call_that_a_defect_ends_is_recorded_as_such() {
        let ended = on_record(|| panic!("a defect"));
        assert_eq!(ended.result.unwrap_err().code(), "internal");
    }
}
