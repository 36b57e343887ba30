//! CRL validation (RFC 5280 §6.3.3): which lists speak about a certificate, who may sign them, and what they say.

use alloc::vec::Vec;

use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::crl::{CertificateScope, Crl, CrlEntry, Indirection, RevocationReason};
use crate::extension::{DistributionPoint, DistributionPointName, KeyUsage, ReasonFlags};
use crate::general_name::GeneralName;
use crate::name::CanonicalName;
use crate::oid;
use crate::path::{PathPolicy, Subject, build_path_where};
use crate::path_validation::check_critical_extensions;
use crate::reason::{Denial, ReasonCode};
use crate::revocation::RevocationStatus;
use crate::revocation_assessment::{Assessor, Findings, MAX_SIGNER_DEPTH, keep_gravest, stale, unknown};
use crate::time::UnixTime;

/// What lists that are limited to some reasons add up to.
struct Covered {
    reasons: ReasonFlags,
    this_update: UnixTime,
    next_update: UnixTime,
}

impl<'a> Assessor<'a, '_> {
    /// Looks the certificate up in every list that covers it.
    pub(crate) fn weigh_crls(
        &mut self,
        certificate: &Certificate,
        issuer: &Certificate,
        findings: &mut Findings,
    ) -> Result<(), Denial> {
        let check = self.check;
        let given = self.points_of_leaf.filter(|_| self.scope.chain.first() == Some(certificate));
        let points = given.or(certificate.crl_distribution_points());
        let points: Vec<DistributionPoint<'_>> =
            points.map(|points| points.iter().collect()).unwrap_or_default();
        let mut partial: Option<Covered> = None;
        for crl in check.evidence.crls.iter().filter(|crl| crl.base_number().is_none()) {
            self.budget.spend_comparison(crl.issuer_name().length())?;
            let Some(reasons) = covered_reasons(certificate, &points, crl, self.budget)? else { continue };
            if let Some(problem) = crl.unusable() {
                findings.fell_short(unknown(problem));
                continue;
            }
            let signer = match self.authorise_signer(crl, issuer) {
                Ok(signer) => signer,
                Err(denial) if denial.code == ReasonCode::BudgetExceeded => return Err(denial),
                Err(denial) => {
                    findings.fell_short(denial);
                    continue;
                }
            };
            let delta = match self.find_delta(crl, &signer, certificate, findings) {
                Ok(delta) => delta,
                Err(exceeded) => {
                    // Deltas that nobody could read take nothing back but a hold.
                    let listed = crl.entry(certificate.serial(), certificate.issuer_name());
                    if let Some(entry) = listed.filter(is_final) {
                        findings.revoked_by_old(entry.effective_date(), entry.reason);
                    }
                    return Err(exceeded);
                }
            };
            let newest = delta.unwrap_or(crl);
            let current = check.is_current(newest.this_update(), newest.next_update());
            if let Some(entry) = look_up(certificate, crl, delta, self.budget)? {
                if current {
                    findings.revoked(entry.effective_date(), entry.reason);
                } else {
                    findings.revoked_by_old(entry.effective_date(), entry.reason);
                    findings.fell_short(stale("the CRL is not current"));
                }
                continue;
            }
            let Some(next_update) = newest.next_update().filter(|_| current) else {
                findings.fell_short(stale("the CRL is not current"));
                continue;
            };
            let expired = check.now > certificate.not_after();
            if expired && crl.expired_certificates_from().is_none_or(|from| from > certificate.not_after()) {
                findings.fell_short(unknown("the CRL does not keep certificates that expired"));
                continue;
            }
            if reasons.covers(ReasonFlags::ALL) {
                findings.good(newest.this_update(), next_update);
                continue;
            }
            let so_far = partial.get_or_insert(Covered {
                reasons: ReasonFlags::NONE,
                this_update: newest.this_update(),
                next_update,
            });
            so_far.reasons = so_far.reasons.union(reasons);
            so_far.this_update = so_far.this_update.min(newest.this_update());
            so_far.next_update = so_far.next_update.min(next_update);
        }
        match partial {
            Some(all) if all.reasons.covers(ReasonFlags::ALL) => {
                findings.good(all.this_update, all.next_update)
            }
            Some(_) => findings.fell_short(unknown("the CRLs do not cover every reason for a revocation")),
            None => {}
        }
        Ok(())
    }

    /// The earliest revocation in the complete lists that were verified with the issuer's key when they were loaded:
    /// looking there takes no signature check. A hold is left to the full assessment, since a delta may have ended it.
    pub(crate) fn listed_when_loaded(
        &mut self,
        certificate: &Certificate,
        issuer: &Certificate,
    ) -> Option<(UnixTime, RevocationReason)> {
        if issuer.key_usage().is_some_and(|usage| !usage.contains(KeyUsage::CRL_SIGN)) {
            return None;
        }
        let points = certificate.crl_distribution_points();
        let points: Vec<DistributionPoint<'_>> =
            points.map(|points| points.iter().collect()).unwrap_or_default();
        let mut earliest = None;
        let check = self.check;
        let verified = |crl: &&Crl| {
            crl.base_number().is_none()
                && crl.was_verified_with(issuer)
                && crl.issuer_name() == issuer.subject_name()
                && crl.this_update() <= issuer.not_after()
                && crl.unusable().is_none()
        };
        for crl in check.evidence.crls.iter().filter(verified) {
            let listed = self
                .budget
                .spend_comparison(crl.issuer_name().length())
                .and_then(|()| covered_reasons(certificate, &points, crl, self.budget));
            let Ok(covered) = listed else { break };
            if covered.is_none() {
                continue;
            }
            let listed = crl.entry_within(certificate.serial(), certificate.issuer_name(), self.budget);
            let Ok(listed) = listed else { break };
            if let Some(entry) = listed.filter(is_final) {
                keep_gravest(&mut earliest, entry.effective_date(), entry.reason);
            }
        }
        earliest
    }

    /// §6.3.3 (f) and (g): a certificate whose key signed the list and that may sign lists of this issuer here.
    fn authorise_signer(&mut self, crl: &Crl, issuer: &Certificate) -> Result<Certificate, Denial> {
        let check = self.check;
        let chain = self.scope.chain;
        let mut failure =
            Denial::new(ReasonCode::UnknownIssuer, "no certificate of the CRL's issuer is at hand");
        // The certificate's own issuer comes first, then its ancestors, then strangers of that name.
        let inside = core::iter::once(issuer).chain(chain.iter().skip(1).filter(|c| *c != issuer));
        for signer in inside.filter(|c| c.subject_name() == crl.issuer_name()) {
            match self.check_signature(crl, signer) {
                Ok(()) if signer.not_after() < crl.this_update() => {
                    failure = unknown("the CRL's issuer had expired when it issued the CRL");
                }
                // Only certificates of the chain are known to be authorised; an issuer outside of it (of a CRL
                // issuer, say) is one of a path that was validated just before.
                Ok(()) => return Ok(signer.clone()),
                Err(denial) => failure = keep_budget(denial)?,
            }
        }
        let outside = check.evidence.certificates.iter().chain(check.intermediates);
        let outside =
            outside.filter(|c| c.subject_name() == crl.issuer_name() && *c != issuer && !chain.contains(c));
        for signer in outside {
            self.budget.spend_steps(1)?;
            let outcome = self
                .check_signature(crl, signer)
                .and_then(|()| check_critical_extensions(signer))
                .and_then(|()| self.authorise_outsider(crl, signer));
            match outcome {
                Ok(()) => return Ok(signer.clone()),
                Err(denial) => failure = keep_budget(denial)?,
            }
        }
        Err(failure)
    }

    fn check_signature(&mut self, crl: &Crl, signer: &Certificate) -> Result<(), Denial> {
        if signer.key_usage().is_some_and(|usage| !usage.contains(KeyUsage::CRL_SIGN)) {
            return Err(Denial::new(ReasonCode::UsageNotAllowed, "the CRL issuer's key usage lacks cRLSign"));
        }
        if !crl.was_verified_with(signer) {
            self.budget.spend_signature_check(crl.tbs().len())?;
        }
        crl.verify_signature(signer, self.check.verifier)
    }

    /// A signer outside of the chain needs a path to the same trust anchor and must not be revoked itself.
    fn authorise_outsider(&mut self, crl: &Crl, signer: &Certificate) -> Result<(), Denial> {
        if self.in_progress.iter().any(|(list, known)| list == crl && known == signer) {
            return Ok(());
        }
        if self.in_progress.len() >= MAX_SIGNER_DEPTH {
            return Err(unknown("the CRL issuers' own CRLs lead too far"));
        }
        let check = self.check;
        let chain = self.scope.chain;
        let anchor = chain.last().ok_or(unknown("there is no trust anchor"))?;
        let inner = chain.iter().skip(1).chain(&check.evidence.certificates).chain(check.intermediates);
        let candidates: Vec<Certificate> = inner.filter(|c| *c != anchor).cloned().collect();
        let policy = PathPolicy { subject: Subject::Any, ..PathPolicy::default() };
        let path = build_path_where(
            signer,
            &candidates,
            core::slice::from_ref(anchor),
            check.now,
            &policy,
            check.verifier,
            self.budget,
            &mut |_, _| Ok(()),
        )?;
        self.in_progress.push((crl.clone(), signer.clone()));
        let mut outcome = Ok(());
        for (certificate, issuer) in path.links() {
            // The chain's own certificates are checked for the chain's sake.
            if chain.iter().skip(1).any(|known| known == certificate) {
                continue;
            }
            outcome = self.assess(certificate, issuer).and_then(|assessment| match assessment.status {
                RevocationStatus::Good { .. } if assessment.revoked_by_old_evidence.is_none() => Ok(()),
                RevocationStatus::Unknown => {
                    Err(unknown("the revocation status of the CRL's issuer is unknown"))
                }
                _ => Err(unknown("the CRL's issuer is revoked")),
            });
            if outcome.is_err() {
                break;
            }
        }
        self.in_progress.pop();
        outcome
    }

    /// §6.3.3 (c) and (h): the newest delta that goes with a complete list. What other deltas of the same scope and
    /// signer say, whatever their dates and numbers, is found as old evidence.
    fn find_delta(
        &mut self,
        base: &Crl,
        signer: &Certificate,
        certificate: &Certificate,
        findings: &mut Findings,
    ) -> Result<Option<&'a Crl>, Denial> {
        let check = self.check;
        let mut newest: Option<&Crl> = None;
        let mut holds: Vec<(&Crl, CrlEntry)> = Vec::new();
        for delta in &check.evidence.crls {
            let (Some(since), Some(base_number), Some(number)) =
                (delta.base_number(), base.number(), delta.number())
            else {
                continue;
            };
            self.budget.spend_steps(1)?;
            let same_scope = delta.issuer_name() == base.issuer_name()
                && delta.distribution_point_der() == base.distribution_point_der()
                && delta.authority_key_identifier_der() == base.authority_key_identifier_der()
                && delta.unusable().is_none();
            if !same_scope {
                continue;
            }
            let fits = since <= base_number
                && base_number < number
                && check.is_current(delta.this_update(), delta.next_update())
                && newest.is_none_or(|known| known.number() < Some(number));
            let listed = delta
                .entry_within(certificate.serial(), certificate.issuer_name(), self.budget)?
                .filter(|entry| entry.reason != RevocationReason::RemoveFromCrl);
            if !fits && listed.is_none() {
                continue;
            }
            if let Err(denial) = self.check_signature(delta, signer) {
                drop(keep_budget(denial)?);
                continue;
            }
            if fits {
                newest = Some(delta);
            }
            match listed {
                Some(entry) if is_final(&entry) => {
                    findings.revoked_by_old(entry.effective_date(), entry.reason);
                }
                Some(entry) => holds.push((delta, entry)),
                None => {}
            }
        }
        // A newer list without the hold has ended it.
        let decided_by = newest.unwrap_or(base).number();
        for (_, entry) in holds.iter().filter(|(delta, _)| delta.number() > decided_by) {
            findings.revoked_by_old(entry.effective_date(), entry.reason);
        }
        Ok(newest)
    }
}

