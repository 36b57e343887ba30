//! Time-stamp requests and tokens (RFC 3161, RFC 5816; requirements T1 to T4): CMS SignedData in strict DER.

use alloc::vec;
use alloc::vec::Vec;

use const_oid::ObjectIdentifier;
use der::asn1::{AnyRef, OctetStringRef, UintRef};
use der::{Decode, Reader, SliceReader, Tag};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::name::DistinguishedName;
use crate::serial::SerialNumber;
use crate::signed::ToBeSigned;
use crate::time::{self, UnixTime};
use crate::{SignatureAlgorithm, certificate, encoding, oid};

/// Largest request read, in octets.
pub const MAX_REQUEST: usize = 2048;
/// Largest nonce accepted, in octets; clients send 8.
pub const MAX_NONCE: usize = 64;

/// Digest of a message imprint (T2: SHA-1 is refused).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImprintHash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ImprintHash {
    fn oid(self) -> ObjectIdentifier {
        match self {
            Self::Sha256 => oid::SHA256,
            Self::Sha384 => oid::SHA384,
            Self::Sha512 => oid::SHA512,
        }
    }

    /// Length of the digest in octets.
    #[must_use]
    pub fn digest_length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// Whether the token carries the certificates of its signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificates {
    /// The request asked for them (`certReq`).
    Included,
    /// The client has them.
    Omitted,
}

/// What is to be time-stamped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimestampRequest {
    hash: ImprintHash,
    /// The imprint exactly as received, to be echoed.
    imprint: Vec<u8>,
    policy: Option<ObjectIdentifier>,
    nonce: Option<Vec<u8>>,
    certificates: Certificates,
}

impl TimestampRequest {
    /// A request for a SHA-2 digest, as the JSON form makes it; its answer carries the certificates.
    ///
    /// # Errors
    /// [`Failure::BadDataFormat`] when the digest has another length.
    pub fn for_digest(hash: ImprintHash, digest: &[u8]) -> Result<Self, Failure> {
        if digest.len() != hash.digest_length() {
            return Err(Failure::BadDataFormat);
        }
        let algorithm = encoding::tlv(encoding::SEQUENCE, &[&encoding::oid(&hash.oid())]);
        let imprint = encoding::tlv(
            encoding::SEQUENCE,
            &[&algorithm, &encoding::tlv(encoding::OCTET_STRING, &[digest])],
        );
        Ok(Self { hash, imprint, policy: None, nonce: None, certificates: Certificates::Included })
    }

    /// Parses a TimeStampReq.
    ///
    /// # Errors
    /// The PKIFailureInfo to answer with: [`Failure::BadAlgorithm`] for SHA-1 and unknown digests,
    /// [`Failure::UnacceptedExtension`] for any extension, [`Failure::BadDataFormat`] for everything malformed.
    pub fn from_der(request: &[u8]) -> Result<Self, Failure> {
        if request.len() > MAX_REQUEST {
            return Err(Failure::BadDataFormat);
        }
        let outer = AnyRef::from_der(request).map_err(|_| Failure::BadDataFormat)?;
        let mut reader = sequence(outer)?;
        if u8::decode(&mut reader).map_err(|_| Failure::BadDataFormat)? != 1 {
            return Err(Failure::BadRequest);
        }
        let imprint = reader.tlv_bytes().map_err(|_| Failure::BadDataFormat)?;
        let hash = parse_imprint(imprint)?;
        let mut parsed = Self {
            hash,
            imprint: imprint.to_vec(),
            policy: None,
            nonce: None,
            certificates: Certificates::Omitted,
        };
        // The optional fields come in this order, each at most once.
        let mut expected = 0;
        while !reader.is_finished() {
            let field = AnyRef::decode(&mut reader).map_err(|_| Failure::BadDataFormat)?;
            let position = parsed.take_optional(field)?;
            if position < expected {
                return Err(Failure::BadDataFormat);
            }
            expected = position + 1;
        }
        Ok(parsed)
    }

