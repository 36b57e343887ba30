//! Revocation: one durable row, visible at once in OCSP, within the publish interval in CRLs, and in the event log.

use std::sync::Arc;

use ca_pki::crl::RevocationReason;
use ca_pki::{SerialNumber, UnixTime};

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{NewRevocation, StoreError, StoredRevocation};
use crate::transparency::MAX_EVENTS;

/// Predicate type of a revocation statement.
pub const PREDICATE_TYPE: &str = "https://mentat.internal/revocation/v1";

impl CertificateAuthority {
    /// Revokes a certificate, an issuing CA's own included. Repeating is harmless; an earlier date moves it back, and a
    /// compromise learnt of later replaces another reason (R2). Runs to its end even when the caller goes away.
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
        let (this, serial, actor) = (Arc::clone(self), serial.clone(), actor.to_owned());
        let task =
            tokio::spawn(
                async move { this.record_revocation(&serial, reason, compromised_at, &actor).await },
            );
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
        let new =
            NewRevocation { serial: serial.clone(), revoked_at, reason, actor: actor.to_owned(), at: now };
        let outcome = self.store.revoke(new).await;
        // Even a failure may have been recorded: no kept answer outlives the attempt (O6).
        self.answers.forget(serial);
        self.changed.notify_one();
        // The CA's own carry no identity. In doubt nothing is signed under it any more.
        if record.identity.is_none()
            && !matches!(outcome, Err(StoreError::NotFound | StoreError::StateConflict))
        {
            self.note_own_revocation(serial);
        }
        match outcome {
            Ok(stored) => {
                self.metrics.revoked.inc();
                Ok(stored)
            }
            Err(StoreError::NotFound) => Err(CaError::CertificateUnknown),
            Err(StoreError::StateConflict) => Err(CaError::NothingToRevoke),
            Err(StoreError::RevokedForAnotherReason) => Err(CaError::RevokedForAnotherReason),
            Err(error) => Err(error.into()),
        }
    }

    /// Submits the statements of revocations that the event log does not have yet, many in one call.
    ///
    /// # Errors
    /// The first failure; what was logged beside it stays noted.
    pub async fn log_revocations(&self) -> Result<usize, CaError> {
        let Some(log) = &self.event_log else { return Ok(0) };
        let pending = self.store.unlogged_revocations(MAX_EVENTS as u32).await?;
        self.metrics.revocations_unlogged.set(i64::try_from(pending.len()).unwrap_or(i64::MAX));
        let mut envelopes = Vec::with_capacity(pending.len());
        for revocation in &pending {
            envelopes.push(self.revocation_envelope(revocation));
        }
        let mut envelopes = futures_util::future::try_join_all(envelopes).await?;
        let outcomes = match (envelopes.pop(), envelopes.is_empty()) {
            (None, _) => return Ok(0),
            // What every log of events knows.
            (Some(only), true) => vec![Ok(log.submit(only).await?)],
            (Some(last), false) => {
                envelopes.push(last);
                log.submit_all(envelopes).await?
            }
        };
        let mut notes = Vec::with_capacity(pending.len());
        let mut failure = None;
        for (revocation, outcome) in pending.iter().zip(outcomes) {
            match outcome {
                Ok(index) => notes.push(self.store.record_revocation_logged(
                    &revocation.serial,
                    revocation.recorded_at,
                    index,
                )),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        futures_util::future::try_join_all(notes).await?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        self.metrics.revocations_unlogged.set(0);
        Ok(pending.len())
    }

    /// The DSSE envelope of a revocation: an in-toto statement about the certificate, signed by the statement key.
    async fn revocation_envelope(&self, revocation: &StoredRevocation) -> Result<serde_json::Value, CaError> {
        let record = self
            .store
            .certificate(&revocation.serial)
            .await?
            .ok_or(CaError::Inconsistent("a revoked record is missing"))?;
        // The to-be-signed bytes name the certificate even where a signature was never recorded.
        let digest = match &record.signature {
            Some(_) => hex::encode(<sha2::Sha256 as sha2::Digest>::digest(self.assembled(&record)?)),
            None => hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&record.tbs)),
        };
        let statement = serde_json::json!({
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
        });
        self.envelope(&statement).await
    }
}
