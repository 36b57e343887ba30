//! Reads the DER of an OCSP response (RFC 6960 §4.2.1).

use alloc::vec::Vec;

use crate::algorithm::SignatureAlgorithm;
use crate::certificate::Certificate;
use crate::crl_entry::RevocationReason;
use crate::extension::{Extension, read_extensions};
use crate::name::CanonicalName;
use crate::ocsp::{CertIdHash, CertificateStatus, Parts, ResponderId, ResponseStatus, SingleResponse};
use crate::oid;
use crate::reason::Denial;
use crate::x690::{Element, Malformed, Reader, tag};

/// The most single responses in one response.
const MAX_SINGLE_RESPONSES: usize = 256;

/// The most certificates a responder may send along.
const MAX_CERTIFICATES: usize = 8;

/// The outer status of a response.
///
/// # Errors
/// `malformed`, also for a status that RFC 6960 does not define.
pub fn response_status(der: &[u8]) -> Result<ResponseStatus, Denial> {
    let read = || -> Result<ResponseStatus, Malformed> {
        let mut fields = Reader::only(der, tag::SEQUENCE)?.reader();
        let status = fields.expect(tag::ENUMERATED)?;
        let known = match status.small_integer()? {
            0 => ResponseStatus::Successful,
            1 => ResponseStatus::MalformedRequest,
            2 => ResponseStatus::InternalError,
            3 => ResponseStatus::TryLater,
            5 => ResponseStatus::SigRequired,
            6 => ResponseStatus::Unauthorized,
            _ => return Err(status.error("unknown response status")),
        };
        let bytes = fields.optional(tag::constructed(0))?;
        fields.finish()?;
        if bytes.is_some() != (known == ResponseStatus::Successful) {
            return Err(status.error("response bytes do not go with the status"));
        }
        Ok(known)
    };
    read().map_err(|error| error.denial("OCSP response"))
}

pub(crate) const NOT_BASIC: &str = "OCSP response type is not basic";

/// The BasicOCSPResponse element inside.
pub(crate) fn basic_response(der: &[u8]) -> Result<Element<'_>, Malformed> {
    let mut fields = Reader::only(der, tag::SEQUENCE)?.reader();
    fields.expect(tag::ENUMERATED)?;
    let mut wrapper = fields.expect(tag::constructed(0))?.reader();
    let mut bytes = wrapper.sequence()?;
    wrapper.finish()?;
    let kind = bytes.expect(tag::OID)?;
    if kind.oid()? != oid::OCSP_BASIC.as_bytes() {
        return Err(kind.error(NOT_BASIC));
    }
    let response = bytes.expect(tag::OCTET_STRING)?;
    bytes.finish()?;
    let mut inner = response.reader();
    let basic = inner.expect(tag::SEQUENCE)?;
    inner.finish()?;
    Ok(basic)
}

pub(crate) fn parse(basic: Element<'_>, whole: &[u8]) -> Result<Parts, Malformed> {
    let mut outer = basic.reader();
    let data = outer.expect(tag::SEQUENCE)?;
    let signature_algorithm = SignatureAlgorithm::from_element(outer.expect(tag::SEQUENCE)?)?;
    let signature = outer.expect(tag::BIT_STRING)?.octet_bit_string()?;

    let mut fields = data.reader();
    if let Some(version) = fields.optional(tag::constructed(0))? {
        return Err(version.error("response data version is not 1"));
    }
    let responder = fields.read()?;
    let mut inner = responder.reader();
    let responder = match responder.tag() {
        0xa1 => ResponderId::Name(CanonicalName::from_element(inner.expect(tag::SEQUENCE)?)?),
        0xa2 => ResponderId::Key(inner.expect(tag::OCTET_STRING)?.content_span()),
        _ => return Err(responder.error("unknown kind of responder id")),
    };
    inner.finish()?;
    let produced_at = fields.expect(tag::GENERALIZED_TIME)?.time()?;
    let mut unusable = None;
    let mut list = fields.sequence()?;
    let mut responses = Vec::new();
    while !list.is_empty() {
        if responses.len() >= MAX_SINGLE_RESPONSES {
            return Err(list.error("too many single responses"));
        }
        let (response, problem) = read_single(list.expect(tag::SEQUENCE)?, whole)?;
        unusable = unusable.or(problem);
        responses.push(response);
    }
    let extensions = match fields.optional(tag::constructed(1))? {
        Some(wrapper) => read_wrapped_extensions(wrapper, whole)?,
        None => Vec::new(),
    };
    fields.finish()?;
    let recognised = [oid::OCSP_NONCE, oid::OCSP_EXTENDED_REVOKE];
    if has_unrecognised_critical(&extensions, &recognised, whole) {
        unusable = Some("a critical extension of the OCSP response is not recognised");
    }
    Ok(Parts {
        der: whole.into(),
        data: data.span(),
        responder,
        produced_at,
        responses,
        extensions,
        signature_algorithm,
        signature,
        certificates: Vec::new(),
        unusable,
    })
}

