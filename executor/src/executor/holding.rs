//! Holds of operators, put into force and taken back.

use std::sync::Arc;

use executor_api::audit::AuditEvent;
use executor_api::hold::{HeldAgent, Hold, HoldReport, HoldRequest, Releases};

use super::{Executor, Withdrawal};
use crate::admission::{AdmittedModule, Denied};
use crate::agents::Agent;
use crate::clock;
use crate::holds::{Order, Release, fingerprint};
use crate::records::{audit_unavailable, cut};

impl Executor {
    /// Lets no release run that the order means, here or loaded later, and ends its calls as the order says. With `dry_run` it
    /// only says what that would reach.
    ///
    /// # Errors
    ///
    /// `invalid_argument` for an order that names nothing, `too_many_holds`; when it cannot be kept or recorded, which leaves it in
    /// force.
    pub async fn hold(self: &Arc<Self>, request: &HoldRequest) -> Result<HoldReport, Denied> {
        let order = Order::read(request, clock::unix_seconds())?;
        if request.dry_run {
            return Ok(self.reach(&order, true));
        }
        let executor = Arc::clone(self);
        self.carried_out(async move { executor.put_into_force(order).await }).await
    }

    async fn put_into_force(self: &Arc<Self>, order: Order) -> Result<HoldReport, Denied> {
        let report = self.reach(&order, false);
        let kept = self.holds.add(order).await;
        if kept.as_ref().is_err_and(|denied| denied.code == "too_many_holds") {
            return kept.map(|()| report);
        }
        // After the order: whoever sees the new epoch judges by it.
        self.parts.collector.begin_epoch().await;
        self.recheck_all().await;
        // Stopping is never held back: an audit log that is full must not keep a guest running.
        let recorded = self.record_hold("hold", &report.hold, report.instances());
        kept.and(recorded).map(|()| report)
    }

    /// Every hold in force, and what it means of what is here.
    pub fn holds(&self) -> Vec<HoldReport> {
        self.holds.all().iter().map(|order| self.reach(order, false)).collect()
    }

    /// Takes a hold back: what it meant is judged again, and runs if nothing else is against it.
    ///
    /// # Errors
    ///
    /// `hold_unknown`, or when that cannot be recorded or kept; it stays in force then.
    pub async fn release_hold(self: &Arc<Self>, id: &str) -> Result<Hold, Denied> {
        let (executor, id) = (Arc::clone(self), id.to_owned());
        self.carried_out(async move { executor.take_back_hold(&id).await }).await
    }

    async fn take_back_hold(self: &Arc<Self>, id: &str) -> Result<Hold, Denied> {
        let known = self.holds.all().iter().find(|order| order.hold().id == id).cloned();
        if let Some(order) = &known {
            self.record_hold("hold_end", order.hold(), 0)?;
        }
        let order = self.holds.remove(id).await.inspect_err(|denied| {
            let stays = known.as_ref().filter(|_| denied.code != "hold_unknown");
            // The record of the end is there already; this one takes it back.
            if stays.is_some_and(|order| self.record_hold("hold_end_failed", order.hold(), 0).is_err()) {
                tracing::error!(hold = id, "that a hold stays in force could not be recorded");
            }
        })?;
        self.parts.collector.begin_epoch().await;
        self.recheck_all().await;
        Ok(order.hold().clone())
    }

    fn reach(&self, order: &Order, dry_run: bool) -> HoldReport {
        let live = self.parts.runtime.live();
        let meant = self.agents.judged(live).into_iter().filter(|agent| order.means(&release_of(agent)));
        let agents = meant.map(|agent| HeldAgent {
            agent_id: agent.id().to_owned(),
            digest: agent.digest.to_string(),
            signer: agent.prepared.owner().signer.clone(),
            certificate: fingerprint(&agent.attestation).map(|digest| digest.to_string()),
            log_index: agent.facts.log_index,
            instances: live.count_of(agent.admission()) as u64,
        });
        HoldReport { hold: order.hold().clone(), dry_run, agents: agents.collect() }
    }

    /// What an operator's order makes of an admitted agent's calls, if one means it.
    pub(super) fn held(&self, agent: &Agent) -> Option<Withdrawal> {
        self.holds.on(&release_of(agent))
    }

    /// Refuses at the door what an operator's order means.
    pub(super) fn refuse_held(
        &self,
        admitted: &AdmittedModule,
        attestation: &trust_store::attestation::Attestation,
    ) -> Result<(), Denied> {
        let release = Release {
            agent: &admitted.owner().agent,
            digest: admitted.digest(),
            signer: &admitted.owner().signer,
            log_index: admitted.facts().log_index,
            attestation,
        };
        self.holds.on(&release).map_or(Ok(()), |_| Err(withheld()))
    }

    fn record_hold(&self, what: &str, hold: &Hold, instances: u64) -> Result<(), Denied> {
        let Hold { id, releases, calls, reason, .. } = hold;
        let detail = format!("{id} {}: {calls:?}, {instances} instances ran; {reason}", named(releases));
        let event =
            AuditEvent { event_type: what.into(), detail: Some(cut(&detail)), ..AuditEvent::default() };
        self.parts.audit.record(event).map_err(audit_unavailable)
    }
}

/// Why what an order means does not run.
pub(super) fn withheld() -> Denied {
    Denied::new(
        "withheld",
        "an operator of this executor lets no release of this signer, certificate, place in the log, agent or module run",
    )
}

fn release_of(agent: &Agent) -> Release<'_> {
    Release {
        agent: agent.id(),
        digest: agent.digest,
        signer: &agent.prepared.owner().signer,
        log_index: agent.facts.log_index,
        attestation: &agent.attestation,
    }
}

/// Every name of an order, for a record.
fn named(releases: &Releases) -> String {
    serde_json::to_string(releases).unwrap_or_default()
}
