//! Rules for the CA's own certificates: roots (C8), issuers (C7), OCSP responders (O1), time-stamp authorities (T1).

use der::flagset::FlagSet;
use spki::ObjectIdentifier;
use x509_cert::ext::pkix::{CertificatePolicies, KeyUsages};

use super::view::View;
use super::{Report, Source, code_signing};
use crate::oid;
use crate::profile::TIME_STAMP_MAX_DAYS;

fn error(report: &mut Report, requirement: &'static str, rule: &'static str) {
    report.error(Source::CodeSigning, requirement, rule, "");
}

fn critical(view: &View<'_>, wanted: ObjectIdentifier) -> bool {
    view.extension(wanted).is_some_and(|extension| extension.critical)
}

fn is_authority(view: &View<'_>) -> bool {
    critical(view, oid::BASIC_CONSTRAINTS) && view.basic_constraints().is_some_and(|value| value.ca)
}

fn signs_certificates_and_crls(view: &View<'_>) -> bool {
    critical(view, oid::KEY_USAGE)
        && view.key_usage().is_some_and(|usage| usage.key_cert_sign() && usage.crl_sign())
}

pub(super) fn root(view: &View<'_>, report: &mut Report) {
    if !is_authority(view) {
        error(report, "C8", "ca_basic_constraints_critical");
    }
    if !signs_certificates_and_crls(view) {
        error(report, "C8", "ca_key_usage");
    }
    if view.extension(oid::EXTENDED_KEY_USAGE).is_some() {
        error(report, "C8", "root_without_extended_key_usage");
    }
    if view.basic_constraints().is_some_and(|value| value.path_len_constraint.is_some()) {
        report.warning(Source::CodeSigning, "C8", "root_without_path_length", "");
    }
    if view.extension(oid::CERTIFICATE_POLICIES).is_some() {
        report.warning(Source::CodeSigning, "C8", "root_without_policies", "");
    }
    if !view.self_issued() {
        error(report, "C8", "root_is_self_issued");
    }
}

pub(super) fn issuer(view: &View<'_>, purpose: ObjectIdentifier, levels_below: u8, report: &mut Report) {
    if !is_authority(view) {
        error(report, "C7", "ca_basic_constraints_critical");
    }
    if view.basic_constraints().and_then(|value| value.path_len_constraint) != Some(levels_below) {
        let rule = if levels_below == 0 { "issuer_path_length_0" } else { "cross_certificate_path_length_1" };
        report.error(Source::Own, "C7", rule, "");
    }
    if !signs_certificates_and_crls(view) {
        error(report, "C7", "ca_key_usage");
    }
    // codeSigning XOR timeStamping, and nothing beside it.
    if view.purposes() != [purpose] {
        error(report, "C7", "issuer_single_purpose");
    }
    if view.decoded::<CertificatePolicies>(oid::CERTIFICATE_POLICIES).is_none_or(|value| value.0.is_empty()) {
        error(report, "C7", "certificate_policies_present");
    }
    code_signing::status(view, "C7", report);
}

pub(super) fn ocsp_responder(view: &View<'_>, report: &mut Report) {
    not_an_authority(view, "O1", report);
    only_digital_signature(view, "O1", report);
    if view.purposes() != [oid::KP_OCSP_SIGNING] {
        error(report, "O1", "ocsp_signing_purpose");
    }
    if view.extension(oid::OCSP_NO_CHECK).is_none_or(|extension| extension.critical) {
        error(report, "O1", "ocsp_nocheck_present");
    }
}

pub(super) fn timestamp_authority(view: &View<'_>, report: &mut Report) {
    not_an_authority(view, "T1", report);
    only_digital_signature(view, "T1", report);
    if view.purposes() != [oid::KP_TIME_STAMPING] || !critical(view, oid::EXTENDED_KEY_USAGE) {
        error(report, "T1", "time_stamping_critical_and_sole");
    }
    if view.not_after.0 - view.not_before.0 + 1 > TIME_STAMP_MAX_DAYS * 86_400 {
        error(report, "T1", "validity_at_most_135_months");
    }
    code_signing::status(view, "C7", report);
}

fn not_an_authority(view: &View<'_>, requirement: &'static str, report: &mut Report) {
    if view.basic_constraints().is_some_and(|value| value.ca) {
        error(report, requirement, "end_entity_is_not_a_ca");
    }
}

fn only_digital_signature(view: &View<'_>, requirement: &'static str, report: &mut Report) {
    let wanted: FlagSet<KeyUsages> = KeyUsages::DigitalSignature.into();
    if !critical(view, oid::KEY_USAGE) || view.key_usage().is_none_or(|usage| usage.0 != wanted) {
        error(report, requirement, "key_usage_digital_signature");
    }
}
