//! What ends with a revoked certificate: what came of it by renewal, and, where its key is in other hands, everything else that has the key.
//!
//! Each revocation records what is due in its own transaction (`storage::renewals`, `storage::compromised_keys`); here it is carried out.

use ca_pki::SerialNumber;

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{Counted, Ended, RenewalCount, StoreError, StoredRevocation, is_compromise};

/// How many certificates ended with others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Consequences {
    /// They had come of revoked ones by renewal.
    pub renewals: usize,
    /// They had a key that is in other hands.
    pub of_keys: usize,
}

impl CertificateAuthority {
    /// Ends what ends with revoked certificates and is due, all of it. Whoever revokes, the reconciler and the start do so, one at a time:
    /// who waited finds less to do, or nothing.
    ///
    /// # Errors
    /// [`CaError::Store`]; what is left stays due.
    pub async fn end_due(&self) -> Result<Consequences, CaError> {
        let _one = self.ending.lock().await;
        let mut all = Consequences::default();
        loop {
            let renewals = self.note_ended(self.store.end_renewals(self.clock.for_records()).await)?;
            all.renewals += renewals.revoked.len();
            let of_keys = self.note_ended(self.store.end_keys(self.clock.for_records()).await)?;
            all.of_keys += of_keys.revoked.len();
            if !renewals.more && !of_keys.more {
                return Ok(all);
            }
        }
    }

    /// Has everybody told of what ended.
    fn note_ended(&self, ended: Result<Ended, StoreError>) -> Result<Ended, CaError> {
        let ended = ended.inspect_err(|_| {
            // Which ones may have been recorded all the same is not known: everything is looked at.
            self.presigned.demand_pass();
        })?;
        for one in &ended.revoked {
            self.answers.forget(&one.serial);
            self.withdraw_presigned(&one.issuer, &one.serial);
            if one.is_own {
                self.note_own_revocation(&one.serial);
            }
        }
        if !ended.revoked.is_empty() {
            self.changed.notify_one();
            self.event_due.notify_one();
        }
        self.metrics.revoked.inc_by(ended.revoked.len() as u64);
        Ok(ended)
    }

    /// How many certificates came of one by renewal, and of those.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn renewals_of(&self, serial: &SerialNumber) -> Result<RenewalCount, CaError> {
        Ok(self.store.count_renewals(vec![serial.clone()], Counted::default()).await?)
    }

    /// How many other certificates of the key of a revoked one are revoked; none where the revocation says nothing of the key.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn ended_with_key(&self, revocation: &StoredRevocation) -> Result<Option<u64>, CaError> {
        if !is_compromise(revocation.reason) {
            return Ok(None);
        }
        Ok(Some(self.store.count_of_key(&revocation.serial).await?))
    }
}
