//! Closes every open issuance (ca-requirements §4), logs pending revocations. Idempotent; runs at start and for ever.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ca_pki::UnixTime;
use ca_pki::crl::RevocationReason;

use crate::authority::CertificateAuthority;
use crate::consequences::Consequences;
use crate::error::CaError;
use crate::issuance::{recorded_kind, recorded_tbs};
use crate::storage::{IntentId, Open, State, Step, StoreError, StoredCertificate};
use crate::transparency::LogError;

/// Issuances younger than this are left to the request that makes them.
const GRACE_SECONDS: i64 = 60;
/// What cannot be logged or finished for this long is given up: revoked, and never delivered.
const LOG_DEADLINE_SECONDS: i64 = 3_600;
/// Issuances closed in one pass.
const BATCH: u32 = 500;
const PERIOD: Duration = Duration::from_secs(10);

/// What one pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// `intent` → `abandoned`.
    pub abandoned: usize,
    /// `signing` → `maybe-issued`.
    pub maybe_issued: usize,
    /// Finished: logged or delivered.
    pub finished: usize,
    /// Given up: precertificates, and certificates that no log took.
    pub given_up: usize,
    /// Left for the next pass, because a log was not available.
    pub waiting: usize,
    /// What came of revoked certificates by renewal, and ended with them.
    pub renewals: usize,
    /// What had a key that is in other hands, and ended with the certificate of which that was said.
    pub of_keys: usize,
}

/// Which issuances a pass looks at.
#[derive(Debug, Clone, Copy)]
pub enum Reach<'a> {
    /// At start nothing is in flight: all of them.
    Everything,
    /// While serving: only those that no request can still be working on, because they are old, or were found when this
    /// process started. Who repeats a call after a crash need not wait for the grace.
    Serving(&'a Leftovers),
}

/// What a process before this one left open: known one by one, because times in records are whole seconds, and a restart can
/// be quicker than that.
#[derive(Debug, Default)]
pub struct Leftovers {
    intents: HashSet<IntentId>,
    newest: Option<UnixTime>,
}

impl Reach<'_> {
    /// The time before which a record must have been made to be looked at, at `now`.
    fn horizon(self, now: UnixTime) -> UnixTime {
        match self {
            Self::Everything => UnixTime(i64::MAX),
            Self::Serving(leftovers) => {
                let grace = now.plus(-GRACE_SECONDS);
                leftovers.newest.map_or(grace, |newest| grace.max(newest.plus(1)))
            }
        }
    }

    fn includes(self, record: &StoredCertificate, now: UnixTime) -> bool {
        match self {
            Self::Everything => true,
            Self::Serving(leftovers) => {
                record.created_at < now.plus(-GRACE_SECONDS) || leftovers.intents.contains(&record.intent)
            }
        }
    }
}

