//! Who may run, judged at the door, on every call and whenever evidence changes.

use std::sync::Arc;
use std::time::Duration;

use executor_api::Status;
use trust_store::UnixTime;
use trust_store::attestation::Attestation;
use trust_store::identity::organization;

use super::Executor;
use super::holding::withheld;
use crate::admission::{AdmissionVerdict, AdmittedModule, Denied, Submission};
use crate::agents::{Agent, Verdict};
use crate::clock;
use crate::evidence::{Due, EAGER_LOOKS, IMPATIENT_LOOKS, LOOK, PATIENT_LOOK, Snapshot};
use crate::grace::Endings;
use crate::metrics::SignerOrg;
use crate::records::{by_root, no_fork};

/// The steps of admission that are about what came and nothing else; those that follow are by evidence and policy.
const OF_WHAT_CAME: std::ops::Range<u8> = 1..10;

impl Executor {
    pub(super) async fn judge(&self, submission: &Submission) -> Result<(AdmittedModule, Verdict), Denied> {
        self.refuse_early(submission)?;
        let before = self.parts.collector.snapshot().epoch;
        let snapshot = self.parts.collector.prepare_for(submission.digest(), submission.attestation()).await;
        if snapshot.epoch != before {
            self.restore_by_news();
        }
        no_fork(&snapshot)?;
        let at = clock::unix_seconds();
        let started = clock::monotonic();
        let verdict = self.parts.admission.decide(submission, &snapshot.evidence, UnixTime(at));
        self.count_verification(clock::monotonic() - started, submission, &verdict);
        let verdict = match verdict {
            AdmissionVerdict::Admit(admitted) => {
                // After verification: an order says nothing about what was not found in order.
                self.refuse_held(&admitted, submission.attestation())?;
                let policy = *admitted.policy();
                Ok((*admitted, Verdict { denied: None, epoch: snapshot.epoch, at, policy }))
            }
            AdmissionVerdict::Deny(denied) => Err(denied),
        };
        by_root(verdict, &snapshot, at)
    }

    fn count_verification(&self, took: Duration, submission: &Submission, verdict: &AdmissionVerdict) {
        let (admitted, in_order) = match verdict {
            AdmissionVerdict::Admit(_) => (true, true),
            // The steps before these are about signature, chain and log entry; what has no step is asked after all of them.
            AdmissionVerdict::Deny(denied) => (false, !OF_WHAT_CAME.contains(&denied.step)),
        };
        let named = submission.attestation().certificate().and_then(organization);
        let signer = match (in_order, &named) {
            (false, _) => SignerOrg::Unverified,
            (true, Some(org)) => SignerOrg::Named(org),
            (true, None) => SignerOrg::Nameless,
        };
        self.parts.metrics.verified(took, admitted, signer);
    }

    /// What no further evidence changes is refused before any is asked for: an upload whose signature, chain and log
    /// entry do not verify must not choose what this executor fetches and follows.
    fn refuse_early(&self, submission: &Submission) -> Result<(), Denied> {
        let snapshot = self.parts.collector.snapshot();
        let now = UnixTime(clock::unix_seconds());
        let started = clock::monotonic();
        let verdict = self.parts.admission.decide(submission, &snapshot.evidence, now);
        let took = clock::monotonic() - started;
        match &verdict {
            AdmissionVerdict::Deny(denied)
                if OF_WHAT_CAME.contains(&denied.step) || denied.code == "revoked" =>
            {
                // It is not verified again: this was its verification.
                self.count_verification(took, submission, &verdict);
                Err(denied.clone())
            }
            _ => Ok(()),
        }
    }

    /// Uses the last verdict while it is young and by current evidence, else judges again.
    pub(super) fn may_run(&self, agent: &Arc<Agent>) -> Result<(), Denied> {
        self.admitted_by(agent)?;
        Ok(())
    }

    /// As [`Self::may_run`]; SHA-256 of the policy that says so.
    pub(super) fn admitted_by(&self, agent: &Arc<Agent>) -> Result<[u8; 32], Denied> {
        let snapshot = self.parts.collector.snapshot();
        let now = clock::unix_seconds();
        let verdict = agent.verdict();
        let age = u64::try_from(now.saturating_sub(verdict.at)).unwrap_or(u64::MAX);
        if verdict.epoch != snapshot.epoch || age > self.parts.verdict_age.as_secs() || now < verdict.at {
            return self.recheck(agent, &snapshot, now).map(|()| agent.policy());
        }
        verdict.denied.map_or(Ok(verdict.policy), Err)
    }

