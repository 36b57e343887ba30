//! Certificate transparency inside a certificate: precertificate, SCT list, correspondence (RFC 6962 §3.1 to §3.3).

use alloc::vec;
use alloc::vec::Vec;

use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag};
use spki::ObjectIdentifier;

use crate::encoding;
use crate::error::Error;
use crate::signed::ToBeSigned;
use crate::{certificate::MAX_CERTIFICATE, oid};

/// A signed certificate timestamp as a log returns it (RFC 6962 §3.2), version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCertificateTimestamp {
    /// SHA-256 of the log's SubjectPublicKeyInfo.
    pub log_id: [u8; 32],
    /// Milliseconds since 1970.
    pub timestamp_ms: u64,
    /// CtExtensions, such as the leaf index of a static-ct log; part of what is signed.
    pub extensions: Vec<u8>,
    /// TLS `digitally-signed`: hash and signature algorithm, two octets of length, signature.
    pub signature: Vec<u8>,
}

impl SignedCertificateTimestamp {
    /// The serialized SCT (RFC 6962 §3.2).
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the extensions do not fit their two octets of length.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let length = u16::try_from(self.extensions.len())
            .map_err(|_| Error::TooLarge { what: "SCT extensions", limit: usize::from(u16::MAX) })?;
        let mut out = vec![0];
        out.extend_from_slice(&self.log_id);
        out.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.extensions);
        out.extend_from_slice(&self.signature);
        Ok(out)
    }
}

/// Makes the certificate's to-be-signed bytes out of the precertificate's: poison out, SCT list in.
///
/// # Errors
/// [`Error::SctMismatch`] when the bytes are not a precertificate's, [`Error::Malformed`], [`Error::TooLarge`].
pub fn embed(precertificate: &ToBeSigned, sct: &SignedCertificateTimestamp) -> Result<ToBeSigned, Error> {
    let serialized = sct.to_bytes()?;
    let too_large = |_| Error::TooLarge { what: "SCT", limit: usize::from(u16::MAX) - 2 };
    let one = u16::try_from(serialized.len()).map_err(too_large)?;
    let all = u16::try_from(serialized.len() + 2).map_err(too_large)?;
    let list = [&all.to_be_bytes()[..], &one.to_be_bytes(), &serialized].concat();
    // RFC 6962 §3.3: the list stands in an OCTET STRING inside the extension's own.
    let inner = encoding::tlv(encoding::OCTET_STRING, &[&list]);
    let extension = encoding::tlv(
        encoding::SEQUENCE,
        &[&encoding::oid(&oid::SCT_LIST), &encoding::tlv(encoding::OCTET_STRING, &[&inner])],
    );
    let removed = without_extension(precertificate.as_der(), &oid::PRECERTIFICATE_POISON)?
        .ok_or(Error::SctMismatch("no poison extension"))?;
    Ok(ToBeSigned::new(with_last_extension(&removed, &extension)?, precertificate.algorithm()))
}

/// The bytes an SCT covers: the to-be-signed bytes without poison and without SCT list (RFC 6962 §3.2).
///
/// # Errors
/// [`Error::Malformed`] or [`Error::TooLarge`].
pub fn covered(tbs: &[u8]) -> Result<Vec<u8>, Error> {
    let without_poison = without_extension(tbs, &oid::PRECERTIFICATE_POISON)?;
    let rest = without_poison.as_deref().unwrap_or(tbs);
    Ok(without_extension(rest, &oid::SCT_LIST)?.unwrap_or_else(|| rest.to_vec()))
}

/// Checks that a certificate is the one its precertificate announced: equal but for poison and SCT list.
///
/// # Errors
/// [`Error::SctMismatch`] when they differ, or one of them does not have the extension it must have.
pub fn corresponds(precertificate_tbs: &[u8], certificate_tbs: &[u8]) -> Result<(), Error> {
    let announced = without_extension(precertificate_tbs, &oid::PRECERTIFICATE_POISON)?
        .ok_or(Error::SctMismatch("no poison extension"))?;
    let issued =
        without_extension(certificate_tbs, &oid::SCT_LIST)?.ok_or(Error::SctMismatch("no SCT list"))?;
    if announced == issued {
        Ok(())
    } else {
        Err(Error::SctMismatch("the certificate is not the announced one"))
    }
}

/// The to-be-signed bytes without one extension; `None` when it is not there.
fn without_extension(tbs: &[u8], wanted: &ObjectIdentifier) -> Result<Option<Vec<u8>>, Error> {
    let (fields, extensions) = split(tbs)?;
    let malformed = Error::malformed("certificate");
    let mut kept: Vec<&[u8]> = Vec::with_capacity(extensions.len());
    let mut found = false;
    for extension in &extensions {
        if extension_oid(extension).map_err(&malformed)? == *wanted {
            found = true;
        } else {
            kept.push(extension);
        }
    }
    Ok(found.then(|| join(&fields, &kept)))
}

fn with_last_extension(tbs: &[u8], extension: &[u8]) -> Result<Vec<u8>, Error> {
    let (fields, mut extensions) = split(tbs)?;
    extensions.push(extension);
    Ok(join(&fields, &extensions))
}

/// The elements of a TBSCertificate before its extensions, and the extensions, each as encoded.
fn split(tbs: &[u8]) -> Result<(Vec<&[u8]>, Vec<&[u8]>), Error> {
    if tbs.len() > MAX_CERTIFICATE {
        return Err(Error::TooLarge { what: "certificate", limit: MAX_CERTIFICATE });
    }
    let malformed = Error::malformed("certificate");
    let elements = elements(tbs).map_err(&malformed)?;
    let mut fields = Vec::new();
    let mut extensions = Vec::new();
    for element in elements {
        if element.first() == Some(&encoding::context_constructed(3)) {
            let wrapper = AnyRef::from_der(element).map_err(&malformed)?;
            extensions = self::elements(wrapper.value()).map_err(&malformed)?;
        } else {
            fields.push(element);
        }
    }
    Ok((fields, extensions))
}

