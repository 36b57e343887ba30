//! Rules for code-signing subscribers (CSBR §6.3.2, §7.1.2.3, §7.1.3, §7.1.4.2; requirements C2 to C6, C9, C10).
//! Rule names follow the public linter's, so that findings can be compared.

use alloc::string::ToString;

use spki::ObjectIdentifier;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, CertificatePolicies, CrlDistributionPoints, KeyUsage};

use super::certificate::uri;
use super::names;
use super::view::View;
use super::{Report, Source};
use crate::key::{bit_length, rsa_numbers};
use crate::oid;
use crate::profile::CODE_SIGNING_MAX_DAYS;
use crate::time::UnixTime;

/// 2026-03-01T00:00:00Z: from here on 460 days (§6.3.2).
const MAX_460_DAYS_SINCE: UnixTime = UnixTime(1_772_323_200);
/// 2021-06-01T00:00:00Z: from here on RSA keys have at least 3072 bits (§6.1.5.2).
const RSA_3072_SINCE: UnixTime = UnixTime(1_622_505_600);
const DAY: i64 = 86_400;

fn error(report: &mut Report, requirement: &'static str, rule: &'static str, detail: &str) {
    report.error(Source::CodeSigning, requirement, rule, detail);
}

/// Every rule, for certificates under the baseline requirements.
pub(super) fn baseline(view: &View<'_>, report: &mut Report) {
    usage(view, report);
    status(view, "C5", report);
    policies(view, report);
    names::subject(view, report);
    validity(view, report);
    dated_key(view, report);
    signature(view, report);
}

/// The rules for a private PKI's developers: all but those on the subject.
pub(super) fn internal(view: &View<'_>, report: &mut Report) {
    usage(view, report);
    status(view, "C5", report);
    policies(view, report);
    validity(view, report);
    signature(view, report);
}

/// The rules for ten-minute certificates: usage, signature, and a distribution point.
pub(super) fn keyless(view: &View<'_>, report: &mut Report) {
    usage(view, report);
    distribution_points(view, "C5", report);
    signature(view, report);
}

fn usage(view: &View<'_>, report: &mut Report) {
    match (view.extension(oid::KEY_USAGE), view.key_usage()) {
        (Some(extension), Some(usage)) => {
            if !extension.critical {
                error(report, "C3", "key_usage_required", "not critical");
            }
            if !usage.digital_signature() {
                error(report, "C3", "key_usage_required", "digitalSignature is missing");
            }
            if usage.key_cert_sign() || usage.crl_sign() {
                error(report, "C3", "key_usage_required", "keyCertSign or cRLSign is set");
            }
            if has_other_usages(&usage) {
                report.warning(
                    Source::CodeSigning,
                    "C3",
                    "key_usage_required",
                    "other usages should not be set",
                );
            }
        }
        _ => error(report, "C3", "key_usage_required", "missing"),
    }
    let purposes = view.purposes();
    if !purposes.contains(&oid::KP_CODE_SIGNING) {
        error(report, "C4", "eku_required", "codeSigning is missing");
    }
    let allowed =
        [oid::KP_CODE_SIGNING, oid::KP_LIFETIME_SIGNING, oid::KP_EMAIL_PROTECTION, oid::KP_DOCUMENT_SIGNING];
    for purpose in &purposes {
        if matches!(*purpose, oid::ANY_EXTENDED_KEY_USAGE | oid::KP_SERVER_AUTH) {
            error(report, "C4", "eku_required", "anyExtendedKeyUsage or serverAuth is present");
        } else if !allowed.contains(purpose) {
            report.warning(Source::CodeSigning, "C4", "eku_unusual", purpose.to_string());
        }
    }
    if view.basic_constraints().is_some_and(|constraints| constraints.ca) {
        error(report, "C5", "end_entity_is_not_a_ca", "");
    }
}

fn has_other_usages(usage: &KeyUsage) -> bool {
    usage.non_repudiation()
        || usage.key_encipherment()
        || usage.data_encipherment()
        || usage.key_agreement()
        || usage.encipher_only()
        || usage.decipher_only()
}

/// Where to learn whether it was revoked: where relying parties are sure to fetch.
pub(super) fn status(view: &View<'_>, requirement: &'static str, report: &mut Report) {
    distribution_points(view, requirement, report);
    let information: Option<AuthorityInfoAccessSyntax> = view.decoded(oid::AUTHORITY_INFO_ACCESS);
    match view.extension(oid::AUTHORITY_INFO_ACCESS) {
        None => error(report, requirement, "authority_information_access", "missing"),
        Some(extension) if extension.critical => {
            error(report, requirement, "authority_information_access", "critical");
        }
        Some(_) => {}
    }
    let descriptions = information.map(|value| value.0).unwrap_or_default();
    let of = |method: ObjectIdentifier| descriptions.iter().filter(move |each| each.access_method == method);
    if !of(oid::AD_CA_ISSUERS).any(|each| is_http(&each.access_location)) {
        error(report, requirement, "aia_missing_ca_issuers_http_url", "");
    }
    if of(oid::AD_OCSP).any(|each| !is_http(&each.access_location)) {
        error(report, requirement, "aia_ocsp_not_http", "");
    }
}

