//! The webhook that is told of requests which wait for people.
//!
//! Each request is named at least once while it waits, and twice only where an answer was lost: the store notes which ones the receiver
//! took. The message says what approvers see in a list; what they approve, they look at themselves.

use std::sync::Arc;
use std::time::Duration;

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::expiry::WarningFailure;
use crate::storage::queue::QueuedRequest;
use crate::webhook::Webhook;

/// Longest pause between two looks; a new request does not wait for it.
const ROUND: Duration = Duration::from_secs(60);
/// First pause after a failure; it doubles up to [`LONGEST`].
const RETRY: Duration = Duration::from_secs(15);
/// Longest pause after failures.
const LONGEST: Duration = Duration::from_secs(900);
/// Requests of one message.
const PAGE: u32 = 100;

impl CertificateAuthority {
    /// Tells of every waiting request that nobody was told of; returns how many messages were taken.
    ///
    /// # Errors
    /// [`WarningFailure`]; what was taken stays noted.
    pub async fn send_request_notices(&self, webhook: &Webhook) -> Result<u64, WarningFailure> {
        let mut taken = 0;
        loop {
            let page = self.store.unannounced(PAGE).await.map_err(CaError::from)?;
            if page.is_empty() {
                return Ok(taken);
            }
            let now = self.clock.now().map_err(CaError::from)?;
            let message = serde_json::json!({
                "type": "https://mentat.internal/request-waiting/v1",
                "authority": self.settings.config.identity_issuer,
                "sent_at": now.0,
                "requests": page.iter().map(|request| self.named(request)).collect::<Vec<_>>(),
            });
            webhook.send(message.into(), now).await?;
            taken += 1;
            let ids = page.iter().map(|request| request.content.id).collect();
            self.store.note_announced(ids).await.map_err(CaError::from)?;
        }
    }

    /// Round after round while the CA serves.
    pub async fn run_request_notices(self: Arc<Self>, webhook: Webhook) {
        let mut failed = RETRY;
        loop {
            match self.send_request_notices(&webhook).await {
                Ok(_) => {
                    failed = RETRY;
                    let _ = tokio::time::timeout(ROUND, self.request_due.notified()).await;
                }
                Err(error) => {
                    self.metrics.request_notices_failed.inc();
                    tracing::warn!(%error, "notices of requests that wait are sent again later");
                    tokio::time::sleep(failed).await;
                    failed = LONGEST.min(failed * 2);
                }
            }
        }
    }

    fn named(&self, request: &QueuedRequest) -> serde_json::Value {
        let content = &request.content;
        serde_json::json!({
            "request": hex::encode(content.id),
            "identity": content.identity.as_str(),
            "profile": content.profile,
            "requester": content.requester,
            "approvals_needed": self.approvals_in_force(content),
            "created_at": content.created_at.0,
            "expires_at": content.expires_at.0,
        })
    }
}
