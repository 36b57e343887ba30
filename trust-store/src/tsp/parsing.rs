//! Reading of a token: CMS SignedData, SignerInfo with its signed attributes, TSTInfo.

use alloc::vec::Vec;

use super::{MAX_TOKEN_CERTIFICATES, SignerIdentifier, TimestampToken};
use crate::algorithm::SignatureAlgorithm;
use crate::certificate::Certificate;
use crate::key_details::HashAlgorithm;
use crate::oid;
use crate::time::UnixTime;
use crate::x690::{Element, Malformed, Reader, Span, tag};

/// id-signedData
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// id-ct-TSTInfo
const TST_INFO: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x04];
/// id-contentType
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
/// id-messageDigest
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
/// id-aa-signingCertificateV2
const SIGNING_CERTIFICATE_V2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x02, 0x2f];
pub(super) fn read_token(der: &[u8]) -> Result<TimestampToken, Malformed> {
    let content =
        wrapped(Reader::only(der, tag::SEQUENCE)?.reader(), SIGNED_DATA, "content is not SignedData")?;
    let mut signed_data = content.reader();
    let version = signed_data.expect(tag::INTEGER)?;
    if version.small_integer()? != 3 {
        return Err(version.error("SignedData version is not 3"));
    }
    signed_data.expect(tag::SET)?;
    let encapsulated = signed_data.sequence()?;
    let info = wrapped_octets(encapsulated)?;
    let mut certificates = Vec::new();
    if let Some(set) = signed_data.optional(tag::constructed(0))? {
        let mut items = set.reader();
        while !items.is_empty() {
            let item = items.expect(tag::SEQUENCE)?;
            if certificates.len() == MAX_TOKEN_CERTIFICATES {
                return Err(item.error("too many certificates"));
            }
            let parsed = Certificate::from_der(item.der());
            certificates.push(parsed.map_err(|_| item.error("certificate is malformed"))?);
        }
    }
    signed_data.optional(tag::constructed(1))?;
    let mut signers = signed_data.expect(tag::SET)?.reader();
    signed_data.finish()?;
    let signer = signers.expect(tag::SEQUENCE)?;
    if !signers.is_empty() {
        return Err(signers.error("more than one signer"));
    }
    let signer = SignerInfo::read(signer)?;
    let tst = TstInfo::read(info)?;
    // Spans of nested readers count from the start of the same buffer, so one owned copy serves them all.
    Ok(TimestampToken {
        der: der.to_vec(),
        info: info.content_span(),
        imprint_hash: tst.imprint_hash,
        imprint: tst.imprint,
        serial: tst.serial,
        time: tst.time,
        nonce: tst.nonce,
        certificates,
        signer: signer.identifier,
        digest_algorithm: signer.digest_algorithm,
        attributes: signer.attributes,
        message_digest: signer.message_digest,
        certificate_hash: signer.certificate_hash,
        certificate_digest: signer.certificate_digest,
        signature_algorithm: signer.signature_algorithm,
        signature: signer.signature,
    })
}

/// `SEQUENCE { type, [0] EXPLICIT content }` with the expected type.
fn wrapped<'a>(mut fields: Reader<'a>, kind: &[u8], what: &'static str) -> Result<Element<'a>, Malformed> {
    let found = fields.expect(tag::OID)?;
    if found.oid()? != kind {
        return Err(found.error(what));
    }
    let mut inner = fields.expect(tag::constructed(0))?.reader();
    let content = inner.expect(tag::SEQUENCE)?;
    inner.finish()?;
    fields.finish()?;
    Ok(content)
}

