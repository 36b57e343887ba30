//! The executor's own operations, with no transport in sight: load, explain, execute, stop, refresh, status.

#[cfg(test)]
mod attack_tests;
mod attesting;
mod calling;
mod clock_jumps;
mod closing;
#[cfg_attr(not(feature = "pipelines"), path = "executor/without_pipelines.rs")]
mod composing;
#[cfg(feature = "pipelines")]
#[cfg(test)]
mod composing_tests;
#[cfg(test)]
mod counted_tests;
#[cfg_attr(not(feature = "deployments"), path = "executor/without_deployments.rs")]
mod deploying;
#[cfg(feature = "deployments")]
#[cfg(test)]
mod deploying_tests;
mod draining;
#[cfg(test)]
mod fork_tests;
mod holding;
mod judging;
mod loading;
#[cfg(test)]
mod loading_tests;
mod orders;
#[cfg(feature = "deployments")]
#[cfg(test)]
mod orders_tests;
mod reading;
#[cfg(test)]
mod reading_tests;
mod recording;
mod reloading;
#[cfg(test)]
mod reloading_tests;
mod repeating;
#[cfg(test)]
mod repeating_tests;
mod restoring;
#[cfg(feature = "deployments")]
#[cfg(test)]
mod restoring_tests;
mod resuming;
mod schedule;
#[cfg(feature = "pipelines")]
#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod test_door;
#[cfg(test)]
mod tests;
mod trying;
mod unloading;
mod withdrawing;
#[cfg(test)]
mod withdrawing_tests;
mod working;

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use executor_api::audit::AuditEvent;
use executor_api::{AgentSummary, Status};
use executor_engine::WASMTIME_VERSION;

use crate::admission::{Admission, AdmittedModule, Denied};
use crate::agents::{Agent, Agents};
use crate::artifact::ArtifactCache;
use crate::audit::Audit;
use crate::clock;
use crate::confinement::Confinement;
use crate::deployments::Deployments;
use crate::evidence::{Asked, Collector};
use crate::holds::Holds;
use crate::idempotency::{AnswerLimits, Answers};
use crate::kept_streams::KeptStreams;
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::receipts::Receipts;
use crate::records::{self, audit_unavailable, cut, root_in_force, summarise};
use crate::runtime::{KillCause, Runtime, Selector};
use crate::state_folder::StateFolder;
use crate::submissions::Submissions;
use crate::telemetry::Tracer;
use crate::unread_results::UnreadResults;

pub use calling::{Executed, Next, Streaming, Terms};
use draining::Draining;
use orders::Orders;
pub use reloading::PolicyChange;
use reloading::Reloading;
pub(crate) use repeating::{Repeatable, instance_of, not_kept, size_of_result};
use restoring::Waiting;
pub use resuming::{Heard, Reading};
pub use schedule::Schedule;
pub use withdrawing::Withdrawal;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Everything an executor is made of.
pub struct Parts {
    /// The door.
    pub admission: Admission,
    /// Evidence.
    pub collector: Collector,
    /// Machine code.
    pub cache: ArtifactCache,
    /// wasmtime.
    pub runtime: Arc<Runtime>,
    /// Audit log.
    pub audit: Audit,
    /// Receipt log.
    pub receipts: Receipts,
    /// What confines this process.
    pub confinement: Confinement,
    /// Counters.
    pub metrics: Metrics,
    /// How long a verdict may be used before it is renewed.
    pub verdict_age: Duration,
    /// The files that the trust policy is read from, now and whenever it changes.
    pub schedule: Schedule,
    /// What becomes of calls in flight when a changed policy admits their agent no longer.
    pub withdrawal: Withdrawal,
    /// What becomes of them when the evidence for it has grown older than policy allows.
    pub on_stale: Withdrawal,
    /// Calls of one agent at the same time; absent: a quarter of all.
    pub calls_per_agent: Option<u32>,
    /// What is kept of calls with an idempotency key.
    pub answers: AnswerLimits,
    /// Who follows calls, if anybody does.
    pub tracer: Option<Tracer>,
}

