//! Weighs all evidence about one certificate (see [`crate::revocation`] for the rules).

use alloc::vec::Vec;

use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::crl::{Crl, RevocationReason};
use crate::extension::DistributionPoints;
use crate::ocsp::{CertificateStatus, OcspResponse, Responder};
use crate::reason::{Denial, ReasonCode};
use crate::revocation::{Assessment, RevocationCheck, RevocationStatus};
use crate::time::UnixTime;

/// How deep the status of a CRL issuer's or OCSP delegate's own certificate is followed.
pub(crate) const MAX_SIGNER_DEPTH: usize = 3;

/// The chain a question is asked in: the certificate first, the trust anchor last.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) chain: &'a [Certificate],
}

/// One assessment in progress.
pub(crate) struct Assessor<'a, 'b> {
    pub(crate) check: &'a RevocationCheck<'a>,
    pub(crate) scope: Scope<'a>,
    pub(crate) budget: &'b mut Budget,
    /// CRLs with the signer whose own status is being looked up because of them: a list may speak about the
    /// certificate of its own signer.
    pub(crate) in_progress: Vec<(Crl, Certificate)>,
    /// Stands for the distribution points of the first certificate of the chain.
    pub(crate) points_of_leaf: Option<DistributionPoints<'a>>,
}

/// What was found so far.
#[derive(Default)]
pub(crate) struct Findings {
    good: Option<(UnixTime, UnixTime)>,
    revoked: Option<(UnixTime, RevocationReason)>,
    revoked_by_old: Option<(UnixTime, RevocationReason)>,
    shortfall: Option<Denial>,
}

impl Findings {
    pub(crate) fn good(&mut self, this_update: UnixTime, next_update: UnixTime) {
        if self.good.is_none_or(|(newest, _)| newest < this_update) {
            self.good = Some((this_update, next_update));
        }
    }

    pub(crate) fn revoked(&mut self, at: UnixTime, reason: RevocationReason) {
        keep_gravest(&mut self.revoked, at, reason);
    }

    pub(crate) fn revoked_by_old(&mut self, at: UnixTime, reason: RevocationReason) {
        keep_gravest(&mut self.revoked_by_old, at, reason);
    }

    /// Remembers why evidence did not count; the explanation that comes closest to a verdict stays.
    pub(crate) fn fell_short(&mut self, denial: Denial) {
        let rank = |denial: &Denial| match denial.code {
            ReasonCode::RevocationStale => 2,
            ReasonCode::RevocationUnknown => 0,
            _ => 1,
        };
        if self.shortfall.as_ref().is_none_or(|kept| rank(kept) < rank(&denial)) {
            self.shortfall = Some(denial);
        }
    }
}

/// Keeps the earliest date with the gravest reason. A certificate that was first retired and later found compromised stands
/// in two genuine lists, often with one date; that the older one is read first must not make the compromise a retirement.
pub(crate) fn keep_gravest(
    kept: &mut Option<(UnixTime, RevocationReason)>,
    at: UnixTime,
    reason: RevocationReason,
) {
    *kept = Some(kept.map_or((at, reason), |(earliest, known)| {
        let own = if at < earliest { reason } else { known };
        (earliest.min(at), own.or_graver(known).or_graver(reason))
    }));
}

impl<'a, 'b> Assessor<'a, 'b> {
    pub(crate) fn new(check: &'a RevocationCheck<'a>, scope: Scope<'a>, budget: &'b mut Budget) -> Self {
        Self { check, scope, budget, in_progress: Vec::new(), points_of_leaf: None }
    }

    /// The verdict over all evidence. A revocation that was found stands, whatever the budget left unread.
    pub(crate) fn assess(
        &mut self,
        certificate: &Certificate,
        issuer: &Certificate,
    ) -> Result<Assessment, Denial> {
        let (assessment, weighed) = self.weigh(certificate, issuer);
        if assessment.revocation().is_some() { Ok(assessment) } else { weighed.map(|()| assessment) }
    }

