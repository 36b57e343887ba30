//! Validation of one given path (RFC 5280 §6.1), from the anchor down.
//!
//! Signatures, validity, basic constraints and key usage of every certificate were checked while the path was built;
//! here follows what needs the whole path: name constraints, path lengths and policies.

use alloc::format;

use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::extension::KeyUsage;
use crate::name_constraints::AccumulatedConstraints;
use crate::path::{AnyPolicyInCertificates, ExplicitPolicy, PathPolicy, PolicyMapping, ValidPolicies};
use crate::policy_tree::{AnyPolicy, Mapping, PolicyGraph};
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;

/// The state variables of §6.1.2 that count certificates.
struct Counters {
    explicit_policy: usize,
    policy_mapping: usize,
    inhibit_any_policy: usize,
    max_path_length: usize,
}

/// Validates `path`, the certificate asked about first and the anchor last, and gives the policies valid for it.
pub(crate) fn validate(
    path: &[&Certificate],
    policy: &PathPolicy,
    budget: &mut Budget,
) -> Result<ValidPolicies, Denial> {
    let Some((anchor, below)) = path.split_last() else {
        return Err(Denial::new(ReasonCode::UnknownIssuer, "the path is empty"));
    };
    let n = below.len();
    let start = |inhibited: bool| if inhibited { 0 } else { n + 1 };
    let mut counters = Counters {
        explicit_policy: start(policy.explicit_policy == ExplicitPolicy::Required),
        policy_mapping: start(policy.policy_mapping == PolicyMapping::Inhibited),
        inhibit_any_policy: start(policy.any_policy == AnyPolicyInCertificates::Ignored),
        max_path_length: n,
    };
    let mut constraints = AccumulatedConstraints::default();
    let mut graph = PolicyGraph::new();
    // RFC 5937: the anchor's own limits hold for what is below it.
    constraints.add(anchor, budget)?;
    counters.limit_path_length(anchor);

    for (i, certificate) in below.iter().rev().enumerate() {
        let is_last = i + 1 == n;
        budget.spend_steps(1)?;
        if is_last || !certificate.is_self_issued() {
            constraints.check(certificate, budget)?;
        }
        let any_counts = counters.inhibit_any_policy > 0 || (!is_last && certificate.is_self_issued());
        let any_policy = if any_counts { AnyPolicy::Counts } else { AnyPolicy::Ignored };
        graph.add_certificate(certificate, any_policy, budget)?;
        if counters.explicit_policy == 0 && graph.is_null() {
            return Err(no_valid_policy());
        }
        if is_last {
            counters.explicit_policy = counters.explicit_policy.saturating_sub(1);
            let constraints = certificate.policy_constraints().unwrap_or_default();
            if constraints.require_explicit_policy == Some(0) {
                counters.explicit_policy = 0;
            }
        } else {
            prepare_for_next(certificate, &mut counters, &mut constraints, &mut graph, budget)?;
        }
    }

    let valid = graph.user_constrained(&policy.initial_policies, budget)?;
    if counters.explicit_policy == 0 && valid == ValidPolicies::None {
        return Err(no_valid_policy());
    }
    Ok(valid)
}

/// §6.1.4 for a certificate that is not the last.
fn prepare_for_next<'a>(
    certificate: &'a Certificate,
    counters: &mut Counters,
    constraints: &mut AccumulatedConstraints<'a>,
    graph: &mut PolicyGraph<'a>,
    budget: &mut Budget,
) -> Result<(), Denial> {
    let mapping = if counters.policy_mapping > 0 { Mapping::Allowed } else { Mapping::Inhibited };
    graph.map(certificate, mapping, budget)?;
    constraints.add(certificate, budget)?;
    if !certificate.is_self_issued() {
        counters.explicit_policy = counters.explicit_policy.saturating_sub(1);
        counters.policy_mapping = counters.policy_mapping.saturating_sub(1);
        counters.inhibit_any_policy = counters.inhibit_any_policy.saturating_sub(1);
        counters.max_path_length = counters.max_path_length.checked_sub(1).ok_or(Denial::new(
            ReasonCode::PathLength,
            "the path is longer than a certificate's path length allows",
        ))?;
    }
    let limits = certificate.policy_constraints().unwrap_or_default();
    lower(&mut counters.explicit_policy, limits.require_explicit_policy);
    lower(&mut counters.policy_mapping, limits.inhibit_policy_mapping);
    lower(&mut counters.inhibit_any_policy, certificate.inhibit_any_policy());
    counters.limit_path_length(certificate);
    Ok(())
}

impl Counters {
    fn limit_path_length(&mut self, certificate: &Certificate) {
        lower(&mut self.max_path_length, certificate.basic_constraints().and_then(|c| c.path_length));
    }
}

fn lower(counter: &mut usize, limit: Option<u32>) {
    if let Some(limit) = limit {
        *counter = (*counter).min(limit as usize);
    }
}

fn no_valid_policy() -> Denial {
    Denial::new(
        ReasonCode::PolicyNotAllowed,
        "no certificate policy is valid for the path although one is required",
    )
}

/// §6.1.3 (a)(2).
pub(crate) fn check_validity(certificate: &Certificate, time: UnixTime) -> Result<(), Denial> {
    if time < certificate.not_before() {
        return Err(Denial::new(
            ReasonCode::NotYetValid,
            format!("a certificate is valid from {}, after {time}", certificate.not_before()),
        ));
    }
    if time > certificate.not_after() {
        return Err(Denial::new(
            ReasonCode::ExpiredAtSigning,
            format!("a certificate expired at {}, before {time}", certificate.not_after()),
        ));
    }
    Ok(())
}

/// §6.1.4 (k) and (n): a certificate that issues others is a CA and may sign certificates.
pub(crate) fn check_issuing_usage(certificate: &Certificate) -> Result<(), Denial> {
    if !certificate.is_ca() {
        return Err(Denial::new(
            ReasonCode::UsageNotAllowed,
            "an issuer is not a CA by its basic constraints",
        ));
    }
    if certificate.key_usage().is_some_and(|usage| !usage.contains(KeyUsage::KEY_CERT_SIGN)) {
        return Err(Denial::new(ReasonCode::UsageNotAllowed, "an issuer's key usage lacks keyCertSign"));
    }
    if certificate.is_precertificate() {
        return Err(Denial::new(ReasonCode::CriticalExtension, "an issuer is a precertificate"));
    }
    Ok(())
}

/// §6.1.4 (o) and §6.1.5 (f).
pub(crate) fn check_critical_extensions(certificate: &Certificate) -> Result<(), Denial> {
    match certificate.unrecognised_critical_extension() {
        None => Ok(()),
        Some(id) => Err(Denial::new(
            ReasonCode::CriticalExtension,
            format!("the critical extension {} is not recognised", crate::oid::dotted(id)),
        )),
    }
}
