//! Revocation: one durable row, visible at once in OCSP, within the publish interval in CRLs, and in the event log.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ca_pki::crl::RevocationReason;
use ca_pki::{SerialNumber, UnixTime};
use trust_store::sorted_json::SortedJson;

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{
    EndRenewals, NewRevocation, StoreError, StoredCertificate, StoredRevocation, is_compromise,
};
use crate::transparency::{EventLog, LogError, MAX_EVENTS};

/// Predicate type of a revocation statement.
pub const PREDICATE_TYPE: &str = "https://mentat.internal/revocation/v1";

/// How long a statement that cannot be made or is refused waits for another attempt.
const SET_ASIDE: Duration = Duration::from_secs(60);
/// Beyond so many nothing is looked for until some of them are tried again: each makes every look longer.
const MAX_SET_ASIDE: usize = 10_000;

/// Revocations without a statement, each with the monotonic time of the next attempt.
#[derive(Default)]
pub(crate) struct SetAside(Mutex<HashMap<SerialNumber, Duration>>);

impl SetAside {
    /// Those that wait now.
    fn at(&self, now: Duration) -> HashSet<SerialNumber> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, until| *until > now);
        waiting.keys().cloned().collect()
    }

    fn add(&self, revocation: &StoredRevocation, why: &CaError, now: Duration) {
        let serial = &revocation.serial;
        tracing::error!(%serial, error = %why, "a revocation has no statement in the event log");
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(serial.clone(), now.saturating_add(SET_ASIDE));
    }
}

/// Whether a statement cannot be made because of its own record, in place of a key or a store that is away.
fn is_for_good(error: &CaError) -> bool {
    matches!(
        error,
        CaError::Inconsistent(_)
            | CaError::Pki(_)
            | CaError::Store(StoreError::Corrupted(_) | StoreError::NotFound)
    )
}

impl CertificateAuthority {
    /// Revokes a certificate, an issuing CA's own included, and what came of it by renewal unless the reason says that its holder is
    /// trusted; for a compromise also everything else that has its key. Repeating is harmless; an earlier date moves it back, and a
    /// compromise learnt of later replaces another reason (R2).
    /// Runs to its end even when the caller goes away.
    ///
    /// # Errors
    /// [`CaError::CertificateUnknown`], [`CaError::NothingToRevoke`], [`CaError::RevokedForAnotherReason`],
    /// [`CaError::OutOfRange`] for a date in the future or before the certificate, [`CaError::Store`].
    pub async fn revoke(
        self: &Arc<Self>,
        serial: &SerialNumber,
        reason: RevocationReason,
        compromised_at: Option<UnixTime>,
        actor: &str,
    ) -> Result<StoredRevocation, CaError> {
        let renewals = self.ended_with(reason, compromised_at);
        self.revoke_with(serial, reason, compromised_at, renewals, actor).await
    }

    /// As [`Self::revoke`], with what is said of renewals.
    pub(crate) async fn revoke_with(
        self: &Arc<Self>,
        serial: &SerialNumber,
        reason: RevocationReason,
        compromised_at: Option<UnixTime>,
        renewals: Option<EndRenewals>,
        actor: &str,
    ) -> Result<StoredRevocation, CaError> {
        let (this, serial, actor) = (Arc::clone(self), serial.clone(), actor.to_owned());
        let task = tokio::spawn(async move {
            this.record_revocation_with(&serial, reason, compromised_at, renewals, &actor).await
        });
        task.await.unwrap_or(Err(CaError::Inconsistent("the revocation task ended early")))
    }

    /// As [`Self::revoke`], for callers that stay.
    pub(crate) async fn record_revocation(
        &self,
        serial: &SerialNumber,
        reason: RevocationReason,
        compromised_at: Option<UnixTime>,
        actor: &str,
    ) -> Result<StoredRevocation, CaError> {
        let renewals = self.ended_with(reason, compromised_at);
        self.record_revocation_with(serial, reason, compromised_at, renewals, actor).await
    }

    async fn record_revocation_with(
        &self,
        serial: &SerialNumber,
        reason: RevocationReason,
        compromised_at: Option<UnixTime>,
        renewals: Option<EndRenewals>,
        actor: &str,
    ) -> Result<StoredRevocation, CaError> {
        let outcome = self.record_one_revocation(serial, reason, compromised_at, renewals, actor).await;
        // Recorded as due with it, also where it was given up before: what fails here the reconciler goes on with. A compromise ends renewals,
        // too.
        if renewals.is_some() && matches!(outcome, Ok(_) | Err(CaError::RevokedForAnotherReason)) {
            self.end_due().await?;
        }
        outcome
    }

