//! Rules for CRLs (requirements R2 to R5; RFC 5280 §5).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use der::asn1::{AnyRef, UintRef};
use der::{Decode, Enumerated, Reader, SliceReader, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, IssuingDistributionPoint};
use x509_cert::time::Time;

use super::{Report, Source};
use crate::certificate::Issuer;
use crate::crl::REASON_EXTENSION;
use crate::oid;
use crate::signed::{ToBeSigned, take_apart};
use crate::time::{UnixTime, unix_time};

/// What a CRL is judged against.
#[derive(Debug, Clone, Copy)]
pub struct CrlRules<'a> {
    /// The issuer that signs it.
    pub issuer: &'a Issuer,
    /// The URL its distribution point must name; `None` for a complete CRL.
    pub shard_url: Option<&'a str>,
    /// Longest time between the two updates in seconds: ten days for subscribers, twelve months for a root's (R3).
    pub longest_validity: i64,
}

#[derive(Debug, Clone, Copy, Eq, PartialEq, Enumerated)]
#[repr(u32)]
enum Reason {
    Unspecified = 0,
    KeyCompromise = 1,
    CaCompromise = 2,
    AffiliationChanged = 3,
    Superseded = 4,
    CessationOfOperation = 5,
    CertificateHold = 6,
    RemoveFromCrl = 8,
    PrivilegeWithdrawn = 9,
    AaCompromise = 10,
}

struct Fields<'a> {
    version_2: bool,
    algorithm: &'a [u8],
    issuer: &'a [u8],
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    revoked: Option<AnyRef<'a>>,
    extensions: Vec<Extension>,
}

/// Lints a CRL.
#[must_use]
pub fn crl(der: &[u8], rules: &CrlRules<'_>) -> Report {
    match take_apart(der) {
        Ok((tbs, outer, _)) => judge(tbs, outer, rules),
        Err(error) => unreadable(error.to_string()),
    }
}

/// Lints what will be signed as a CRL, where it lies: the same as [`crl`] of it with any signature, without a copy of a long list.
#[must_use]
pub fn crl_to_be_signed(tbs: &ToBeSigned, rules: &CrlRules<'_>) -> Report {
    judge(tbs.as_der(), &tbs.algorithm().identifier(), rules)
}

fn unreadable(error: String) -> Report {
    let mut report = Report::default();
    report.error(Source::Rfc, "R5", "crl_parses", error);
    report
}

fn judge(tbs: &[u8], outer: &[u8], rules: &CrlRules<'_>) -> Report {
    let fields = match fields(tbs) {
        Ok(fields) => fields,
        Err(error) => return unreadable(error.to_string()),
    };
    let mut report = Report::default();
    if fields.algorithm != outer || outer != rules.issuer.algorithm.identifier() {
        report.error(Source::Rfc, "R5", "crl_signature_algorithms_equal", "");
    }
    if !fields.version_2 {
        report.error(Source::Rfc, "R5", "crl_version_2", "");
    }
    if fields.issuer != rules.issuer.name.as_der() {
        report.error(Source::Rfc, "R5", "crl_issuer_byte_identical", "");
    }
    updates(&fields, rules, &mut report);
    extensions(&fields, rules, &mut report);
    if let Some(revoked) = fields.revoked {
        if revoked.value().is_empty() {
            report.error(Source::Rfc, "R5", "no_empty_revoked_certificates", "");
        }
        if let Err(error) = entries(revoked, &mut report) {
            report.error(Source::Rfc, "R5", "crl_parses", error.to_string());
        }
    }
    report
}

fn fields(tbs: &[u8]) -> der::Result<Fields<'_>> {
    let mut reader = SliceReader::new(AnyRef::from_der(tbs)?.value())?;
    let version_2 = u8::decode(&mut reader)? == 1;
    let algorithm = reader.tlv_bytes()?;
    let issuer = reader.tlv_bytes()?;
    let this_update = unix_time(Time::decode(&mut reader)?);
    let mut fields = Fields {
        version_2,
        algorithm,
        issuer,
        this_update,
        next_update: None,
        revoked: None,
        extensions: Vec::new(),
    };
    while !reader.is_finished() {
        let element = AnyRef::decode(&mut reader)?;
        match element.header().tag() {
            Tag::UtcTime | Tag::GeneralizedTime => {
                fields.next_update = Some(unix_time(element.decode_as::<Time>()?))
            }
            Tag::Sequence => fields.revoked = Some(element),
            _ => fields.extensions = Vec::<Extension>::from_der(element.value())?,
        }
    }
    Ok(fields)
}

fn updates(fields: &Fields<'_>, rules: &CrlRules<'_>, report: &mut Report) {
    match fields.next_update {
        None => report.error(Source::CodeSigning, "R3", "next_update_present", ""),
        Some(next) if next <= fields.this_update => {
            report.error(Source::Rfc, "R3", "next_update_after_this_update", "");
        }
        Some(next) if next.0 - fields.this_update.0 > rules.longest_validity => {
            report.error(Source::CodeSigning, "R3", "next_update_not_too_late", "");
        }
        Some(_) => {}
    }
}

