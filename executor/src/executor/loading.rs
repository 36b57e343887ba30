//! From an upload to an agent: judged, compiled, linked, kept for the next start, on record, and only then there.

use std::sync::Arc;

use bytes::Bytes;
use executor_api::audit::AuditEvent;
use executor_api::{AgentSummary, Explanation};
use trust_store::attestation::Attestation;

use super::Executor;
use crate::admission::{AdmittedModule, Denied, Publisher, Submission, may_follow};
use crate::agents::{Agent, Verdict};
use crate::artifact::CacheEvent;
use crate::callers::Caller;
use crate::clock;
use crate::records::{self, audit_unavailable};
use crate::runtime::Prepared;
use crate::submissions::{Stored, Submissions};

impl Executor {
    /// Judges an upload and, if it is admitted, compiles and loads it.
    ///
    /// # Errors
    ///
    /// The denial, which is in the audit log by then; `agent_not_allowed` for an agent that is not the caller's.
    pub async fn load(
        self: &Arc<Self>,
        caller: &Caller,
        manifest: &str,
        attestation: Option<&str>,
        module: Bytes,
    ) -> Result<AgentSummary, Denied> {
        self.audit_available()?;
        let outcome = match Submission::read(manifest, attestation, module.clone()) {
            // What it names is what it is, or it is not admitted.
            Ok(submission) => match self.allow(caller, submission.agent()) {
                Ok(()) => self.admit_whole(&submission, self.submissions.next_order()).await,
                Err(denied) => Err(denied),
            },
            Err(denied) => Err(denied),
        };
        let stored = |order| {
            let (manifest, attestation) = (manifest.to_owned(), attestation.map(str::to_owned));
            Stored { order, manifest, attestation, module }
        };
        self.conclude(outcome, stored).await
    }

    /// What follows a judgement and a compilation, whatever they came to: kept, on record, counted, and only then there. Carried out to
    /// its end once it has begun: an agent whose record is on disk and who is not there is one that nobody can unload.
    pub(super) async fn conclude(
        self: &Arc<Self>,
        outcome: Result<Arc<Agent>, Denied>,
        stored: impl FnOnce(u64) -> Stored + Send,
    ) -> Result<AgentSummary, Denied> {
        // From here on one load after the other: whoever is asked whether it may follow sees everybody who came before. Waited for here,
        // so that what nobody waits for any more waits for nothing.
        let alone = match &outcome {
            Ok(_) => Some(Arc::clone(&self.loading).lock_owned().await),
            Err(_) => None,
        };
        let outcome = outcome.map(|agent| (stored(agent.order), agent));
        let executor = Arc::clone(self);
        self.carried_out(async move {
            let _alone = alone;
            executor.conclude_alone(outcome).await
        })
        .await
    }

    async fn conclude_alone(
        &self,
        outcome: Result<(Stored, Arc<Agent>), Denied>,
    ) -> Result<AgentSummary, Denied> {
        let outcome = outcome.and_then(|(stored, agent)| {
            self.may_follow(agent.id(), &agent.publisher())?;
            Ok((stored, agent))
        });
        let outcome = match outcome {
            Ok((stored, agent)) => self.keep(&agent, stored).await.map(|()| agent),
            Err(denied) => Err(denied),
        };
        let event = match &outcome {
            Ok(agent) => AuditEvent { event_type: "admission".into(), ..self.agent_event(agent, None) },
            Err(denied) => self.denial_event(denied, None),
        };
        // An admission that cannot be recorded did not happen.
        let recorded = self.parts.audit.record_durably(event).await.map_err(audit_unavailable);
        if let Ok(agent) = &outcome {
            match &recorded {
                Ok(()) => Submissions::settle(&self.submissions.path(agent.id(), agent.digest)),
                Err(_) => self.keep_no_more(agent).await,
            }
        }
        let outcome = recorded.and(outcome);
        self.parts.metrics.admission(outcome.as_ref().err().map(|denied| denied.code));
        let agent = outcome?;
        let summary = self.summary(&agent);
        let path = self.submissions.path(agent.id(), agent.digest);
        self.waiting.settle(&path, |_| self.agents.insert(agent));
        Ok(summary)
    }

    /// Takes back the record of what was not loaded after all. The one that it replaced is there again: of a release that was here before,
    /// the next start judges what is here, not what was refused.
    async fn keep_no_more(&self, agent: &Agent) {
        let submissions = self.submissions.clone();
        let path = submissions.path(agent.id(), agent.digest);
        let what = "the record of an agent that was not loaded";
        let denied = match tokio::task::spawn_blocking(move || submissions.take_back(&path)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => self.state.failed(&error, what),
            Err(error) => self.state.failed(&error, what),
        };
        tracing::error!(agent = agent.id(), reason = %denied.operator,
            "an agent that was not loaded will be tried at the next start");
    }