pub(crate) fn read_certificates(basic: Element<'_>) -> Result<Vec<Certificate>, Denial> {
    let collect = || -> Result<Vec<Element<'_>>, Malformed> {
        let mut fields = basic.reader();
        for _ in 0..3 {
            fields.read()?;
        }
        let mut found = Vec::new();
        if let Some(wrapper) = fields.optional(tag::constructed(0))? {
            let mut inner = wrapper.reader();
            let mut list = inner.sequence()?;
            inner.finish()?;
            while !list.is_empty() {
                if found.len() >= MAX_CERTIFICATES {
                    return Err(list.error("too many certificates"));
                }
                found.push(list.expect(tag::SEQUENCE)?);
            }
        }
        fields.finish()?;
        Ok(found)
    };
    let elements = collect().map_err(|error| error.denial("OCSP response"))?;
    elements.iter().map(|element| Certificate::from_der(element.der())).collect()
}

fn read_single(
    element: Element<'_>,
    whole: &[u8],
) -> Result<(SingleResponse, Option<&'static str>), Malformed> {
    let mut fields = element.reader();
    let mut id = fields.sequence()?;
    let algorithm = id.expect(tag::SEQUENCE)?;
    let mut algorithm_fields = algorithm.reader();
    let hash = algorithm_fields.expect(tag::OID)?.oid()?;
    if let Some(parameters) = algorithm_fields.optional(tag::NULL)?
        && !parameters.content().is_empty()
    {
        return Err(parameters.error("NULL has content"));
    }
    algorithm_fields.finish()?;
    let known = [
        (oid::SHA1, CertIdHash::Sha1),
        (oid::SHA256, CertIdHash::Sha256),
        (oid::SHA384, CertIdHash::Sha384),
        (oid::SHA512, CertIdHash::Sha512),
    ];
    let hash =
        known.iter().find(|(id, _)| id.as_bytes() == hash).map_or(CertIdHash::Unsupported, |(_, hash)| *hash);
    let issuer_name_hash = id.expect(tag::OCTET_STRING)?.content_span();
    let issuer_key_hash = id.expect(tag::OCTET_STRING)?.content_span();
    let serial = id.expect(tag::INTEGER)?;
    serial.integer()?;
    id.finish()?;
    let status = read_status(fields.read()?)?;
    let this_update = fields.expect(tag::GENERALIZED_TIME)?.time()?;
    let next_update = match fields.optional(tag::constructed(0))? {
        Some(wrapper) => {
            let mut inner = wrapper.reader();
            let time = inner.expect(tag::GENERALIZED_TIME)?.time()?;
            inner.finish()?;
            Some(time)
        }
        None => None,
    };
    let mut unusable = None;
    if let Some(wrapper) = fields.optional(tag::constructed(1))? {
        let extensions = read_wrapped_extensions(wrapper, whole)?;
        if has_unrecognised_critical(&extensions, &[oid::OCSP_ARCHIVE_CUTOFF], whole) {
            unusable = Some("a critical extension of a single OCSP response is not recognised");
        }
    }
    fields.finish()?;
    let serial = serial.content_span();
    let response =
        SingleResponse { hash, issuer_name_hash, issuer_key_hash, serial, status, this_update, next_update };
    Ok((response, unusable))
}

fn read_status(element: Element<'_>) -> Result<CertificateStatus, Malformed> {
    match element.tag() {
        0x80 if element.content().is_empty() => Ok(CertificateStatus::Good),
        0x82 if element.content().is_empty() => Ok(CertificateStatus::Unknown),
        0xa1 => {
            let mut fields = element.reader();
            let at = fields.expect(tag::GENERALIZED_TIME)?.time()?;
            let reason = match fields.optional(tag::constructed(0))? {
                Some(wrapper) => {
                    let mut inner = wrapper.reader();
                    let code = inner.expect(tag::ENUMERATED)?;
                    inner.finish()?;
                    RevocationReason::from_code(code.small_integer()?)
                        .ok_or(code.error("unknown reason for a revocation"))?
                }
                None => RevocationReason::Unspecified,
            };
            fields.finish()?;
            Ok(CertificateStatus::Revoked { at, reason })
        }
        _ => Err(element.error("unknown kind of certificate status")),
    }
}

fn read_wrapped_extensions(wrapper: Element<'_>, whole: &[u8]) -> Result<Vec<Extension>, Malformed> {
    let mut inner = wrapper.reader();
    let extensions = read_extensions(inner.expect(tag::SEQUENCE)?, whole)?;
    inner.finish()?;
    Ok(extensions)
}

fn has_unrecognised_critical(
    extensions: &[Extension],
    recognised: &[const_oid::ObjectIdentifier],
    whole: &[u8],
) -> bool {
    extensions.iter().any(|extension| {
        extension.is_critical() && !recognised.iter().any(|known| known.as_bytes() == extension.id(whole))
    })
}
