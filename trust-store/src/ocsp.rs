//! OCSP responses (RFC 6960 §4.2), reading only.
//!
//! In scope: the structure, who may have signed it, and what it says about a certificate. Whether that is fresh
//! enough and how it weighs against other evidence is decided in [`crate::revocation`].

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use tlog::signature::SignatureVerifier;

use crate::algorithm::SignatureAlgorithm;
use crate::budget::Budget;
use crate::certificate::Certificate;
use crate::crl_entry::RevocationReason;
use crate::extension::{Extension, KeyUsage};
use crate::name::CanonicalName;
use crate::ocsp_parsing::{NOT_BASIC, basic_response, parse, read_certificates};
use crate::oid;
use crate::path_validation::check_critical_extensions;
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;
use crate::x690::{Span, tag};

pub use crate::ocsp_parsing::response_status;

/// The largest response that is read, in octets.
pub const MAX_LENGTH: usize = 256 * 1024;

/// OCSPResponseStatus (RFC 6960 §4.2.1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ResponseStatus {
    /// The response has an answer.
    Successful,
    /// The request was malformed.
    MalformedRequest,
    /// The responder failed.
    InternalError,
    /// The responder asks to try later.
    TryLater,
    /// The request must be signed.
    SigRequired,
    /// The responder is not authoritative, or the client may not ask.
    Unauthorized,
}

/// What the responder says about one certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CertificateStatus {
    /// Not revoked.
    Good,
    /// Revoked, since when and why.
    Revoked {
        /// revocationTime
        at: UnixTime,
        /// revocationReason
        reason: RevocationReason,
    },
    /// The responder does not know the certificate: no evidence.
    Unknown,
}

/// A parsed successful basic response. Cloning is a reference count.
#[derive(Clone)]
pub struct OcspResponse {
    parts: Arc<Parts>,
    /// The SubjectPublicKeyInfo of the issuer for which the responder was found authorised.
    authorised_for: Option<Arc<[u8]>>,
}

pub(crate) struct Parts {
    pub(crate) der: Box<[u8]>,
    pub(crate) data: Span,
    pub(crate) responder: ResponderId,
    pub(crate) produced_at: UnixTime,
    pub(crate) responses: Vec<SingleResponse>,
    pub(crate) extensions: Vec<Extension>,
    pub(crate) signature_algorithm: SignatureAlgorithm,
    pub(crate) signature: Span,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) unusable: Option<&'static str>,
}

/// Who signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ResponderId {
    Name(CanonicalName),
    /// SHA-1 of the key bits.
    Key(Span),
}

/// The answer about one certificate.
#[derive(Clone, Debug)]
pub struct SingleResponse {
    pub(crate) hash: CertIdHash,
    pub(crate) issuer_name_hash: Span,
    pub(crate) issuer_key_hash: Span,
    pub(crate) serial: Span,
    pub(crate) status: CertificateStatus,
    pub(crate) this_update: UnixTime,
    pub(crate) next_update: Option<UnixTime>,
}

/// The hash of a certificate id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CertIdHash {
    /// SHA-1, which old clients use; no security rests on it here, the signature covers the serial number.
    Sha1,
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
    /// Any other: matches nothing.
    Unsupported,
}

impl SingleResponse {
    /// What is said about the certificate.
    pub fn status(&self) -> CertificateStatus {
        self.status
    }

    /// From when the answer is known to be right.
    pub fn this_update(&self) -> UnixTime {
        self.this_update
    }

    /// When newer information is due.
    pub fn next_update(&self) -> Option<UnixTime> {
        self.next_update
    }

    /// The hash the certificate id was made with.
    pub fn hash(&self) -> CertIdHash {
        self.hash
    }

    /// True if `now` lies between the two updates; an answer without the second is never current.
    pub fn is_current(&self, now: UnixTime) -> bool {
        self.this_update <= now && self.next_update.is_some_and(|next| now <= next)
    }
}

impl OcspResponse {
    /// Reads one DER response with nothing after it.
    ///
    /// # Errors
    /// `too_large` above [`MAX_LENGTH`], `revocation_unknown` for a response without an answer (see
    /// [`response_status`]), `unsupported` for a type other than basic, `malformed` otherwise.
    pub fn from_der(der: &[u8]) -> Result<Self, Denial> {
        if der.len() > MAX_LENGTH {
            return Err(Denial::new(ReasonCode::TooLarge, "OCSP response is larger than 256 KiB"));
        }
        let status = response_status(der)?;
        if status != ResponseStatus::Successful {
            return Err(Denial::new(
                ReasonCode::RevocationUnknown,
                alloc::format!("the OCSP responder answered {status:?}"),
            ));
        }
        let basic = basic_response(der).map_err(|error| match error.what {
            NOT_BASIC => Denial::new(ReasonCode::Unsupported, NOT_BASIC),
            _ => error.denial("OCSP response"),
        })?;
        let mut parts = parse(basic, der).map_err(|error| error.denial("OCSP response"))?;
        parts.certificates = read_certificates(basic)?;
        Ok(Self { parts: Arc::new(parts), authorised_for: None })
    }

