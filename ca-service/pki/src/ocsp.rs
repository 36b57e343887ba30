//! OCSP on the responder's side (RFC 6960, profile of RFC 9919, nonces of RFC 9654; requirements O1 to O4).

mod cert_id;

use alloc::vec::Vec;

use const_oid::ObjectIdentifier;
use der::asn1::{AnyRef, BitStringRef, OctetStringRef, UintRef};
use der::{Decode, Reader, SliceReader, Tag};
use sha1::Sha1;
use sha2::Digest;

use crate::crl::RevocationReason;
use crate::error::Error;
use crate::key::SubjectPublicKey;
use crate::serial::SerialNumber;
use crate::signed::ToBeSigned;
use crate::time::{self, UnixTime};
use crate::{SignatureAlgorithm, encoding, oid};
pub use cert_id::{CertId, CertIdHash, IdForm};

/// Largest request read, in octets; a request for one certificate needs about 100.
pub const MAX_REQUEST: usize = 2048;
/// RFC 9654 §2.1: nonces have 1 to 128 octets.
pub const MAX_NONCE: usize = 128;

/// A request for the status of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OcspRequest {
    /// The certificate.
    pub cert_id: CertId,
    /// The certificate id exactly as received, to be echoed.
    encoded_id: Vec<u8>,
    id_form: IdForm,
    /// The nonce's octets, to be echoed byte for byte.
    pub nonce: Option<Vec<u8>>,
}

impl OcspRequest {
    /// A request as a scheduler makes it for an answer that is signed beforehand.
    #[must_use]
    pub fn for_certificate(cert_id: CertId) -> Self {
        let (encoded_id, id_form) = (cert_id.to_der(), cert_id.hash.form());
        Self { cert_id, encoded_id, id_form, nonce: None }
    }

    /// The request without a nonce as clients encode it: what a GET asks by (RFC 9919 §5), and names an answer in files.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        let around = |inner: &[u8]| encoding::tlv(encoding::SEQUENCE, &[inner]);
        // OCSPRequest { TBSRequest { requestList { Request { CertID } } } }
        around(&around(&around(&around(&self.encoded_id))))
    }

    /// The certificate id exactly as received.
    #[must_use]
    pub fn encoded_id(&self) -> &[u8] {
        &self.encoded_id
    }

    /// In which form the certificate id came.
    #[must_use]
    pub fn id_form(&self) -> IdForm {
        self.id_form
    }

    /// Parses a request. Signatures, requestor names and unknown non-critical extensions are ignored.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Malformed`] (a wrong version, no or several certificates, a bad nonce, a critical
    /// extension); [`Error::Unsupported`] for another hash.
    pub fn from_der(request: &[u8]) -> Result<Self, Error> {
        if request.len() > MAX_REQUEST {
            return Err(Error::TooLarge { what: "OCSP request", limit: MAX_REQUEST });
        }
        let malformed = Error::malformed("OCSP request");
        let outer = AnyRef::from_der(request).map_err(&malformed)?;
        let tbs = first_element(outer).map_err(&malformed)?;
        let mut reader = sequence_reader(tbs).map_err(&malformed)?;
        let mut list = None;
        let mut extensions = None;
        while !reader.is_finished() {
            let element = AnyRef::decode(&mut reader).map_err(&malformed)?;
            match element.header().tag() {
                Tag::Sequence if list.is_none() => list = Some(element),
                tag => match context_number(tag) {
                    // version [0]: only v1, which DER leaves out.
                    Some(0) => return Err(bad("version")),
                    Some(1) => {}
                    Some(2) => extensions = Some(element),
                    _ => return Err(bad("unexpected element")),
                },
            }
        }
        let list = list.ok_or_else(|| bad("no certificate id"))?;
        let (cert_id, encoded_id, id_form) = single_request(list)?;
        let nonce = match extensions {
            None => None,
            Some(wrapper) => nonce(wrapper)?,
        };
        Ok(Self { cert_id, encoded_id, id_form, nonce })
    }
}