impl CertificateAuthority {
    /// What is open now. Asked before the first request is answered; what exceeds one pass waits for the grace.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn leftovers(&self) -> Result<Leftovers, CaError> {
        let open = self.store.open_issuances(Open::AtLog, UnixTime(i64::MAX), BATCH).await?;
        Ok(Leftovers {
            newest: open.iter().map(|record| record.created_at).max(),
            intents: open.iter().map(|record| record.intent).collect(),
        })
    }

    /// The open issuances that a pass looks at.
    async fn open(&self, which: Open, reach: Reach<'_>) -> Result<Vec<StoredCertificate>, CaError> {
        let now = self.clock.for_records();
        let mut open = self.store.open_issuances(which, reach.horizon(now), BATCH).await?;
        open.retain(|record| reach.includes(record, now));
        Ok(open)
    }

    /// One pass over the open issuances: first what needs no log, then the rest.
    ///
    /// # Errors
    /// [`CaError::Store`]; a log that is not available is not an error. Where what ends with revoked certificates fails, the issuances were
    /// looked at all the same.
    pub async fn reconcile(&self, reach: Reach<'_>) -> Result<Reconciled, CaError> {
        let ended = self.end_due().await;
        let mut done = self.close_here(reach).await?;
        let mut log = LogState::Answers;
        for record in self.open(Open::AtLog, reach).await? {
            // One that does not answer is asked once a pass, not once for every certificate; what is too old is given up
            // without it.
            if log == LogState::Silent && !self.is_overdue(&record)? {
                done.waiting += 1;
                continue;
            }
            match self.close(&record, &mut done).await {
                // Its request, or another instance, moved it meanwhile.
                Ok(()) | Err(CaError::Store(StoreError::StateConflict)) => {}
                Err(CaError::Log(error)) => {
                    tracing::warn!(%error, serial = %record.serial, "an issuance waits for its log");
                    if matches!(error, LogError::Unavailable(_)) {
                        log = LogState::Silent;
                    }
                    done.waiting += 1;
                }
                Err(error @ CaError::Store(_)) => return Err(error),
                Err(error) => {
                    tracing::error!(%error, serial = %record.serial, "an issuance cannot be closed");
                    done.waiting += 1;
                }
            }
        }
        self.metrics.backlog.set(i64::try_from(done.waiting).unwrap_or(i64::MAX));
        let Consequences { renewals, of_keys } = ended?;
        Ok(Reconciled { renewals, of_keys, ..done })
    }

    /// The part of a pass that needs no log: what ends with revoked certificates, intents without a signature, and interrupted signatures. At start it comes
    /// before the first request, so that nothing in flight is mistaken for a leftover.
    ///
    /// # Errors
    /// As [`Self::reconcile`].
    pub async fn reconcile_local(&self, reach: Reach<'_>) -> Result<Reconciled, CaError> {
        let ended = self.end_due().await;
        let done = self.close_here(reach).await?;
        let Consequences { renewals, of_keys } = ended?;
        Ok(Reconciled { renewals, of_keys, ..done })
    }

    /// Closes intents without a signature, and interrupted signatures.
    async fn close_here(&self, reach: Reach<'_>) -> Result<Reconciled, CaError> {
        let mut done = Reconciled::default();
        loop {
            let before = done;
            for record in self.open(Open::Here, reach).await? {
                match self.close(&record, &mut done).await {
                    Ok(()) | Err(CaError::Store(StoreError::StateConflict)) => {}
                    Err(error) => return Err(error),
                }
            }
            if done == before {
                return Ok(done);
            }
        }
    }

    async fn close(&self, record: &StoredCertificate, done: &mut Reconciled) -> Result<(), CaError> {
        let now = self.clock.for_records();
        match (record.state, record.step) {
            (State::Intent, _) => {
                self.store.abandon(record.intent, "no signing attempt was recorded", now).await?;
                self.metrics.abandoned.inc();
                done.abandoned += 1;
            }
            (State::Signing, _) => {
                self.store.mark_maybe_issued(record.intent, "interrupted while signing", now).await?;
                tracing::error!(serial = %record.serial, "a signature may exist without a record");
                self.metrics.maybe_issued.inc();
                done.maybe_issued += 1;
            }
            (State::Signed, Step::Precertificate) => {
                let outcome = self.close_precertificate(record).await;
                self.finish_or_give_up(record, outcome, done).await?;
            }
            // Of an earlier version, which recorded its signature before the authority. No log is told of it.
            (State::Signed | State::Logged, Step::Certificate) if self.is_unfounded_root(record) => {
                tracing::warn!(serial = %record.serial, "a root whose making was interrupted is revoked");
                let reason = RevocationReason::CessationOfOperation;
                self.record_revocation(&record.serial, reason, None, "reconciler").await?;
                done.given_up += 1;
            }
            (State::Signed | State::Logged, Step::Certificate) => {
                let outcome = self.finish_certificate(record).await;
                self.finish_or_give_up(record, outcome, done).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses what has a key of the operator's file: that may have come since it was decided, with a start.
    pub(crate) fn demand_unblocked(&self, record: &StoredCertificate) -> Result<(), CaError> {
        if self.settings.blocked_keys.contains(&record.spki_sha256) {
            return Err(CaError::KeyCompromised);
        }
        Ok(())
    }

    async fn close_precertificate(&self, record: &StoredCertificate) -> Result<(), CaError> {
        self.demand_unblocked(record)?;
        let authority = self.authority(&record.issuer)?;
        let signature =
            record.signature.as_deref().ok_or(CaError::Inconsistent("a signed record has no signature"))?;
        let kind = recorded_kind(self.settings.profiles.get(&record.profile));
        let tbs = recorded_tbs(authority, record);
        let log_index = self
            .finish_precertificate(&record.intent, &record.issuer, kind, &tbs, signature)
            .await?
            .log_index;
        match self.store.mark_delivered(record.intent, log_index, self.clock.for_records()).await {
            Ok(()) | Err(StoreError::StateConflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an issuance has waited for its log for too long.
    fn is_overdue(&self, record: &StoredCertificate) -> Result<bool, CaError> {
        Ok(self.clock.now()?.since(record.created_at) > LOG_DEADLINE_SECONDS)
    }

    /// Delivers what is finished. What the log or its answer keeps from being finished is revoked after the deadline,
    /// whatever is wrong, so that every issuance ends; not for a store that fails, nor by a clock in doubt. What is refused for its key stays
    /// refused, and does not wait.
    async fn finish_or_give_up(
        &self,
        record: &StoredCertificate,
        outcome: Result<(), CaError>,
        done: &mut Reconciled,
    ) -> Result<(), CaError> {
        let error = match outcome {
            Ok(()) => {
                done.finished += 1;
                return Ok(());
            }
            Err(
                error @ (CaError::Log(_)
                | CaError::Pki(_)
                | CaError::Inconsistent(_)
                | CaError::KeyCompromised
                | CaError::NotIssuing(_)
                | CaError::Signing(_)),
            ) => error,
            Err(error) => return Err(error),
        };
        if !matches!(error, CaError::KeyCompromised) && !self.is_overdue(record)? {
            return Err(error);
        }
        tracing::error!(%error, serial = %record.serial, "an issuance is given up");
        let reason = RevocationReason::CessationOfOperation;
        self.record_revocation(&record.serial, reason, None, "reconciler").await?;
        done.given_up += 1;
        Ok(())
    }

    /// Reconciles for ever.
    pub async fn run_reconciler(self: Arc<Self>, leftovers: Leftovers) {
        loop {
            match self.reconcile(Reach::Serving(&leftovers)).await {
                Ok(done) if done == Reconciled::default() => {}
                Ok(done) => tracing::info!(?done, "open issuances reconciled"),
                Err(error) => tracing::error!(%error, "open issuances could not be reconciled"),
            }
            if let Err(error) = self.tend_queue().await {
                tracing::warn!(%error, "requests whose time is over could not be noted");
            }
            if let Err(error) = self.tend_problems().await {
                tracing::warn!(%error, "reports of problems could not be looked at");
            }
            if let Err(error) = self.forget_tokens().await {
                tracing::warn!(%error, "tokens that nobody used could not be forgotten");
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Takes revocations, and the head of the audit trail, to the event log for ever. Apart from the issuances: neither log
    /// waits for the other.
    pub async fn run_event_logger(self: Arc<Self>) {
        loop {
            let logged = match self.log_revocations().await {
                Ok(logged) => logged,
                Err(error) => {
                    tracing::warn!(%error, "revocations wait for the event log");
                    0
                }
            };
            if let Err(error) = self.anchor_when_due().await {
                tracing::warn!(%error, "the head of the audit trail waits for the event log");
            }
            if logged > 0 {
                tracing::info!(logged, "revocations recorded in the event log");
                // After a revocation of many more wait.
                continue;
            }
            // Whoever watches the event log learns of a revocation by it, so it does not wait for the next round.
            let _ = tokio::time::timeout(PERIOD, self.event_due.notified()).await;
        }
    }
}

/// Whether the issuance log answered in this pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogState {
    Answers,
    Silent,
}
