//! `crl` and `ocsp`: what evidence says about one certificate.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use tlog::signature::SignatureVerifier;

use super::{Decision, answer, binary, time};
use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::crl::Crl;
use crate::ocsp::OcspResponse;
use crate::reason::{Denial, ReasonCode};
use crate::revocation::{RevocationCheck, RevocationEvidence, RevocationPolicy, RevocationStatus};

#[derive(Deserialize)]
struct CrlCase {
    crls: Vec<String>,
    issuer: String,
    certificate: String,
    time: String,
    distribution_point: Option<String>,
    max_age_seconds: Option<i64>,
}

#[derive(Deserialize)]
struct OcspCase {
    response: String,
    issuer: String,
    certificate: String,
    time: String,
    max_age_seconds: Option<i64>,
}

/// Decides one line; see [`crate::conformance`]. `distribution_point` is a URI that stands for the certificate's own
/// distribution points; null takes those.
pub fn decide_crl(line: &str, verifier: &dyn SignatureVerifier) -> String {
    answer(line, "error", |case: CrlCase| {
        let crls =
            case.crls.iter().map(|crl| Crl::from_der(&binary(crl, "CRL")?)).collect::<Result<_, _>>()?;
        let evidence = RevocationEvidence { crls, ..RevocationEvidence::default() };
        decide(Question {
            evidence: &evidence,
            issuer: &case.issuer,
            certificate: &case.certificate,
            time: &case.time,
            distribution_point: case.distribution_point.as_deref(),
            max_age_seconds: case.max_age_seconds,
            verifier,
        })
    })
}

/// Decides one line; see [`crate::conformance`].
pub fn decide_ocsp(line: &str, verifier: &dyn SignatureVerifier) -> String {
    answer(line, "error", |case: OcspCase| {
        let response = match OcspResponse::from_der(&binary(&case.response, "OCSP response")?) {
            // The responder was asked and has no answer: that is not an error of the response.
            Err(denial) if denial.code == ReasonCode::RevocationUnknown => {
                return Ok(("unknown", Some(denial)));
            }
            other => other?,
        };
        let evidence = RevocationEvidence { ocsp: Vec::from([response]), ..RevocationEvidence::default() };
        decide(Question {
            evidence: &evidence,
            issuer: &case.issuer,
            certificate: &case.certificate,
            time: &case.time,
            distribution_point: None,
            max_age_seconds: case.max_age_seconds,
            verifier,
        })
    })
}

struct Question<'a> {
    evidence: &'a RevocationEvidence,
    issuer: &'a str,
    certificate: &'a str,
    time: &'a str,
    distribution_point: Option<&'a str>,
    max_age_seconds: Option<i64>,
    verifier: &'a dyn SignatureVerifier,
}

fn decide(question: Question<'_>) -> Result<Decision, Denial> {
    let issuer = Certificate::from_der(&binary(question.issuer, "issuer")?)?;
    let certificate = Certificate::from_der(&binary(question.certificate, "certificate")?)?;
    if certificate.issuer_name() != issuer.subject_name() {
        return Err(Denial::new(
            ReasonCode::UnknownIssuer,
            "the issuer's name is not that of the certificate's issuer",
        ));
    }
    let rules = RevocationPolicy {
        max_age_seconds: question.max_age_seconds,
        clock_skew_seconds: 0,
        ..RevocationPolicy::default()
    };
    let check = RevocationCheck {
        evidence: question.evidence,
        policy: &rules,
        now: time(question.time)?,
        proven_at: None,
        intermediates: &[],
        verifier: question.verifier,
    };
    let mut budget = Budget::default();
    let assessment = match question.distribution_point {
        Some(uri) => check.assess_at(&certificate, &issuer, uri, &mut budget)?,
        None => check.assess(&certificate, &issuer, &mut budget)?,
    };
    match assessment.status {
        RevocationStatus::Good { .. } => Ok(("good", None)),
        RevocationStatus::Revoked { at, reason } => Ok((
            "revoked",
            Some(Denial::new(
                ReasonCode::Revoked,
                alloc::format!("revoked since {at} ({})", reason.as_str()),
            )),
        )),
        RevocationStatus::Unknown => match assessment.shortfall {
            // Evidence that is stale, or about something else, leaves the question open; evidence that is not
            // authentic is an error.
            Some(denial)
                if matches!(denial.code, ReasonCode::RevocationStale | ReasonCode::RevocationUnknown) =>
            {
                Ok(("unknown", Some(denial)))
            }
            Some(denial) => Err(denial),
            None => Ok((
                "unknown",
                Some(Denial::new(ReasonCode::RevocationUnknown, "no evidence covers the certificate")),
            )),
        },
    }
}