fn bad(detail: &'static str) -> Error {
    Error::Malformed { what: "OCSP request", detail: detail.into() }
}

fn context_number(tag: Tag) -> Option<u32> {
    match tag {
        Tag::ContextSpecific { number, .. } => Some(number.value()),
        _ => None,
    }
}

fn sequence_reader(any: AnyRef<'_>) -> der::Result<SliceReader<'_>> {
    if any.header().tag() == Tag::Sequence {
        SliceReader::new(any.value())
    } else {
        Err(Tag::Sequence.value_error().into())
    }
}

fn first_element(any: AnyRef<'_>) -> der::Result<AnyRef<'_>> {
    AnyRef::decode(&mut sequence_reader(any)?)
}

/// The only request of the list (RFC 9919 §3.1.1), parsed and as received.
fn single_request(list: AnyRef<'_>) -> Result<(CertId, Vec<u8>, IdForm), Error> {
    let malformed = Error::malformed("OCSP request");
    let mut reader = sequence_reader(list).map_err(&malformed)?;
    let request = AnyRef::decode(&mut reader).map_err(&malformed)?;
    if !reader.is_finished() {
        return Err(bad("several certificate ids"));
    }
    let mut inside = sequence_reader(request).map_err(&malformed)?;
    let encoded = inside.tlv_bytes().map_err(&malformed)?;
    let id = AnyRef::from_der(encoded).map_err(&malformed)?;
    let mut reader = sequence_reader(id).map_err(&malformed)?;
    let algorithm = AnyRef::decode(&mut reader).map_err(&malformed)?;
    let (algorithm, id_form) = hash_of(algorithm).map_err(&malformed)?;
    let name = <&OctetStringRef>::decode(&mut reader).map_err(&malformed)?;
    let key = <&OctetStringRef>::decode(&mut reader).map_err(&malformed)?;
    let serial = UintRef::decode(&mut reader).map_err(&malformed)?;
    reader.finish().map_err(&malformed)?;
    let (hash, length) = match algorithm {
        oid::SHA1 => (CertIdHash::Sha1, 20),
        oid::SHA256 => (CertIdHash::Sha256, 32),
        _ => return Err(Error::Unsupported("the certificate id's hash: use SHA-256 or SHA-1")),
    };
    if name.as_bytes().len() != length || key.as_bytes().len() != length {
        return Err(bad("hash of the wrong length"));
    }
    let cert_id = CertId {
        hash,
        issuer_name_hash: name.as_bytes().to_vec(),
        issuer_key_hash: key.as_bytes().to_vec(),
        serial: SerialNumber::from_magnitude(serial.as_bytes())?,
    };
    Ok((cert_id, encoded.to_vec(), id_form))
}

/// The hash of an AlgorithmIdentifier. Its parameters say nothing, whatever they are, and are echoed.
fn hash_of(any: AnyRef<'_>) -> der::Result<(ObjectIdentifier, IdForm)> {
    let mut reader = sequence_reader(any)?;
    let algorithm = ObjectIdentifier::decode(&mut reader)?;
    let parameters = reader.read_slice(reader.remaining_len())?;
    Ok((algorithm, IdForm::of(parameters)))
}

fn nonce(wrapper: AnyRef<'_>) -> Result<Option<Vec<u8>>, Error> {
    let malformed = Error::malformed("OCSP request");
    let list = AnyRef::from_der(wrapper.value()).map_err(&malformed)?;
    let mut reader = sequence_reader(list).map_err(&malformed)?;
    let mut nonce = None;
    while !reader.is_finished() {
        let extension = x509_cert::ext::Extension::decode(&mut reader).map_err(&malformed)?;
        if extension.extn_id == oid::OCSP_NONCE {
            let value = <&OctetStringRef>::from_der(extension.extn_value.as_bytes()).map_err(&malformed)?;
            if value.is_empty() || value.as_bytes().len() > MAX_NONCE || nonce.is_some() {
                return Err(bad("nonce of a wrong length or number"));
            }
            nonce = Some(value.as_bytes().to_vec());
        } else if extension.critical {
            return Err(bad("unknown critical extension"));
        }
    }
    Ok(nonce)
}

/// Status of a certificate at `this_update`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertStatus {
    /// Issued, not revoked, within its validity.
    Good,
    /// Revoked.
    Revoked {
        /// From when on.
        at: UnixTime,
        /// Why.
        reason: RevocationReason,
    },
    /// Not assigned, or never finished: never `good` (CSBR §4.9.10).
    Unknown,
}

/// The times and status of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: CertStatus,
    /// When the status was true.
    pub this_update: UnixTime,
    /// When a newer one will be available; always present (O3).
    pub next_update: UnixTime,
    /// When the answer was made: not before `this_update`.
    pub produced_at: UnixTime,
}