    fn take_optional(&mut self, field: AnyRef<'_>) -> Result<u8, Failure> {
        match field.header().tag() {
            Tag::ObjectIdentifier => {
                self.policy = Some(field.decode_as().map_err(|_| Failure::BadDataFormat)?);
                Ok(0)
            }
            Tag::Integer => {
                let nonce = field.decode_as::<UintRef<'_>>().map_err(|_| Failure::BadDataFormat)?.as_bytes();
                if nonce.len() > MAX_NONCE {
                    return Err(Failure::BadDataFormat);
                }
                self.nonce = Some(nonce.to_vec());
                Ok(1)
            }
            Tag::Boolean => {
                if field.decode_as::<bool>().map_err(|_| Failure::BadDataFormat)? {
                    self.certificates = Certificates::Included;
                }
                Ok(2)
            }
            Tag::ContextSpecific { .. } => Err(Failure::UnacceptedExtension),
            _ => Err(Failure::BadDataFormat),
        }
    }

    /// The imprint exactly as received, DER.
    #[must_use]
    pub fn imprint(&self) -> &[u8] {
        &self.imprint
    }

    /// The nonce to be echoed: the octets of a positive number, without leading zeros.
    #[must_use]
    pub fn nonce(&self) -> Option<&[u8]> {
        self.nonce.as_deref()
    }

    /// The imprint's digest algorithm.
    #[must_use]
    pub fn hash(&self) -> ImprintHash {
        self.hash
    }

    /// The policy the client asks for.
    #[must_use]
    pub fn policy(&self) -> Option<&ObjectIdentifier> {
        self.policy.as_ref()
    }
}

fn sequence(any: AnyRef<'_>) -> Result<SliceReader<'_>, Failure> {
    if any.header().tag() != Tag::Sequence {
        return Err(Failure::BadDataFormat);
    }
    SliceReader::new(any.value()).map_err(|_| Failure::BadDataFormat)
}

fn parse_imprint(imprint: &[u8]) -> Result<ImprintHash, Failure> {
    let mut reader = sequence(AnyRef::from_der(imprint).map_err(|_| Failure::BadDataFormat)?)?;
    let algorithm = spki::AlgorithmIdentifierRef::decode(&mut reader).map_err(|_| Failure::BadDataFormat)?;
    let digest = <&OctetStringRef>::decode(&mut reader).map_err(|_| Failure::BadDataFormat)?;
    reader.finish().map_err(|_| Failure::BadDataFormat)?;
    let hash = match algorithm.oid {
        oid::SHA256 => ImprintHash::Sha256,
        oid::SHA384 => ImprintHash::Sha384,
        oid::SHA512 => ImprintHash::Sha512,
        _ => return Err(Failure::BadAlgorithm),
    };
    if !algorithm.parameters.is_none_or(AnyRef::is_null) {
        return Err(Failure::BadAlgorithm);
    }
    if digest.as_bytes().len() == hash.digest_length() { Ok(hash) } else { Err(Failure::BadDataFormat) }
}

/// The time-stamp authority a token is made for.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Its certificate, end-entity first, then its issuers without the root.
    chain: Vec<Vec<u8>>,
    issuer: DistinguishedName,
    serial: SerialNumber,
    algorithm: SignatureAlgorithm,
    policy: ObjectIdentifier,
    accuracy_seconds: u8,
}

