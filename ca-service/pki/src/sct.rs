//! Certificate transparency inside a certificate: precertificate, SCT list, correspondence (RFC 6962 §3.1 to §3.3).

use alloc::vec;
use alloc::vec::Vec;

use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Reader, SliceReader, Tag};
use spki::ObjectIdentifier;
use trust_store::signature::{Algorithm, SignatureVerifier};

use crate::encoding;
use crate::error::Error;
use crate::key::SubjectPublicKey;
use crate::signed::ToBeSigned;
use crate::time::UnixTime;
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
    /// DER ECDSA signature; SHA-256 with ECDSA is the only algorithm here (sigstore-contract §5).
    pub signature: Vec<u8>,
}

/// TLS numbers of SHA-256 and ECDSA (RFC 5246 §7.4.1.4.1).
const SHA256_ECDSA: [u8; 2] = [4, 3];

impl SignedCertificateTimestamp {
    /// Parses a serialized SCT.
    ///
    /// # Errors
    /// [`Error::Malformed`] when lengths do not add up, [`Error::Unsupported`] for another version or algorithm.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = || Error::Malformed { what: "SCT", detail: "lengths do not add up".into() };
        let (version, rest) = bytes.split_first().ok_or_else(malformed)?;
        if *version != 0 {
            return Err(Error::Unsupported("an SCT of another version than 1"));
        }
        let (log_id, rest) = rest.split_first_chunk::<32>().ok_or_else(malformed)?;
        let (timestamp, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(malformed)?;
        let (extensions, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(malformed)?;
        let (algorithm, rest) = rest.split_first_chunk::<2>().ok_or_else(malformed)?;
        if *algorithm != SHA256_ECDSA {
            return Err(Error::Unsupported("an SCT that is not signed by ECDSA with SHA-256"));
        }
        let (length, signature) = rest.split_first_chunk::<2>().ok_or_else(malformed)?;
        if usize::from(u16::from_be_bytes(*length)) != signature.len() {
            return Err(malformed());
        }
        Ok(Self {
            log_id: *log_id,
            timestamp_ms: u64::from_be_bytes(*timestamp),
            extensions: extensions.to_vec(),
            signature: signature.to_vec(),
        })
    }

    /// The serialized SCT.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when extensions or signature do not fit their two octets of length.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let length = |bytes: &[u8]| {
            u16::try_from(bytes.len())
                .map(u16::to_be_bytes)
                .map_err(|_| Error::TooLarge { what: "SCT", limit: usize::from(u16::MAX) })
        };
        let mut out = vec![0];
        out.extend_from_slice(&self.log_id);
        out.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        out.extend_from_slice(&length(&self.extensions)?);
        out.extend_from_slice(&self.extensions);
        out.extend_from_slice(&SHA256_ECDSA);
        out.extend_from_slice(&length(&self.signature)?);
        out.extend_from_slice(&self.signature);
        Ok(out)
    }

    /// The leaf index of a static-ct log (extension type 0, five octets), when it is there.
    #[must_use]
    pub fn leaf_index(&self) -> Option<u64> {
        match self.extensions.as_slice() {
            [0, 0, 5, index @ ..] => {
                let index: [u8; 5] = index.try_into().ok()?;
                Some(index.iter().fold(0, |value, octet| value << 8 | u64::from(*octet)))
            }
            _ => None,
        }
    }

    /// Verifies that the log `log_key` promised this precertificate under an issuer (RFC 6962 §3.2).
    ///
    /// # Errors
    /// [`Error::SctMismatch`] when the log is another, the time is in the future of `now`, or the signature fails.
    pub fn verify(
        &self,
        precertificate_tbs: &[u8],
        issuer: &SubjectPublicKey,
        log_key: &SubjectPublicKey,
        now: UnixTime,
        verifier: &dyn SignatureVerifier,
    ) -> Result<(), Error> {
        if self.log_id != log_key.spki_sha256() {
            return Err(Error::SctMismatch("another log's SCT"));
        }
        // A second of tolerance: the log rounds to milliseconds, this clock to seconds.
        let latest_ms = u64::try_from(now.0).unwrap_or(0).saturating_add(2).saturating_mul(1000);
        if self.timestamp_ms > latest_ms {
            return Err(Error::SctMismatch("an SCT from the future"));
        }
        let entry = covered(precertificate_tbs)?;
        let length = u32::try_from(entry.len())
            .map_err(|_| Error::TooLarge { what: "certificate", limit: MAX_CERTIFICATE })?
            .to_be_bytes();
        let extensions = u16::try_from(self.extensions.len())
            .map_err(|_| Error::TooLarge { what: "SCT", limit: usize::from(u16::MAX) })?
            .to_be_bytes();
        let [_, length @ ..] = length;
        // version 1, certificate_timestamp, time, precert_entry
        let mut message = vec![0, 0];
        message.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message.extend_from_slice(&issuer.spki_sha256());
        message.extend_from_slice(&length);
        message.extend_from_slice(&entry);
        message.extend_from_slice(&extensions);
        message.extend_from_slice(&self.extensions);
        verifier
            .verify(Algorithm::EcdsaP256Sha256, log_key.bits(), &message, &self.signature)
            .map_err(|_| Error::SctMismatch("the log's signature"))
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

/// The to-be-signed bytes of the precertificate that announced a certificate: SCT list out, poison in.
///
/// # Errors
/// [`Error::SctMismatch`] when the certificate has no SCT list, [`Error::Malformed`], [`Error::TooLarge`].
pub fn precertificate_of(certificate_tbs: &[u8]) -> Result<Vec<u8>, Error> {
    let removed =
        without_extension(certificate_tbs, &oid::SCT_LIST)?.ok_or(Error::SctMismatch("no SCT list"))?;
    let critical = [1, 1, 0xff];
    let poison = encoding::tlv(
        encoding::SEQUENCE,
        &[
            &encoding::oid(&oid::PRECERTIFICATE_POISON),
            &critical,
            &encoding::tlv(encoding::OCTET_STRING, &[&[5, 0]]),
        ],
    );
    with_last_extension(&removed, &poison)
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

/// Encoded elements of a sequence.
type Elements<'a> = Vec<&'a [u8]>;

/// The elements of a TBSCertificate before its extensions, and the extensions, each as encoded.
fn split(tbs: &[u8]) -> Result<(Elements<'_>, Elements<'_>), Error> {
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

fn elements(sequence: &[u8]) -> der::Result<Elements<'_>> {
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
            signature: vec![0xaa],
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
        assert_eq!(SignedCertificateTimestamp::parse(list(&value).unwrap()[0]).unwrap(), sct());
        assert_eq!(sct().leaf_index(), Some(9));
    }

    #[test]
    fn every_truncation_of_an_sct_is_malformed() {
        let whole = sct().to_bytes().unwrap();
        for length in 0..whole.len() {
            assert!(SignedCertificateTimestamp::parse(&whole[..length]).is_err());
        }
        let mut version = whole.clone();
        version[0] = 1;
        assert!(matches!(SignedCertificateTimestamp::parse(&version), Err(Error::Unsupported(_))));
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
