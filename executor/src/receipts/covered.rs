//! The receipt of a call that has just ended, for a caller who waits for it.

use std::time::Duration;

use bytes::Bytes;

use super::Receipts;
use crate::admission::Denied;
use crate::runtime::InstanceId;

/// How long an answer is kept back for it. Checkpoints come far oftener than that while the log takes entries.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two looks: the log tells nobody that it has signed a checkpoint.
const LOOK: Duration = Duration::from_millis(5);

impl Receipts {
    /// The receipt of an instance as proof file, once a checkpoint covers it.
    ///
    /// # Errors
    ///
    /// `receipt_pending` when no checkpoint does in time; `receipts_unavailable` when the log cannot be read.
    pub(crate) async fn covered(&self, instance: InstanceId) -> Result<Bytes, Denied> {
        let name = instance.to_string();
        let look = async {
            loop {
                match self.of_instance(&name) {
                    // Not written yet, or not signed yet.
                    Err(denied) if matches!(denied.code, "receipt_pending" | "receipt_unknown") => {
                        tokio::time::sleep(LOOK).await;
                    }
                    found => return found,
                }
            }
        };
        let late =
            |_| Denied::new("receipt_pending", "no checkpoint covers this receipt yet; ask again soon");
        tokio::time::timeout(PATIENCE, look).await.map_err(late)?
    }
}
