//! Forms in which decisions leave the executor: summaries, audit records, refusals.

use std::sync::Arc;

use executor_api::audit::{AuditAgent, AuditAttestation};
use executor_api::{AgentSummary, PermittedCapability};
use trust_store::UnixTime;
use trust_store::capability::Capability;
use trust_store::capability_rules::Permitted;

use crate::abi::sinks::{Level, LogRecord};
use crate::admission::{Denied, Facts, GrantSet};
use crate::agents::Agent;
use crate::evidence::Snapshot;
use crate::refusing::Unavailable;
use crate::runtime::{CallError, Owner, StepFailure};

/// What a line of a guest costs wherever it is written, besides its text, and how many are written at most. An empty one is not free.
const LINE: usize = 16;
const MAX_LINES: usize = 64;

/// Longest free text of an audit record, bytes.
const MAX_DETAIL: usize = 4096;

pub(crate) fn summarise(
    owner: &Owner,
    kind: &str,
    facts: &Facts,
    grants: &GrantSet,
    policy: &[u8; 32],
) -> AgentSummary {
    AgentSummary {
        agent_id: owner.agent.clone(),
        version: facts.version.clone(),
        digest: owner.digest.to_string(),
        signer: owner.signer.clone(),
        issuer: facts.issuer.clone(),
        trust_level: facts.trust_level.into(),
        requested: texts(grants.requested()),
        granted: texts(grants.granted()),
        log_index: facts.log_index,
        policy: hex::encode(policy),
        denied: None,
        kind: kind.into(),
        permitted: facts.permitted.iter().map(permitted).collect(),
    }
}

fn permitted(Permitted { capability, rules }: &Permitted) -> PermittedCapability {
    PermittedCapability { capability: capability.to_string(), rules: rules.clone() }
}

/// What every record of a call says of its release: made when that is loaded, and not for each call.
pub(crate) struct ReleaseTexts {
    /// The release as audit records name it.
    pub(crate) agent: Arc<AuditAgent>,
    pub(crate) requested: Arc<[String]>,
    pub(crate) granted: Arc<[String]>,
}

impl ReleaseTexts {
    pub(crate) fn of(owner: &Owner, kind: &str, facts: &Facts, grants: &GrantSet) -> Self {
        let agent = AuditAgent {
            id: owner.agent.clone(),
            version: facts.version.clone(),
            runtime: match kind {
                runtime @ ("container" | "pipeline") => runtime,
                _ => "wasm",
            }
            .into(),
            digest: owner.digest.to_string(),
            log_index: facts.log_index,
            attestation: AuditAttestation {
                verified: true,
                signer: owner.signer.clone(),
                trust_level: facts.trust_level.into(),
            },
        };
        Self {
            agent: Arc::new(agent),
            requested: texts(grants.requested()).into(),
            granted: texts(grants.granted()).into(),
        }
    }
}

pub(crate) fn audit_agent(agent: &Agent) -> Arc<AuditAgent> {
    Arc::clone(&agent.texts.agent)
}

/// A refusal for callers, without what only the operator reads.
pub(crate) fn wire_denied(denied: Denied) -> executor_api::Denied {
    executor_api::Denied { step: denied.step, reason: denied.code.into(), message: denied.message }
}

/// The last lines that fit into `room` bytes together, and how many were before them. The last one is cut rather than left out.
pub(crate) fn last_lines(log: &[LogRecord], mut room: usize) -> (usize, Vec<(Level, &str)>) {
    let mut lines = Vec::new();
    for line in log.iter().rev().take(MAX_LINES) {
        let Some(left) = room.checked_sub(LINE) else { break };
        room = left;
        let mut end = line.text.len().min(if lines.is_empty() { room } else { line.text.len() });
        while !line.text.is_char_boundary(end) {
            end -= 1;
        }
        let text = line.text.get(..end).unwrap_or_default();
        let Some(left) = room.checked_sub(text.len()) else { break };
        room = left;
        lines.push((line.level, text));
    }
    lines.reverse();
    (log.len() - lines.len(), lines)
}

fn texts(capabilities: &[Capability]) -> Vec<String> {
    capabilities.iter().map(ToString::to_string).collect()
}

/// Free text for an audit record, cut to its limit.
pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_DETAIL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().trim_end().to_owned()
}

