//! Step 12: no certificate of the chain is revoked, and that is shown.

use super::Session;
use super::signing_time::SigningTimes;
use crate::budget::Budget;
use crate::path::VerifiedChain;
use crate::reason::{Denial, ReasonCode};
use crate::revocation::RevocationCheck;

impl Session<'_> {
    /// Evidence is judged at the time of the decision; the signing time matters only where the policy accepts
    /// signatures that are proven to be older than the revocation.
    pub(super) fn step_12_revocation(
        &self,
        chain: Option<&VerifiedChain>,
        times: &SigningTimes,
    ) -> Result<(), Denial> {
        let Some(chain) = chain else { return Ok(()) };
        let check = RevocationCheck {
            evidence: &self.revocation,
            policy: &self.policy.revocation,
            now: self.now,
            // The latest of the proven times: "before the revocation" must hold for every one of them.
            proven_at: times.iter().max(),
            intermediates: self.issuers,
            verifier: self.cached,
        };
        let result = check.check_chain(chain, &mut Budget::default()).map(|_| ()).map_err(|denial| {
            match denial.code {
                ReasonCode::Revoked | ReasonCode::RevocationStale | ReasonCode::RevocationUnknown => denial,
                // Running out of budget leaves the status unknown; only the three codes belong to this step.
                _ => Denial::new(ReasonCode::RevocationUnknown, denial.detail),
            }
        });
        self.enforce(12, result)
    }
}
