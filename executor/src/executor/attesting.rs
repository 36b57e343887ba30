//! Saying in the receipt log how far the audit log reaches, where no receipt does.

use std::sync::Arc;
use std::time::Duration;

use executor_api::attested::AttestedHead;

use super::Executor;
use crate::clock;

/// Time between two looks. What is recorded in it without a receipt behind it is not held by anything but the chain.
const LOOK: Duration = Duration::from_secs(60);

impl Executor {
    /// Attests the head of the audit log now and then, until the process ends.
    pub(crate) async fn keep_attesting(self: Arc<Self>) {
        let mut last = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            last = self.attest(last).await;
        }
    }

    /// Attests the head, unless it is the one of this sequence; returns the sequence that is attested now. Where the receipt log takes
    /// nothing, the next look tries again.
    pub(super) async fn attest(&self, last: u64) -> u64 {
        let head = self.parts.audit.head();
        if head.sequence == last {
            return last;
        }
        match self.parts.receipts.room().await {
            Ok(slot) => {
                slot.attest(AttestedHead::of(&head, clock::unix_millis()));
                head.sequence
            }
            Err(_) => last,
        }
    }
}