/// An answer before its signature: ResponseData and what surrounds it.
#[derive(Debug, Clone)]
pub struct ResponseDraft {
    data: ToBeSigned,
    responder: Vec<u8>,
}

/// Builds the ResponseData for one request; the nonce is echoed byte for byte when the request had one.
///
/// `responder` is the delegated responder's certificate, `key` its key.
///
/// # Errors
/// [`Error::Unsupported`] when the times are out of order, [`Error::UnrepresentableTime`].
pub fn draft(
    request: &OcspRequest,
    answer: &Answer,
    responder: &[u8],
    key: &SubjectPublicKey,
    algorithm: SignatureAlgorithm,
) -> Result<ResponseDraft, Error> {
    if answer.next_update <= answer.this_update || answer.produced_at < answer.this_update {
        return Err(Error::Unsupported("an OCSP answer whose times are out of order"));
    }
    // ResponderID byKey: SHA-1 of the responder's key bits (RFC 6960 §4.2.2.3); an identifier, not a protection.
    let key_hash = encoding::tlv(encoding::OCTET_STRING, &[&Sha1::digest(key.bits())]);
    let responder_id = encoding::tlv(encoding::context_constructed(2), &[&key_hash]);
    let status = match answer.status {
        CertStatus::Good => encoding::tlv(encoding::context_primitive(0), &[]),
        CertStatus::Unknown => encoding::tlv(encoding::context_primitive(2), &[]),
        CertStatus::Revoked { at, reason } => {
            let reason = match reason {
                RevocationReason::Unspecified => Vec::new(),
                given => encoding::tlv(
                    encoding::context_constructed(0),
                    &[&encoding::tlv(encoding::ENUMERATED, &[&[given.code()]])],
                ),
            };
            encoding::tlv(encoding::context_constructed(1), &[&time::generalized(at)?, &reason])
        }
    };
    let next = encoding::tlv(encoding::context_constructed(0), &[&time::generalized(answer.next_update)?]);
    let single = encoding::tlv(
        encoding::SEQUENCE,
        &[&request.encoded_id, &status, &time::generalized(answer.this_update)?, &next],
    );
    let extensions = request.nonce.as_deref().map(nonce_extension).unwrap_or_default();
    let data = encoding::tlv(
        encoding::SEQUENCE,
        &[
            &responder_id,
            &time::generalized(answer.produced_at)?,
            &encoding::tlv(encoding::SEQUENCE, &[&single]),
            &extensions,
        ],
    );
    Ok(ResponseDraft { data: ToBeSigned::new(data, algorithm), responder: responder.to_vec() })
}

fn nonce_extension(nonce: &[u8]) -> Vec<u8> {
    let inner = encoding::tlv(encoding::OCTET_STRING, &[nonce]);
    let value = encoding::tlv(encoding::OCTET_STRING, &[&inner]);
    let extension = encoding::tlv(encoding::SEQUENCE, &[&encoding::oid(&oid::OCSP_NONCE), &value]);
    encoding::tlv(encoding::context_constructed(1), &[&encoding::tlv(encoding::SEQUENCE, &[&extension])])
}

impl ResponseDraft {
    /// The bytes to sign.
    #[must_use]
    pub fn to_be_signed(&self) -> &[u8] {
        self.data.as_der()
    }

