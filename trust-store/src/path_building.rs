//! Path building (RFC 4158): a depth-first search from the certificate asked about towards the anchors.
//!
//! Cheap checks (validity, usage, path length) come before a signature check; a pair of certificates is checked once,
//! whatever number of paths it lies on; and every candidate looked at costs a step of the budget.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use tlog::signature::SignatureVerifier;

use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::path::{MAX_DEPTH, PathPolicy, Precertificates, Subject, VerifiedChain};
use crate::path_validation;
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;

/// One search.
pub(crate) struct Builder<'a> {
    pub(crate) leaf: &'a Certificate,
    pub(crate) intermediates: &'a [Certificate],
    pub(crate) anchors: &'a [Certificate],
    pub(crate) time: UnixTime,
    pub(crate) policy: &'a PathPolicy,
    pub(crate) verifier: &'a dyn SignatureVerifier,
}

/// A called-back check of a path that is otherwise valid.
pub(crate) type Accept<'c> = dyn FnMut(&VerifiedChain, &mut Budget) -> Result<(), Denial> + 'c;

/// Where a certificate of the search comes from; its order is that of the slices.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Place {
    Leaf,
    Intermediate(usize),
    Anchor(usize),
}

struct Search<'s, 'c> {
    budget: &'s mut Budget,
    accept: &'s mut Accept<'c>,
    checked: BTreeMap<(Place, Place), bool>,
    best_failure: Option<Denial>,
}

impl<'a> Builder<'a> {
    pub(crate) fn build(
        &self,
        budget: &mut Budget,
        accept: &mut Accept<'_>,
    ) -> Result<VerifiedChain, Denial> {
        self.check_leaf()?;
        let mut search = Search { budget, accept, checked: BTreeMap::new(), best_failure: None };
        let mut path = Vec::from([(Place::Leaf, self.leaf)]);
        if let Some(chain) = self.extend(&mut path, &mut search)? {
            return Ok(chain);
        }
        Err(search.best_failure.unwrap_or(Denial::new(
            ReasonCode::UnknownIssuer,
            "no candidate certificate has the issuer's name",
        )))
    }

    /// What holds or fails whatever the path is.
    fn check_leaf(&self) -> Result<(), Denial> {
        let leaf = self.leaf;
        path_validation::check_validity(leaf, self.time)?;
        if leaf.is_precertificate() && self.policy.precertificates == Precertificates::Refused {
            return Err(Denial::new(ReasonCode::CriticalExtension, "the certificate is a precertificate"));
        }
        path_validation::check_critical_extensions(leaf)?;
        if leaf.is_ca() && self.policy.subject == Subject::EndEntityOnly {
            return Err(Denial::new(
                ReasonCode::UsageNotAllowed,
                "the certificate is a CA; an end-entity certificate is needed",
            ));
        }
        let required = self.policy.required_key_usage;
        if !leaf.key_usage().unwrap_or_default().contains(required) {
            return Err(Denial::new(
                ReasonCode::UsageNotAllowed,
                "the certificate lacks a required key usage",
            ));
        }
        if let Some(purpose) = &self.policy.required_eku
            && !leaf.extended_key_usage().is_some_and(|usage| usage.lists(purpose.as_bytes()))
        {
            return Err(Denial::new(
                ReasonCode::UsageNotAllowed,
                alloc::format!("the certificate does not list the extended key usage {purpose}"),
            ));
        }
        if let Some(name) = &self.policy.required_name
            && !crate::name_match::bears_name(leaf, name)
        {
            return Err(Denial::new(
                ReasonCode::IdentityDenied,
                "the certificate does not bear the required name",
            ));
        }
        Ok(())
    }

