//! The work of signing ahead: passes over every certificate that has such answers, and revocations that wait for no pass.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ca_pki::SerialNumber;
use trust_store::crl::Crl;

use super::{PresignScope, lives_long};
use crate::authority::{CertificateAuthority, LoadedAuthority, names};
use crate::error::CaError;
use crate::responder::status;
use crate::standing::Fall;
use crate::storage::{CrlPart, Selected, Selection, StoreError, StoredStatus};

/// Certificates of a page.
const PAGE: u32 = 500;
/// The shortest pause between two passes.
const PASS_PAUSE: Duration = Duration::from_secs(60);
/// The pause after a first failure of key, clock or store; twice as long after each further one, up to [`PASS_PAUSE`].
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// What a pass did, beside the answers about revocations that waited for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presigning {
    /// Answers signed.
    pub signed: u64,
    /// Answers that were there and serve on.
    pub kept: u64,
}

/// A pass under way. What fails for one authority, or for what waits, holds up no other.
#[derive(Default)]
struct Pass {
    done: Presigning,
    /// The first failure that another attempt may mend.
    failure: Option<CaError>,
    /// Whether what waits failed: it waits for the next attempt.
    stuck: bool,
}

impl Pass {
    fn has_failed(&mut self, error: CaError) {
        self.failure.get_or_insert(error);
    }

    fn is_stuck(&mut self, error: CaError) {
        self.stuck = true;
        self.has_failed(error);
    }
}

impl CertificateAuthority {
    /// Signs what is missing or old about one certificate, and removes what serves no more.
    async fn presign(
        &self,
        issuer: &LoadedAuthority,
        responder: &LoadedAuthority,
        serial: &SerialNumber,
    ) -> Result<Presigning, CaError> {
        match self.presign_answers(issuer, responder, serial).await {
            // What `check` reports of one record is no reason to leave out those after it.
            Err(CaError::Store(error @ StoreError::Corrupted(_))) => {
                tracing::error!(%serial, %error, "no OCSP answers are signed ahead about a certificate");
                Ok(Presigning::default())
            }
            outcome => outcome,
        }
    }

    async fn presign_answers(
        &self,
        issuer: &LoadedAuthority,
        responder: &LoadedAuthority,
        serial: &SerialNumber,
    ) -> Result<Presigning, CaError> {
        let mut done = Presigning::default();
        if self.fall(&responder.name) == Some(Fall::Itself) {
            // Its key may be in other hands: what it said before is not offered either.
            for request in Self::presigned_requests(issuer, serial) {
                self.presigned.remove(&request).map_err(unwritable)?;
            }
            return Ok(done);
        }
        let mut stored = self.store.status(&issuer.name, serial).await?;
        // Whose end came before a pass was looked at by that one for the last time.
        if stored.as_ref().is_some_and(|stored| self.presigned.is_over(stored.not_after)) {
            return Ok(done);
        }
        for request in Self::presigned_requests(issuer, serial) {
            let now = self.clock.now()?;
            let Some(record) = stored.as_ref().filter(|stored| self.presigned.includes(stored, now)) else {
                self.presigned.remove(&request).map_err(unwritable)?;
                continue;
            };
            // Nobody would accept the signature, nor what it signed before.
            if responder.in_force(now).is_err() {
                self.presigned.remove(&request).map_err(unwritable)?;
                continue;
            }
            if self.presigned(&request, responder, record, now).is_some() {
                done.kept += 1;
                continue;
            }
            self.still_serves()?;
            let answer = self.sign_answer(&request, responder, Some(record), now).await?;
            self.presigned.write(&request, &answer.der).map_err(unwritable)?;
            self.metrics.ocsp_presigned.inc();
            done.signed += 1;
            // A revocation that came in between removed what was there before this.
            let seen = self.store.status(&issuer.name, serial).await?;
            let said = |stored: &StoredStatus| status(stored, now.0);
            if seen.as_ref().map(said) != Some(said(record)) {
                self.presigned.remove(&request).map_err(unwritable)?;
            }
            stored = seen;
            tokio::time::sleep(Duration::from_secs(1) / self.presigned.per_second.get()).await;
        }
        Ok(done)
    }

    /// Signs the answers about what was revoked since the last call. What fails waits on.
    async fn presign_waiting(&self) -> Result<(), CaError> {
        let (mut failed, mut failure) = (Vec::new(), None);
        while let Some((issuer, serial)) = self.presigned.next_waiting() {
            // Of an authority that cannot sign now not each of thousands is tried.
            if failed.iter().any(|(other, _)| *other == issuer) {
                failed.push((issuer, serial));
            } else if let Err(error) = self.presign_revoked(&issuer, &serial).await {
                failure = failure.or(Some(error));
                failed.push((issuer, serial));
            }
        }
        self.presigned.put_off(failed);
        failure.map_or(Ok(()), Err)
    }