    /// The answer with a signature of zeros in place of a real one: what the linter looks at before anything is signed.
    #[must_use]
    pub fn unsigned(&self) -> Vec<u8> {
        self.assemble(&[0; 8])
    }

    /// The complete OCSPResponse with the responder's certificate inside.
    #[must_use]
    pub fn assemble(&self, signature: &[u8]) -> Vec<u8> {
        let certificates = encoding::tlv(
            encoding::context_constructed(0),
            &[&encoding::tlv(encoding::SEQUENCE, &[&self.responder])],
        );
        let basic = encoding::tlv(
            encoding::SEQUENCE,
            &[
                self.data.as_der(),
                &self.data.algorithm().identifier(),
                &encoding::bit_string(signature),
                &certificates,
            ],
        );
        let bytes = encoding::tlv(
            encoding::SEQUENCE,
            &[&encoding::oid(&oid::OCSP_BASIC), &encoding::tlv(encoding::OCTET_STRING, &[&basic])],
        );
        encoding::tlv(
            encoding::SEQUENCE,
            &[&[encoding::ENUMERATED, 1, 0], &encoding::tlv(encoding::context_constructed(0), &[&bytes])],
        )
    }
}

/// The bits of the signature of a successful answer.
///
/// # Errors
/// [`Error::Malformed`] when it is none.
pub fn signature_of(response: &[u8]) -> Result<Vec<u8>, Error> {
    let read = || {
        let mut outer = sequence_reader(AnyRef::from_der(response)?)?;
        let (_status, bytes) = (AnyRef::decode(&mut outer)?, AnyRef::decode(&mut outer)?);
        let mut bytes = sequence_reader(AnyRef::from_der(bytes.value())?)?;
        let (_type, basic) = (AnyRef::decode(&mut bytes)?, <&OctetStringRef>::decode(&mut bytes)?);
        let mut basic = sequence_reader(AnyRef::from_der(basic.as_bytes())?)?;
        let (_data, _algorithm) = (AnyRef::decode(&mut basic)?, AnyRef::decode(&mut basic)?);
        BitStringRef::decode(&mut basic)
    };
    let bits = read().map_err(Error::malformed("OCSP response"))?;
    let unused = || Error::Malformed { what: "OCSP response", detail: "unused bits in the signature".into() };
    bits.as_bytes().map(<[u8]>::to_vec).ok_or_else(unused)
}

/// An answer without a signature: why there is no status (RFC 6960 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OcspFailure {
    /// malformedRequest (1).
    MalformedRequest,
    /// internalError (2).
    InternalError,
    /// tryLater (3).
    TryLater,
    /// unauthorized (6): not an issuer this responder speaks for.
    Unauthorized,
}