    /// Which renewals end with a certificate that an operator revokes: of a compromise whose date is known those since then, dated back
    /// as it is; else all of them from now on.
    fn ended_with(&self, reason: RevocationReason, compromised_at: Option<UnixTime>) -> Option<EndRenewals> {
        let since = compromised_at.filter(|_| reason == RevocationReason::KeyCompromise);
        let dated = since.unwrap_or_else(|| self.clock.for_records());
        ends_renewals(reason).then_some(EndRenewals { since, dated, valid_at: None })
    }

    /// One certificate, with a note of which renewals end with it.
    async fn record_one_revocation(
        &self,
        serial: &SerialNumber,
        reason: RevocationReason,
        compromised_at: Option<UnixTime>,
        renewals: Option<EndRenewals>,
        actor: &str,
    ) -> Result<StoredRevocation, CaError> {
        // A revocation is a protection: it is recorded even when the clock is in doubt.
        let now = self.clock.for_records();
        let record = self.store.certificate(serial).await?.ok_or(CaError::CertificateUnknown)?;
        // A clock that is behind shows a time before the certificate, which exists nevertheless.
        let latest = now.max(record.not_before);
        let revoked_at = compromised_at.unwrap_or(latest);
        if revoked_at > latest {
            return Err(CaError::OutOfRange { field: "compromised_at", reason: "must not be in the future" });
        }
        if revoked_at < record.not_before {
            return Err(CaError::OutOfRange {
                field: "compromised_at",
                reason: "must not be before the certificate's validity",
            });
        }
        // Of what waits and is of another kind nobody tells that it ends with this.
        let waiting =
            renewals.is_some() && self.store.renewal_end(serial).await?.is_some_and(|end| !end.done);
        let (serial, actor) = (serial.clone(), actor.to_owned());
        let new = NewRevocation { serial: serial.clone(), revoked_at, reason, actor, at: now, renewals };
        let outcome = self.store.revoke(new).await;
        // Even a failure may have been recorded: no kept answer outlives the attempt (O6).
        self.answers.forget(&serial);
        self.withdraw_presigned(&record.issuer, &serial);
        if waiting {
            self.presigned.demand_pass();
        }
        self.changed.notify_one();
        // The CA's own carry no identity. In doubt nothing is signed under it any more.
        if record.identity.is_none()
            && !matches!(outcome, Err(StoreError::NotFound | StoreError::StateConflict))
        {
            self.note_own_revocation(&serial);
        }
        self.event_due.notify_one();
        match outcome {
            // It changes to a graver one alone.
            Ok(stored) if !says(stored.reason, reason) => Err(CaError::RevokedForAnotherReason),
            Ok(stored) => {
                self.metrics.revoked.inc();
                Ok(stored)
            }
            Err(StoreError::NotFound) => Err(CaError::CertificateUnknown),
            Err(StoreError::StateConflict) => Err(CaError::NothingToRevoke),
            Err(error) => Err(error.into()),
        }
    }

    /// Submits the statements of revocations that the event log does not have yet, many in one call. What cannot be stated, or is
    /// refused for itself, is reported, set aside for a while, and holds up no other.
    ///
    /// # Errors
    /// The first failure that another attempt may mend; what was logged beside it stays noted.
    pub async fn log_revocations(&self) -> Result<usize, CaError> {
        let Some(log) = &self.event_log else { return Ok(0) };
        loop {
            let aside = self.set_aside.at(self.clock.monotonic());
            let limit = u32::try_from(MAX_EVENTS.saturating_add(aside.len())).unwrap_or(u32::MAX);
            let mut pending = self.store.unlogged_revocations(limit).await?;
            self.metrics.revocations_unlogged.set(i64::try_from(pending.len()).unwrap_or(i64::MAX));
            pending.retain(|revocation| !aside.contains(&revocation.serial));
            pending.truncate(MAX_EVENTS);
            if pending.is_empty() || aside.len() > MAX_SET_ASIDE {
                return Ok(0);
            }
            // With nothing but statements that cannot be: what comes after them has waited long enough.
            let noted = self.log_some(&**log, &pending).await?;
            if noted > 0 {
                return Ok(noted);
            }
        }
    }

