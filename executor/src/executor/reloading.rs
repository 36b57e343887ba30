//! A changed trust policy, taken into force while the executor runs.
//!
//! All or nothing: a file that cannot be used changes nothing, and the executor says so until there is a better one. Only the
//! day of added requirements does not wait for a file: they are in force from it on as they were read last.
//! Verdicts of before are worth nothing afterwards, because a policy begins an epoch as new evidence does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use executor_api::audit::AuditEvent;
use parking_lot::Mutex;
use service::StartRefusal;
use tokio::signal::unix::{SignalKind, signal};
use trust_store::UnixTime;

use super::Executor;
use crate::admission::Rules;
use crate::clock;
use crate::records::cut;

/// What is known about the policy file.
#[derive(Debug, Default)]
pub(super) struct Reloading {
    /// Held by the one task that reads it.
    busy: tokio::sync::Mutex<()>,
    problem: Mutex<Option<String>>,
    /// Agents that the next policy would refuse, and why, as reported last.
    lacks: Mutex<Vec<(String, String)>>,
}

impl Reloading {
    /// Why the policy file is not the policy in force.
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }
}

/// What a look at the policy file led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyChange {
    /// Another policy is in force, and every agent was judged by it.
    InForce,
    /// The file is the policy in force.
    None,
}

impl Executor {
    /// Reads the policy file. If it is another policy than the one in force, it takes its place, and every agent is
    /// judged again.
    ///
    /// # Errors
    ///
    /// When the file cannot be used. The policy of before stays in force, or, from its day on, the next one as it was read last.
    pub async fn reload_policy(self: &Arc<Self>) -> Result<PolicyChange, StartRefusal> {
        let _alone = self.reloading.busy.lock().await;
        let (path, remembered) = self.parts.schedule.in_force(UnixTime(clock::unix_seconds()));
        if let Err(error) = remembered {
            tracing::error!(%error, "that added requirements are in force now could not be remembered");
        }
        let read = read_rules(path.to_owned()).await;
        let rules = match read {
            Ok(rules) => rules,
            Err(refusal) => {
                if let Some(kept) = self.parts.schedule.kept() {
                    self.put_in_force(kept).await;
                }
                self.policy_refused(&refusal);
                return Err(refusal);
            }
        };
        if self.parts.schedule.has_come() {
            self.parts.schedule.keep(&rules);
        }
        if self.parts.admission.policy_digest() == rules.digest() {
            match self.report_upcoming().await {
                Ok(()) => *self.reloading.problem.lock() = None,
                Err(refusal) => self.policy_refused(&refusal),
            }
            return Ok(PolicyChange::None);
        }
        *self.reloading.problem.lock() = None;
        self.put_in_force(rules).await;
        Ok(PolicyChange::InForce)
    }

    /// Decides by these rules from here on, and judges every agent by them, unless they are in force.
    async fn put_in_force(self: &Arc<Self>, rules: Rules) {
        let (before, now) = (self.parts.admission.policy_digest(), rules.digest());
        if before == now {
            return;
        }
        self.parts.admission.replace(rules);
        // After the rules: whoever sees the new epoch judges by them.
        self.parts.collector.begin_epoch().await;
        let (before, now) = (hex::encode(before), hex::encode(now));
        tracing::warn!(before, now, "another trust policy is in force");
        self.record_policy("policy_load", format!("in force instead of {before}"), Some(now));
        self.parts.metrics.policy("loaded");
        self.recheck_all().await;
    }

    /// Says which agents lack what will be demanded of them, once for each lack.
    async fn report_upcoming(self: &Arc<Self>) -> Result<(), StartRefusal> {
        let Some(next) = self.parts.schedule.upcoming().cloned() else { return Ok(()) };
        let rules = read_rules(next.file).await?;
        self.parts.schedule.keep(&rules);
        let lacking = self.try_rules(&rules).await;
        let lacks: Vec<(String, String)> = lacking
            .iter()
            .filter(|verdict| verdict.is_newly_refused())
            .filter_map(|verdict| Some((verdict.agent_id.clone(), verdict.then.as_ref()?.reason.clone())))
            .collect();
        let before = std::mem::replace(&mut *self.reloading.lacks.lock(), lacks.clone());
        self.parts.metrics.lacking(lacks.len());
        for (agent, code) in lacks.iter().filter(|lack| !before.contains(lack)) {
            let from = next.from.to_rfc3339();
            tracing::warn!(agent, code, from, "an agent lacks what will be demanded of it");
            self.record_policy("policy_lack", format!("{agent}: {code} from {from} on"), None);
        }
        Ok(())
    }

    /// Says once what is wrong with the policy file.
    fn policy_refused(&self, refusal: &StartRefusal) {
        let text = refusal.to_string();
        let before = self.reloading.problem.lock().replace(text.clone());
        if before.as_ref() != Some(&text) {
            tracing::error!(problem = %text, "the policy file cannot be used; what is in force stays in force");
            self.record_policy("policy_refused", text, None);
            self.parts.metrics.policy("refused");
        }
    }

    fn record_policy(&self, what: &str, detail: String, policy: Option<String>) {
        let event = AuditEvent {
            event_type: what.into(),
            policy: policy.or_else(|| Some(hex::encode(self.parts.admission.policy_digest()))),
            detail: Some(cut(&detail)),
            ..AuditEvent::default()
        };
        // A policy that demands more must not wait for a disk; while nothing can be recorded, nothing runs by it either.
        if self.parts.audit.record(event).is_err() {
            tracing::error!(what, "a change of the policy could not be recorded");
        }
    }

    /// Looks at the policy file in every interval and whenever the process gets SIGHUP.
    pub(super) async fn keep_policy(self: &Arc<Self>, interval: Duration) {
        let mut hangups = signal(SignalKind::hangup()).inspect_err(|error| {
            tracing::warn!(%error, "cannot listen for SIGHUP; the policy file is looked at in intervals");
        });
        loop {
            let hangup = async {
                let got = match &mut hangups {
                    Ok(stream) => stream.recv().await,
                    Err(_) => None,
                };
                if got.is_none() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = hangup => tracing::info!("SIGHUP: looking at the policy file"),
            }
            // What is wrong with the file is told where it is found.
            let _ = self.reload_policy().await;
        }
    }
}

async fn read_rules(file: PathBuf) -> Result<Rules, StartRefusal> {
    let read = tokio::task::spawn_blocking(move || Rules::read(&file)).await;
    read.unwrap_or_else(|error| {
        Err(StartRefusal::new("the trust policy was not read", "see the log").because(error))
    })
}