    /// Judges an agent by this snapshot at this time; stops its instances when it may not run any more.
    pub(super) fn recheck(&self, agent: &Arc<Agent>, snapshot: &Snapshot, now: i64) -> Result<(), Denied> {
        // After the snapshot: rules are replaced, and holds put into force, before the epoch that they begin.
        let rules = self.parts.admission.rules();
        let held = self.held(agent);
        let verified = no_fork(snapshot).and_then(|()| {
            let (digest, attestation, level) = (agent.digest, &agent.attestation, agent.level);
            let verdict = self.parts.admission.recheck(
                &rules,
                digest,
                attestation,
                level,
                &snapshot.evidence,
                UnixTime(now),
            );
            by_root(verdict, snapshot, now)
        });
        // What verification says acts on calls as it would without the order, also where the order is what callers are told.
        let endings = Endings {
            ordered: held.map(Self::ordered_ending),
            verified: verified.as_ref().err().map(|denied| self.ending_of(denied)),
        };
        let outcome = match (verified, held) {
            (Err(denied), _) if denied.ends_at_once() => Err(denied),
            (_, Some(_)) => Err(withheld()),
            (verified, None) => verified,
        };
        let denied = outcome.as_ref().err().cloned();
        let verdict =
            Verdict { denied: denied.clone(), epoch: snapshot.epoch, at: now, policy: rules.digest() };
        match (agent.renew_verdict(verdict, endings, clock::monotonic()), denied) {
            // Somebody judged by newer evidence meanwhile; that verdict stands and was acted upon.
            (Err(newer), _) => newer.map_or(Ok(()), Err),
            (Ok(_), None) => outcome,
            (Ok(renewed), Some(denied)) => {
                self.withdraw(agent, &denied, &renewed);
                outcome
            }
        }
    }

    /// Looks at the policy file, fetches evidence and judges every agent by both.
    pub async fn refresh(self: &Arc<Self>) -> Status {
        // A file that cannot be used is in the status; the policy before it stays in force.
        let _ = self.reload_policy().await;
        // Neither waits for the other: a log that is silent delays no revocation.
        let (lists, answers) = (self.refresh_lists(), self.refresh_answers(Due::Everything));
        tokio::join!(lists, answers, self.refresh_logs(), self.read_events(None));
        self.status()
    }

    pub(super) async fn refresh_lists(self: &Arc<Self>) {
        self.parts.collector.refresh_lists(&self.attestations()).await;
        self.recheck_all().await;
    }

    async fn refresh_answers(self: &Arc<Self>, which: Due) {
        let judged = self.agents.judged(self.parts.runtime.live());
        let agents: Vec<_> =
            judged.iter().map(|agent| (agent.digest, Arc::clone(&agent.attestation))).collect();
        let collector = &self.parts.collector;
        let mut judged = collector.snapshot().epoch;
        let round = collector.refresh_answers(&agents, which);
        tokio::pin!(round);
        loop {
            // A responder that is slow keeps nobody from what another one says.
            let (snapshot, over) = tokio::select! {
                snapshot = &mut round => (snapshot, true),
                snapshot = collector.answers_meanwhile() => (snapshot, false),
            };
            // What the other rounds find they judge themselves.
            if snapshot.epoch != judged {
                judged = snapshot.epoch;
                self.recheck_all().await;
            }
            if over {
                return;
            }
        }
    }

    async fn refresh_logs(self: &Arc<Self>) {
        self.parts.collector.refresh_logs(&self.attestations()).await;
        self.recheck_all().await;
    }

    /// Stops what the event log says is revoked: nobody waits for the list that will say it as well. With a size that the log
    /// claims only if that is not the one that was read.
    async fn read_events(self: &Arc<Self>, claimed: Option<u64>) {
        let executor = Arc::clone(self);
        // To its end, also when whoever asked for a refresh goes away: what the log's reader has walked is not read again.
        let read = tokio::spawn(async move {
            if executor.parts.collector.read_events(claimed).await {
                executor.recheck_all().await;
            }
        });
        let _ = read.await;
    }