/// Lets only the end of the budget through as an error.
fn keep_budget(denial: Denial) -> Result<Denial, Denial> {
    if denial.code == ReasonCode::BudgetExceeded { Err(denial) } else { Ok(denial) }
}

/// Whether an entry is a revocation that cannot be taken back.
fn is_final(entry: &CrlEntry) -> bool {
    !matches!(entry.reason, RevocationReason::CertificateHold | RevocationReason::RemoveFromCrl)
}

/// §6.3.3 (i) and (j).
fn look_up(
    certificate: &Certificate,
    crl: &Crl,
    delta: Option<&Crl>,
    budget: &mut Budget,
) -> Result<Option<CrlEntry>, Denial> {
    let (serial, issuer) = (certificate.serial(), certificate.issuer_name());
    let by_delta = delta.map(|delta| delta.entry_within(serial, issuer, budget)).transpose()?.flatten();
    match by_delta {
        Some(entry) if entry.reason == RevocationReason::RemoveFromCrl => Ok(None),
        Some(entry) => Ok(Some(entry)),
        None => crl.entry_within(serial, issuer, budget),
    }
}

/// §6.3.3 (b), (d): the reasons for which this list covers the certificate; `None` if it does not.
fn covered_reasons(
    certificate: &Certificate,
    points: &[DistributionPoint<'_>],
    crl: &Crl,
    budget: &mut Budget,
) -> Result<Option<ReasonFlags>, Denial> {
    let same_issuer = crl.issuer_name() == certificate.issuer_name();
    if !same_issuer && points.iter().all(|point| point.crl_issuer.is_none()) {
        return Ok(None);
    }
    budget.spend_steps(cost_of_comparing(certificate, points, crl))?;
    Ok(reasons_of(certificate, points, crl))
}

/// Every name of every distribution point is compared with every name of the list's, by their lengths.
fn cost_of_comparing(certificate: &Certificate, points: &[DistributionPoint<'_>], crl: &Crl) -> usize {
    let count = |name: &DistributionPointName<'_>| match name {
        DistributionPointName::Full(names) => names.iter().count(),
        DistributionPointName::Relative(_) => 1,
    };
    let of_points: usize = points.iter().map(|point| point.name.as_ref().map_or(1, count)).sum();
    let of_list = crl.distribution_point_name().as_ref().map_or(0, count);
    let octets = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len) / 16;
    let of_certificate = octets(certificate.extension(&oid::CRL_DISTRIBUTION_POINTS).map(|(value, _)| value));
    let list = octets(crl.distribution_point_der());
    of_points.saturating_mul(list).saturating_add(of_list.saturating_mul(of_certificate + 1))
}

