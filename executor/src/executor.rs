//! The executor's own operations, with no transport in sight: load, explain, execute, stop, refresh, status.

mod recording;
#[cfg(test)]
mod test_door;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executor_api::audit::AuditEvent;
use executor_api::{AgentSummary, Denied as WireDenied, Explanation, Status};
use executor_engine::{ModuleDigest, WASMTIME_VERSION};
use trust_store::UnixTime;
use trust_store::attestation::Attestation;

use crate::admission::{Admission, AdmissionVerdict, AdmittedModule, Denied, Submission};
use crate::agents::{Agent, Agents, Verdict};
use crate::artifact::{ArtifactCache, CacheEvent};
use crate::audit::Audit;
use crate::clock;
use crate::confinement::Confinement;
use crate::evidence::{Collector, Snapshot};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::records::{audit_unavailable, call_denied, cut, no_fork, not_loaded, summarise};
use crate::runtime::{Call, Cancel, KillCause, Lowered, Outcome, Prepared, Runtime, Selector};

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
    /// What confines this process.
    pub confinement: Confinement,
    /// Counters.
    pub metrics: Metrics,
    /// How long a verdict may be used before it is renewed.
    pub verdict_age: Duration,
}

/// The executor.
pub struct Executor {
    parts: Parts,
    agents: Agents,
    queue: Queue,
}

/// Ends a call whose caller went away: dropping the future that waits for it raises the flag. After the call ended
/// the flag means nothing.
struct CallerGuard(Cancel);

impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.0.raise(KillCause::CallerGone);
    }
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
    /// An executor without agents.
    pub fn new(parts: Parts) -> Arc<Self> {
        let queue = Queue::new(parts.runtime.pool().slots);
        Arc::new(Self { parts, agents: Agents::default(), queue })
    }

    /// Records that the executor starts, and what confines it.
    ///
    /// # Errors
    ///
    /// When the audit log takes no records.
    pub(crate) fn started(&self) -> Result<(), service::StartRefusal> {
        let detail = format!(
            "sandbox: {:?}; missing: {:?}",
            self.parts.confinement.enforced, self.parts.confinement.missing
        );
        let event =
            AuditEvent { event_type: "start".into(), detail: Some(cut(&detail)), ..AuditEvent::default() };
        self.parts.audit.record(event).map_err(|error| {
            service::StartRefusal::new("the audit log takes no records", "check the disk").because(error)
        })
    }

    /// Ends what runs: calls get the reason `shutdown`.
    pub fn shut_down(&self) {
        self.parts.runtime.stop(&Selector::default(), KillCause::Shutdown);
    }

    /// Ends the audit log with a record of the stop, once all records before it are durable.
    pub async fn close(&self) {
        let event = AuditEvent { event_type: "stop".into(), ..AuditEvent::default() };
        if self.parts.audit.record_durably(event).await.is_err() {
            tracing::error!("the audit log could not be ended with a record of the stop");
        }
    }

    /// Judges an upload and, if it is admitted, compiles and loads it.
    ///
    /// # Errors
    ///
    /// The denial, which is in the audit log by then.
    pub async fn load(
        &self,
        manifest: &str,
        attestation: Option<&str>,
        module: Bytes,
    ) -> Result<AgentSummary, Denied> {
        self.audit_available()?;
        let outcome = self.load_judged(manifest, attestation, module).await;
        let event = match &outcome {
            Ok(agent) => AuditEvent { event_type: "admission".into(), ..self.agent_event(agent, None) },
            Err(denied) => self.denial_event(denied, None),
        };
        self.parts.metrics.admission(outcome.as_ref().err().map(|denied| denied.code));
        // An admission that cannot be recorded did not happen.
        self.parts.audit.record_durably(event).await.map_err(|_| audit_unavailable())?;
        let agent = outcome?;
        let summary = self.summary(&agent);
        self.agents.insert(agent);
        Ok(summary)
    }

    async fn load_judged(
        &self,
        manifest: &str,
        attestation: Option<&str>,
        module: Bytes,
    ) -> Result<Arc<Agent>, Denied> {
        let submission = Submission::read(manifest, attestation, module)?;
        let (admitted, verdict) = self.judge(&submission).await?;
        let (loaded, event) = self
            .parts
            .cache
            .load(self.parts.runtime.engine(), self.parts.runtime.profile(), &admitted)
            .await
            .map_err(|error| {
                Denied::new(error.code(), error.to_string()).for_operator(format!("{error:?}"))
            })?;
        self.parts.metrics.cache(&event);
        if let CacheEvent::Replaced { why } = &event {
            let detail = format!("{}: {why}", admitted.digest());
            tracing::warn!(%detail, "a cached artifact was not believed");
            let event = AuditEvent {
                event_type: "cache_refusal".into(),
                detail: Some(detail),
                ..AuditEvent::default()
            };
            self.parts.audit.record(event).map_err(|_| audit_unavailable())?;
        }
        let prepared = Prepared::new(&self.parts.runtime, &loaded, &admitted)
            .map_err(|error| Denied::new(error.code(), error.to_string()))?;
        Ok(Arc::new(Agent::new(&admitted, prepared, Arc::clone(submission.attestation()), verdict)))
    }

    async fn judge(&self, submission: &Submission) -> Result<(AdmittedModule, Verdict), Denied> {
        self.refuse_early(submission)?;
        let snapshot = self.parts.collector.prepare_for(submission.attestation()).await;
        no_fork(&snapshot)?;
        let at = clock::unix_seconds();
        let started = clock::monotonic();
        let verdict = self.parts.admission.decide(submission, &snapshot.evidence, UnixTime(at));
        self.parts
            .metrics
            .verified(clock::monotonic() - started, matches!(verdict, AdmissionVerdict::Admit(_)));
        match verdict {
            AdmissionVerdict::Admit(admitted) => {
                Ok((*admitted, Verdict { denied: None, epoch: snapshot.epoch, at }))
            }
            AdmissionVerdict::Deny(denied) => Err(denied),
        }
    }

    /// What no further evidence changes is refused before any is asked for: an upload whose signature, chain and log
    /// entry do not verify must not choose what this executor fetches and follows.
    fn refuse_early(&self, submission: &Submission) -> Result<(), Denied> {
        let snapshot = self.parts.collector.snapshot();
        let now = UnixTime(clock::unix_seconds());
        match self.parts.admission.decide(submission, &snapshot.evidence, now) {
            AdmissionVerdict::Deny(denied) if (1..=9).contains(&denied.step) || denied.code == "revoked" => {
                Err(denied)
            }
            _ => Ok(()),
        }
    }

    /// The verdict on an upload, with nothing compiled, loaded or kept.
    pub async fn explain(&self, manifest: &str, attestation: Option<&str>, module: Bytes) -> Explanation {
        let judged = match Submission::read(manifest, attestation, module) {
            Ok(submission) => self.judge(&submission).await.map(|(admitted, _)| admitted),
            Err(denied) => Err(denied),
        };
        match judged {
            Ok(admitted) => {
                Explanation { admitted: true, agent: Some(self.summary_of(&admitted)), denial: None }
            }
            Err(denied) => {
                let denial =
                    WireDenied { step: denied.step, reason: denied.code.into(), message: denied.message };
                Explanation { admitted: false, agent: None, denial: Some(denial) }
            }
        }
    }

    /// Runs an agent once.
    ///
    /// # Errors
    ///
    /// A denial when the agent is unknown or may not run now, or the reason why the call has no result.
    pub async fn execute(
        self: &Arc<Self>,
        name: &str,
        input: Bytes,
        deadline: Option<Duration>,
    ) -> Result<Executed, Denied> {
        self.audit_available()?;
        let agent = self.agents.find(name).ok_or_else(|| not_loaded(name))?;
        self.may_run(&agent).await?;
        let _place = self.queue.enter().await?;
        let caller = CallerGuard(Cancel::default());
        let call = Call {
            input,
            lowered: Lowered { wall: deadline, ..Lowered::default() },
            cancel: caller.0.clone(),
        };
        let (executor, running) = (Arc::clone(self), Arc::clone(&agent));
        let ended = tokio::task::spawn_blocking(move || executor.parts.runtime.call(&running.prepared, call))
            .await
            .map_err(|error| Denied::new("internal", "the call failed").for_operator(error.to_string()))?;
        self.record_execution(&agent, &ended)?;
        match ended {
            Ok(outcome) => Ok(Executed { digest: agent.digest, outcome }),
            Err(error) => Err(call_denied(&error, &agent)),
        }
    }

    /// Uses the last verdict while it is young and by current evidence, else judges again.
    async fn may_run(&self, agent: &Arc<Agent>) -> Result<(), Denied> {
        let snapshot = self.parts.collector.snapshot();
        let now = clock::unix_seconds();
        let verdict = agent.verdict();
        let age = u64::try_from(now.saturating_sub(verdict.at)).unwrap_or(u64::MAX);
        if verdict.epoch != snapshot.epoch || age > self.parts.verdict_age.as_secs() || now < verdict.at {
            return self.recheck(agent, &snapshot);
        }
        verdict.denied.map_or(Ok(()), Err)
    }

    /// Judges an agent by this snapshot; stops its instances when it may not run any more.
    fn recheck(&self, agent: &Agent, snapshot: &Snapshot) -> Result<(), Denied> {
        let now = clock::unix_seconds();
        let outcome = no_fork(snapshot).and_then(|()| {
            let (digest, attestation) = (agent.digest, &agent.attestation);
            self.parts.admission.recheck(digest, attestation, &snapshot.evidence, UnixTime(now))
        });
        let denied = outcome.as_ref().err().cloned();
        let before = agent.verdict().denied;
        agent.set_verdict(Verdict { denied: denied.clone(), epoch: snapshot.epoch, at: now });
        if let Some(denied) = denied
            && before.as_ref().map(|before| before.code) != Some(denied.code)
        {
            let event = self.denial_event(&denied, Some(agent));
            if self.parts.audit.record(event).is_err() {
                tracing::error!(
                    agent = agent.prepared.agent(),
                    code = denied.code,
                    "a denial could not be recorded"
                );
            }
            tracing::warn!(agent = agent.prepared.agent(), digest = %agent.digest, code = denied.code,
                reason = %denied.message, "an admitted agent may not run any more");
            // Stale evidence refuses new calls; what runs may finish. Everything else ends at once.
            if !denied.is_about_evidence() {
                let selector = Selector { digest: Some(agent.digest), ..Selector::default() };
                let stopped = self.parts.runtime.stop(&selector, KillCause::Revoked);
                self.parts.cache.purge(agent.digest);
                self.parts.metrics.stopped(stopped);
            }
        }
        outcome
    }

    /// Fetches evidence and judges every agent by it.
    pub async fn refresh(&self) -> Status {
        // Neither waits for the other: a log that is silent delays no revocation.
        tokio::join!(self.refresh_lists(), self.refresh_logs());
        self.status()
    }

    async fn refresh_lists(&self) {
        self.parts.collector.refresh_lists(&self.attestations()).await;
        self.recheck_all().await;
    }

    async fn refresh_logs(&self) {
        self.parts.collector.refresh_logs(&self.attestations()).await;
        self.recheck_all().await;
    }

    fn attestations(&self) -> Vec<Arc<Attestation>> {
        self.agents.all().iter().map(|agent| Arc::clone(&agent.attestation)).collect()
    }

    async fn recheck_all(&self) {
        for agent in self.agents.all() {
            // By the newest evidence, not by what was there when the round began. The outcome is stored in the agent;
            // nobody waits for it here.
            let _ = self.recheck(&agent, &self.parts.collector.snapshot());
            tokio::task::yield_now().await;
        }
    }

    /// Refreshes now and then until the process ends.
    pub async fn keep_fresh(self: Arc<Self>, interval: Duration) {
        let lists = async {
            loop {
                tokio::time::sleep(interval).await;
                self.refresh_lists().await;
            }
        };
        let logs = async {
            loop {
                tokio::time::sleep(interval).await;
                self.refresh_logs().await;
            }
        };
        tokio::join!(lists, logs);
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
        let stopped = self.parts.runtime.stop(selector, KillCause::Operator);
        let detail = format!("{selector:?}: {stopped} stopped");
        let event = AuditEvent { event_type: "stop".into(), detail: Some(detail), ..AuditEvent::default() };
        self.parts.audit.record(event).map_err(|_| audit_unavailable())?;
        Ok(stopped)
    }

    /// Forgets an agent; whether there was one.
    pub fn unload(&self, name: &str) -> bool {
        self.agents.remove(name).is_some()
    }

    /// Every agent.
    pub fn list(&self) -> Vec<AgentSummary> {
        self.agents.all().iter().map(|agent| self.summary(agent)).collect()
    }

    /// One agent.
    pub fn find(&self, name: &str) -> Option<AgentSummary> {
        self.agents.find(name).map(|agent| self.summary(&agent))
    }

    /// What keeps this executor from admitting and running, one line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.parts.audit.available().is_err() {
            problems.push("the audit log cannot be written".to_owned());
        }
        let snapshot = self.parts.collector.snapshot();
        problems.extend(snapshot.fork.iter().map(|fork| format!("log fork: {fork}")));
        if snapshot.complete_at.is_none() {
            problems.push("evidence was never fetched completely".to_owned());
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
            profile: self.parts.runtime.profile_id().as_str().into(),
            confinement: self.parts.confinement.enforced.clone(),
            unconfined: self.parts.confinement.missing.clone(),
            agents: self.agents.count() as u64,
            live_instances: self.parts.runtime.live().count() as u64,
            pool_slots: u64::from(self.parts.runtime.pool().slots),
            evidence_epoch: snapshot.epoch,
            evidence_age_s: snapshot.complete_at.map(age),
            policy: hex::encode(self.parts.admission.policy_digest()),
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
        self.parts.audit.available().map_err(|_| audit_unavailable())
    }

    fn summary(&self, agent: &Agent) -> AgentSummary {
        let owner = &agent.prepared.owner;
        summarise(
            owner,
            agent.kind,
            &agent.facts,
            &agent.prepared.grants,
            self.parts.admission.policy_digest(),
        )
    }

    fn summary_of(&self, admitted: &AdmittedModule) -> AgentSummary {
        let policy = self.parts.admission.policy_digest();
        summarise(admitted.owner(), admitted.kind(), admitted.facts(), admitted.grants(), policy)
    }
}
