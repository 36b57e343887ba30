//! What the executor writes into its audit log.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use executor_api::audit::{AuditAgent, AuditEvent, AuditExecution, AuditSecurity};
use executor_api::receipt::{ExitClass, FORMAT, Receipt};
use executor_engine::WASMTIME_VERSION;

use super::Executor;
use super::calling::Begun;
use crate::admission::Denied;
use crate::agents::{Agent, Release};
use crate::callers::Caller;
use crate::clock;
use crate::records::{audit_agent, cut, last_lines};
use crate::runtime::{CallError, Ended, InstanceId, Outcome, Seed};

/// Bytes of a guest's lines in one line of the operator's log.
const MAX_TOLD: usize = 2048;

impl Executor {
    /// The record of a call that ended, and its metrics.
    pub(super) fn execution_event(&self, agent: &Agent, instance: InstanceId, ended: &Ended) -> AuditEvent {
        let (result, usage) = (reason_of(&ended.result), ended.usage);
        self.parts.metrics.ended(agent, result, ended);
        let mut violations = Vec::new();
        if usage.refused_growths > 0 {
            violations
                .push(format!("memory, table or scratch growth refused {} times", usage.refused_growths));
        }
        if usage.dropped_log_lines > 0 {
            violations.push(format!("{} log lines dropped", usage.dropped_log_lines));
        }
        for (what, calls) in ended.conduct.iter().flat_map(|conduct| conduct.too_fast.each()) {
            violations.push(format!("host_call_rate: {} ({calls} calls refused)", what.as_str()));
        }
        if let Err(error) = &ended.result {
            violations.push(error.code().to_owned());
        }
        let execution = AuditExecution {
            instance_id: instance.to_string(),
            capabilities_requested: Arc::clone(&agent.texts.requested),
            memory_used_mb: usage.memory_bytes.div_ceil(1 << 20),
            execution_time_ms: usage.wall_us.div_ceil(1000),
            result: result.to_owned(),
            caller: None,
        };
        let mut event = self.agent_event(agent, Some(execution));
        event.event_type = "agent_execution".into();
        if let Some(security) = &mut event.security {
            security.sandbox_violations = violations;
            security.capability_denials =
                ended.conduct.as_ref().map(|conduct| conduct.lines()).unwrap_or_default();
        }
        event
    }

    /// The same of a call that somebody made.
    pub(super) fn call_event(
        &self,
        agent: &Agent,
        instance: InstanceId,
        ended: &Ended,
        caller: &Caller,
    ) -> AuditEvent {
        let mut event = self.execution_event(agent, instance, ended);
        if let Some(execution) = event.execution.as_mut().filter(|_| !caller.name().is_empty()) {
            execution.caller = Some(cut(caller.name()));
        }
        event
    }

    /// The receipt of a call that ended.
    pub(super) fn receipt(
        &self,
        agent: &Agent,
        instance: InstanceId,
        begun: Begun,
        input: &[u8],
        ended: &Ended,
    ) -> Receipt {
        let (reason, usage) = (reason_of(&ended.result), ended.usage);
        let outcome = ended.result.as_ref().ok();
        let hash = |bytes: &[u8]| hex::encode(digest(&SHA256, bytes));
        let written = outcome.map_or(&[][..], |outcome| outcome.output.as_slice());
        // What was streamed reached the caller whatever became of the call.
        let output = match &ended.streamed {
            Some(streamed) => {
                let mut whole = streamed.clone();
                whole.update(written);
                hex::encode(whole.finish())
            }
            None => hash(written),
        };
        let recorded = self.parts.audit.head();
        // A pipeline has no guest of its own, and its steps have receipts.
        let deterministic = usage.fuel.is_some() && ended.steps.is_none();
        Receipt {
            agent: agent.id().to_owned(),
            agent_version: agent.facts.version.clone(),
            audit_hash: Some(hex::encode(recorded.hash)),
            audit_sequence: Some(recorded.sequence),
            ended_ms: clock::unix_millis(),
            exit: ExitClass::of(reason),
            exit_code: outcome.map(|outcome| outcome.exit_code),
            format: FORMAT.to_owned(),
            fuel: usage.fuel,
            grants: agent.grants_digest.clone(),
            input: hash(input),
            instance: instance.to_string(),
            log_index: agent.facts.log_index,
            memory_bytes: usage.memory_bytes,
            module: agent.texts.agent.digest.clone(),
            output,
            policy: hex::encode(begun.policy),
            profile: self.parts.runtime.profile_id().as_str().to_owned(),
            reason: reason.to_owned(),
            seed: deterministic.then(|| hex::encode(Seed::of(agent.digest, input).0)),
            signer: agent.prepared.owner().signer.clone(),
            started_ms: begun.at_ms,
            steps: ended.steps.clone(),
            ticks: usage.epoch_ticks,
            trust_level: agent.facts.trust_level.to_owned(),
            wall_us: usage.wall_us,
            wasmtime: WASMTIME_VERSION.to_owned(),
        }
    }