    /// The whole response in DER.
    pub fn der(&self) -> &[u8] {
        &self.parts.der
    }

    /// When the response was signed.
    pub fn produced_at(&self) -> UnixTime {
        self.parts.produced_at
    }

    /// The algorithm the response was signed with.
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.parts.signature_algorithm
    }

    /// The certificates sent along.
    pub fn certificates(&self) -> &[Certificate] {
        &self.parts.certificates
    }

    /// The answers, in order.
    pub fn responses(&self) -> &[SingleResponse] {
        &self.parts.responses
    }

    /// The answers about a certificate of this issuer.
    pub fn responses_for<'a>(
        &'a self,
        certificate: &'a Certificate,
        issuer: &'a Certificate,
    ) -> impl Iterator<Item = &'a SingleResponse> {
        // One hash for each kind of identifier, not one for each answer: a response may hold thousands.
        let mut hashed: [Option<(Vec<u8>, Vec<u8>)>; 4] = [None, None, None, None];
        self.parts.responses.iter().filter(move |response| {
            response.serial.of(self.der()) == certificate.serial()
                && self.is_of_issuer(response, certificate, issuer, &mut hashed)
        })
    }

    /// The nonce, if the response has one.
    pub fn nonce(&self) -> Option<&[u8]> {
        let found = self.parts.extensions.iter().find(|e| e.id(self.der()) == oid::OCSP_NONCE.as_bytes())?;
        let mut value = found.reader(self.der());
        value.expect(tag::OCTET_STRING).ok().map(|nonce| nonce.content())
    }

    /// Why the response must not be used although it is well formed: a critical extension is not recognised.
    pub fn unusable(&self) -> Option<&'static str> {
        self.parts.unusable
    }

    /// Finds who signed the response on behalf of `issuer`: the issuer itself, or a responder it delegated to with a
    /// certificate that it issued directly, that lists OCSPSigning and was valid when the response was signed and is
    /// valid now. The signature is verified.
    ///
    /// # Errors
    /// `signature_invalid` if the signature does not verify, `usage_not_allowed`, `expired_at_signing`,
    /// `not_yet_valid` or `critical_extension` for a responder that is not authorised, `unknown_issuer` if nobody
    /// fits, `algorithm_not_allowed`.
    pub fn find_responder(
        &self,
        issuer: &Certificate,
        now: UnixTime,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Responder, Denial> {
        let mut unbounded = Budget { signature_checks: u32::MAX, steps: u32::MAX };
        self.find_responder_within(issuer, now, verifier, &mut unbounded)
    }

    /// As [`OcspResponse::find_responder`], with every signature check charged when it is made.
    pub(crate) fn find_responder_within(
        &self,
        issuer: &Certificate,
        now: UnixTime,
        verifier: &dyn SignatureVerifier,
        budget: &mut Budget,
    ) -> Result<Responder, Denial> {
        if self.authorised_for.as_deref() == Some(issuer.spki_der()) {
            return Ok(Responder::Authorised);
        }
        if self.is_named(issuer) {
            budget.spend_signature_check(self.der().len())?;
            self.verify_signature(issuer, verifier)?;
            return Ok(Responder::Issuer);
        }
        let mut failure = Denial::new(
            ReasonCode::UnknownIssuer,
            "no certificate sent along is the responder's, and the issuer is not the responder",
        );
        for candidate in self.parts.certificates.iter().filter(|candidate| self.is_named(candidate)) {
            match self.check_delegate(candidate, issuer, now, verifier, budget) {
                Ok(()) => return Ok(Responder::Delegate(candidate.clone())),
                Err(denial) if denial.code == ReasonCode::BudgetExceeded => return Err(denial),
                Err(denial) => failure = denial,
            }
        }
        Err(failure)
    }

    /// The same response, remembering that its responder was found authorised for `issuer`: later checks against
    /// that issuer cost nothing. Only for a delegate that needs no revocation check of its own, and the issuer.
    ///
    /// # Errors
    /// As [`OcspResponse::find_responder`]; `revocation_unknown` for a delegate without `id-pkix-ocsp-nocheck`.
    pub fn authenticate(
        mut self,
        issuer: &Certificate,
        now: UnixTime,
        verifier: &dyn SignatureVerifier,
    ) -> Result<Self, Denial> {
        if let Responder::Delegate(delegate) = self.find_responder(issuer, now, verifier)?
            && !delegate.has_ocsp_nocheck()
        {
            return Err(Denial::new(
                ReasonCode::RevocationUnknown,
                "the OCSP responder's certificate must itself be checked for revocation",
            ));
        }
        self.authorised_for = Some(issuer.spki_der().into());
        Ok(self)
    }

    fn check_delegate(
        &self,
        delegate: &Certificate,
        issuer: &Certificate,
        now: UnixTime,
        verifier: &dyn SignatureVerifier,
        budget: &mut Budget,
    ) -> Result<(), Denial> {
        if delegate.issuer_name() != issuer.subject_name() {
            return Err(Denial::new(
                ReasonCode::UnknownIssuer,
                "the OCSP responder's certificate was not issued by the certificate's issuer",
            ));
        }
        if !delegate.extended_key_usage().is_some_and(|usage| usage.lists(oid::KP_OCSP_SIGNING.as_bytes())) {
            return Err(Denial::new(
                ReasonCode::UsageNotAllowed,
                "the OCSP responder's certificate lacks OCSPSigning",
            ));
        }
        if delegate.key_usage().is_some_and(|usage| !usage.contains(KeyUsage::DIGITAL_SIGNATURE)) {
            return Err(Denial::new(
                ReasonCode::UsageNotAllowed,
                "the OCSP responder's key usage lacks digitalSignature",
            ));
        }
        check_critical_extensions(delegate)?;
        for time in [self.produced_at(), now] {
            crate::path_validation::check_validity(delegate, time)?;
        }
        budget.spend_signature_check(delegate.tbs().len())?;
        delegate.verify_signature(issuer, verifier)?;
        budget.spend_signature_check(self.der().len())?;
        self.verify_signature(delegate, verifier)
    }

    fn verify_signature(&self, signer: &Certificate, verifier: &dyn SignatureVerifier) -> Result<(), Denial> {
        let algorithm = self.signature_algorithm().with_key(signer.key_algorithm()).ok_or(Denial::new(
            ReasonCode::AlgorithmNotAllowed,
            "the OCSP response's signature algorithm is not supported or not one of its signer's key",
        ))?;
        let (data, signature) = (self.parts.data.of(self.der()), self.parts.signature.of(self.der()));
        verifier.verify(algorithm, signer.public_key(), data, signature).map_err(|_| {
            Denial::new(ReasonCode::SignatureInvalid, "the OCSP response's signature does not verify")
        })
    }

    fn is_named(&self, candidate: &Certificate) -> bool {
        match &self.parts.responder {
            ResponderId::Name(name) => name == candidate.subject_name(),
            ResponderId::Key(hash) => hash.of(self.der()) == Sha1::digest(candidate.public_key()).as_slice(),
        }
    }

    /// Whether an answer names this issuer: the hash of its name, as the certificate spells it (RFC 6960 §4.1.1), and of
    /// its key.
    fn is_of_issuer(
        &self,
        response: &SingleResponse,
        certificate: &Certificate,
        issuer: &Certificate,
        hashed: &mut [Option<(Vec<u8>, Vec<u8>)>; 4],
    ) -> bool {
        let digest = |octets: &[u8]| match response.hash {
            CertIdHash::Sha1 => Sha1::digest(octets).to_vec(),
            CertIdHash::Sha256 => Sha256::digest(octets).to_vec(),
            CertIdHash::Sha384 => Sha384::digest(octets).to_vec(),
            CertIdHash::Sha512 => Sha512::digest(octets).to_vec(),
            CertIdHash::Unsupported => Vec::new(),
        };
        let place = match response.hash {
            CertIdHash::Sha1 => 0,
            CertIdHash::Sha256 => 1,
            CertIdHash::Sha384 => 2,
            CertIdHash::Sha512 => 3,
            CertIdHash::Unsupported => return false,
        };
        let Some(hashed) = hashed.get_mut(place) else { return false };
        let (name, key) =
            hashed.get_or_insert_with(|| (digest(certificate.issuer_der()), digest(issuer.public_key())));
        response.issuer_name_hash.of(self.der()) == name && response.issuer_key_hash.of(self.der()) == key
    }
}

/// Who signed a response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Responder {
    /// It was authenticated before (see [`OcspResponse::authenticate`]).
    Authorised,
    /// The issuer of the certificate.
    Issuer,
    /// A delegate, with its certificate: if that lacks `id-pkix-ocsp-nocheck`, its own status must be checked.
    Delegate(Certificate),
}

impl fmt::Debug for OcspResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OcspResponse({} answers, produced at {})", self.responses().len(), self.produced_at())
    }
}
