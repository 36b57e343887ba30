//! A policy that is not in force, tried on everything that is here: `mentatctl admission report`.

use std::error::Error as _;

use executor_api::trial::{TrialReport, TrialVerdict};
use trust_store::UnixTime;
use trust_store::policy::TrustLevel;

use super::Executor;
use crate::admission::{Denied, NoRuleEngine, Rules, Submission};
use crate::clock;
use crate::records::{no_fork, wire_denied};
use crate::submissions::Submissions;

impl Executor {
    /// What would change if this policy were in force now. Nothing changes.
    ///
    /// # Errors
    ///
    /// `invalid_argument` when the text is no policy that this executor would use, `rules_unsupported` when it has rules that nobody
    /// here can judge by.
    pub async fn try_policy(&self, text: &[u8]) -> Result<TrialReport, Denied> {
        let rules = Rules::parse(text).map_err(|refusal| {
            let unsupported = refusal.source().is_some_and(|source| source.is::<NoRuleEngine>());
            let code = if unsupported { "rules_unsupported" } else { "invalid_argument" };
            Denied::new(code, refusal.to_string())
        })?;
        let in_force = hex::encode(self.parts.admission.policy_digest());
        let agents = self.try_rules(&rules).await;
        Ok(TrialReport { in_force, tried: hex::encode(rules.digest()), agents })
    }

    /// Every agent under the rules in force and under these.
    pub(super) async fn try_rules(&self, rules: &Rules) -> Vec<TrialVerdict> {
        let in_force = self.parts.admission.rules();
        let snapshot = self.parts.collector.snapshot();
        let now = UnixTime(clock::unix_seconds());
        let judge = |rules: &Rules, digest, attestation: &_, level| {
            let judged = no_fork(&snapshot).and_then(|()| {
                self.parts.admission.recheck(rules, digest, attestation, level, &snapshot.evidence, now)
            });
            judged.err().map(wire_denied)
        };
        let mut agents = Vec::new();
        for agent in self.agents.all() {
            agents.push(TrialVerdict {
                agent_id: agent.id().to_owned(),
                digest: agent.digest.to_string(),
                now: judge(&in_force, agent.digest, &agent.attestation, agent.level),
                then: judge(rules, agent.digest, &agent.attestation, agent.level),
            });
            // A millisecond each, and callers wait meanwhile.
            tokio::task::yield_now().await;
        }
        for (path, denied) in self.waiting.all() {
            let read = tokio::task::spawn_blocking(move || {
                let stored = Submissions::read(&path).ok()?;
                Submission::read(&stored.manifest, stored.attestation.as_deref(), stored.module).ok()
            });
            // What cannot be read runs under no policy, and says so when it is called.
            let Ok(Some(submission)) = read.await else { continue };
            agents.push(TrialVerdict {
                agent_id: submission.agent().to_owned(),
                digest: submission.digest().to_string(),
                now: Some(wire_denied(denied)),
                // It is not loaded, so there is no level that it could fall below.
                then: judge(rules, submission.digest(), submission.attestation(), TrustLevel::Untrusted),
            });
        }
        agents.sort_by(|a, b| (&a.agent_id, &a.digest).cmp(&(&b.agent_id, &b.digest)));
        agents
    }
}
