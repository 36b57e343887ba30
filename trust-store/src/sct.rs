//! Embedded signed certificate timestamps (RFC 6962 sections 3.2 and 3.3).
//!
//! What a log signs is the certificate's TBS as it was before the timestamps were put in. [`tbs_without`] gives it
//! back by cutting one extension out of the bytes and correcting the lengths around it: nothing is re-encoded that was
//! not read as canonical DER.

use alloc::vec::Vec;

use const_oid::ObjectIdentifier;
use sha2::{Digest as _, Sha256};
use tlog::signature::{Algorithm, SignatureVerifier};

use crate::certificate::Certificate;
use crate::encode;
use crate::oid;
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;
use crate::x690::{Malformed, Reader, tag};

/// Most timestamps that one certificate may embed.
pub const MAX_TIMESTAMPS: usize = 16;

/// One signed certificate timestamp, version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCertificateTimestamp {
    /// SHA-256 of the log's SubjectPublicKeyInfo.
    pub log_id: [u8; 32],
    /// Time of the promise, in milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Extensions; part of what is signed. A static-ct log puts the leaf index here.
    pub extensions: Vec<u8>,
    /// Hash and signature algorithm as TLS 1.2 numbers them; 4 and 3 are SHA-256 and ECDSA.
    pub algorithm: (u8, u8),
    /// The signature.
    pub signature: Vec<u8>,
}

impl SignedCertificateTimestamp {
    /// The time in seconds, cut off.
    pub fn time(&self) -> UnixTime {
        UnixTime(i64::try_from(self.timestamp_ms / 1000).unwrap_or(i64::MAX))
    }

    /// Checks the signature over the precertificate of `certificate`, with an ECDSA P-256 key.
    ///
    /// `issuer` is the certificate whose key signed `certificate`; `log_key` the log's subjectPublicKey bits.
    ///
    /// # Errors
    /// `sct_invalid`.
    pub fn verify(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
        log_key: &[u8],
        verifier: &dyn SignatureVerifier,
    ) -> Result<(), Denial> {
        let denied = |detail: &'static str| Denial::new(ReasonCode::SctInvalid, detail);
        if self.algorithm != (4, 3) {
            return Err(denied("the timestamp is not signed by ECDSA with SHA-256"));
        }
        let tbs = tbs_without(certificate, &oid::SCT_LIST)
            .map_err(|_| denied("the certificate has no single list of timestamps to take out"))?;
        let message = self
            .signed_precertificate(&tbs, &Sha256::digest(issuer.spki_der()).into())
            .ok_or_else(|| denied("certificate or extensions are too long to have been logged"))?;
        verifier
            .verify(Algorithm::EcdsaP256Sha256, log_key, &message, &self.signature)
            .map_err(|_| denied("the log's signature over the precertificate does not verify"))
    }

    /// The bytes that a log signs for a precertificate: `digitally-signed struct` of RFC 6962 section 3.2. `None` if a
    /// length does not fit its field.
    pub fn signed_precertificate(&self, tbs: &[u8], issuer_key_hash: &[u8; 32]) -> Option<Vec<u8>> {
        let tbs_length = u32::try_from(tbs.len()).ok().filter(|length| *length < 1 << 24)?.to_be_bytes();
        let extensions_length = u16::try_from(self.extensions.len()).ok()?.to_be_bytes();
        let mut message = Vec::with_capacity(tbs.len().saturating_add(64));
        // version v1, signature type certificate_timestamp
        message.extend_from_slice(&[0, 0]);
        message.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        // entry type precert_entry
        message.extend_from_slice(&[0, 1]);
        message.extend_from_slice(issuer_key_hash);
        message.extend_from_slice(tbs_length.get(1..)?);
        message.extend_from_slice(tbs);
        message.extend_from_slice(&extensions_length);
        message.extend_from_slice(&self.extensions);
        Some(message)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let [0] = *fields.take(1)? else { return None };
        let log_id = fields.take(32)?.try_into().ok()?;
        let timestamp_ms = u64::from_be_bytes(fields.take(8)?.try_into().ok()?);
        let extensions = fields.vector()?.to_vec();
        let [hash, signature] = *fields.take(2)? else { return None };
        let value = fields.vector()?.to_vec();
        (fields.0.is_empty() && !value.is_empty()).then_some(Self {
            log_id,
            timestamp_ms,
            extensions,
            algorithm: (hash, signature),
            signature: value,
        })
    }
}

/// The timestamps embedded in a certificate; an empty list if it has none.
///
/// # Errors
/// `sct_invalid` for a list that is malformed, empty, or longer than [`MAX_TIMESTAMPS`].
pub fn embedded(certificate: &Certificate) -> Result<Vec<SignedCertificateTimestamp>, Denial> {
    let Some((value, _)) = certificate.extension(&oid::SCT_LIST) else { return Ok(Vec::new()) };
    let octets = Reader::only(value, tag::OCTET_STRING)
        .map_err(|error| Denial::new(ReasonCode::SctInvalid, error.denial("list of timestamps").detail))?;
    read_list(octets.content())
        .ok_or_else(|| Denial::new(ReasonCode::SctInvalid, "the embedded list of timestamps is malformed"))
}