pub(crate) fn audit_unavailable(why: Unavailable) -> Denied {
    match why {
        Unavailable::Failed => Denied::new(
            "audit_unavailable",
            "the audit log cannot be written; nothing new is done until it can",
        ),
        Unavailable::Full => storage_full(),
    }
}

pub(crate) fn receipts_unavailable(why: Unavailable) -> Denied {
    match why {
        Unavailable::Failed => Denied::new(
            "receipts_unavailable",
            "the receipt log cannot be written; nothing new is run until it can",
        ),
        Unavailable::Full => storage_full(),
    }
}

fn storage_full() -> Denied {
    let text = "the executor's disk is full, so that nothing can be recorded and nothing new is done; free space on it";
    Denied::new("storage_full", text)
}

pub(crate) fn not_loaded(name: &str) -> Denied {
    let shown: String = name.chars().take(128).flat_map(char::escape_default).collect();
    Denied::new("not_loaded", format!("no admitted agent is called {shown}; load it first"))
}

/// A log that contradicted itself vouches for nothing, whatever else is in order.
pub(crate) fn no_fork(snapshot: &Snapshot) -> Result<(), Denied> {
    match &snapshot.fork {
        Some(fork) => Err(Denied::in_step(11, "log_inconsistent", fork.clone())),
        None => Ok(()),
    }
}

/// A trusted root that follows a repository is believed until what distributed it has expired.
pub(crate) fn root_in_force(snapshot: &Snapshot, now: i64) -> Result<(), Denied> {
    match snapshot.root_expires {
        Some(expires) if now > expires => {
            let text = format!(
                "the trusted root was valid until {}; nothing is believed by it until `mentatctl trust update` confirms it",
                UnixTime(expires).to_rfc3339()
            );
            Err(Denied::new("tuf_expired", text))
        }
        _ => Ok(()),
    }
}

/// A verdict by the trusted root that the snapshot speaks of. Past the root's end nothing is believed any more that speaks
/// for a module; what speaks against it and no evidence changes, a revocation above all, is said and acted upon then, too.
pub(crate) fn by_root<T>(verdict: Result<T, Denied>, snapshot: &Snapshot, now: i64) -> Result<T, Denied> {
    match verdict {
        Err(denied) if !denied.is_about_evidence() => Err(denied),
        verdict => root_in_force(snapshot, now).and(verdict),
    }
}

/// What a caller is told when a call has no result.
pub(crate) fn call_denied(error: &CallError, agent: &Agent) -> Denied {
    // A guest that was killed because it may not run any more: the caller learns the verdict itself.
    if error.verdict().is_some()
        && let Some(denied) = agent.verdict().denied
    {
        return denied;
    }
    // What a step's verification said keeps its number.
    let step = match error {
        CallError::Step { failure, .. } => match &**failure {
            StepFailure::Denied(denied) => denied.step,
            _ => 0,
        },
        _ => 0,
    };
    Denied::in_step(step, error.code(), error.to_string()).for_operator(error.operator())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_said_the_end_is_kept() {
        let log =
            ["long ago", "before", "last ü"].map(|text| LogRecord { level: Level::Info, text: text.into() });
        let kept = |room| {
            let (earlier, lines) = last_lines(&log, room);
            (earlier, lines.into_iter().map(|(_, text)| text).collect::<Vec<_>>())
        };
        assert_eq!(kept(100), (0, vec!["long ago", "before", "last ü"]));
        assert_eq!(kept(2 * LINE + 13), (1, vec!["before", "last ü"]));
        assert_eq!(kept(2 * LINE + 12), (2, vec!["last ü"]));
        assert_eq!(kept(LINE + 6), (2, vec!["last "]), "no half of a character");
        assert_eq!(last_lines(&[], 9), (0, Vec::new()));
        // Lines cost something when they are empty, too, and there are never very many.
        let empty = vec![LogRecord { level: Level::Info, text: String::new() }; 256];
        assert_eq!((last_lines(&empty, 320).0, last_lines(&empty, 1 << 20).0), (236, 192));
    }

    #[test]
    fn a_full_disk_is_one_reason_whichever_log_finds_it() {
        for (denied, code) in [
            (audit_unavailable(Unavailable::Full), "storage_full"),
            (receipts_unavailable(Unavailable::Full), "storage_full"),
            (audit_unavailable(Unavailable::Failed), "audit_unavailable"),
            (receipts_unavailable(Unavailable::Failed), "receipts_unavailable"),
        ] {
            assert_eq!(denied.code, code);
        }
    }
}