fn reasons_of(certificate: &Certificate, points: &[DistributionPoint<'_>], crl: &Crl) -> Option<ReasonFlags> {
    let in_scope = match crl.scope() {
        CertificateScope::All => true,
        CertificateScope::EndEntity => !certificate.is_ca(),
        CertificateScope::Ca => certificate.is_ca(),
        CertificateScope::Attribute => false,
    };
    if !in_scope {
        return None;
    }
    let of_list = crl.reasons().unwrap_or(ReasonFlags::ALL);
    let mut covered: Option<ReasonFlags> = None;
    for point in points.iter().filter(|point| point_fits(certificate, point, crl)) {
        let reasons = of_list.intersection(point.reasons.unwrap_or(ReasonFlags::ALL));
        covered = Some(covered.unwrap_or(ReasonFlags::NONE).union(reasons));
    }
    // A list of the certificate's issuer that no distribution point names is as good as if one did (end of §6.3.3).
    if crl.issuer_name() == certificate.issuer_name() && implied_point_fits(certificate, crl) {
        covered = Some(covered.unwrap_or(ReasonFlags::NONE).union(of_list));
    }
    covered
}

fn point_fits(certificate: &Certificate, point: &DistributionPoint<'_>, crl: &Crl) -> bool {
    let issuers: Vec<CanonicalName> = match &point.crl_issuer {
        Some(names) => names.iter().filter_map(|name| name.directory()).collect(),
        None => Vec::from([certificate.issuer_name().clone()]),
    };
    if !issuers.contains(crl.issuer_name()) {
        return false;
    }
    if point.crl_issuer.is_some() && crl.indirection() != Indirection::Indirect {
        return false;
    }
    let Some(of_list) = crl.distribution_point_name() else { return true };
    match (&point.name, &point.crl_issuer) {
        (Some(name), _) => names_meet(name, &issuers, &of_list, crl.issuer_name()),
        (None, Some(issuers)) => {
            names_meet(&DistributionPointName::Full(*issuers), &[], &of_list, crl.issuer_name())
        }
        (None, None) => false,
    }
}

/// A list without a distribution point name, or with the issuer's own name as one.
fn implied_point_fits(certificate: &Certificate, crl: &Crl) -> bool {
    match crl.distribution_point_name() {
        None => true,
        Some(DistributionPointName::Full(names)) => {
            names.iter().any(|name| name.directory().as_ref() == Some(certificate.issuer_name()))
        }
        Some(DistributionPointName::Relative(_)) => false,
    }
}

/// True if one name of the certificate's distribution point is one of the list's; relative names are completed with
/// the name of the CRL's issuer.
fn names_meet(
    of_point: &DistributionPointName<'_>,
    point_issuers: &[CanonicalName],
    of_list: &DistributionPointName<'_>,
    list_issuer: &CanonicalName,
) -> bool {
    let complete = |rdn, issuers: &[CanonicalName]| -> Vec<CanonicalName> {
        issuers.iter().filter_map(|issuer| issuer.with_rdn(rdn).ok()).collect()
    };
    let list_issuers = core::slice::from_ref(list_issuer);
    match (of_point, of_list) {
        (DistributionPointName::Full(a), DistributionPointName::Full(b)) => {
            a.iter().any(|a| b.iter().any(|b| a.equals(&b)))
        }
        (DistributionPointName::Relative(rdn), DistributionPointName::Full(names)) => {
            holds_directory(names.iter(), &complete(*rdn, point_issuers))
        }
        (DistributionPointName::Full(names), DistributionPointName::Relative(rdn)) => {
            holds_directory(names.iter(), &complete(*rdn, list_issuers))
        }
        (DistributionPointName::Relative(a), DistributionPointName::Relative(b)) => {
            let of_list = complete(*b, list_issuers);
            complete(*a, point_issuers).iter().any(|name| of_list.contains(name))
        }
    }
}

fn holds_directory<'a>(names: impl Iterator<Item = GeneralName<'a>>, wanted: &[CanonicalName]) -> bool {
    names.filter_map(|name| name.directory()).any(|name| wanted.contains(&name))
}
