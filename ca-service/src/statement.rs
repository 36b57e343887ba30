//! What the CA says to the event log: in-toto statements in DSSE envelopes, signed by the statement key.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hsm::Purpose;
use trust_store::sorted_json::SortedJson;

use crate::authority::{CertificateAuthority, names, random};
use crate::error::CaError;
use crate::storage::{Anchor, audit};

/// Media type of the DSSE payload of a statement.
pub const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
/// Predicate type of a statement about the head of the audit trail.
pub const ANCHOR_TYPE: &str = "https://mentat.internal/audit-anchor/v1";
/// How often a trail that grew is anchored.
const ANCHOR_INTERVAL: Duration = Duration::from_secs(600);

/// A time that was declared right.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct AcceptedTime {
    /// The machine's time, seconds since 1970.
    pub accepted: i64,
    /// The time of the newest record before.
    pub recorded: i64,
}

impl CertificateAuthority {
    /// Takes the newest audit record to the event log, so that a trail that was cut or rewritten can be told from the whole
    /// one by anybody who reads the log (A2). Does nothing when nothing but the last anchor was added.
    ///
    /// # Errors
    /// [`CaError::Log`], [`CaError::Signing`], [`CaError::Store`].
    pub async fn anchor(&self) -> Result<Option<Anchor>, CaError> {
        let Some(log) = &self.event_log else { return Ok(None) };
        let Some(head) = self.store.latest_audit().await? else { return Ok(None) };
        let last = self.store.latest_anchor().await?;
        // The note of an anchor is a record, too.
        if last.is_some_and(|anchor| head.sequence <= anchor.sequence.saturating_add(1)) {
            return Ok(None);
        }
        let event_index = log.submit(self.envelope(&anchor_statement(&head)).await?).await?;
        let anchor = Anchor { sequence: head.sequence, hash: head.hash, event_index };
        self.store.record_anchor(anchor, self.clock.for_records()).await?;
        Ok(Some(anchor))
    }

    /// Declares the present time right although records are of a later one: the way out after the clock was wrong for a
    /// while. The next start goes on from here; lists that were dated later are signed again.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn accept_time(&self, actor: &str) -> Result<AcceptedTime, CaError> {
        let recorded = self.store.latest_audit().await?.map_or(0, |record| record.at.0);
        let accepted = self.clock.for_records();
        self.store.accept_time(actor, accepted).await?;
        Ok(AcceptedTime { accepted: accepted.0, recorded })
    }

    /// [`Self::anchor`], at intervals.
    pub(crate) async fn anchor_when_due(&self) -> Result<(), CaError> {
        let now = self.clock.monotonic();
        let due = {
            let last = self.anchored_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            last.is_none_or(|last| now.saturating_sub(last) >= ANCHOR_INTERVAL)
        };
        if due {
            self.anchor().await?;
            *self.anchored_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(now);
        }
        Ok(())
    }

    /// The DSSE envelope of a statement.
    pub(crate) async fn envelope(&self, statement: &SortedJson) -> Result<serde_json::Value, CaError> {
        let payload = statement.as_str();
        let mut message =
            format!("DSSEv1 {} {STATEMENT_TYPE} {} ", STATEMENT_TYPE.len(), payload.len()).into_bytes();
        message.extend_from_slice(payload.as_bytes());
        let newest = self.generations(names::STATEMENT).next();
        let authority = newest.ok_or(CaError::Inconsistent("there is no key for statements"))?;
        let signature = self.sign(authority, Purpose::Statement, &random::<16>()?, &message).await?;
        Ok(serde_json::json!({
            "payload": STANDARD.encode(payload),
            "payloadType": STATEMENT_TYPE,
            "signatures": [{
                "keyid": hex::encode(authority.public_key.spki_sha256()),
                "sig": STANDARD.encode(signature),
            }],
        }))
    }
}

/// What is said of the newest record of the audit trail.
fn anchor_statement(head: &audit::Record) -> SortedJson {
    serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{
            "name": format!("audit trail, record {}", head.sequence),
            "digest": { "sha256": hex::encode(head.hash) },
        }],
        "predicateType": ANCHOR_TYPE,
        "predicate": { "sequence": head.sequence, "at": head.at.0 },
    })
    .into()
}

#[cfg(test)]
mod tests {
    use ca_pki::UnixTime;

    use super::*;

    #[test]
    fn the_statement_about_the_trail_is_frozen() {
        let head = audit::Record {
            sequence: 7,
            at: UnixTime(1_700_000_000),
            event: "crl.published".into(),
            actor: "publisher".into(),
            detail: "{}".into(),
            previous: [0; 32],
            hash: [0xab; 32],
        };
        let frozen = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","predicate":{{"at":1700000000,"sequence":7}},"predicateType":"https://mentat.internal/audit-anchor/v1","subject":[{{"digest":{{"sha256":"{}"}},"name":"audit trail, record 7"}}]}}"#,
            "ab".repeat(32)
        );
        assert_eq!(anchor_statement(&head).as_str(), frozen);
    }
}
