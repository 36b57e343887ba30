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
        chains: &[VerifiedChain],
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
        let mut budget = self.budget.borrow_mut();
        let mut failed: Vec<Denial> = Vec::new();
        // Every chain is looked at before an answer is given, all of the signer's too, where two signing times needed two: a
        // revocation that is shown is what is reported. What was verified on load comes first, for all of them, so that no
        // weighing of junk takes its budget.
        for chain in chains {
            failed.extend(check.refuse_listed(chain, &mut budget).err());
        }
        for (chain, time) in times.authorities() {
            failed.extend(check.refuse_listed_authority(chain, time, &mut budget).err());
        }
        if failed.is_empty() {
            for chain in chains {
                failed.extend(check.weigh_chain(chain, &mut budget).err());
            }
            for (chain, time) in times.authorities() {
                failed.extend(check.weigh_authority(chain, time, &mut budget).err());
            }
        }
        let with = |code| failed.iter().position(|denial| denial.code == code);
        let exceeded = with(ReasonCode::BudgetExceeded);
        if exceeded.is_some() {
            self.unread.set(true);
        }
        let revoked = with(ReasonCode::Revoked);
        let reported = revoked.or(exceeded).or(if failed.is_empty() { None } else { Some(0) });
        let result = reported.map_or(Ok(()), |index| Err(failed.swap_remove(index)));
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
            // No evidence that may still arrive changes that: whoever wrote the attestation brought too much along.
            ReasonCode::BudgetExceeded => Denial::new(code, detail),
            // Only these three codes and that one come from here.
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