    fn attestations(&self) -> Vec<Arc<Attestation>> {
        let judged = self.agents.judged(self.parts.runtime.live());
        judged.iter().map(|agent| Arc::clone(&agent.attestation)).collect()
    }

    /// Judges everything that runs or may run, and tries again what waits since the start.
    pub(super) async fn recheck_all(self: &Arc<Self>) {
        for agent in self.agents.judged(self.parts.runtime.live()) {
            // By the newest evidence, not by what was there when the round began. The outcome is stored in the agent;
            // nobody waits for it here.
            let _ = self.recheck(&agent, &self.parts.collector.snapshot(), clock::unix_seconds());
            tokio::task::yield_now().await;
        }
        self.restore_waiting();
    }

    /// Judges everybody by what was learnt between rounds, until the process ends. From before the first round on, which may be
    /// given up before it is over.
    pub async fn keep_judging(self: Arc<Self>) {
        loop {
            self.parts.collector.news().await;
            self.recheck_all().await;
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
        let answers = async {
            loop {
                let which = self.parts.collector.answers_due(interval).await;
                self.refresh_answers(which).await;
            }
        };
        tokio::join!(lists, answers, logs, self.keep_listening(), self.keep_policy(interval));
    }

    /// Asks for lists and OCSP answers as soon as the event log grows, so that a revocation need not wait for the next round.
    async fn keep_listening(self: &Arc<Self>) {
        let Some(feed) = self.parts.collector.feed() else { return };
        let mut eager = 0u32;
        let mut silent = false;
        loop {
            tokio::time::sleep(LOOK).await;
            match feed.look().await {
                Ok(look) => {
                    silent = false;
                    if look.changed {
                        eager = EAGER_LOOKS;
                        self.parts.collector.event_log_grew();
                    }
                    self.read_events(Some(look.size)).await;
                }
                Err(problem) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::warn!(
                            problem,
                            "the event log cannot be asked; revocations arrive with the next refresh"
                        );
                    }
                }
            }
            if eager > 0 {
                eager -= 1;
                if eager.is_multiple_of(PATIENT_LOOK) || eager >= EAGER_LOOKS - IMPATIENT_LOOKS {
                    self.refresh_lists().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use trust_store::attestation::{AttestationBlock, Staples};

    use super::*;
    use crate::callers::Caller;
    use crate::testing::{Server, attestation, wat_echo};

    /// What the door says of an upload that nobody vouches for.
    async fn explained(server: &Server) -> executor_api::Denied {
        let block = AttestationBlock::new(attestation().bundle(), None, &[], Staples::default()).unwrap();
        let block = serde_json::to_string(&block).unwrap();
        let manifest = format!(
            "id: judged.agent\nversion: 1.0.0\nruntime: wasm\nmodule: m.wasm\nattestation: {block}\n"
        );
        let module = wat::parse_str(wat_echo()).unwrap();
        let explained = server.executor.explain(&Caller::default(), &manifest, None, module.into()).await;
        explained.unwrap().denial.unwrap()
    }

    /// Verifications that denied, by whose certificate: one that was not found in order, and one that names nobody.
    fn denied(server: &Server) -> (u64, u64) {
        let of = |org: &str| {
            let labels = format!("{{result=\"invalid\",signer_org=\"{org}\"}}");
            server.counted(&format!("mentatlab_attestation_verify_seconds_count{labels}"))
        };
        (of("unverified"), of("none"))
    }

    #[tokio::test]
    async fn an_attestation_that_does_not_verify_is_counted_as_nobodys() {
        let server = Server::start().await;
        let denial = explained(&server).await;
        assert!(OF_WHAT_CAME.contains(&denial.step), "{denial:?}");
        assert_eq!(denied(&server), (1, 0));
    }

    #[tokio::test]
    async fn what_is_denied_after_the_verification_is_counted_as_its_signers() {
        let server = Server::start().await;
        for (count, denial) in [
            (1, Denied::new("memory_limit", "")),
            (2, Denied::in_step(12, "revoked", "")),
            (3, Denied::in_step(14, "capability_denied", "")),
        ] {
            let ruled = denial.clone();
            *server.executor.parts.admission.ruling.lock() = Some(Box::new(move |_| Err(ruled.clone())));
            assert_eq!(explained(&server).await.reason, denial.code);
            assert_eq!(denied(&server), (0, count), "{denial}");
        }
    }
}
