//! Step 12: no certificate of the chain is revoked, and that is shown; nor is the timestamp authority.

use alloc::format;
use alloc::vec::Vec;

use super::Session;
use super::signing_time::SigningTimes;
use crate::path::VerifiedChain;
use crate::policy::EarlierSignatures;
use crate::reason::{Denial, ReasonCode};
use crate::revocation::RevocationCheck;
use crate::time::UnixTime;

impl Session<'_> {
    /// Evidence is judged at the time of the decision. When the signature was stamped and `logged` matters only where the
    /// policy accepts signatures that are proven to be older than the revocation. Both must be: a timestamp is the word of one
    /// key, and nobody could have seen a signature that was kept out of the logs until the theft of its key was known.
    pub(super) fn step_12_revocation(
        &self,
        chain: Option<&VerifiedChain>,
        times: &SigningTimes,
        logged: Option<UnixTime>,
    ) -> Result<(), Denial> {
        let check = RevocationCheck {
            evidence: &self.revocation,
            policy: &self.policy.revocation,
            now: self.now,
            // The latest of the proven times: "before the revocation" must hold for every one of them.
            proven_at: logged.and_then(|logged| times.iter().chain([logged]).max()),
            intermediates: self.issuers,
            verifier: self.cached,
        };
        let mut budget = self.statuses.borrow_mut();
        let of_signer = chain.map_or(Ok(()), |chain| check.check_chain(chain, &mut budget).map(drop));
        let of_authorities = times
            .authorities()
            .map(|(chain, time)| check.check_timestamp_authority(chain, time, &mut budget));
        let ended = |denial: &Denial| denial.code == ReasonCode::BudgetExceeded;
        if of_signer.as_ref().is_err_and(ended) {
            self.unread.set(true);
        }
        // Every chain is looked at before an answer is given: a revocation that is shown is what is reported.
        let result = match of_signer {
            Err(denial) if denial.code == ReasonCode::Revoked => Err(denial),
            other => {
                let failed: Vec<Denial> = of_authorities.filter_map(Result::err).collect();
                if failed.iter().any(ended) {
                    self.unread.set(true);
                }
                let revoked = failed.iter().find(|denial| denial.code == ReasonCode::Revoked).cloned();
                revoked.map_or_else(|| other.and(failed.into_iter().next().map_or(Ok(()), Err)), Err)
            }
        };
        let result = result.map_err(|Denial { code, detail }| match code {
            ReasonCode::Revoked => {
                let rule = match self.policy.revocation.earlier_signatures {
                    EarlierSignatures::Reject => "admits nothing of a revoked certificate",
                    EarlierSignatures::AcceptProvenBefore => {
                        "accepts of its signer only what is shown to have been stamped and logged before"
                    }
                };
                Denial::new(code, format!("{detail}; `revocation` {rule}: sign again with a good one"))
            }
            // Running out of budget leaves the status unknown; only the three codes belong to this step.
            _ => {
                let code =
                    if code == ReasonCode::RevocationStale { code } else { ReasonCode::RevocationUnknown };
                let rule =
                    "`revocation` demands a current \"good\" for it: fetch its issuer's CRL or OCSP answer";
                Denial::new(code, format!("{detail}; {rule}"))
            }
        });
        self.enforce(12, result)
    }
}
