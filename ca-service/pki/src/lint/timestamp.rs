//! Rules for time-stamp tokens (requirements T2 and T4; RFC 3161, RFC 5816), read with the `cms` crate.

use alloc::string::ToString;

use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Encode, Reader, SliceReader};
use sha2::{Digest, Sha256};

use super::{Report, Source};
use crate::oid;

/// Lints the TimeStampResp of a granted request.
#[must_use]
pub fn timestamp_token(der: &[u8]) -> Report {
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
                    if signed.to_der().ok() != content.content.to_der().ok() {
                        report.error(Source::Rfc, "T4", "strict_der", "");
                    }
                    signed_data(&signed, &mut report);
                }
            }
        }
    }
    report
}

/// The token of a granted TimeStampResp, as encoded.
fn token(der: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(AnyRef::from_der(der)?.value())?;
    AnyRef::decode(&mut reader)?;
    let token = reader.tlv_bytes()?;
    reader.finish()?;
    Ok(token)
}

fn signed_data(signed: &SignedData, report: &mut Report) {
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
    match accuracy_present(content) {
        Ok(true) => {}
        _ => error("T2", "accuracy_set"),
    }
}

fn accuracy_present(tst_info: &[u8]) -> der::Result<bool> {
    let mut reader = SliceReader::new(AnyRef::from_der(tst_info)?.value())?;
    // version, policy, imprint, serial, time
    for _ in 0..5 {
        AnyRef::decode(&mut reader)?;
    }
    Ok(!reader.is_finished() && AnyRef::decode(&mut reader)?.header().tag() == der::Tag::Sequence)
}