    async fn presign_revoked(&self, issuer: &str, serial: &SerialNumber) -> Result<(), CaError> {
        let issuer = self.authority(issuer)?;
        match self.responder_of(&issuer.name) {
            Ok(responder) => self.presign(issuer, responder, serial).await.map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Looks at every certificate that has answers signed ahead. What was interrupted goes on where it was: what is there is not
    /// signed again before half of its life is over.
    ///
    /// # Errors
    /// [`CaError`] of store, clock or key; [`CaError::Inconsistent`] where the folder cannot be written. It is the first one: the
    /// authorities after that which it is about were looked at.
    pub async fn presign_all(&self) -> Result<Presigning, CaError> {
        if self.presigned.scope == PresignScope::None {
            return Ok(Presigning::default());
        }
        let now = self.clock.now()?;
        let mut pass = Pass::default();
        if let Err(error) = self.presign_waiting().await {
            pass.is_stuck(error);
        }
        let issuers: Vec<&LoadedAuthority> = self.generations(names::CODE_SIGNING).collect();
        for issuer in issuers {
            // Without one it does not get better by trying again, and holds up no other.
            let responder = self.responder_of(&issuer.name);
            let able = responder.as_ref().ok().map_or(Ok(()), |responder| responder.in_force(now));
            if let Some(error) = responder.as_ref().err().or(able.as_ref().err()) {
                tracing::warn!(issuer = issuer.name, %error, "no OCSP answers are signed ahead");
            }
            let Ok(responder) = responder else { continue };
            if let Err(error) = self.presign_issued(issuer, responder, &mut pass).await {
                tracing::warn!(issuer = issuer.name, %error, "OCSP answers are not all signed ahead");
                pass.has_failed(error);
            }
        }
        match pass.failure {
            Some(error) => Err(error),
            None => {
                self.presigned.looked_at.store(now.0, Ordering::Release);
                Ok(pass.done)
            }
        }
    }

    /// The part of a pass that is about what one authority issued.
    async fn presign_issued(
        &self,
        issuer: &LoadedAuthority,
        responder: &LoadedAuthority,
        pass: &mut Pass,
    ) -> Result<(), CaError> {
        match self.presigned.scope {
            PresignScope::None => {}
            PresignScope::Revoked => {
                // The lists name them; what is not yet there was handed over by its revocation.
                for part in issuer.parts().filter(|part| *part != CrlPart::Complete || issuer.shards == 1) {
                    for serial in self.listed(&issuer.name, part).await {
                        self.presign_one(issuer, responder, &serial, pass).await?;
                    }
                }
            }
            PresignScope::All => {
                let of_issuer = Selection { issuer: Some(issuer.name.clone()), ..Selection::default() };
                let mut after = 0;
                loop {
                    let page = self.store.selected(of_issuer.clone(), after, PAGE).await?;
                    let Some(last) = page.last() else { break };
                    after = last.row;
                    for certificate in page {
                        let Selected { not_before, not_after, .. } = certificate;
                        if !lives_long(not_before, not_after) || self.presigned.is_over(not_after) {
                            continue;
                        }
                        self.presign_one(issuer, responder, &certificate.serial, pass).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn presign_one(
        &self,
        issuer: &LoadedAuthority,
        responder: &LoadedAuthority,
        serial: &SerialNumber,
        pass: &mut Pass,
    ) -> Result<(), CaError> {
        // A revocation does not wait for the end of a pass.
        if !pass.stuck
            && let Err(error) = self.presign_waiting().await
        {
            pass.is_stuck(error);
        }
        let one = self.presign(issuer, responder, serial).await?;
        pass.done.signed += one.signed;
        pass.done.kept += one.kept;
        // Others have their turn although nothing here waits.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// The serial numbers of a published list.
    async fn listed(&self, issuer: &str, part: CrlPart) -> Vec<SerialNumber> {
        let Some(published) = self.published_crl(issuer, part) else { return Vec::new() };
        // It has as many as there are.
        let read = move || {
            let Ok(list) = Crl::from_der(&published.der) else { return Vec::new() };
            list.entries().filter_map(|(octets, _)| SerialNumber::from_magnitude(octets).ok()).collect()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// Signs ahead for ever, not faster than it may. What an earlier configuration wanted and this one does not is taken away first.
    pub async fn run_presigning(self: Arc<Self>) {
        let (folder, scope) = (self.presigned.folder.clone(), self.presigned.scope);
        let tidied = tokio::task::spawn_blocking(move || super::tidy(&folder, scope)).await;
        if let Err(error) = tidied.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
            tracing::error!(%error, "OCSP answers that are not signed ahead any more could not be removed");
        }
        if self.presigned.scope == PresignScope::None {
            return;
        }
        // Eight looks in the life of an answer: each is replaced soon after its half.
        let seconds = u64::try_from(self.settings.ocsp_seconds).unwrap_or_default() / 8;
        let pause = Duration::from_secs(seconds).max(PASS_PAUSE);
        let mut next = self.clock.monotonic();
        let mut after_failure = FAILURE_PAUSE;
        loop {
            let demanded = self.presigned.pass_due.swap(false, Ordering::AcqRel);
            let outcome = if demanded || self.clock.monotonic() >= next {
                let outcome = self.presign_all().await;
                // What failed is looked at again, and soon: of what is there already it costs little.
                let wait = if outcome.is_ok() { pause } else { Duration::ZERO };
                next = self.clock.monotonic().saturating_add(wait);
                outcome.map(|done| {
                    if done.signed > 0 {
                        tracing::info!(?done, "OCSP answers signed ahead");
                    }
                })
            } else {
                self.presign_waiting().await
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "OCSP answers could not be signed ahead");
                tokio::time::sleep(after_failure).await;
                after_failure = after_failure.saturating_mul(2).min(PASS_PAUSE);
                continue;
            }
            after_failure = FAILURE_PAUSE;
            let left = next.saturating_sub(self.clock.monotonic());
            let _ = tokio::time::timeout(left, self.presigned.due.notified()).await;
        }
    }
}

fn unwritable(error: io::Error) -> CaError {
    tracing::error!(%error, "the folder of OCSP answers cannot be written");
    CaError::Inconsistent("the folder of OCSP answers cannot be written")
}
