//! Rules for time-stamp tokens (requirements T2 and T4; RFC 3161, RFC 5816), read with the `cms` crate.

use alloc::string::ToString;
use alloc::vec::Vec;

use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use der::asn1::{Any, AnyRef, OctetStringRef, UintRef};
use der::{Decode, Encode, Reader, SliceReader, Tag};
use sha2::{Digest, Sha256};

use super::{Report, Source};
use crate::oid::{self, ObjectIdentifier};
use crate::timestamp::TimestampRequest;

/// Tag of a SignedData's certificates.
const CERTIFICATES: u8 = 0xa0;

/// Lints the TimeStampResp of a granted request; where the request is at hand, that what it asked for was echoed.
#[must_use]
pub fn timestamp_token(der: &[u8], request: Option<&TimestampRequest>) -> Report {
    let mut report = Report::default();
    match token(der).and_then(|token| Ok((token, ContentInfo::from_der(token)?))) {
        Err(error) => report.error(Source::Rfc, "T2", "token_parses", error.to_string()),
        Ok((bytes, content)) => {
            if content.content_type != oid::SIGNED_DATA {
                report.error(Source::Rfc, "T2", "token_is_signed_data", "");
            }
            // DER sorts every SET OF; a re-encoding that differs means that somebody did not (T4).
            if content.to_der().ok().as_deref() != Some(bytes) {
                report.error(Source::Rfc, "T4", "strict_der", "");
            }
            match content.content.decode_as::<SignedData>() {
                Err(error) => report.error(Source::Rfc, "T2", "token_parses", error.to_string()),
                Ok(signed) => {
                    if !strict(&content.content, &signed).unwrap_or(false) {
                        report.error(Source::Rfc, "T4", "strict_der", "");
                    }
                    signed_data(&signed, request, &mut report);
                }
            }
        }
    }
    report
}

/// Whether a SignedData is in DER. Its certificates are compared as octets, as X.690 section 11.6 sorts them: the library sorts
/// by fields, so that encoding them again could change their order.
fn strict(content: &Any, signed: &SignedData) -> der::Result<bool> {
    let mut reader = SliceReader::new(content.value())?;
    let (mut others, mut sorted) = (Vec::new(), true);
    while !reader.is_finished() {
        let element = reader.tlv_bytes()?;
        if element.first() != Some(&CERTIFICATES) {
            others.extend_from_slice(element);
            continue;
        }
        let mut certificates = SliceReader::new(AnyRef::from_der(element)?.value())?;
        let mut last: &[u8] = &[];
        while !certificates.is_finished() {
            let next = certificates.tlv_bytes()?;
            sorted &= last < next;
            last = next;
        }
    }
    let again = SignedData { certificates: None, ..signed.clone() }.to_der()?;
    Ok(sorted && AnyRef::from_der(&again)?.value() == others)
}

/// The token of a granted TimeStampResp, as encoded.
fn token(der: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(AnyRef::from_der(der)?.value())?;
    AnyRef::decode(&mut reader)?;
    let token = reader.tlv_bytes()?;
    reader.finish()?;
    Ok(token)
}

fn signed_data(signed: &SignedData, request: Option<&TimestampRequest>, report: &mut Report) {
    let mut error = |requirement, rule| report.error(Source::Rfc, requirement, rule, "");
    if signed.encap_content_info.econtent_type != oid::TST_INFO {
        error("T2", "content_is_tst_info");
    }
    let content = signed
        .encap_content_info
        .econtent
        .as_ref()
        .and_then(|any| any.decode_as::<&OctetStringRef>().ok())
        .map(OctetStringRef::as_bytes)
        .unwrap_or_default();
    let [signer] = signed.signer_infos.0.as_slice() else {
        error("T2", "one_signer");
        return;
    };
    if signer.digest_alg.oid != oid::SHA256 {
        error("T3", "digest_is_sha256");
    }
    let attribute = |wanted| {
        signer
            .signed_attrs
            .as_ref()
            .and_then(|attributes| attributes.iter().find(|attribute| attribute.oid == wanted))
            .and_then(|attribute| attribute.values.get(0))
    };
    if attribute(oid::SIGNING_CERTIFICATE_V2).is_none() {
        error("T2", "signing_certificate_v2");
    }
    let digest = attribute(oid::MESSAGE_DIGEST).map(|value| value.value());
    if digest != Some(Sha256::digest(content).as_slice()) {
        error("T2", "message_digest_matches");
    }
    match tst_info(content) {
        Err(_) => error("T2", "tst_info_parses"),
        Ok(info) => {
            if info.accuracy.is_none() {
                error("T2", "accuracy_set");
            }
            if info.accuracy.is_some_and(|octets| octets.iter().all(|octet| *octet == 0)) {
                // Nothing, or nothing but zeros: no clock is exact.
                report.error(Source::Own, "T2", "accuracy_above_zero", "");
            }
            let Some(request) = request else { return };
            let mut error = |rule| report.error(Source::Rfc, "T2", rule, "");
            if info.imprint != request.imprint() {
                error("imprint_echoed");
            }
            if info.nonce.as_ref().map(UintRef::as_bytes) != request.nonce() {
                error("nonce_echoed");
            }
            if request.policy().is_some_and(|policy| *policy != info.policy) {
                error("policy_as_asked");
            }
        }
    }
}

/// What the rules look at in a TSTInfo (RFC 3161 §2.4.2).
struct TstInfo<'a> {
    policy: ObjectIdentifier,
    imprint: &'a [u8],
    /// The octets of its numbers.
    accuracy: Option<Vec<u8>>,
    nonce: Option<UintRef<'a>>,
}

fn tst_info(content: &[u8]) -> der::Result<TstInfo<'_>> {
    let mut reader = SliceReader::new(AnyRef::from_der(content)?.value())?;
    AnyRef::decode(&mut reader)?;
    let policy = ObjectIdentifier::decode(&mut reader)?;
    let imprint = reader.tlv_bytes()?;
    // Serial number and time.
    AnyRef::decode(&mut reader)?;
    AnyRef::decode(&mut reader)?;
    let mut info = TstInfo { policy, imprint, accuracy: None, nonce: None };
    while !reader.is_finished() {
        let field = AnyRef::decode(&mut reader)?;
        match field.header().tag() {
            Tag::Sequence => info.accuracy = Some(numbers(field)?),
            Tag::Integer => info.nonce = Some(field.decode_as()?),
            _ => {}
        }
    }
    Ok(info)
}

/// The contents of every element of a sequence, one after the other.
fn numbers(sequence: AnyRef<'_>) -> der::Result<Vec<u8>> {
    let mut reader = SliceReader::new(sequence.value())?;
    let mut octets = Vec::new();
    while !reader.is_finished() {
        octets.extend_from_slice(AnyRef::decode(&mut reader)?.value());
    }
    Ok(octets)
}