fn elements(sequence: &[u8]) -> der::Result<Vec<&[u8]>> {
    let any = AnyRef::from_der(sequence)?;
    if any.header().tag() != Tag::Sequence {
        return Err(Tag::Sequence.value_error().into());
    }
    let mut reader = SliceReader::new_with_encoding_rules(any.value(), der::EncodingRules::Der)?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(reader.tlv_bytes()?);
    }
    Ok(found)
}

fn extension_oid(extension: &[u8]) -> der::Result<ObjectIdentifier> {
    let any = AnyRef::from_der(extension)?;
    let mut reader = SliceReader::new(any.value())?;
    ObjectIdentifier::decode(&mut reader)
}

fn join(fields: &[&[u8]], extensions: &[&[u8]]) -> Vec<u8> {
    let list = encoding::tlv(encoding::SEQUENCE, extensions);
    let wrapper = encoding::tlv(encoding::context_constructed(3), &[&list]);
    let mut parts = fields.to_vec();
    parts.push(&wrapper);
    encoding::tlv(encoding::SEQUENCE, &parts)
}

/// The serialized SCTs of an SCT list extension's value.
///
/// # Errors
/// [`Error::Malformed`] when lengths do not add up.
pub fn list(extension_value: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let malformed = || Error::Malformed { what: "SCT list", detail: "lengths do not add up".into() };
    let inner: &OctetStringRef =
        <&OctetStringRef>::from_der(extension_value).map_err(Error::malformed("SCT list"))?;
    let (all, mut rest) = inner.as_bytes().split_first_chunk::<2>().ok_or_else(malformed)?;
    if usize::from(u16::from_be_bytes(*all)) != rest.len() {
        return Err(malformed());
    }
    let mut scts = Vec::new();
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<2>().ok_or_else(malformed)?;
        let (sct, tail) =
            tail.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(malformed)?;
        scts.push(sct);
        rest = tail;
    }
    Ok(scts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::SignatureAlgorithm;

    fn tbs(extensions: &[Vec<u8>]) -> ToBeSigned {
        let serial = encoding::unsigned(&[1]);
        let version = encoding::tlv(encoding::context_constructed(0), &[&[2, 1, 2]]);
        let parts: Vec<&[u8]> = extensions.iter().map(Vec::as_slice).collect();
        let der = join(&[&version, &serial], &parts);
        ToBeSigned::from_record(der, SignatureAlgorithm::EcdsaP256Sha256)
    }

    fn extension(oid: &ObjectIdentifier, value: &[u8]) -> Vec<u8> {
        encoding::tlv(
            encoding::SEQUENCE,
            &[&encoding::oid(oid), &encoding::tlv(encoding::OCTET_STRING, &[value])],
        )
    }

    fn sct() -> SignedCertificateTimestamp {
        SignedCertificateTimestamp {
            log_id: [7; 32],
            timestamp_ms: 1_700_000_000_123,
            extensions: vec![0, 0, 5, 0, 0, 0, 0, 9],
            signature: vec![4, 3, 0, 1, 0xaa],
        }
    }

    #[test]
    fn embedding_replaces_the_poison_by_one_sct() {
        let poison = extension(&oid::PRECERTIFICATE_POISON, &[5, 0]);
        let other = extension(&oid::KEY_USAGE, &[3, 2, 7, 0x80]);
        let precertificate = tbs(&[other.clone(), poison]);
        let certificate = embed(&precertificate, &sct()).unwrap();
        corresponds(precertificate.as_der(), certificate.as_der()).unwrap();
        assert_eq!(covered(certificate.as_der()).unwrap(), covered(precertificate.as_der()).unwrap());
        assert_eq!(covered(certificate.as_der()).unwrap(), tbs(&[other]).as_der());
        let (_, extensions) = split(certificate.as_der()).unwrap();
        let value = AnyRef::from_der(extensions[1]).unwrap().value()[12..].to_vec();
        let value = AnyRef::from_der(&value).unwrap().value().to_vec();
        assert_eq!(list(&value).unwrap(), [sct().to_bytes().unwrap()]);
    }

    #[test]
    fn a_certificate_that_was_not_announced_is_refused() {
        let poison = extension(&oid::PRECERTIFICATE_POISON, &[5, 0]);
        let announced = tbs(&[extension(&oid::KEY_USAGE, &[3, 2, 7, 0x80]), poison.clone()]);
        let other = tbs(&[extension(&oid::KEY_USAGE, &[3, 2, 1, 6]), poison]);
        let certificate = embed(&other, &sct()).unwrap();
        assert_eq!(
            corresponds(announced.as_der(), certificate.as_der()),
            Err(Error::SctMismatch("the certificate is not the announced one"))
        );
        let unpoisoned = tbs(&[]);
        assert_eq!(embed(&unpoisoned, &sct()).unwrap_err(), Error::SctMismatch("no poison extension"));
    }

    #[test]
    fn lists_with_wrong_lengths_are_malformed() {
        for bytes in [&[][..], &[0], &[0, 1], &[0, 2, 0, 1], &[0, 3, 0, 5, 1]] {
            let value = encoding::tlv(encoding::OCTET_STRING, &[bytes]);
            assert!(list(&value).is_err(), "{bytes:?}");
        }
    }
}
