//! Warnings of certificates that end soon.
//!
//! For each configured number of days the store has a mark: the end of validity up to which warnings were taken by the receiver. A
//! certificate is named when its end comes between the mark and that many days from now; the mark moves when the receiver took the
//! message. So each one is named at least once for each number, and twice only where an answer was lost.

use std::sync::Arc;
use std::time::Duration;

use ca_pki::UnixTime;
use trust_store::sorted_json::SortedJson;

use crate::authority::{CertificateAuthority, role_name};
use crate::error::CaError;
use crate::storage::{Expiring, ExpiryMark, StoredCertificate};
use crate::webhook::{NotTaken, Webhook};

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(3_600);
/// First pause after a failure; it doubles up to [`ROUND`].
const RETRY: Duration = Duration::from_secs(60);
/// Certificates of one message.
const PAGE: u32 = 100;
const DAY: i64 = 86_400;

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum WarningFailure {
    /// The authority's own records.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The receiver.
    #[error(transparent)]
    Receiver(#[from] NotTaken),
}

impl CertificateAuthority {
    /// One round over every configured number of days; returns how many messages were taken.
    ///
    /// # Errors
    /// [`WarningFailure`]; what was taken stays noted, and the next round goes on from there.
    pub async fn send_expiry_warnings(&self, webhook: &Webhook) -> Result<u64, WarningFailure> {
        let Some(config) = &self.settings.config.expiry_warnings else { return Ok(0) };
        let mut taken = 0;
        for days in &config.days {
            taken += self.warn(webhook, *days).await?;
        }
        Ok(taken)
    }

    async fn warn(&self, webhook: &Webhook, days: u16) -> Result<u64, WarningFailure> {
        let now = self.clock.now().map_err(CaError::from)?;
        let through = now.plus(i64::from(days) * DAY);
        let noted = self.store.expiry_mark(days).await.map_err(CaError::from)?;
        // What has ended needs no warning any more.
        let mut mark = noted
            .filter(|mark| mark.not_after >= now)
            .unwrap_or(ExpiryMark { not_after: now, row: i64::MAX });
        let mut taken = 0;
        let mut authorities = self.ending(mark.not_after, through);
        loop {
            let window = Expiring { after: mark, through, limit: PAGE };
            let page = self.store.expiring(window).await.map_err(CaError::from)?;
            let last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            mark = match page.last() {
                Some(newest) if !last => ExpiryMark { not_after: newest.not_after, row: newest.row },
                _ => ExpiryMark { not_after: through, row: i64::MAX },
            };
            if !page.is_empty() || !authorities.is_empty() {
                let message = self.message(days, now, &page, &std::mem::take(&mut authorities));
                webhook.send(message, now).await?;
                self.metrics.expiry_warnings.inc();
                taken += 1;
            }
            self.store.note_expiry_mark(days, mark).await.map_err(CaError::from)?;
            if last {
                return Ok(taken);
            }
        }
    }

    /// The CA's own certificates that end in a window.
    fn ending(&self, after: UnixTime, through: UnixTime) -> Vec<serde_json::Value> {
        let ending = self.authorities.values().filter_map(|authority| {
            let not_after = authority.not_after.filter(|end| *end > after && *end <= through)?;
            Some(serde_json::json!({
                "name": authority.name,
                "role": role_name(authority.role),
                "not_after": not_after.0,
            }))
        });
        ending.collect()
    }

    fn message(
        &self,
        days: u16,
        now: UnixTime,
        page: &[StoredCertificate],
        authorities: &[serde_json::Value],
    ) -> SortedJson {
        let certificate = |stored: &StoredCertificate| {
            serde_json::json!({
                "serial": stored.serial.to_string(),
                "identity": stored.identity.as_ref().map(|identity| identity.as_str()),
                "profile": stored.profile,
                "issuer": stored.issuer,
                "spki_sha256": hex::encode(stored.spki_sha256),
                "not_after": stored.not_after.0,
            })
        };
        serde_json::json!({
            "type": "https://mentat.internal/expiry-warning/v1",
            "authority": self.settings.config.identity_issuer,
            "sent_at": now.0,
            "days": days,
            "certificates": page.iter().map(certificate).collect::<Vec<_>>(),
            "authorities": authorities,
        })
        .into()
    }

    /// Round after round while the CA serves.
    pub async fn run_expiry_warnings(self: Arc<Self>, webhook: Webhook) {
        let mut failed = RETRY;
        loop {
            let pause = match self.send_expiry_warnings(&webhook).await {
                Ok(taken) => {
                    if taken > 0 {
                        tracing::info!(taken, "warnings of certificates that end soon were taken");
                    }
                    failed = RETRY;
                    ROUND
                }
                Err(error) => {
                    self.metrics.expiry_warnings_failed.inc();
                    tracing::warn!(%error, "warnings of certificates that end soon are sent again later");
                    let pause = failed;
                    failed = ROUND.min(failed * 2);
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}
