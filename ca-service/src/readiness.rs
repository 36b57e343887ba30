//! Whether the CA can do its work: it follows what the last write ended in.

use std::sync::Arc;
use std::time::Duration;

use service::Readiness;

use crate::authority::CertificateAuthority;
use crate::storage::StoreError;

/// Time between two attempts to write to a store that did not take the last change.
const RETRY: Duration = Duration::from_secs(1);
/// For so long a server that another one took over from still says so to whoever asks it, before it ends.
const LAST_WORDS: Duration = Duration::from_secs(15);

impl CertificateAuthority {
    /// What `/readyz` says.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        match self.store.write_failure() {
            None => match self.issuing(self.clock.for_records()) {
                Ok(_) => Readiness::Ready,
                // What was issued has to be answered for all the same.
                Err(reason) => Readiness::Limited(format!("nothing is issued: {reason}")),
            },
            Some(StoreError::AnotherServes) => Readiness::NotReady(
                "another server serves these records (another_server_serves); stop this one".to_owned(),
            ),
            Some(StoreError::SuccessorUnknown) => Readiness::NotReady(
                "the database does not answer, and another server may have taken over".to_owned(),
            ),
            Some(StoreError::Full(_)) => {
                Readiness::NotReady("the disk of the database is full; free space on it".to_owned())
            }
            Some(_) => Readiness::NotReady("the database could not be written; see the log".to_owned()),
        }
    }

    /// Writes again and again while writing fails: nobody sends anything to a server that says it is not ready, so it would
    /// never find out that it is.
    pub async fn run_probe(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RETRY).await;
            // Records that another server took over are never this one's again.
            let failure = self.store.write_failure();
            let may_pass = failure.is_some() && failure != Some(StoreError::AnotherServes);
            if may_pass && self.store.probe().await.is_ok() {
                tracing::warn!("the database is written again");
            }
        }
    }

    /// Waits until another server has taken the records over, and everybody who asks in the meantime was told so: there is nothing left
    /// to do for this one.
    pub async fn superseded(&self) {
        while self.store.write_failure() != Some(StoreError::AnotherServes) {
            tokio::time::sleep(RETRY).await;
        }
        tokio::time::sleep(LAST_WORDS).await;
    }
}