fn read_list(bytes: &[u8]) -> Option<Vec<SignedCertificateTimestamp>> {
    let mut outer = Fields(bytes);
    let mut list = Fields(outer.vector()?);
    let mut timestamps = Vec::new();
    while !list.0.is_empty() {
        if timestamps.len() == MAX_TIMESTAMPS {
            return None;
        }
        timestamps.push(SignedCertificateTimestamp::read(list.vector()?)?);
    }
    (outer.0.is_empty() && !timestamps.is_empty()).then_some(timestamps)
}

/// The `tbsCertificate` of `certificate` without its extension `id`; if no extension is left, without the field.
///
/// With the poison extension it turns a precertificate, with the list of timestamps a final certificate, into what
/// both have in common.
///
/// # Errors
/// `malformed` if the certificate has no such extension.
pub fn tbs_without(certificate: &Certificate, id: &ObjectIdentifier) -> Result<Vec<u8>, Denial> {
    let cut = cut_extension(certificate.tbs(), id).map_err(|error| error.denial("certificate"))?;
    cut.ok_or(Denial::new(ReasonCode::Malformed, "the certificate does not have the extension to take out"))
}

fn cut_extension(tbs: &[u8], id: &ObjectIdentifier) -> Result<Option<Vec<u8>>, Malformed> {
    let mut fields = Reader::only(tbs, tag::SEQUENCE)?.reader();
    let mut content = Vec::with_capacity(tbs.len());
    let mut found = false;
    while !fields.is_empty() {
        let field = fields.read()?;
        if field.tag() != tag::constructed(3) {
            content.extend_from_slice(field.der());
            continue;
        }
        let mut kept = Vec::with_capacity(tbs.len());
        let mut extensions = field.reader().sequence()?;
        while !extensions.is_empty() {
            let extension = extensions.expect(tag::SEQUENCE)?;
            if extension.reader().expect(tag::OID)?.oid()? == id.as_bytes() {
                found = true;
            } else {
                kept.extend_from_slice(extension.der());
            }
        }
        if !kept.is_empty() {
            let list = encode::element(tag::SEQUENCE, &[&kept]);
            content.extend_from_slice(&encode::element(tag::constructed(3), &[&list]));
        }
    }
    Ok(found.then(|| encode::element(tag::SEQUENCE, &[&content])))
}

/// A cursor over TLS presentation language (RFC 5246 section 4).
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A vector with a 16-bit length.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sct(extensions: &[u8]) -> Vec<u8> {
        let mut bytes = alloc::vec![0];
        bytes.extend([7; 32]);
        bytes.extend(1500_u64.to_be_bytes());
        bytes.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        bytes.extend(extensions);
        bytes.extend([4, 3, 0, 2, 0xaa, 0xbb]);
        bytes
    }

    fn list(items: &[Vec<u8>]) -> Vec<u8> {
        let prefixed =
            |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        prefixed(&items.iter().flat_map(|item| prefixed(item)).collect::<Vec<u8>>())
    }

    #[test]
    fn reads_a_list() {
        let timestamps = read_list(&list(&[sct(&[0, 0, 5, 0, 0, 0, 0, 9]), sct(&[])])).unwrap();
        assert_eq!(timestamps.len(), 2);
        assert_eq!(timestamps[0].time(), UnixTime(1));
        assert_eq!(timestamps[0].extensions, [0, 0, 5, 0, 0, 0, 0, 9]);
        assert_eq!(timestamps[1].signature, [0xaa, 0xbb]);
    }

    #[test]
    fn refuses_malformed_lists() {
        let good = list(&[sct(&[])]);
        let mut version = good.clone();
        version[4] = 1;
        let trailing = [&good[..], &[0]].concat();
        let many = list(&alloc::vec![sct(&[]); MAX_TIMESTAMPS + 1]);
        for bad in [&version[..], &trailing, &many, &good[..good.len() - 1], &list(&[]), &[]] {
            assert_eq!(read_list(bad), None);
        }
    }

    #[test]
    fn signed_bytes_are_frozen() {
        let timestamp = SignedCertificateTimestamp::read(&sct(&[0xee])).unwrap();
        let message = timestamp.signed_precertificate(&[0x30, 0x00], &[5; 32]).unwrap();
        let expected = alloc::format!("000000000000000005dc0001{}00000230000001ee", "05".repeat(32));
        assert_eq!(hex::encode(message), expected);
    }

    #[test]
    fn cuts_one_extension_and_corrects_the_lengths() {
        let extension = |last: u8, value: &[u8]| {
            encode::element(0x30, &[&[0x06, 0x03, 0x55, 0x1d, last], &encode::element(0x04, &[value])])
        };
        let tbs = |extensions: &[Vec<u8>]| {
            let list = encode::element(0x30, &[&extensions.concat()]);
            encode::element(0x30, &[&[0x02, 0x01, 0x05], &encode::element(0xa3, &[&list])])
        };
        let (small, large) = (extension(14, &[1]), extension(17, &[2; 200]));
        let id = oid::SUBJECT_ALTERNATIVE_NAME;
        let both = tbs(&[small.clone(), large.clone()]);
        assert_eq!(cut_extension(&both, &id).unwrap().unwrap(), tbs(core::slice::from_ref(&small)));
        assert_eq!(cut_extension(&tbs(&[large]), &id).unwrap().unwrap(), [0x30, 0x03, 0x02, 0x01, 0x05]);
        assert_eq!(cut_extension(&tbs(&[small]), &id).unwrap(), None);
    }
}