impl OcspFailure {
    /// The complete OCSPResponse.
    #[must_use]
    pub fn to_der(self) -> Vec<u8> {
        let status = match self {
            Self::MalformedRequest => 1,
            Self::InternalError => 2,
            Self::TryLater => 3,
            Self::Unauthorized => 6,
        };
        encoding::tlv(encoding::SEQUENCE, &[&[encoding::ENUMERATED, 1, status]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request_der(nonce: Option<&[u8]>) -> Vec<u8> {
        let id = CertId {
            hash: CertIdHash::Sha256,
            issuer_name_hash: alloc::vec![1; 32],
            issuer_key_hash: alloc::vec![2; 32],
            serial: SerialNumber::from_hex("0a0b").unwrap(),
        };
        let list = encoding::tlv(encoding::SEQUENCE, &[&encoding::tlv(encoding::SEQUENCE, &[&id.to_der()])]);
        let extensions = nonce
            .map(|nonce| {
                let mut bytes = nonce_extension(nonce);
                bytes[0] = encoding::context_constructed(2);
                bytes
            })
            .unwrap_or_default();
        let tbs = encoding::tlv(encoding::SEQUENCE, &[&list, &extensions]);
        encoding::tlv(encoding::SEQUENCE, &[&tbs])
    }

    #[test]
    fn reads_a_request_with_and_without_nonce() {
        let request = OcspRequest::from_der(&request_der(None)).unwrap();
        assert_eq!(request.nonce, None);
        assert_eq!(alloc::format!("{}", request.cert_id.serial), "0a0b");
        assert_eq!(request.to_der(), request_der(None));
        let request = OcspRequest::from_der(&request_der(Some(&[9; 16]))).unwrap();
        assert_eq!(request.nonce.as_deref(), Some(&[9; 16][..]));
    }

    #[test]
    fn the_form_of_a_certificate_id_is_that_of_its_hashs_parameters() {
        let asked = |algorithm: &ObjectIdentifier, length: usize, parameters: &[u8]| {
            let hash = encoding::tlv(encoding::OCTET_STRING, &[&alloc::vec![1_u8; length]]);
            let algorithm = encoding::tlv(encoding::SEQUENCE, &[&encoding::oid(algorithm), parameters]);
            let id = encoding::tlv(encoding::SEQUENCE, &[&algorithm, &hash, &hash, &[2, 1, 7]]);
            let mut whole = id.clone();
            for _ in 0..4 {
                whole = encoding::tlv(encoding::SEQUENCE, &[&whole]);
            }
            let request = OcspRequest::from_der(&whole).unwrap();
            assert_eq!((request.encoded_id(), request.to_der()), (&id[..], whole));
            (request.id_form(), request == OcspRequest::for_certificate(request.cert_id.clone()))
        };
        assert_eq!(asked(&oid::SHA1, 20, &[5, 0]), (IdForm::Null, true));
        assert_eq!(asked(&oid::SHA256, 32, &[5, 0]), (IdForm::Null, false));
        assert_eq!(asked(&oid::SHA1, 20, &[]), (IdForm::Absent, false));
        assert_eq!(asked(&oid::SHA256, 32, &[]), (IdForm::Absent, true));
        for other in [&[5, 0, 5, 0][..], &[4, 1, 9], &[0x30, 0], &[5], &[0xff; 300]] {
            assert_eq!(asked(&oid::SHA256, 32, other), (IdForm::Other, false), "{other:?}");
        }
    }

    #[test]
    fn nonces_outside_1_to_128_octets_are_malformed() {
        assert!(OcspRequest::from_der(&request_der(Some(&[1]))).is_ok());
        assert!(OcspRequest::from_der(&request_der(Some(&[1; 128]))).is_ok());
        for nonce in [&[][..], &[1; 129]] {
            assert!(matches!(OcspRequest::from_der(&request_der(Some(nonce))), Err(Error::Malformed { .. })));
        }
    }

    #[test]
    fn every_truncation_and_every_oversize_is_refused() {
        let whole = request_der(Some(&[9; 16]));
        for length in 0..whole.len() {
            assert!(OcspRequest::from_der(&whole[..length]).is_err());
        }
        let mut trailing = whole;
        trailing.push(0);
        assert!(OcspRequest::from_der(&trailing).is_err());
        assert!(matches!(OcspRequest::from_der(&[0x30; MAX_REQUEST + 1]), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn the_signature_of_an_answer_is_read_back_and_a_failure_has_none() {
        let request = OcspRequest::from_der(&request_der(None)).unwrap();
        let data = ToBeSigned::from_record(request.to_der(), SignatureAlgorithm::EcdsaP256Sha256);
        let whole = ResponseDraft { data, responder: alloc::vec![0x30, 0] }.assemble(&[7; 70]);
        assert_eq!(signature_of(&whole).unwrap(), [7; 70]);
        assert!((0..whole.len()).all(|length| signature_of(&whole[..length]).is_err()));
        assert!(signature_of(&OcspFailure::TryLater.to_der()).is_err());
    }

    #[test]
    fn failures_have_no_response_bytes() {
        assert_eq!(OcspFailure::Unauthorized.to_der(), [0x30, 3, 0x0a, 1, 6]);
    }
}