    /// What was found, and `budget_exceeded` if that is not all that there is.
    pub(crate) fn weigh(
        &mut self,
        certificate: &Certificate,
        issuer: &Certificate,
    ) -> (Assessment, Result<(), Denial>) {
        let mut findings = Findings::default();
        let check = self.check;
        // What was asked for about this very certificate first: nobody's junk evidence takes the budget for that.
        let mut asked = check.evidence.answers.of(certificate).iter();
        let asked = asked.try_for_each(|answer| self.weigh_ocsp(answer, certificate, issuer, &mut findings));
        let weighed =
            asked.and_then(|()| self.weigh_crls(certificate, issuer, &mut findings)).and_then(|()| {
                let mut responses = check.evidence.ocsp.iter();
                responses
                    .try_for_each(|response| self.weigh_ocsp(response, certificate, issuer, &mut findings))
            });
        let status = match (findings.revoked, findings.good) {
            (Some((at, reason)), _) => RevocationStatus::Revoked { at, reason },
            (None, Some((this_update, next_update))) => RevocationStatus::Good { this_update, next_update },
            (None, None) => RevocationStatus::Unknown,
        };
        let shortfall = findings.shortfall.filter(|_| status == RevocationStatus::Unknown);
        let revoked_by_old_evidence = findings.revoked_by_old;
        (Assessment { status, revoked_by_old_evidence, shortfall }, weighed)
    }

    fn weigh_ocsp(
        &mut self,
        response: &OcspResponse,
        certificate: &Certificate,
        issuer: &Certificate,
        findings: &mut Findings,
    ) -> Result<(), Denial> {
        self.budget.spend_steps(1 + response.responses().len())?;
        if response.responses_for(certificate, issuer).next().is_none() {
            return Ok(());
        }
        if let Some(problem) = response.unusable() {
            findings.fell_short(Denial::new(ReasonCode::RevocationUnknown, problem));
            return Ok(());
        }
        if let Err(denial) = self.authorise_responder(response, issuer) {
            if denial.code == ReasonCode::BudgetExceeded {
                return Err(denial);
            }
            findings.fell_short(denial);
            return Ok(());
        }
        for single in response.responses_for(certificate, issuer) {
            let current = self.check.is_current(single.this_update(), single.next_update())
                && response.produced_at() <= self.check.now.plus(self.check.policy.clock_skew_seconds.max(0));
            match (single.status(), single.next_update()) {
                (CertificateStatus::Revoked { at, reason }, _) if current => findings.revoked(at, reason),
                (CertificateStatus::Revoked { at, reason }, _) => {
                    findings.revoked_by_old(at, reason);
                    findings.fell_short(stale("the OCSP answer is not current"));
                }
                (CertificateStatus::Unknown, _) => {
                    findings.fell_short(unknown("the OCSP responder does not know the certificate"));
                }
                (CertificateStatus::Good, _) if self.check.now > certificate.not_after() => {
                    findings
                        .fell_short(unknown("an OCSP answer does not count after the certificate's expiry"));
                }
                (CertificateStatus::Good, Some(next_update)) if current => {
                    findings.good(single.this_update(), next_update);
                }
                (CertificateStatus::Good, _) => findings.fell_short(stale("the OCSP answer is not current")),
            }
        }
        Ok(())
    }

    fn authorise_responder(&mut self, response: &OcspResponse, issuer: &Certificate) -> Result<(), Denial> {
        let (now, verifier) = (self.check.now, self.check.verifier);
        let responder = response.find_responder_within(issuer, now, verifier, self.budget)?;
        let Responder::Delegate(delegate) = responder else { return Ok(()) };
        if delegate.has_ocsp_nocheck() {
            return Ok(());
        }
        // RFC 6960 §4.2.2.2.1: without the nocheck extension the delegate's own status counts, by CRL.
        let mut findings = Findings::default();
        if self.in_progress.len() < MAX_SIGNER_DEPTH {
            self.weigh_crls(&delegate, issuer, &mut findings)?;
        }
        match (findings.revoked.or(findings.revoked_by_old), findings.good) {
            (None, Some(_)) => Ok(()),
            (Some(_), _) => Err(unknown("the OCSP responder's certificate is revoked")),
            (None, None) => Err(unknown("the OCSP responder's own revocation status is unknown")),
        }
    }
}

pub(crate) fn stale(detail: &'static str) -> Denial {
    Denial::new(ReasonCode::RevocationStale, detail)
}

pub(crate) fn unknown(detail: &'static str) -> Denial {
    Denial::new(ReasonCode::RevocationUnknown, detail)
}