/// The executor.
pub struct Executor {
    /// For what goes on when whoever asked for it has gone.
    this: Weak<Self>,
    parts: Parts,
    agents: Agents,
    queue: Queue,
    deployments: Deployments,
    submissions: Submissions,
    state: Arc<StateFolder>,
    waiting: Waiting,
    reloading: Reloading,
    draining: Draining,
    orders: Orders,
    /// Held from the question whether a release may follow those that are here until it is here itself.
    loading: Arc<tokio::sync::Mutex<()>>,
    holds: Holds,
    /// Of calls with an idempotency key.
    answers: Answers,
    /// Of calls that are read by readers who come back.
    kept: KeptStreams,
    /// Of calls whose readers have not come to their end.
    unread: UnreadResults,
    /// Bytes of outputs that pipelines under way hold.
    #[cfg(feature = "pipelines")]
    held: std::sync::atomic::AtomicUsize,
}

impl Executor {
    /// An executor without agents, which keeps those that come in `state`. The agents of the last run wait there for
    /// [`Self::restore`].
    ///
    /// # Errors
    ///
    /// When the folder cannot be used.
    pub fn new(parts: Parts, state: &Path) -> Result<Arc<Self>, service::StartRefusal> {
        let refuse = |error: BoxError| {
            service::StartRefusal::new("the records of agents cannot be used", "see the reason")
                .because(error)
        };
        let submissions = Submissions::open(state).map_err(|error| refuse(error.into()))?;
        let waiting = Waiting::new(submissions.list().map_err(|error| refuse(error.into()))?);
        let queue = Queue::new(parts.runtime.pool().slots, parts.calls_per_agent);
        let state = Arc::new(StateFolder::new(state));
        let deployments = Deployments::open(Arc::clone(&state))?;
        let holds = Holds::open(Arc::clone(&state))?;
        let answers = Answers::new(parts.answers);
        let executor = Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            parts,
            agents: Agents::default(),
            queue,
            deployments,
            submissions,
            state,
            waiting,
            reloading: Reloading::default(),
            draining: Draining::default(),
            orders: Orders::default(),
            loading: Arc::default(),
            holds,
            answers,
            kept: KeptStreams::default(),
            unread: UnreadResults::default(),
            #[cfg(feature = "pipelines")]
            held: std::sync::atomic::AtomicUsize::new(0),
        });
        executor.watch_workers();
        Ok(executor)
    }

    /// Records that the executor starts, and what confines it.
    ///
    /// # Errors
    ///
    /// When the audit log takes no records.
    pub(crate) fn started(&self) -> Result<(), service::StartRefusal> {
        let detail = format!(
            "sandbox: {:?}; missing: {:?}; workers: {}",
            self.parts.confinement.enforced,
            self.parts.confinement.missing,
            self.parts.runtime.missing_workers().unwrap_or("confined")
        );
        let event =
            AuditEvent { event_type: "start".into(), detail: Some(cut(&detail)), ..AuditEvent::default() };
        self.parts.audit.record(event).map_err(|error| {
            service::StartRefusal::new("the audit log takes no records", "check the disk").because(error)
        })
    }

    /// Stops matching instances.
    ///
    /// # Errors
    ///
    /// `invalid_argument` for a selector that names nothing.
    pub fn stop(&self, selector: &Selector) -> Result<u64, Denied> {
        if selector.is_empty() {
            return Err(Denied::new("invalid_argument", "name an agent, a digest or a signer"));
        }
        // Stopping is never held back: an audit log that is full must not keep a guest running.
        let stopped = self.parts.runtime.stop(selector, KillCause::Operator);
        self.parts.metrics.stopped(stopped);
        let detail = cut(&format!("{selector:?}: {stopped} stopped"));
        let event = AuditEvent { event_type: "stop".into(), detail: Some(detail), ..AuditEvent::default() };
        self.parts.audit.record(event).map_err(audit_unavailable)?;
        Ok(stopped)
    }

    /// The receipt log.
    pub fn receipts(&self) -> &Receipts {
        &self.parts.receipts
    }

    /// Every agent.
    pub fn list(&self) -> Vec<AgentSummary> {
        self.agents.all().iter().map(|agent| self.summary(agent)).collect()
    }

    /// Calls that wait for a place.
    pub(crate) fn waiting_callers(&self) -> u64 {
        self.queue.waiting() as u64
    }

    /// Bytes of results whose readers have not come so far.
    pub(crate) fn unread_results(&self) -> u64 {
        self.unread.bytes() as u64
    }

    /// The certificates that OCSP responders are asked about.
    pub(crate) fn asked(&self) -> Asked {
        self.parts.collector.asked()
    }

    /// Whether a log that vouches for modules contradicted itself, in this run or an earlier one.
    pub(crate) fn knows_a_fork(&self) -> bool {
        self.parts.collector.snapshot().fork.is_some()
    }

    /// The largest input that any call takes, bytes.
    pub(crate) fn input_limit(&self) -> usize {
        self.parts.admission.limits().input
    }

    /// One agent.
    pub fn find(&self, name: &str) -> Option<AgentSummary> {
        self.agents.find(name).ok().map(|agent| self.summary(&agent))
    }

    pub(crate) fn agent(&self, name: &str) -> Option<Arc<Agent>> {
        self.agents.find(name).ok()
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.parts.runtime
    }

    /// What keeps this executor from admitting and running, one line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(why) = self.parts.audit.available() {
            problems.push(format!("audit: {why}"));
        }
        if let Err(why) = self.parts.receipts.available() {
            problems.push(format!("receipts: {why}"));
        }
        problems.extend(self.state.problem().map(str::to_owned));
        let lost = self.parts.runtime.lost_workers();
        problems.extend(lost.map(|why| format!("worker processes: {why}; restart the executor")));
        let snapshot = self.parts.collector.snapshot();
        problems.extend(snapshot.fork.iter().map(|fork| format!("log fork: {fork}")));
        problems.extend(root_in_force(&snapshot, clock::unix_seconds()).err().map(|denied| denied.message));
        if snapshot.complete_at.is_none() {
            problems.push("evidence was never fetched completely".to_owned());
        }
        // The day has come, and nobody can read what is demanded: what was read last is in force.
        if self.parts.schedule.has_come() {
            problems.extend(self.reloading.problem().map(|why| format!("policy: {why}")));
        }
        if self.draining.since().is_some() {
            problems.push("draining: no calls are taken until `mentatctl executor undrain`".to_owned());
        }
        problems
    }

    /// The executor's own state.
    pub fn status(&self) -> Status {
        let snapshot = self.parts.collector.snapshot();
        let now = clock::unix_seconds();
        let age = |at: i64| u64::try_from(now.saturating_sub(at)).unwrap_or_default();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            wasmtime: WASMTIME_VERSION.into(),
            features: crate::features::built().map(str::to_owned).collect(),
            profile: self.parts.runtime.profile_id().as_str().into(),
            confinement: self.parts.confinement.enforced.clone(),
            unconfined: self.parts.confinement.missing.clone(),
            tiers: self.tiers(),
            agents: self.agents.count() as u64,
            live_instances: self.parts.runtime.live().count() as u64,
            pool_slots: u64::from(self.parts.runtime.pool().slots),
            evidence_epoch: snapshot.epoch,
            evidence_age_s: snapshot.complete_at.map(age),
            policy: hex::encode(self.parts.admission.policy_digest()),
            policy_problem: self.reloading.problem(),
            draining_since: self.draining.since(),
            audit_sequence: self.parts.audit.sequence(),
            sources: snapshot
                .sources
                .iter()
                .map(|source| executor_api::EvidenceSource {
                    name: source.kind.into(),
                    url: source.url.clone(),
                    ok: source.problem.is_empty() && source.fetched_at.is_some(),
                    detail: source.problem.clone(),
                    age_s: source.fetched_at.map(age),
                })
                .collect(),
        }
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    fn audit_available(&self) -> Result<(), Denied> {
        self.parts.audit.available().map_err(audit_unavailable)
    }

    fn summary(&self, agent: &Agent) -> AgentSummary {
        let owner = agent.prepared.owner();
        let policy = self.parts.admission.policy_digest();
        let summary = summarise(owner, agent.kind, &agent.facts, agent.prepared.grants(), &policy);
        AgentSummary { denied: agent.verdict().denied.map(records::wire_denied), ..summary }
    }

    fn summary_of(&self, admitted: &AdmittedModule) -> AgentSummary {
        let policy = self.parts.admission.policy_digest();
        summarise(admitted.owner(), admitted.content().as_str(), admitted.facts(), admitted.grants(), &policy)
    }
}