fn extensions(fields: &Fields<'_>, rules: &CrlRules<'_>, report: &mut Report) {
    let mut error = |requirement, rule| report.error(Source::Rfc, requirement, rule, "");
    let find = |wanted| fields.extensions.iter().find(|extension| extension.extn_id == wanted);
    let mut ids: Vec<_> = fields.extensions.iter().map(|extension| extension.extn_id).collect();
    ids.sort();
    if ids.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        error("R5", "extensions_unique");
    }
    let identifier = find(oid::AUTHORITY_KEY_IDENTIFIER)
        .and_then(|extension| AuthorityKeyIdentifier::from_der(extension.extn_value.as_bytes()).ok())
        .and_then(|value| value.key_identifier);
    if identifier.is_none_or(|octets| octets.as_bytes() != rules.issuer.key_identifier) {
        error("R5", "crl_authority_key_identifier");
    }
    match find(oid::CRL_NUMBER) {
        None => error("R5", "crl_number_present"),
        Some(extension) => {
            let number = UintRef::from_der(extension.extn_value.as_bytes());
            if extension.critical || number.is_err() {
                error("R5", "crl_number_valid");
            }
            if number.is_ok_and(|number| number.as_bytes().len() > 20) {
                error("R5", "crl_number_at_most_20_octets");
            }
        }
    }
    let point = find(oid::ISSUING_DISTRIBUTION_POINT);
    match (point, rules.shard_url) {
        (None, Some(_)) => error("R5", "shard_has_distribution_point"),
        (Some(_), None) => error("R5", "complete_crl_without_distribution_point"),
        (Some(extension), Some(url)) => {
            if !extension.critical {
                error("R5", "distribution_point_critical");
            }
            let decoded = IssuingDistributionPoint::from_der(extension.extn_value.as_bytes());
            let url = url.as_bytes();
            let names_url =
                extension.extn_value.as_bytes().windows(url.len().max(1)).any(|window| window == url);
            if decoded.is_err() || !names_url {
                error("R5", "distribution_point_is_the_shards");
            }
        }
        (None, None) => {}
    }
    if find(oid::DELTA_CRL_INDICATOR).is_some_and(|extension| !extension.critical) {
        error("R5", "delta_indicator_critical");
    }
    if find(oid::EXPIRED_CERTS_ON_CRL).is_none_or(|extension| extension.critical) {
        report.error(Source::Own, "R4", "expired_certificates_are_kept", "");
    }
}

fn entries(revoked: AnyRef<'_>, report: &mut Report) -> der::Result<()> {
    let mut reader = SliceReader::new(revoked.value())?;
    let (mut last, mut ascending) = (None::<&[u8]>, true);
    // The last date as it stands there, and what it says: what was revoked together follows each other.
    let mut dated: Option<(&[u8], UnixTime)> = None;
    while !reader.is_finished() {
        let mut entry = SliceReader::new(AnyRef::decode(&mut reader)?.value())?;
        let serial = AnyRef::decode(&mut entry)?.value();
        ascending &= last.is_none_or(|last| last < serial);
        last = Some(serial);
        let encoded = entry.tlv_bytes()?;
        let date = match dated {
            Some((same, date)) if same == encoded => date,
            _ => unix_time(Time::from_der(encoded)?),
        };
        dated = Some((encoded, date));
        if !entry.is_finished() {
            let list = entry.tlv_bytes()?;
            if !is_plain_reason(list) {
                entry_extensions(&Vec::<Extension>::from_der(list)?, date, report)?;
            }
        }
        entry.finish()?;
    }
    // What ascends has nothing twice; lists of our own do.
    if !ascending {
        let mut serials = serials(revoked)?;
        serials.sort_unstable();
        for _ in serials.windows(2).filter(|pair| matches!(pair, [a, b] if a == b)) {
            report.error(Source::Rfc, "R5", "revoked_once", "");
        }
    }
    Ok(())
}

/// The serial numbers of entries that were read.
fn serials(revoked: AnyRef<'_>) -> der::Result<Vec<&[u8]>> {
    let mut reader = SliceReader::new(revoked.value())?;
    let mut serials = Vec::new();
    while !reader.is_finished() {
        let mut entry = SliceReader::new(AnyRef::decode(&mut reader)?.value())?;
        serials.push(AnyRef::decode(&mut entry)?.value());
    }
    Ok(serials)
}

/// Whether the extensions of an entry are one reason that needs no remark: nearly every entry of a long list.
fn is_plain_reason(list: &[u8]) -> bool {
    list.strip_prefix(&REASON_EXTENSION).is_some_and(|code| matches!(code, [1..=5 | 9 | 10]))
}

fn entry_extensions(list: &[Extension], revoked_at: UnixTime, report: &mut Report) -> der::Result<()> {
    for extension in list {
        match extension.extn_id {
            oid::REASON_CODE => {
                let reason = Reason::from_der(extension.extn_value.as_bytes())?;
                if extension.critical {
                    report.error(Source::CodeSigning, "R5", "reason_not_critical", "");
                }
                if reason == Reason::Unspecified {
                    report.error(Source::CodeSigning, "R5", "reason_zero_not_encoded", "");
                }
                if reason == Reason::CertificateHold {
                    report.error(Source::CodeSigning, "R4", "no_certificate_hold", "");
                }
            }
            oid::INVALIDITY_DATE => {
                let date = AnyRef::from_der(extension.extn_value.as_bytes())?;
                let time = date.decode_as::<der::asn1::GeneralizedTime>()?;
                if unix_time(Time::GeneralTime(time)) != revoked_at {
                    report.error(Source::CodeSigning, "R2", "invalidity_date_is_revocation_date", "");
                }
            }
            _ if extension.critical => {
                report.error(Source::Rfc, "R5", "no_unknown_critical_entry_extension", "");
            }
            _ => {}
        }
    }
    Ok(())
}
