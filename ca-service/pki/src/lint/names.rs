//! Rules on the subject of a certificate under the baseline requirements (CSBR §7.1.4.2; requirement C6).

use alloc::string::String;

use der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use der::{Any, Tag, Tagged};
use spki::ObjectIdentifier;

use super::country;
use super::view::View;
use super::{Report, Source};
use crate::oid;

pub(super) fn subject(view: &View<'_>, report: &mut Report) {
    let mut error = |rule, detail: &str| report.error(Source::CodeSigning, "C6", rule, detail);
    if !has(view, oid::ORGANIZATION) {
        error("requires_org", "");
    }
    if !has(view, oid::LOCALITY) && !has(view, oid::STATE) {
        error("subject_locality_or_province_required", "");
    }
    match value(view, oid::COUNTRY) {
        None => error("subject_country_name", "missing"),
        // XX stands for a country without a code of its own (§7.1.4.2.2).
        Some(code) if code != "XX" && !country::is_assigned(&code) => {
            error("subject_country_name", "not an ISO 3166-1 code");
        }
        Some(_) => {}
    }
    if !has(view, oid::COMMON_NAME) {
        error("common_name_required", "");
    }
    if has(view, oid::DOMAIN_COMPONENT) {
        error("subject_prohibited", "domainComponent");
    }
    for attribute in view.certificate.tbs_certificate().subject().iter() {
        let text = text(&attribute.value).unwrap_or_default();
        // The country has its own rule above.
        if attribute.oid != oid::COUNTRY && !text.chars().any(char::is_alphanumeric) {
            error("subject_without_metadata_values", "a value of punctuation only");
        }
    }
}

fn has(view: &View<'_>, wanted: ObjectIdentifier) -> bool {
    value(view, wanted).is_some_and(|text| !text.is_empty())
}

fn value(view: &View<'_>, wanted: ObjectIdentifier) -> Option<String> {
    view.certificate
        .tbs_certificate()
        .subject()
        .iter()
        .find(|attribute| attribute.oid == wanted)
        .and_then(|attribute| text(&attribute.value))
}

fn text(value: &Any) -> Option<String> {
    match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str().into()),
        Tag::PrintableString => {
            value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.as_str().into())
        }
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok().map(|text| text.as_str().into()),
        Tag::TeletexString => value.decode_as::<TeletexStringRef<'_>>().ok().map(|text| text.as_str().into()),
        _ => None,
    }
}