impl Authority {
    /// An authority from its chain (end-entity first), its algorithm, its policy and the accuracy it promises.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the chain is empty or does not parse.
    pub fn new(
        chain: Vec<Vec<u8>>,
        algorithm: SignatureAlgorithm,
        policy: ObjectIdentifier,
        accuracy_seconds: u8,
    ) -> Result<Self, Error> {
        use der::Encode;
        let missing = || Error::Malformed { what: "time-stamp chain", detail: "empty".into() };
        let certificate = certificate::parse(chain.first().ok_or_else(missing)?)?;
        let tbs = certificate.tbs_certificate();
        let issuer = tbs.issuer().to_der().map_err(Error::malformed("time-stamp chain"))?;
        Ok(Self {
            issuer: DistinguishedName::from_der(&issuer)?,
            serial: SerialNumber::from_magnitude(tbs.serial_number().as_bytes())?,
            chain,
            algorithm,
            policy,
            accuracy_seconds,
        })
    }

    /// The policy under which tokens are issued.
    #[must_use]
    pub fn policy(&self) -> &ObjectIdentifier {
        &self.policy
    }
}

/// A token before its signature.
#[derive(Debug, Clone)]
pub struct TokenDraft {
    tst_info: Vec<u8>,
    attributes: Vec<u8>,
    to_be_signed: ToBeSigned,
    certificates: Certificates,
}

/// Builds a token's TSTInfo and signed attributes.
///
/// # Errors
/// [`Failure::UnacceptedPolicy`] for another policy, [`Failure::SystemFailure`] when the time cannot be written.
pub fn draft(
    authority: &Authority,
    request: &TimestampRequest,
    serial: &SerialNumber,
    at: UnixTime,
) -> Result<TokenDraft, Failure> {
    if request.policy.is_some_and(|policy| policy != authority.policy) {
        return Err(Failure::UnacceptedPolicy);
    }
    let accuracy = encoding::tlv(
        encoding::SEQUENCE,
        &[&encoding::tlv(encoding::INTEGER, &[&[authority.accuracy_seconds & 0x7f]])],
    );
    let tst_info = encoding::tlv(
        encoding::SEQUENCE,
        &[
            &[encoding::INTEGER, 1, 1],
            &encoding::oid(&authority.policy),
            &request.imprint,
            &serial.to_der(),
            &time::generalized(at).map_err(|_| Failure::SystemFailure)?,
            &accuracy,
            &request.nonce.as_deref().map(encoding::unsigned).unwrap_or_default(),
        ],
    );
    let attributes = signed_attributes(authority, &tst_info);
    // RFC 5652 §5.4: the signature covers the attributes as a SET OF, not under their implicit tag.
    let to_be_signed =
        ToBeSigned::new(encoding::set_of(encoding::SET, attributes.clone()), authority.algorithm);
    Ok(TokenDraft {
        tst_info,
        attributes: encoding::set_of(encoding::context_constructed(0), attributes),
        to_be_signed,
        certificates: request.certificates,
    })
}

fn attribute(kind: &ObjectIdentifier, value: &[u8]) -> Vec<u8> {
    encoding::tlv(encoding::SEQUENCE, &[&encoding::oid(kind), &encoding::tlv(encoding::SET, &[value])])
}

fn signed_attributes(authority: &Authority, tst_info: &[u8]) -> Vec<Vec<u8>> {
    let certificate_hash =
        authority.chain.first().map(|leaf| Sha256::digest(leaf).to_vec()).unwrap_or_default();
    // RFC 5035 §4: ESSCertIDv2 with its default SHA-256 left out, as DER demands.
    let issuer_name = encoding::tlv(
        encoding::SEQUENCE,
        &[&encoding::tlv(encoding::context_constructed(4), &[authority.issuer.as_der()])],
    );
    let issuer_serial = encoding::tlv(encoding::SEQUENCE, &[&issuer_name, &authority.serial.to_der()]);
    let id = encoding::tlv(
        encoding::SEQUENCE,
        &[&encoding::tlv(encoding::OCTET_STRING, &[&certificate_hash]), &issuer_serial],
    );
    let signing_certificate =
        encoding::tlv(encoding::SEQUENCE, &[&encoding::tlv(encoding::SEQUENCE, &[&id])]);
    vec![
        attribute(&oid::CONTENT_TYPE, &encoding::oid(&oid::TST_INFO)),
        attribute(&oid::MESSAGE_DIGEST, &encoding::tlv(encoding::OCTET_STRING, &[&Sha256::digest(tst_info)])),
        attribute(&oid::SIGNING_CERTIFICATE_V2, &signing_certificate),
    ]
}

