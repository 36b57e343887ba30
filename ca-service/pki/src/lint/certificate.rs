//! Rules of RFC 5280 and of this CA that hold for every certificate, and the choice of those for its kind.

use alloc::string::ToString;
use alloc::vec::Vec;

use der::Encode;
use der::asn1::Ia5String;
use spki::ObjectIdentifier;
use x509_cert::Version;
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlDistributionPoints, SubjectKeyIdentifier};
use x509_cert::time::Time;

use super::view::View;
use super::{Report, Source, authority, code_signing};
use crate::certificate::{Issuer, parse};
use crate::key::{KeyUse, SubjectPublicKey};
use crate::oid;
use crate::profile::Kind;
use crate::serial::SerialNumber;

/// What a certificate is judged as.
#[derive(Debug, Clone, Copy)]
pub struct CertificateRules<'a> {
    /// Its kind, which chooses the rules.
    pub kind: Kind,
    /// The issuer it must fit, when known.
    pub issuer: Option<&'a Issuer>,
}

/// Lints a certificate or precertificate.
#[must_use]
pub fn certificate(der: &[u8], rules: &CertificateRules<'_>) -> Report {
    let mut report = Report::default();
    let parsed = match parse(der) {
        Ok(parsed) => parsed,
        Err(error) => {
            report.error(Source::Rfc, "C11", "certificate_parses", error.to_string());
            return report;
        }
    };
    let view = View::new(&parsed);
    structure(&view, der, &mut report);
    extensions(&view, rules.kind, &mut report);
    key(&view, rules.kind, &mut report);
    match rules.kind {
        Kind::Root => authority::root(&view, &mut report),
        Kind::CodeSigningIssuer => authority::issuer(&view, oid::KP_CODE_SIGNING, 0, &mut report),
        Kind::CrossCertificate => authority::issuer(&view, oid::KP_CODE_SIGNING, 1, &mut report),
        Kind::TimeStampingIssuer => authority::issuer(&view, oid::KP_TIME_STAMPING, 0, &mut report),
        Kind::OcspResponder => authority::ocsp_responder(&view, &mut report),
        Kind::TimestampAuthority => authority::timestamp_authority(&view, &mut report),
        Kind::CodeSigningBaseline => code_signing::baseline(&view, &mut report),
        Kind::Internal => code_signing::internal(&view, &mut report),
        Kind::Keyless => code_signing::keyless(&view, &mut report),
    }
    if matches!(rules.kind, Kind::Internal | Kind::Keyless) {
        identity(&view, &mut report);
    }
    if let Some(issuer) = rules.issuer {
        fits_issuer(&view, issuer, rules.kind, &mut report);
    }
    report
}

fn structure(view: &View<'_>, der: &[u8], report: &mut Report) {
    let tbs = view.certificate.tbs_certificate();
    let mut error = |requirement, rule, detail: &str| report.error(Source::Rfc, requirement, rule, detail);
    if tbs.version() != Version::V3 {
        error("C11", "version_3", "");
    }
    let serial = tbs.serial_number().as_bytes();
    if serial.first().is_none_or(|first| *first >= 0x80) || serial.iter().all(|octet| *octet == 0) {
        error("C1", "serial_positive", "");
    }
    if serial.len() > 20 {
        error("C1", "serial_at_most_20_octets", "");
    }
    if serial.len() < 8 {
        report.warning(Source::Own, "C1", "serial_has_64_bits", "");
    }
    let mut error = |requirement, rule, detail: &str| report.error(Source::Rfc, requirement, rule, detail);
    let outer = view.certificate.signature_algorithm();
    if outer != tbs.signature() {
        error("C11", "signature_algorithms_equal", "");
    }
    match outer.oid {
        oid::ECDSA_SHA256 | oid::ECDSA_SHA384 | oid::ECDSA_SHA512 | oid::ED25519 | oid::ML_DSA_44
            if outer.parameters.is_some() =>
        {
            error("C11", "signature_algorithm_without_parameters", "");
        }
        _ => {}
    }
    if view.not_after < view.not_before {
        error("C11", "validity_in_order", "");
    }
    for time in [tbs.validity().not_before, tbs.validity().not_after] {
        if matches!(time, Time::GeneralTime(value) if value.to_date_time().year() < 2050) {
            error("C11", "utc_time_through_2049", "");
        }
    }
    if tbs.issuer().is_empty() {
        error("C11", "issuer_not_empty", "");
    }
    if view.certificate.to_der().ok().as_deref() != Some(der) {
        error("C11", "canonical_der", "");
    }
}

/// Extensions whose processing RFC 5280 or RFC 6962 defines, and which may therefore be critical.
const KNOWN_CRITICAL: [ObjectIdentifier; 9] = [
    oid::KEY_USAGE,
    oid::SUBJECT_ALT_NAME,
    oid::BASIC_CONSTRAINTS,
    oid::NAME_CONSTRAINTS,
    oid::CERTIFICATE_POLICIES,
    oid::POLICY_CONSTRAINTS,
    oid::EXTENDED_KEY_USAGE,
    oid::INHIBIT_ANY_POLICY,
    oid::PRECERTIFICATE_POISON,
];

