//! Inputs that are made to cost: each is built once, then judged, and says how much of its budget that took.
#![allow(dead_code, reason = "the bench uses what the tests do not")]

mod bundles;
mod crls;
mod names;
mod paths;
mod shapes;

use trust_store::budget::Budget;
use trust_store::certificate::Certificate;
use trust_store::path::{PathPolicy, build_path_where};
use trust_store::provider::AwsLc;
use trust_store::revocation::{RevocationCheck, RevocationEvidence, RevocationPolicy};
use trust_store::{Denial, ReasonCode};

use crate::forge::NOW;

/// An input that is ready to be judged.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// What it ends with.
    pub(crate) code: ReasonCode,
    pub(crate) judge: Box<dyn Fn() -> Ended>,
}

/// How judging it ended.
pub(crate) struct Ended {
    pub(crate) code: Option<ReasonCode>,
    /// Signature checks and steps that were taken.
    pub(crate) spent: (u32, u32),
}

/// Every attack, built.
pub(crate) fn all() -> Vec<Attack> {
    [paths::all(), names::all(), crls::all(), shapes::all(), bundles::all()].into_iter().flatten().collect()
}

fn ended(outcome: Result<(), Denial>, left: &Budget) -> Ended {
    let whole = Budget::default();
    let spent = (whole.signature_checks - left.signature_checks, whole.steps - left.steps);
    Ended { code: outcome.err().map(|denial| denial.code), spent }
}

/// Builds a path with the default budget.
fn path(
    name: &'static str,
    code: ReasonCode,
    leaf: Certificate,
    others: Vec<Certificate>,
    anchors: Vec<Certificate>,
) -> Attack {
    let judge = move || {
        let mut budget = Budget::default();
        let policy = PathPolicy::default();
        let outcome =
            build_path_where(&leaf, &others, &anchors, NOW, &policy, &AwsLc, &mut budget, &mut |_, _| Ok(()));
        ended(outcome.map(drop), &budget)
    };
    Attack { name, code, judge: Box::new(judge) }
}

/// Asks for the status of one certificate with the default budget.
fn status(
    name: &'static str,
    code: ReasonCode,
    certificate: Certificate,
    issuer: Certificate,
    evidence: RevocationEvidence,
) -> Attack {
    let judge = move || {
        let mut budget = Budget::default();
        let policy = RevocationPolicy::default();
        let check = RevocationCheck {
            evidence: &evidence,
            policy: &policy,
            now: NOW,
            proven_at: None,
            intermediates: &[],
            verifier: &AwsLc,
        };
        let outcome = check.assess(&certificate, &issuer, &mut budget);
        let outcome = outcome.and_then(|assessment| assessment.shortfall.map_or(Ok(()), Err));
        ended(outcome, &budget)
    };
    Attack { name, code, judge: Box::new(judge) }
}

/// Reads bytes; nothing is charged, so the size is all that bounds it.
fn reading(
    name: &'static str,
    code: ReasonCode,
    bytes: Vec<u8>,
    read: impl Fn(&[u8]) -> Result<(), Denial> + 'static,
) -> Attack {
    let judge = move || ended(read(&bytes), &Budget::default());
    Attack { name, code, judge: Box::new(judge) }
}