impl TokenDraft {
    /// The bytes to sign: the signed attributes as a SET OF.
    #[must_use]
    pub fn to_be_signed(&self) -> &[u8] {
        self.to_be_signed.as_der()
    }

    /// The answer with a signature of zeros in place of a real one: what the linter looks at before anything is signed.
    #[must_use]
    pub fn unsigned(&self, authority: &Authority) -> Vec<u8> {
        self.assemble(authority, &[0; 8])
    }

    /// The complete TimeStampResp with status `granted`.
    #[must_use]
    pub fn assemble(&self, authority: &Authority, signature: &[u8]) -> Vec<u8> {
        let sha256 = encoding::tlv(encoding::SEQUENCE, &[&encoding::oid(&oid::SHA256)]);
        let signer_id =
            encoding::tlv(encoding::SEQUENCE, &[authority.issuer.as_der(), &authority.serial.to_der()]);
        let signer = encoding::tlv(
            encoding::SEQUENCE,
            &[
                &[encoding::INTEGER, 1, 1],
                &signer_id,
                &sha256,
                &self.attributes,
                &authority.algorithm.identifier(),
                &encoding::tlv(encoding::OCTET_STRING, &[signature]),
            ],
        );
        let content = encoding::tlv(
            encoding::context_constructed(0),
            &[&encoding::tlv(encoding::OCTET_STRING, &[&self.tst_info])],
        );
        let encapsulated = encoding::tlv(encoding::SEQUENCE, &[&encoding::oid(&oid::TST_INFO), &content]);
        let certificates = match self.certificates {
            Certificates::Included => {
                encoding::set_of(encoding::context_constructed(0), authority.chain.clone())
            }
            Certificates::Omitted => Vec::new(),
        };
        let signed_data = encoding::tlv(
            encoding::SEQUENCE,
            &[
                &[encoding::INTEGER, 1, 3],
                &encoding::tlv(encoding::SET, &[&sha256]),
                &encapsulated,
                &certificates,
                &encoding::tlv(encoding::SET, &[&signer]),
            ],
        );
        let token = encoding::tlv(
            encoding::SEQUENCE,
            &[
                &encoding::oid(&oid::SIGNED_DATA),
                &encoding::tlv(encoding::context_constructed(0), &[&signed_data]),
            ],
        );
        let granted = encoding::tlv(encoding::SEQUENCE, &[&[encoding::INTEGER, 1, 0]]);
        encoding::tlv(encoding::SEQUENCE, &[&granted, &token])
    }
}

/// Why a request is rejected: PKIFailureInfo bits of RFC 3161 §2.4.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// badAlg (0).
    #[error("digest algorithm not accepted: use SHA-256, SHA-384 or SHA-512")]
    BadAlgorithm,
    /// badDataFormat (5).
    #[error("the request is malformed")]
    BadDataFormat,
    /// badRequest (2).
    #[error("the request's version is not 1")]
    BadRequest,
    /// systemFailure (25).
    #[error("the request cannot be served")]
    SystemFailure,
    /// timeNotAvailable (14).
    #[error("the authority has no trustworthy time")]
    TimeNotAvailable,
    /// unacceptedExtension (16).
    #[error("extensions are not accepted")]
    UnacceptedExtension,
    /// unacceptedPolicy (15).
    #[error("the policy is not this authority's")]
    UnacceptedPolicy,
}