fn extensions(view: &View<'_>, kind: Kind, report: &mut Report) {
    let subject_empty = view.certificate.tbs_certificate().subject().is_empty();
    let mut error = |requirement, rule, detail: &str| report.error(Source::Rfc, requirement, rule, detail);
    let mut seen: Vec<ObjectIdentifier> = Vec::with_capacity(view.extensions.len());
    for extension in view.extensions {
        if seen.contains(&extension.extn_id) {
            error("C11", "extensions_unique", &extension.extn_id.to_string());
        }
        seen.push(extension.extn_id);
        if extension.critical && !KNOWN_CRITICAL.contains(&extension.extn_id) {
            let known = matches!(
                extension.extn_id,
                oid::SUBJECT_KEY_IDENTIFIER
                    | oid::AUTHORITY_KEY_IDENTIFIER
                    | oid::CRL_DISTRIBUTION_POINTS
                    | oid::AUTHORITY_INFO_ACCESS
            );
            let rule = if known { "extension_must_not_be_critical" } else { "no_unknown_critical_extension" };
            if !named_by_its_own_rules(kind, extension.extn_id) {
                error("C11", rule, &extension.extn_id.to_string());
            }
        }
    }
    if subject_empty && !view.extension(oid::SUBJECT_ALT_NAME).is_some_and(|extension| extension.critical) {
        error("C11", "empty_subject_needs_critical_alt_name", "");
    }
    if !view.self_issued() {
        let identifier: Option<AuthorityKeyIdentifier> = view.decoded(oid::AUTHORITY_KEY_IDENTIFIER);
        if identifier.and_then(|value| value.key_identifier).is_none() {
            error("C5", "authority_key_identifier_present", "");
        }
    }
    if view.decoded::<SubjectKeyIdentifier>(oid::SUBJECT_KEY_IDENTIFIER).is_none() {
        report.warning(Source::Rfc, "C11", "subject_key_identifier_present", "");
    }
}

/// Whether the rules of a kind say themselves that an extension must not be critical.
fn named_by_its_own_rules(kind: Kind, extension: ObjectIdentifier) -> bool {
    match kind {
        Kind::Root | Kind::OcspResponder => false,
        Kind::Keyless => extension == oid::CRL_DISTRIBUTION_POINTS,
        _ => matches!(extension, oid::CRL_DISTRIBUTION_POINTS | oid::AUTHORITY_INFO_ACCESS),
    }
}

fn key(view: &View<'_>, kind: Kind, report: &mut Report) {
    // The baseline rules judge keys by the certificate's date of issue; they do it themselves.
    if kind == Kind::CodeSigningBaseline {
        return;
    }
    let key_use = match kind {
        kind if kind.is_authority() => KeyUse::Authority,
        // Whether ML-DSA is taken is the profile's decision, made when the request is read.
        Kind::Internal | Kind::Keyless => KeyUse::PostQuantumSubscriber,
        _ => KeyUse::Subscriber,
    };
    if let Err(error) = SubjectPublicKey::from_spki(&view.spki_der, key_use) {
        report.error(Source::CodeSigning, "C9", "key_allowed", error.to_string());
    }
}

/// Stock verifiers take exactly one identity from the subject alternative name.
fn identity(view: &View<'_>, report: &mut Report) {
    let names: GeneralNames = view.decoded(oid::SUBJECT_ALT_NAME).unwrap_or_default();
    let single = matches!(
        names.as_slice(),
        [GeneralName::Rfc822Name(_)] | [GeneralName::UniformResourceIdentifier(_)]
    );
    if !single {
        report.error(Source::Own, "C5", "exactly_one_email_or_uri", "");
    }
}

fn fits_issuer(view: &View<'_>, issuer: &Issuer, kind: Kind, report: &mut Report) {
    let tbs = view.certificate.tbs_certificate();
    if view.issuer_der != issuer.name.as_der() {
        report.error(Source::CodeSigning, "C10", "issuer_name_byte_identical", "");
    }
    if tbs.signature().to_der().ok() != Some(issuer.algorithm.identifier()) {
        report.error(Source::Own, "C10", "signature_algorithm_is_the_issuers", "");
    }
    let identifier: Option<AuthorityKeyIdentifier> = view.decoded(oid::AUTHORITY_KEY_IDENTIFIER);
    let identifier = identifier.and_then(|value| value.key_identifier);
    if identifier.is_none_or(|octets| octets.as_bytes() != issuer.key_identifier) {
        report.error(Source::Rfc, "C5", "authority_key_identifier_is_the_issuers", "");
    }
    if view.not_after > issuer.not_after || view.not_before < issuer.not_before {
        report.error(Source::CodeSigning, "C2", "validity_within_the_issuers", "");
    }
    if kind == Kind::OcspResponder {
        return;
    }
    let Ok(serial) = SerialNumber::from_magnitude(tbs.serial_number().as_bytes()) else { return };
    let expected = issuer.status.crl(serial.shard(issuer.status.shards));
    let points: Option<CrlDistributionPoints> = view.decoded(oid::CRL_DISTRIBUTION_POINTS);
    let named = points.is_some_and(|points| {
        points.0.iter().filter_map(|point| point.distribution_point.as_ref()).any(|point| {
            matches!(point, x509_cert::ext::pkix::name::DistributionPointName::FullName(names)
                if names.iter().any(|name| uri(name).is_some_and(|uri| uri.as_str() == expected)))
        })
    });
    if !named {
        report.error(Source::Own, "C5", "crl_shard_of_the_serial_number", expected);
    }
}

pub(super) fn uri(name: &GeneralName) -> Option<&Ia5String> {
    match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri),
        _ => None,
    }
}