    pub(super) fn agent_event(&self, agent: &Agent, execution: Option<AuditExecution>) -> AuditEvent {
        AuditEvent {
            event_type: String::new(),
            agent: Some(audit_agent(agent)),
            execution,
            security: Some(AuditSecurity {
                policy_checks: vec!["admission".into()],
                capability_grants: Arc::clone(&agent.texts.granted),
                ..AuditSecurity::default()
            }),
            policy: Some(hex::encode(agent.policy())),
            detail: None,
        }
    }

    /// As [`Self::agent_event`], of one that need not be loaded.
    pub(super) fn release_event(&self, release: Release<'_>) -> AuditEvent {
        match release.loaded {
            Some(agent) => self.agent_event(agent, None),
            None => AuditEvent {
                agent: Some(Arc::new(AuditAgent {
                    id: release.id.to_owned(),
                    digest: release.digest.to_string(),
                    ..AuditAgent::default()
                })),
                policy: Some(hex::encode(self.parts.admission.policy_digest())),
                ..AuditEvent::default()
            },
        }
    }

    pub(super) fn denial_event(&self, denied: &Denied, agent: Option<&Agent>) -> AuditEvent {
        AuditEvent {
            event_type: "denial".into(),
            agent: agent.map(audit_agent),
            security: Some(AuditSecurity {
                policy_checks: vec![format!("step {}: {}", denied.step, denied.code)],
                capability_denials: (denied.step == 14).then(|| denied.message.clone()).into_iter().collect(),
                ..AuditSecurity::default()
            }),
            policy: Some(hex::encode(self.parts.admission.policy_digest())),
            detail: Some(cut(&format!("{} {}", denied.message, denied.operator))),
            execution: None,
        }
    }
}

/// The last lines of a guest whose call has no result, for the operator's own log: callers may be programs that show them to
/// nobody.
pub(super) fn tell_operator(agent: &Agent, instance: InstanceId, ended: &Ended) {
    let (Err(error), Some(said)) = (&ended.result, &ended.said) else { return };
    if said.log.is_empty() {
        return;
    }
    let (_, lines) = last_lines(&said.log, MAX_TOLD);
    let lines: Vec<_> = lines.iter().map(|(level, text)| format!("{}: {text}", level.as_str())).collect();
    let (agent, code, lines) = (agent.id(), error.code(), lines.join(" | "));
    tracing::info!(agent, %instance, code, lines, "a guest had said before its call ended without a result");
}

fn reason_of(result: &Result<Outcome, CallError>) -> &'static str {
    match result {
        Ok(outcome) if outcome.exit_code == 0 => "success",
        Ok(_) => "guest_error",
        Err(error) => error.code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::GrantSources;
    use crate::runtime::CallLimits;
    use crate::testing::{Server, admitted, wat_echo};

    #[tokio::test]
    async fn what_each_record_says_of_a_release_is_made_when_it_is_loaded() {
        let server = Server::start().await;
        let granted = vec!["env:A".parse().unwrap()];
        let env = [("A".to_owned(), "1".to_owned())].into();
        let sources = GrantSources { env, ..GrantSources::default() };
        let grants = sources.grant(&granted, granted.clone(), &[]).unwrap();
        let module = admitted(wat_echo(), grants, CallLimits::default());
        server.executor.admit_for_test(module.called("texts.agent", "s@example.org")).await;
        let agent = server.executor.agent("texts.agent").unwrap();
        let [one, other] = [(), ()].map(|()| server.executor.agent_event(&agent, None));
        let (one, other) =
            ((one.agent.unwrap(), one.security.unwrap()), (other.agent.unwrap(), other.security.unwrap()));
        assert!(Arc::ptr_eq(&one.0, &other.0), "two records have one text");
        assert!(Arc::ptr_eq(&one.1.capability_grants, &other.1.capability_grants));
        assert_eq!((one.0.id.as_str(), one.0.runtime.as_str()), ("texts.agent", "wasm"));
        assert_eq!(one.0.digest, agent.digest.to_string());
        assert_eq!(one.0.attestation.signer, "s@example.org");
        assert_eq!(one.1.capability_grants[..], ["env:A"]);
        assert_eq!(agent.texts.requested[..], ["env:A"]);
    }
}