impl Failure {
    fn bit(self) -> usize {
        match self {
            Self::BadAlgorithm => 0,
            Self::BadRequest => 2,
            Self::BadDataFormat => 5,
            Self::TimeNotAvailable => 14,
            Self::UnacceptedPolicy => 15,
            Self::UnacceptedExtension => 16,
            Self::SystemFailure => 25,
        }
    }

    /// The complete TimeStampResp with status `rejection`.
    #[must_use]
    pub fn to_der(self) -> Vec<u8> {
        let octets = self.bit() / 8 + 1;
        let mut bits = vec![0u8; octets];
        if let Some(last) = bits.last_mut() {
            *last = 0x80 >> (self.bit() % 8);
        }
        // DER bit strings with named bits end in their last one-bit (X.690 §11.2.2).
        let unused = [u8::try_from(7 - self.bit() % 8).unwrap_or(0)];
        let failure = encoding::tlv(encoding::BIT_STRING, &[&unused, &bits]);
        let status = encoding::tlv(encoding::SEQUENCE, &[&[encoding::INTEGER, 1, 2], &failure]);
        encoding::tlv(encoding::SEQUENCE, &[&status])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(parts: &[&[u8]]) -> Vec<u8> {
        encoding::tlv(encoding::SEQUENCE, parts)
    }

    fn imprint(algorithm: &ObjectIdentifier, length: usize) -> Vec<u8> {
        let digest = vec![7; length];
        let algorithm = encoding::tlv(encoding::SEQUENCE, &[&encoding::oid(algorithm), &[5, 0]]);
        encoding::tlv(encoding::SEQUENCE, &[&algorithm, &encoding::tlv(encoding::OCTET_STRING, &[&digest])])
    }

    #[test]
    fn reads_every_optional_field() {
        let der = request(&[
            &[2, 1, 1],
            &imprint(&oid::SHA384, 48),
            &encoding::oid(&oid::ANY_POLICY),
            &[2, 2, 0, 0x99],
            &[1, 1, 0xff],
        ]);
        let parsed = TimestampRequest::from_der(&der).unwrap();
        assert_eq!(parsed.hash(), ImprintHash::Sha384);
        assert_eq!(parsed.policy(), Some(&oid::ANY_POLICY));
        assert_eq!(parsed.nonce.as_deref(), Some(&[0x99][..]));
        assert_eq!(parsed.certificates, Certificates::Included);
    }

    #[test]
    fn sha1_extensions_versions_and_disorder_are_refused_with_their_bits() {
        let version = [2, 1, 1];
        let good = imprint(&oid::SHA256, 32);
        let cases = [
            (request(&[&version, &imprint(&oid::SHA1, 20)]), Failure::BadAlgorithm),
            (request(&[&version, &imprint(&oid::SHA256, 20)]), Failure::BadDataFormat),
            (request(&[&[2, 1, 2], &good]), Failure::BadRequest),
            (request(&[&version, &good, &[0xa0, 0]]), Failure::UnacceptedExtension),
            (request(&[&version, &good, &[1, 1, 0xff], &[2, 1, 5]]), Failure::BadDataFormat),
            (request(&[&version, &good, &[2, 1, 5], &[2, 1, 5]]), Failure::BadDataFormat),
            (vec![0x30; MAX_REQUEST + 1], Failure::BadDataFormat),
        ];
        for (der, failure) in cases {
            assert_eq!(TimestampRequest::from_der(&der), Err(failure));
        }
        let whole = request(&[&version, &good]);
        for length in 0..whole.len() {
            assert!(TimestampRequest::from_der(&whole[..length]).is_err());
        }
    }

    #[test]
    fn failure_bits_are_minimal_bit_strings() {
        assert_eq!(Failure::BadAlgorithm.to_der(), [0x30, 9, 0x30, 7, 2, 1, 2, 3, 2, 7, 0x80]);
        assert_eq!(Failure::TimeNotAvailable.to_der(), [0x30, 10, 0x30, 8, 2, 1, 2, 3, 3, 1, 0, 2]);
    }
}