    /// Tries every candidate issuer of the last certificate of `path`. `Ok(None)` means that none led to an anchor;
    /// an error ends the whole search.
    fn extend(
        &self,
        path: &mut Vec<(Place, &'a Certificate)>,
        search: &mut Search<'_, '_>,
    ) -> Result<Option<VerifiedChain>, Denial> {
        let Some((child_place, child)) = path.last().copied() else { return Ok(None) };
        let anchors = self.anchors.iter().enumerate().map(|(i, c)| (Place::Anchor(i), c));
        let intermediates = self.intermediates.iter().enumerate().map(|(i, c)| (Place::Intermediate(i), c));
        let mut candidates: Vec<(Place, &'a Certificate)> = Vec::new();
        search.budget.spend_steps(self.anchors.len() + self.intermediates.len())?;
        let name = child.issuer_name();
        for (place, candidate) in anchors.chain(intermediates) {
            if candidate.subject_name().length() != name.length() {
                continue;
            }
            search.budget.spend_comparison(name.length())?;
            if candidate.subject_name() == name {
                candidates.push((place, candidate));
            }
        }
        // A key identifier that fits is the better guess; the order is otherwise kept, anchors first.
        let wanted = child.authority_key_identifier().and_then(|identifier| identifier.key_identifier);
        candidates.sort_by_cached_key(|(place, candidate)| {
            let misfits =
                matches!((wanted, candidate.subject_key_identifier()), (Some(a), Some(b)) if a != b);
            (misfits, !matches!(place, Place::Anchor(_)))
        });
        for (place, candidate) in candidates {
            for _ in 0..path.len() {
                search.budget.spend_comparison(name.length() + candidate.spki_der().len())?;
            }
            let repeats = path.iter().any(|(_, earlier)| {
                earlier.subject_name() == candidate.subject_name()
                    && earlier.spki_der() == candidate.spki_der()
            });
            if repeats {
                continue;
            }
            if let Err(denial) = self.check_candidate(path, place, candidate) {
                search.fail(denial);
                continue;
            }
            if !self.is_signed_by((child_place, child), (place, candidate), search)? {
                continue;
            }
            path.push((place, candidate));
            let found = match place {
                Place::Anchor(_) => self.finish(path, search)?,
                _ => self.extend(path, search)?,
            };
            path.pop();
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn check_candidate(
        &self,
        path: &[(Place, &Certificate)],
        place: Place,
        candidate: &Certificate,
    ) -> Result<(), Denial> {
        let max_depth = self.policy.max_depth.unwrap_or(MAX_DEPTH).min(MAX_DEPTH);
        if matches!(place, Place::Intermediate(_)) && path.len() > max_depth {
            return Err(Denial::new(ReasonCode::PathLength, "the path is longer than the depth limit"));
        }
        path_validation::check_validity(candidate, self.time)?;
        path_validation::check_issuing_usage(candidate)?;
        path_validation::check_critical_extensions(candidate)?;
        // A self-issued certificate does not count, except that the last one of a path is no intermediate.
        let below = path.iter().skip(1).filter(|(_, c)| !c.is_self_issued()).count();
        let limit = candidate.basic_constraints().and_then(|constraints| constraints.path_length);
        if limit.is_some_and(|limit| u32::try_from(below).is_ok_and(|below| below > limit)) {
            return Err(Denial::new(
                ReasonCode::PathLength,
                "the path is longer than a certificate's path length allows",
            ));
        }
        if let Some(purpose) = &self.policy.required_eku
            && candidate.extended_key_usage().is_some_and(|usage| !usage.lists_or_any(purpose.as_bytes()))
        {
            return Err(Denial::new(
                ReasonCode::UsageNotAllowed,
                alloc::format!("an issuer is limited to purposes other than {purpose}"),
            ));
        }
        Ok(())
    }

    fn is_signed_by(
        &self,
        child: (Place, &Certificate),
        issuer: (Place, &Certificate),
        search: &mut Search<'_, '_>,
    ) -> Result<bool, Denial> {
        if let Some(known) = search.checked.get(&(child.0, issuer.0)) {
            return Ok(*known);
        }
        search.budget.spend_signature_check(child.1.tbs().len())?;
        let outcome = child.1.verify_signature(issuer.1, self.verifier);
        let valid = outcome.is_ok();
        search.checked.insert((child.0, issuer.0), valid);
        if let Err(denial) = outcome {
            search.fail(denial);
        }
        Ok(valid)
    }

    /// Runs the checks that depend on the whole path, then the caller's.
    fn finish(
        &self,
        path: &[(Place, &'a Certificate)],
        search: &mut Search<'_, '_>,
    ) -> Result<Option<VerifiedChain>, Denial> {
        let certificates: Vec<&Certificate> = path.iter().map(|(_, certificate)| *certificate).collect();
        let validated =
            path_validation::validate(&certificates, self.policy, search.budget).and_then(|policies| {
                let certificates = certificates.iter().map(|certificate| (*certificate).clone()).collect();
                let chain = VerifiedChain::assert_verified(certificates, self.time, policies);
                (search.accept)(&chain, search.budget).map(|()| chain)
            });
        match validated {
            Ok(chain) => Ok(Some(chain)),
            Err(denial) if denial.code == ReasonCode::BudgetExceeded => Err(denial),
            Err(denial) => {
                search.fail(denial);
                Ok(None)
            }
        }
    }
}

impl Search<'_, '_> {
    fn fail(&mut self, denial: Denial) {
        if self.best_failure.as_ref().is_none_or(|best| rank(best.code) < rank(denial.code)) {
            self.best_failure = Some(denial);
        }
    }
}

/// How far a path came before it failed with this reason: the furthest one tells the reader most.
fn rank(code: ReasonCode) -> u8 {
    match code {
        ReasonCode::UnknownIssuer => 0,
        ReasonCode::AlgorithmNotAllowed => 1,
        ReasonCode::NotYetValid => 2,
        ReasonCode::ExpiredAtSigning => 3,
        ReasonCode::UsageNotAllowed => 4,
        ReasonCode::CriticalExtension => 5,
        ReasonCode::PathLength => 6,
        ReasonCode::PolicyNotAllowed => 7,
        ReasonCode::NameNotAllowed => 8,
        ReasonCode::RevocationUnknown => 9,
        ReasonCode::RevocationStale => 10,
        ReasonCode::Revoked => 11,
        _ => 8,
    }
}
