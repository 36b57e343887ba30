//! `path`: is there a valid path from a certificate to an anchor?

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use const_oid::ObjectIdentifier;
use serde::Deserialize;
use tlog::signature::SignatureVerifier;

use super::{answer, binary, malformed, parse_all, time};
use crate::certificate::Certificate;
use crate::crl::Crl;
use crate::extension::KeyUsage;
use crate::name::CanonicalName;
use crate::name_text;
use crate::ocsp::OcspResponse;
use crate::oid;
use crate::path::{
    AnyPolicyInCertificates, ExplicitPolicy, InitialPolicies, PathPolicy, PolicyMapping, RequiredName,
    Subject, build_path_where,
};
use crate::reason::Denial;
use crate::revocation::{RevocationCheck, RevocationEvidence, RevocationMode, RevocationPolicy};
use crate::x690::{Reader, tag};

#[derive(Deserialize)]
struct Case {
    leaf: String,
    intermediates: Option<Vec<String>>,
    anchors: Option<Vec<String>>,
    crls: Option<Vec<String>>,
    ocsp: Option<Vec<String>>,
    time: String,
    required_eku: Option<String>,
    required_key_usage: Option<Vec<String>>,
    initial_policies: Option<Vec<String>>,
    require_explicit_policy: Option<bool>,
    inhibit_policy_mapping: Option<bool>,
    inhibit_any_policy: Option<bool>,
    max_depth: Option<usize>,
    revocation: Option<Revocation>,
    name: Option<Name>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Revocation {
    None,
    IfPresent,
    Require,
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "lowercase")]
enum Name {
    Email(String),
    Dns(String),
    Uri(String),
    Ip(String),
    Dn(String),
}

/// Decides one line; see [`crate::conformance`]. `max_depth` counts the certificates between leaf and anchor; the
/// value of a `dn` is RFC 4514 text or base64 of a DER name; without `revocation` the mode is `require`.
pub fn decide_path(line: &str, verifier: &dyn SignatureVerifier) -> String {
    answer(line, "reject", |case: Case| {
        let policy = path_policy(&case)?;
        let now = time(&case.time)?;
        let leaf = Certificate::from_der(&binary(&case.leaf, "leaf")?)?;
        // What does not parse cannot be part of a path; it must not keep others from being one.
        let certificates = |list: Option<Vec<String>>| {
            parse_all(&list.unwrap_or_default(), "certificate", Certificate::from_der)
        };
        let (intermediates, bad_intermediates) = certificates(case.intermediates);
        let (anchors, bad_anchors) = certificates(case.anchors);
        let (crls, bad_crls) = parse_all(&case.crls.unwrap_or_default(), "CRL", Crl::from_der);
        let (ocsp, bad_ocsp) =
            parse_all(&case.ocsp.unwrap_or_default(), "OCSP response", OcspResponse::from_der);
        let skipped = bad_intermediates + bad_anchors + bad_crls + bad_ocsp;
        let evidence = RevocationEvidence { crls, ocsp, ..RevocationEvidence::default() };
        let mode = match case.revocation {
            Some(Revocation::None) => RevocationMode::DangerSkip,
            Some(Revocation::IfPresent) => RevocationMode::DangerIfPresent,
            Some(Revocation::Require) | None => RevocationMode::Require,
        };
        let rules = RevocationPolicy { mode, clock_skew_seconds: 0, ..RevocationPolicy::default() };
        let check = RevocationCheck {
            evidence: &evidence,
            policy: &rules,
            now,
            proven_at: None,
            intermediates: &intermediates,
            verifier,
        };
        let mut budget = policy.budget.clone();
        let outcome = build_path_where(
            &leaf,
            &intermediates,
            &anchors,
            now,
            &policy,
            verifier,
            &mut budget,
            &mut |chain, budget| check.check_chain(chain, budget).map(drop),
        );
        match outcome {
            Ok(_) => Ok(("accept", None)),
            Err(mut denial) => {
                if skipped > 0 {
                    let detail = &denial.detail;
                    denial.detail = Cow::Owned(format!("{detail} ({skipped} inputs did not parse)"));
                }
                Err(denial)
            }
        }
    })
}

fn path_policy(case: &Case) -> Result<PathPolicy, Denial> {
    let required_eku = case.required_eku.as_deref().map(object_identifier).transpose()?;
    let mut required_key_usage = KeyUsage::NONE;
    for name in case.required_key_usage.iter().flatten() {
        let usage = KeyUsage::from_name(name).ok_or(malformed("unknown key usage"))?;
        required_key_usage = required_key_usage.union(usage);
    }
    let initial_policies = match &case.initial_policies {
        None => InitialPolicies::Any,
        Some(list) => {
            let policies: Vec<ObjectIdentifier> =
                list.iter().map(|text| object_identifier(text)).collect::<Result<_, _>>()?;
            if policies.contains(&oid::ANY_POLICY) {
                InitialPolicies::Any
            } else {
                InitialPolicies::Only(policies.iter().map(|policy| policy.as_bytes().to_vec()).collect())
            }
        }
    };
    Ok(PathPolicy {
        required_eku,
        required_key_usage,
        initial_policies,
        explicit_policy: match case.require_explicit_policy {
            Some(true) => ExplicitPolicy::Required,
            _ => ExplicitPolicy::NotRequired,
        },
        policy_mapping: match case.inhibit_policy_mapping {
            Some(true) => PolicyMapping::Inhibited,
            _ => PolicyMapping::Allowed,
        },
        any_policy: match case.inhibit_any_policy {
            Some(true) => AnyPolicyInCertificates::Ignored,
            _ => AnyPolicyInCertificates::Counts,
        },
        max_depth: case.max_depth,
        required_name: case.name.as_ref().map(required_name).transpose()?,
        subject: Subject::Any,
        ..PathPolicy::default()
    })
}

fn object_identifier(text: &str) -> Result<ObjectIdentifier, Denial> {
    if text == "anyPolicy" {
        return Ok(oid::ANY_POLICY);
    }
    ObjectIdentifier::new(text).map_err(|_| malformed("not an object identifier"))
}

fn required_name(name: &Name) -> Result<RequiredName, Denial> {
    Ok(match name {
        Name::Email(email) => RequiredName::Email(email.clone()),
        Name::Dns(host) => RequiredName::Dns(host.clone()),
        Name::Uri(uri) => RequiredName::Uri(uri.clone()),
        Name::Ip(address) => match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => RequiredName::Ip(address.octets().to_vec()),
            Ok(IpAddr::V6(address)) => RequiredName::Ip(address.octets().to_vec()),
            Err(_) => return Err(malformed("not an IP address")),
        },
        Name::Dn(text) => RequiredName::Directory(distinguished_name(text)?),
    })
}

fn distinguished_name(text: &str) -> Result<CanonicalName, Denial> {
    let der = match binary(text, "dn") {
        Ok(der) if !text.contains('=') || der.first() == Some(&tag::SEQUENCE) => der,
        _ => name_text::parse(text)?,
    };
    let element = Reader::only(&der, tag::SEQUENCE).map_err(|error| error.denial("dn"))?;
    CanonicalName::from_element(element).map_err(|error| error.denial("dn"))
}