    /// Submits the statements of some revocations; each of them is noted or set aside afterwards, or this fails.
    async fn log_some(&self, log: &dyn EventLog, pending: &[StoredRevocation]) -> Result<usize, CaError> {
        let made = pending.iter().map(|revocation| self.revocation_envelope(revocation));
        let made = futures_util::future::join_all(made).await;
        let (mut stated, mut envelopes) = (Vec::new(), Vec::new());
        let now = self.clock.monotonic();
        for (revocation, envelope) in pending.iter().zip(made) {
            match envelope {
                Ok(envelope) => {
                    stated.push(revocation);
                    envelopes.push(envelope);
                }
                Err(error) if is_for_good(&error) => self.set_aside.add(revocation, &error, now),
                Err(error) => return Err(error),
            }
        }
        let outcomes = match (envelopes.pop(), envelopes.is_empty()) {
            (None, _) => return Ok(0),
            // What every log of events knows.
            (Some(only), true) => vec![log.submit(only).await],
            (Some(last), false) => {
                envelopes.push(last);
                log.submit_all(envelopes).await?
            }
        };
        if outcomes.len() != stated.len() {
            return Err(
                LogError::Unavailable("it answered for another number of statements".to_owned()).into()
            );
        }
        let mut notes = Vec::with_capacity(stated.len());
        let mut failure = None;
        for (revocation, outcome) in stated.into_iter().zip(outcomes) {
            match outcome {
                Ok(index) => notes.push(self.store.record_revocation_logged(
                    &revocation.serial,
                    revocation.recorded_at,
                    index,
                )),
                Err(error @ LogError::Refused(_)) => self.set_aside.add(revocation, &error.into(), now),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let noted = futures_util::future::try_join_all(notes).await?.len();
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(noted),
        }
    }

    /// The DSSE envelope of a revocation: an in-toto statement about the certificate, signed by the statement key.
    async fn revocation_envelope(&self, revocation: &StoredRevocation) -> Result<serde_json::Value, CaError> {
        let record = self
            .store
            .certificate(&revocation.serial)
            .await?
            .ok_or(CaError::Inconsistent("a revoked record is missing"))?;
        self.envelope(&self.revocation_statement(&record, revocation)?).await
    }

    /// What the event log is told of a revocation of this record.
    pub(crate) fn revocation_statement(
        &self,
        record: &StoredCertificate,
        revocation: &StoredRevocation,
    ) -> Result<SortedJson, CaError> {
        // The to-be-signed bytes name the certificate even where a signature was never recorded, or is nobody's.
        let digest = match &record.signature {
            Some(_) if !self.is_unfounded_root(record) => {
                hex::encode(<sha2::Sha256 as sha2::Digest>::digest(self.assembled(record)?))
            }
            _ => hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&record.tbs)),
        };
        Ok(statement(revocation, &digest))
    }
}

/// Whether a recorded reason says what is asked for: of either compromise the same follows.
fn says(recorded: RevocationReason, asked: RevocationReason) -> bool {
    recorded == asked || is_compromise(recorded) && is_compromise(asked)
}

/// Whether what came of a certificate ends with it. Only two reasons say that its holder is trusted; where none is given nobody knows.
pub(crate) fn ends_renewals(reason: RevocationReason) -> bool {
    !matches!(reason, RevocationReason::CessationOfOperation | RevocationReason::Superseded)
}

/// What is said of a revoked certificate; `digest` is its SHA-256, hexadecimal.
fn statement(revocation: &StoredRevocation, digest: &str) -> SortedJson {
    serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{
            "name": format!("{}/{}", revocation.issuer, revocation.serial),
            "digest": { "sha256": digest },
        }],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "issuer": revocation.issuer,
            "serial": revocation.serial.to_string(),
            "reason": revocation.reason.code(),
            "revokedAt": revocation.revoked_at.0,
            "recordedAt": revocation.recorded_at.0,
        },
    })
    .into()
}

#[cfg(test)]
mod tests {
    use ca_pki::serial::ShardCount;

    use super::*;

    #[test]
    fn the_statement_about_a_revocation_is_frozen() {
        let serial = SerialNumber::from_hex("4d0102030405060708090a0b0c0d0e0f").unwrap();
        let revocation = StoredRevocation {
            issuer: "code-signing".into(),
            shard: serial.shard(ShardCount::new(128).unwrap()),
            serial,
            revoked_at: UnixTime(1_700_000_000),
            recorded_at: UnixTime(1_700_000_060),
            reason: RevocationReason::KeyCompromise,
            event_index: None,
        };
        assert_eq!(
            statement(&revocation, "ab").as_str(),
            r#"{"_type":"https://in-toto.io/Statement/v1","predicate":{"issuer":"code-signing","reason":1,"recordedAt":1700000060,"revokedAt":1700000000,"serial":"4d0102030405060708090a0b0c0d0e0f"},"predicateType":"https://mentat.internal/revocation/v1","subject":[{"digest":{"sha256":"ab"},"name":"code-signing/4d0102030405060708090a0b0c0d0e0f"}]}"#
        );
    }
}
