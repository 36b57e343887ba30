//! Rules for OCSP responses (requirements O1 to O3; RFC 6960, RFC 9919).

use alloc::string::ToString;

use der::asn1::{AnyRef, GeneralizedTime, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag};

use super::{Report, Source};
use crate::ocsp::OcspRequest;
use crate::oid;

/// Lints a successful response: one answer, times in order; and, where the request is at hand, the asked certificate id and
/// the nonce echoed.
#[must_use]
pub fn ocsp_response(der: &[u8], request: Option<&OcspRequest>) -> Report {
    let mut report = Report::default();
    match read(der) {
        Err(error) => report.error(Source::Rfc, "O3", "ocsp_response_parses", error.to_string()),
        Ok(found) => judge(&found, request, &mut report),
    }
    report
}

struct Found<'a> {
    singles: usize,
    cert_id: &'a [u8],
    this_update: GeneralizedTime,
    next_update: Option<GeneralizedTime>,
    produced_at: GeneralizedTime,
    nonce: Option<&'a [u8]>,
    certificates: bool,
}

fn judge(found: &Found<'_>, request: Option<&OcspRequest>, report: &mut Report) {
    let mut error = |rule| report.error(Source::Rfc, "O3", rule, "");
    if found.singles != 1 {
        error("one_answer");
    }
    if request.is_some_and(|request| found.cert_id != request.encoded_id()) {
        error("answer_for_the_certificate_id");
    }
    if found.produced_at < found.this_update {
        error("this_update_not_after_produced_at");
    }
    match &found.next_update {
        None => error("next_update_present"),
        Some(next) if *next <= found.this_update => error("next_update_after_this_update"),
        Some(next) => {
            let seconds =
                next.to_unix_duration().saturating_sub(found.this_update.to_unix_duration()).as_secs();
            if seconds > 10 * 86_400 {
                report.error(Source::CodeSigning, "O2", "answer_lives_at_most_10_days", "");
            }
        }
    }
    if request.is_some_and(|request| found.nonce.is_some() && found.nonce != request.nonce.as_deref()) {
        report.error(Source::Rfc, "O4", "nonce_echoed_exactly", "");
    }
    if !found.certificates {
        report.error(Source::Own, "O1", "responder_certificate_included", "");
    }
}

fn read(der: &[u8]) -> der::Result<Found<'_>> {
    let bad = || der::Error::from(der::ErrorKind::Failed);
    let mut response = inside(AnyRef::from_der(der)?)?;
    let status = AnyRef::decode(&mut response)?;
    if status.header().tag() != Tag::Enumerated || status.value() != [0] {
        return Err(bad());
    }
    let mut bytes = inside(AnyRef::from_der(AnyRef::decode(&mut response)?.value())?)?;
    response.finish()?;
    if spki::ObjectIdentifier::decode(&mut bytes)? != oid::OCSP_BASIC {
        return Err(bad());
    }
    let basic = <&OctetStringRef>::decode(&mut bytes)?;
    bytes.finish()?;
    let mut basic = inside(AnyRef::from_der(basic.as_bytes())?)?;
    let data = AnyRef::decode(&mut basic)?;
    AnyRef::decode(&mut basic)?;
    AnyRef::decode(&mut basic)?;
    let certificates = !basic.is_finished();
    let mut data = inside(data)?;
    AnyRef::decode(&mut data)?;
    let produced_at = GeneralizedTime::decode(&mut data)?;
    let mut list = inside(AnyRef::decode(&mut data)?)?;
    let mut single = inside(AnyRef::decode(&mut list)?)?;
    let mut singles = 1;
    while !list.is_finished() {
        AnyRef::decode(&mut list)?;
        singles += 1;
    }
    let cert_id = single.tlv_bytes()?;
    AnyRef::decode(&mut single)?;
    let this_update = GeneralizedTime::decode(&mut single)?;
    let next_update = if single.is_finished() {
        None
    } else {
        Some(GeneralizedTime::from_der(AnyRef::decode(&mut single)?.value())?)
    };
    let nonce = if data.is_finished() { None } else { nonce(AnyRef::decode(&mut data)?)? };
    Ok(Found { singles, cert_id, this_update, next_update, produced_at, nonce, certificates })
}

fn inside(any: AnyRef<'_>) -> der::Result<SliceReader<'_>> {
    if any.header().tag() == Tag::Sequence {
        SliceReader::new(any.value())
    } else {
        Err(Tag::Sequence.value_error().into())
    }
}

fn nonce(wrapper: AnyRef<'_>) -> der::Result<Option<&[u8]>> {
    let mut list = inside(AnyRef::from_der(wrapper.value())?)?;
    while !list.is_finished() {
        let mut extension = inside(AnyRef::decode(&mut list)?)?;
        if spki::ObjectIdentifier::decode(&mut extension)? == oid::OCSP_NONCE {
            let value = <&OctetStringRef>::decode(&mut extension)?;
            return Ok(Some(<&OctetStringRef>::from_der(value.as_bytes())?.as_bytes()));
        }
    }
    Ok(None)
}
