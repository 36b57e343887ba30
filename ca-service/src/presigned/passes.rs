//! The work of signing ahead: passes over every certificate that has such answers, and revocations that wait for no pass.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ca_pki::SerialNumber;
use trust_store::crl::Crl;

use super::PresignScope;
use crate::authority::{CertificateAuthority, LoadedAuthority, names};
use crate::error::CaError;
use crate::responder::status;
use crate::standing::Fall;
use crate::storage::{CrlPart, Selection};

/// Certificates of a page.
const PAGE: u32 = 500;
/// The shortest pause between two passes.
const PASS_PAUSE: Duration = Duration::from_secs(60);
/// The pause after a failure of key, clock or store.
const FAILURE_PAUSE: Duration = Duration::from_secs(10);

/// What a pass did, beside the answers about revocations that waited for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presigning {
    /// Answers signed.
    pub signed: u64,
    /// Answers that were there and serve on.
    pub kept: u64,
}

impl CertificateAuthority {
    /// Signs what is missing or old about one certificate, and removes what serves no more.
    async fn presign(&self, issuer: &LoadedAuthority, serial: &SerialNumber) -> Result<Presigning, CaError> {
        let mut done = Presigning::default();
        let responder = self.responder_of(&issuer.name)?;
        if self.fall(&responder.name) == Some(Fall::Itself) {
            return Ok(done);
        }
        for request in Self::presigned_requests(issuer, serial) {
            let now = self.clock.now()?;
            let stored = self.store.status(&issuer.name, serial).await?;
            let Some(stored) = stored.filter(|stored| self.presigned.includes(stored, now)) else {
                self.presigned.remove(&request).map_err(unwritable)?;
                continue;
            };
            if self.presigned(&request, responder, &stored, now).is_some() {
                done.kept += 1;
                continue;
            }
            responder.in_force(now)?;
            self.still_serves()?;
            let answer = self.sign_answer(&request, responder, Some(&stored), now).await?;
            self.presigned.write(&request, &answer.der).map_err(unwritable)?;
            self.metrics.ocsp_presigned.inc();
            done.signed += 1;
            // A revocation that came in between removed what was there before this.
            let said = |stored: &StoredStatus| status(stored, now.0);
            if self.store.status(&issuer.name, serial).await?.as_ref().map(said) != Some(said(&stored)) {
                self.presigned.remove(&request).map_err(unwritable)?;
            }
            tokio::time::sleep(Duration::from_secs(1) / self.presigned.per_second.get()).await;
        }
        Ok(done)
    }

    /// Signs the answers about what was revoked since the last call.
    async fn presign_waiting(&self) -> Result<(), CaError> {
        loop {
            let next = self.presigned.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((issuer, serial)) = next else { return Ok(()) };
            self.presign(self.authority(&issuer)?, &serial).await?;
        }
    }

    /// Looks at every certificate that has answers signed ahead. What was interrupted goes on where it was: what is there is not
    /// signed again before half of its life is over.
    ///
    /// # Errors
    /// [`CaError`] of store, clock or key; [`CaError::Inconsistent`] where the folder cannot be written.
    pub async fn presign_all(&self) -> Result<Presigning, CaError> {
        let mut done = Presigning::default();
        let issuers: Vec<&LoadedAuthority> = self.generations(names::CODE_SIGNING).collect();
        for issuer in issuers {
            match self.presigned.scope {
                PresignScope::None => {}
                PresignScope::Revoked => {
                    // The lists name them; what is not yet there was handed over by its revocation.
                    for part in issuer.parts().filter(|part| *part != CrlPart::Complete || issuer.shards == 1)
                    {
                        for serial in self.listed(&issuer.name, part) {
                            self.presign_one(issuer, &serial, &mut done).await?;
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
                            self.presign_one(issuer, &certificate.serial, &mut done).await?;
                        }
                    }
                }
            }
        }
        Ok(done)
    }

    async fn presign_one(
        &self,
        issuer: &LoadedAuthority,
        serial: &SerialNumber,
        done: &mut Presigning,
    ) -> Result<(), CaError> {
        // A revocation does not wait for the end of a pass.
        self.presign_waiting().await?;
        let one = self.presign(issuer, serial).await?;
        done.signed += one.signed;
        done.kept += one.kept;
        // Others have their turn although nothing here waits.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// The serial numbers of a published list.
    fn listed(&self, issuer: &str, part: CrlPart) -> Vec<SerialNumber> {
        let Some(published) = self.published_crl(issuer, part) else { return Vec::new() };
        let Ok(list) = Crl::from_der(&published.der) else { return Vec::new() };
        list.entries().filter_map(|(octets, _)| SerialNumber::from_magnitude(octets).ok()).collect()
    }

    /// Signs ahead for ever, not faster than it may.
    pub async fn run_presigning(self: Arc<Self>) {
        if self.presigned.scope == PresignScope::None {
            return;
        }
        // Eight looks in the life of an answer: each is replaced soon after its half.
        let seconds = u64::try_from(self.settings.ocsp_seconds).unwrap_or_default() / 8;
        let pause = Duration::from_secs(seconds).max(PASS_PAUSE);
        let mut next = self.clock.monotonic();
        loop {
            let outcome = if self.clock.monotonic() >= next {
                next = self.clock.monotonic().saturating_add(pause);
                self.presign_all().await.map(|done| {
                    if done.signed > 0 {
                        tracing::info!(?done, "OCSP answers signed ahead");
                    }
                })
            } else {
                self.presign_waiting().await
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "OCSP answers could not be signed ahead");
                tokio::time::sleep(FAILURE_PAUSE).await;
                continue;
            }
            let left = next.saturating_sub(self.clock.monotonic());
            let _ = tokio::time::timeout(left, self.presigned.due.notified()).await;
        }
    }
}

fn unwritable(error: io::Error) -> CaError {
    tracing::error!(%error, "the folder of OCSP answers cannot be written");
    CaError::Inconsistent("the folder of OCSP answers cannot be written")
}