    /// Refuses a release of an agent that a signer of another rule has a release of here, whether loaded or waiting for its
    /// verdict since the start. For what is new: nothing that was here before takes anything from anybody by coming back.
    pub(super) fn may_follow(&self, agent: &str, next: &Publisher) -> Result<(), Denied> {
        let rules = self.parts.admission.rules();
        // Those that wait first: what is loaded meanwhile is among the loaded ones by then.
        let mut publishers = self.waiting.publishers(agent)?;
        publishers.extend(self.agents.releases_of(agent).iter().map(|other| other.publisher()));
        publishers.iter().try_for_each(|here| may_follow(rules.policy(), agent, here, next))
    }

    /// Keeps what an agent was loaded from. A record whose load is not answered because the process ends is judged at the next start
    /// like every other.
    async fn keep(&self, agent: &Agent, stored: Stored) -> Result<(), Denied> {
        let submissions = self.submissions.clone();
        let path = submissions.path(agent.id(), agent.digest);
        let written = tokio::task::spawn_blocking(move || submissions.write(&path, &stored)).await;
        match written {
            Ok(Ok(())) => {
                self.state.written();
                Ok(())
            }
            Ok(Err(error)) => Err(self.state.failed(&error, "the record of an agent")),
            Err(error) => Err(self.state.failed(&error, "the record of an agent")),
        }
    }

    pub(super) async fn admit(&self, submission: &Submission, order: u64) -> Result<Arc<Agent>, Denied> {
        let (admitted, verdict) = self.judge(submission).await?;
        self.make_ready(&admitted, Arc::clone(submission.attestation()), order, verdict).await
    }

    /// Compiles and links what was admitted.
    pub(super) async fn make_ready(
        &self,
        admitted: &AdmittedModule,
        attestation: Arc<Attestation>,
        order: u64,
        verdict: Verdict,
    ) -> Result<Arc<Agent>, Denied> {
        let containers = self.parts.admission.containers();
        let prepared = match Prepared::without_code(&self.parts.runtime, admitted, containers) {
            Some(prepared) => prepared,
            None => self.prepare(admitted).await?,
        };
        Ok(Arc::new(Agent::new(admitted, prepared, attestation, order, verdict)))
    }

    /// Gets the machine code of an admitted module and links it.
    pub(super) async fn prepare(&self, admitted: &AdmittedModule) -> Result<Prepared, Denied> {
        let began = clock::monotonic();
        let (loaded, event) = self
            .parts
            .cache
            .load(self.parts.runtime.engine(), self.parts.runtime.profile(), admitted)
            .await
            .map_err(|error| {
                Denied::new(error.code(), error.to_string()).for_operator(format!("{error:?}"))
            })?;
        self.parts.metrics.cache(&event, clock::monotonic().saturating_duration_since(began));
        if let CacheEvent::Replaced { why } = &event {
            let detail = format!("{}: {why}", admitted.digest());
            tracing::warn!(%detail, "a cached artifact was not believed");
            let event = AuditEvent {
                event_type: "cache_refusal".into(),
                detail: Some(detail),
                ..AuditEvent::default()
            };
            self.parts.audit.record(event).map_err(audit_unavailable)?;
        }
        self.link(loaded, admitted).await
    }

    /// The verdict on an upload, with nothing compiled, loaded or kept.
    ///
    /// # Errors
    ///
    /// `agent_not_allowed` for an agent that is not the caller's: the verdict says whether its id is taken, held or waited for.
    pub async fn explain(
        &self,
        caller: &Caller,
        manifest: &str,
        attestation: Option<&str>,
        module: Bytes,
    ) -> Result<Explanation, Denied> {
        let judged = match Submission::read(manifest, attestation, module) {
            Ok(submission) => {
                self.allow(caller, submission.agent())?;
                self.judge_whole(&submission).await.and_then(|admitted| {
                    let publisher = Publisher::new(&admitted.owner().signer, &admitted.facts().issuer);
                    self.may_follow(&admitted.owner().agent, &publisher)?;
                    Ok(admitted)
                })
            }
            Err(denied) => Err(denied),
        };
        Ok(match judged {
            Ok(admitted) => {
                Explanation { admitted: true, agent: Some(self.summary_of(&admitted)), denial: None }
            }
            Err(denied) => {
                Explanation { admitted: false, agent: None, denial: Some(records::wire_denied(denied)) }
            }
        })
    }
}