fn wrapped_octets(mut fields: Reader<'_>) -> Result<Element<'_>, Malformed> {
    let kind = fields.expect(tag::OID)?;
    if kind.oid()? != TST_INFO {
        return Err(kind.error("content is not TSTInfo"));
    }
    let mut inner = fields.expect(tag::constructed(0))?.reader();
    let octets = inner.expect(tag::OCTET_STRING)?;
    inner.finish()?;
    fields.finish()?;
    Ok(octets)
}

struct TstInfo {
    imprint_hash: HashAlgorithm,
    imprint: Span,
    serial: Span,
    time: UnixTime,
    nonce: Option<Span>,
}

impl TstInfo {
    fn read(octets: Element<'_>) -> Result<Self, Malformed> {
        let mut content = octets.reader();
        let mut fields = content.sequence()?;
        content.finish()?;
        let version = fields.expect(tag::INTEGER)?;
        if version.small_integer()? != 1 {
            return Err(version.error("TSTInfo version is not 1"));
        }
        fields.expect(tag::OID)?.oid()?;
        let mut imprint = fields.sequence()?;
        let imprint_hash = hash(imprint.expect(tag::SEQUENCE)?)?;
        let imprint_value = imprint.expect(tag::OCTET_STRING)?;
        imprint.finish()?;
        if imprint_value.content().len() != imprint_hash.output_length() {
            return Err(imprint_value.error("imprint has the wrong length"));
        }
        let serial = fields.expect(tag::INTEGER)?;
        serial.integer()?;
        let time = general_time(fields.expect(tag::GENERALIZED_TIME)?)?;
        fields.optional(tag::SEQUENCE)?;
        if let Some(ordering) = fields.optional(tag::BOOLEAN)?
            && !ordering.boolean()?
        {
            return Err(ordering.error("DEFAULT value is encoded"));
        }
        let nonce = fields.optional(tag::INTEGER)?;
        nonce.map(|nonce| nonce.integer()).transpose()?;
        fields.optional(tag::constructed(0))?;
        if let Some(extensions) = fields.optional(tag::constructed(1))? {
            refuse_critical(extensions)?;
        }
        fields.finish()?;
        Ok(Self {
            imprint_hash,
            imprint: imprint_value.content_span(),
            serial: serial.content_span(),
            time,
            nonce: nonce.map(|nonce| nonce.content_span()),
        })
    }
}

/// No extension of a TSTInfo is known here, so a critical one cannot be honoured.
fn refuse_critical(extensions: Element<'_>) -> Result<(), Malformed> {
    let mut items = extensions.reader();
    while !items.is_empty() {
        let mut extension = items.sequence()?;
        extension.expect(tag::OID)?;
        if let Some(critical) = extension.optional(tag::BOOLEAN)?
            && critical.boolean()?
        {
            return Err(critical.error("critical extension is not recognised"));
        }
    }
    Ok(())
}

/// RFC 3161 section 2.4.2: as in RFC 5280, but a fraction without trailing zero is allowed. The fraction is cut off.
fn general_time(element: Element<'_>) -> Result<UnixTime, Malformed> {
    let error = element.error("genTime is not canonical");
    let content = element.content();
    let Some(fraction) = content.get(14..).and_then(|rest| rest.strip_suffix(b"Z")) else {
        return Err(error);
    };
    if let Some(digits) = fraction.strip_prefix(b".") {
        let canonical =
            digits.iter().all(u8::is_ascii_digit) && digits.last().is_some_and(|last| *last != b'0');
        if !canonical {
            return Err(error);
        }
    } else if !fraction.is_empty() {
        return Err(error);
    }
    let whole = [content.get(..14).unwrap_or_default(), b"Z"].concat();
    UnixTime::from_generalized_time(&whole).ok_or(error)
}

struct SignerInfo {
    identifier: SignerIdentifier,
    digest_algorithm: HashAlgorithm,
    attributes: Span,
    message_digest: Span,
    certificate_hash: HashAlgorithm,
    certificate_digest: Span,
    signature_algorithm: SignatureAlgorithm,
    signature: Span,
}

impl SignerInfo {
    fn read(element: Element<'_>) -> Result<Self, Malformed> {
        let mut fields = element.reader();
        let version = fields.expect(tag::INTEGER)?;
        let identifier = match version.small_integer()? {
            1 => {
                let mut pair = fields.sequence()?;
                let issuer = pair.expect(tag::SEQUENCE)?.span();
                let serial = pair.expect(tag::INTEGER)?;
                serial.integer()?;
                pair.finish()?;
                SignerIdentifier::IssuerAndSerial { issuer, serial: serial.content_span() }
            }
            3 => SignerIdentifier::SubjectKeyIdentifier(fields.expect(tag::primitive(0))?.content_span()),
            _ => return Err(version.error("SignerInfo version is neither 1 nor 3")),
        };
        let digest_algorithm = hash(fields.expect(tag::SEQUENCE)?)?;
        let attributes = fields.expect(tag::constructed(0))?;
        let signature_algorithm = SignatureAlgorithm::from_element(fields.expect(tag::SEQUENCE)?)?;
        let signature = fields.expect(tag::OCTET_STRING)?.content_span();
        fields.optional(tag::constructed(1))?;
        fields.finish()?;
        let signed = SignedAttributes::read(attributes)?;
        Ok(Self {
            identifier,
            digest_algorithm,
            attributes: attributes.content_span(),
            message_digest: signed.message_digest,
            certificate_hash: signed.certificate_hash,
            certificate_digest: signed.certificate_digest,
            signature_algorithm,
            signature,
        })
    }
}

struct SignedAttributes {
    message_digest: Span,
    certificate_hash: HashAlgorithm,
    certificate_digest: Span,
}

impl SignedAttributes {
    fn read(set: Element<'_>) -> Result<Self, Malformed> {
        let (mut content_type, mut message_digest, mut certificate) = (None, None, None);
        let mut items = set.reader();
        while !items.is_empty() {
            let mut attribute = items.sequence()?;
            let kind = attribute.expect(tag::OID)?;
            let mut values = attribute.expect(tag::SET)?.reader();
            attribute.finish()?;
            let slot = match kind.oid()? {
                CONTENT_TYPE => &mut content_type,
                MESSAGE_DIGEST => &mut message_digest,
                SIGNING_CERTIFICATE_V2 => &mut certificate,
                _ => continue,
            };
            let value = values.read()?;
            values.finish()?;
            if slot.replace(value).is_some() {
                return Err(kind.error("a signed attribute stands twice"));
            }
        }
        let missing = |what| set.error(what);
        let content_type = content_type.ok_or(missing("content type attribute is missing"))?;
        if content_type.tag() != tag::OID || content_type.oid()? != TST_INFO {
            return Err(content_type.error("content type attribute is not TSTInfo"));
        }
        let message_digest = message_digest.ok_or(missing("message digest attribute is missing"))?;
        if message_digest.tag() != tag::OCTET_STRING {
            return Err(message_digest.error("message digest attribute is not an OCTET STRING"));
        }
        let certificate = certificate.ok_or(missing("signingCertificateV2 attribute is missing"))?;
        let (certificate_hash, certificate_digest) = first_certificate_id(certificate)?;
        Ok(Self { message_digest: message_digest.content_span(), certificate_hash, certificate_digest })
    }
}

/// `SigningCertificateV2 { SEQUENCE OF ESSCertIDv2, policies OPTIONAL }`; the first id is the signer's (RFC 5035).
fn first_certificate_id(value: Element<'_>) -> Result<(HashAlgorithm, Span), Malformed> {
    if value.tag() != tag::SEQUENCE {
        return Err(value.error("signingCertificateV2 is not a SEQUENCE"));
    }
    let mut ids = value.reader().sequence()?;
    let mut id = ids.sequence()?;
    let algorithm = match id.optional(tag::SEQUENCE)? {
        Some(identifier) => hash(identifier)?,
        None => HashAlgorithm::Sha256,
    };
    let digest = id.expect(tag::OCTET_STRING)?;
    id.optional(tag::SEQUENCE)?;
    id.finish()?;
    if digest.content().len() != algorithm.output_length() {
        return Err(digest.error("certificate hash has the wrong length"));
    }
    Ok((algorithm, digest.content_span()))
}

/// A SHA-2 AlgorithmIdentifier with absent or NULL parameters; SHA-1 is refused with everything else.
fn hash(identifier: Element<'_>) -> Result<HashAlgorithm, Malformed> {
    let mut fields = identifier.reader();
    let id = fields.expect(tag::OID)?.oid()?;
    if let Some(parameters) = fields.optional(tag::NULL)?
        && !parameters.content().is_empty()
    {
        return Err(parameters.error("NULL has content"));
    }
    fields.finish()?;
    let known = [
        (oid::SHA256, HashAlgorithm::Sha256),
        (oid::SHA384, HashAlgorithm::Sha384),
        (oid::SHA512, HashAlgorithm::Sha512),
    ];
    let found = known.iter().find(|(known, _)| known.as_bytes() == id);
    found.map(|(_, algorithm)| *algorithm).ok_or(identifier.error("hash algorithm is not SHA-2"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    #[test]
    fn times_may_have_a_canonical_fraction() {
        let read = |text: &[u8]| {
            let der = encode::element(tag::GENERALIZED_TIME, &[text]);
            Reader::only(&der, tag::GENERALIZED_TIME).and_then(general_time).ok()
        };
        assert_eq!(read(b"19700101000001.25Z"), Some(UnixTime(1)));
        assert_eq!(read(b"19700101000001Z"), Some(UnixTime(1)));
        for bad in
            [&b"19700101000001.Z"[..], b"19700101000001.20Z", b"19700101000001,5Z", b"1970010100Z", b""]
        {
            assert_eq!(read(bad), None);
        }
    }
}