fn distribution_points(view: &View<'_>, requirement: &'static str, report: &mut Report) {
    let rule = "crl_distribution_points";
    let Some(extension) = view.extension(oid::CRL_DISTRIBUTION_POINTS) else {
        error(report, requirement, rule, "missing");
        return;
    };
    if extension.critical {
        error(report, requirement, rule, "critical");
    }
    let points: Option<CrlDistributionPoints> = view.decoded(oid::CRL_DISTRIBUTION_POINTS);
    // Every location must be one that relying parties are sure to fetch, not only one of them.
    let all_http = points.is_some_and(|points| {
        !points.0.is_empty()
            && points.0.iter().all(|point| match &point.distribution_point {
                Some(DistributionPointName::FullName(names)) => {
                    !names.is_empty() && names.iter().all(is_http)
                }
                _ => false,
            })
    });
    if !all_http {
        error(report, requirement, rule, "not an HTTP URL");
    }
}

fn is_http(name: &GeneralName) -> bool {
    let Some(rest) = uri(name).and_then(|uri| uri.as_str().strip_prefix("http://")) else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    !host.is_empty() && host.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._[]:".contains(&octet))
}

fn policies(view: &View<'_>, report: &mut Report) {
    let policies: Option<CertificatePolicies> = view.decoded(oid::CERTIFICATE_POLICIES);
    if policies.is_none_or(|value| value.0.is_empty()) {
        error(report, "C5", "certificate_policies_present", "");
    }
}

fn validity(view: &View<'_>, report: &mut Report) {
    // §1.6.1: the validity includes both its first and its last second.
    let seconds = view.not_after.0 - view.not_before.0 + 1;
    if view.not_before >= MAX_460_DAYS_SINCE {
        if seconds > CODE_SIGNING_MAX_DAYS * DAY {
            error(report, "C2", "max_validity_period_460_days", "");
        }
    } else if seconds > thirty_nine_months(view.not_before) {
        error(report, "C2", "max_validity_period_39_months", "");
    }
}

/// Seconds of 39 calendar months from an instant.
fn thirty_nine_months(from: UnixTime) -> i64 {
    let Ok(start) = crate::time::date_time(from) else { return 0 };
    let month = u32::from(start.month()) - 1 + 39;
    let year = i64::from(start.year()) + i64::from(month / 12);
    let midnight = (1..=31)
        .rev()
        .filter(|day| *day <= u32::from(start.day()))
        .find_map(|day| UnixTime::from_utc(year, month % 12 + 1, day, 0, 0, 0));
    midnight.map_or(0, |midnight| midnight.0 + from.0.rem_euclid(DAY) - from.0)
}

fn dated_key(view: &View<'_>, report: &mut Report) {
    let info = view.certificate.tbs_certificate().subject_public_key_info();
    match info.algorithm.oid {
        oid::RSA_ENCRYPTION => {
            let bits = info.subject_public_key.as_bytes().unwrap_or_default();
            let modulus = rsa_numbers(bits).map(|(modulus, _)| bit_length(modulus)).unwrap_or(0);
            let shortest = if view.not_before >= RSA_3072_SINCE { 3072 } else { 2048 };
            if modulus < shortest {
                error(report, "C9", "rsa_key_size", &modulus.to_string());
            }
        }
        oid::EC_PUBLIC_KEY => {
            let curve =
                info.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
            if !matches!(curve, Some(oid::SECP256R1 | oid::SECP384R1 | oid::SECP521R1)) {
                error(report, "C9", "ecdsa_prohibited_curve", "");
            }
        }
        _ => {}
    }
}

fn signature(view: &View<'_>, report: &mut Report) {
    let algorithm = view.certificate.signature_algorithm().oid;
    let allowed = [
        oid::ECDSA_SHA256,
        oid::ECDSA_SHA384,
        oid::ECDSA_SHA512,
        oid::RSA_SHA256,
        oid::RSA_SHA384,
        oid::RSA_SHA512,
        oid::RSA_PSS,
        oid::DSA_SHA256,
    ];
    // ML-DSA issuers are a private profile's choice; the forum's list does not know them yet.
    if !allowed.contains(&algorithm) && algorithm != oid::ML_DSA_44 {
        error(report, "C10", "signature_algorithm_not_supported", &algorithm.to_string());
    }
}
