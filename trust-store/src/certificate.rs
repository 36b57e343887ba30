//! X.509 certificates (RFC 5280 §4.1), parsed once and strictly.
//!
//! A [`Certificate`] keeps one owned copy of the DER and the places of its fields; cloning it is a reference count.
//! Parsing checks the encoding, the agreement of the inner and outer algorithm identifiers, and the shape of every
//! extension that path validation or revocation works on. Whether the certificate may be *used* is for
//! [`crate::path`] to say.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use const_oid::ObjectIdentifier;
use sha2::{Digest, Sha256};
use tlog::signature::SignatureVerifier;

use crate::algorithm::{KeyAlgorithm, SignatureAlgorithm};
use crate::certificate_parsing::{UNKNOWN_VERSION, parse};
use crate::extension::{
    AccessDescriptions, AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies, DistributionPoints,
    ExtendedKeyUsage, Extension, KeyUsage, NameConstraints, PolicyConstraints, PolicyMappings,
};
use crate::general_name::{GeneralName, GeneralNames};
use crate::name::CanonicalName;
use crate::oid;
use crate::pem;
use crate::reason::{Denial, ReasonCode};
use crate::time::UnixTime;
use crate::x690::{Reader, Span};

/// The largest certificate that is read, in octets. An ML-DSA-87 certificate has about 8,000.
pub const MAX_LENGTH: usize = 128 * 1024;

/// The most certificates in one PEM chain.
pub const MAX_PEM_CHAIN: usize = 64;

/// The most content octets of a serial number (RFC 5280 §4.1.2.2).
pub const MAX_SERIAL_LENGTH: usize = 20;

/// A parsed certificate.
#[derive(Clone)]
pub struct Certificate(Arc<Parts>);

/// The version of a certificate's format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// Version 1: no extensions.
    V1,
    /// Version 2: unique identifiers, no extensions.
    V2,
    /// Version 3.
    V3,
}

pub(crate) struct Parts {
    pub(crate) der: Box<[u8]>,
    pub(crate) tbs: Span,
    pub(crate) version: Version,
    pub(crate) serial: Span,
    pub(crate) signature_algorithm: SignatureAlgorithm,
    pub(crate) issuer: Span,
    pub(crate) issuer_name: CanonicalName,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) subject: Span,
    pub(crate) subject_name: CanonicalName,
    pub(crate) spki: Span,
    pub(crate) key_algorithm: KeyAlgorithm,
    pub(crate) key: Span,
    pub(crate) signature: Span,
    pub(crate) extensions: Vec<Extension>,
    pub(crate) known: KnownExtensions,
}

/// What the extensions with a small value say, and which critical one is not recognised.
#[derive(Default)]
pub(crate) struct KnownExtensions {
    pub(crate) basic_constraints: Option<BasicConstraints>,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) policy_constraints: Option<PolicyConstraints>,
    pub(crate) inhibit_any_policy: Option<u32>,
    pub(crate) unrecognised_critical: Option<Span>,
    pub(crate) poison: bool,
    pub(crate) ocsp_nocheck: bool,
}

impl Certificate {
    /// Reads one DER certificate with nothing after it.
    ///
    /// # Errors
    /// `too_large` above [`MAX_LENGTH`], `unsupported` for an unknown version, `malformed` with the offset otherwise.
    pub fn from_der(der: &[u8]) -> Result<Self, Denial> {
        if der.len() > MAX_LENGTH {
            return Err(Denial::new(ReasonCode::TooLarge, "certificate is larger than 128 KiB"));
        }
        parse(der).map(|parts| Self(Arc::new(parts))).map_err(|error| match error.what {
            UNKNOWN_VERSION => Denial::new(ReasonCode::Unsupported, UNKNOWN_VERSION),
            _ => error.denial("certificate"),
        })
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// Those of [`pem::decode`] and [`Certificate::from_der`]; `malformed` if there is none.
    pub fn from_pem(text: &str) -> Result<Self, Denial> {
        let chain = Self::from_pem_chain(text)?;
        chain.into_iter().next().ok_or(Denial::new(ReasonCode::Malformed, "no certificate in the PEM text"))
    }

    /// Reads every certificate of a PEM text, in order; an empty list if there is none.
    ///
    /// # Errors
    /// Those of [`pem::decode`] and [`Certificate::from_der`].
    pub fn from_pem_chain(text: &str) -> Result<Vec<Self>, Denial> {
        pem::decode(text, pem::CERTIFICATE, MAX_PEM_CHAIN)?.iter().map(|der| Self::from_der(der)).collect()
    }

    /// The certificate as a PEM block.
    pub fn to_pem(&self) -> String {
        pem::encode(self.der(), pem::CERTIFICATE)
    }

    /// The whole certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The DER of the signed part, `tbsCertificate`.
    pub fn tbs(&self) -> &[u8] {
        self.octets(self.0.tbs)
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// The content octets of the serial number INTEGER: minimal, signed, at most [`MAX_SERIAL_LENGTH`].
    pub fn serial(&self) -> &[u8] {
        self.octets(self.0.serial)
    }

    /// The algorithm the issuer signed with.
    pub fn signature_algorithm(&self) -> SignatureAlgorithm {
        self.0.signature_algorithm
    }

    /// The issuer's signature, as [`SignatureVerifier`] takes it.
    pub fn signature(&self) -> &[u8] {
        self.octets(self.0.signature)
    }

    /// The DER of the issuer's `Name`.
    pub fn issuer_der(&self) -> &[u8] {
        self.octets(self.0.issuer)
    }

    /// The issuer's name in the form to compare.
    pub fn issuer_name(&self) -> &CanonicalName {
        &self.0.issuer_name
    }

    /// The DER of the subject's `Name`.
    pub fn subject_der(&self) -> &[u8] {
        self.octets(self.0.subject)
    }

    /// The subject's name in the form to compare.
    pub fn subject_name(&self) -> &CanonicalName {
        &self.0.subject_name
    }

    /// First second of the validity period.
    pub fn not_before(&self) -> UnixTime {
        self.0.not_before
    }

    /// Last second of the validity period (inclusive, RFC 5280 §4.1.2.5).
    pub fn not_after(&self) -> UnixTime {
        self.0.not_after
    }

    /// The DER of the SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        self.octets(self.0.spki)
    }

    /// SHA-256 of the DER SubjectPublicKeyInfo: what tells two CAs of one name apart.
    pub fn key_digest(&self) -> [u8; 32] {
        Sha256::digest(self.spki_der()).into()
    }

    /// The kind of the subject's key.
    pub fn key_algorithm(&self) -> KeyAlgorithm {
        self.0.key_algorithm
    }

    /// The subject's key, as [`SignatureVerifier`] takes it.
    pub fn public_key(&self) -> &[u8] {
        self.octets(self.0.key)
    }

    /// SHA-256 of the DER certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.der()).into()
    }

    /// True if subject and issuer are the same non-empty name (RFC 5280 §6.1: self-issued).
    pub fn is_self_issued(&self) -> bool {
        self.0.subject_name == self.0.issuer_name
    }

    /// True if `time` is inside the validity period, both ends included.
    pub fn is_valid_at(&self, time: UnixTime) -> bool {
        self.not_before() <= time && time <= self.not_after()
    }

    /// Every extension in order.
    pub fn extensions(&self) -> impl Iterator<Item = Extension> + '_ {
        self.0.extensions.iter().copied()
    }

    /// The DER value of the extension with this identifier, and whether it is critical.
    pub fn extension(&self, id: &ObjectIdentifier) -> Option<(&[u8], bool)> {
        self.find(id).map(|extension| (extension.value(self.der()), extension.is_critical()))
    }

    /// Basic constraints.
    pub fn basic_constraints(&self) -> Option<BasicConstraints> {
        self.0.known.basic_constraints
    }

    /// True if basic constraints say that the key may sign certificates.
    pub fn is_ca(&self) -> bool {
        self.0.known.basic_constraints.is_some_and(|constraints| constraints.ca)
    }

    /// Key usage; `None` if the certificate does not restrict it.
    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.0.known.key_usage
    }

    /// Extended key usage; `None` if the certificate does not restrict it.
    pub fn extended_key_usage(&self) -> Option<ExtendedKeyUsage<'_>> {
        ExtendedKeyUsage::parsed_before(self.value(&oid::EXTENDED_KEY_USAGE)?)
    }

    /// Subject alternative names.
    pub fn subject_alternative_names(&self) -> impl Iterator<Item = GeneralName<'_>> {
        let names = self.value(&oid::SUBJECT_ALTERNATIVE_NAME).and_then(|mut value| value.sequence().ok());
        names.map(GeneralNames::parsed_before).into_iter().flat_map(|names| names.iter())
    }

    /// The e-mail addresses among the subject alternative names.
    pub fn emails(&self) -> impl Iterator<Item = &str> {
        self.subject_alternative_names().filter_map(|name| match name {
            GeneralName::Email(email) => Some(email),
            _ => None,
        })
    }

    /// The URIs among the subject alternative names.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.subject_alternative_names().filter_map(|name| match name {
            GeneralName::Uri(uri) => Some(uri),
            _ => None,
        })
    }

    /// Certificate policies.
    pub fn certificate_policies(&self) -> Option<CertificatePolicies<'_>> {
        CertificatePolicies::parsed_before(self.value(&oid::CERTIFICATE_POLICIES)?)
    }

    /// Policy mappings.
    pub fn policy_mappings(&self) -> Option<PolicyMappings<'_>> {
        PolicyMappings::parsed_before(self.value(&oid::POLICY_MAPPINGS)?)
    }

    /// Policy constraints.
    pub fn policy_constraints(&self) -> Option<PolicyConstraints> {
        self.0.known.policy_constraints
    }

    /// After how many certificates anyPolicy stops to match (inhibitAnyPolicy).
    pub fn inhibit_any_policy(&self) -> Option<u32> {
        self.0.known.inhibit_any_policy
    }

    /// Name constraints.
    pub fn name_constraints(&self) -> Option<NameConstraints<'_>> {
        NameConstraints::parsed_before(self.value(&oid::NAME_CONSTRAINTS)?)
    }

    /// CRL distribution points.
    pub fn crl_distribution_points(&self) -> Option<DistributionPoints<'_>> {
        DistributionPoints::parsed_before(self.value(&oid::CRL_DISTRIBUTION_POINTS)?)
    }

    /// Where delta CRLs are found (freshestCRL).
    pub fn freshest_crl(&self) -> Option<DistributionPoints<'_>> {
        DistributionPoints::parsed_before(self.value(&oid::FRESHEST_CRL)?)
    }

    /// Authority information access; `None` if absent or not well formed (nothing is decided by it).
    pub fn authority_information_access(&self) -> Option<AccessDescriptions<'_>> {
        AccessDescriptions::read(self.value(&oid::AUTHORITY_INFO_ACCESS)?).ok()
    }

    /// Subject key identifier.
    pub fn subject_key_identifier(&self) -> Option<&[u8]> {
        self.value(&oid::SUBJECT_KEY_IDENTIFIER)?.read().ok().map(|identifier| identifier.content())
    }

    /// Authority key identifier.
    pub fn authority_key_identifier(&self) -> Option<AuthorityKeyIdentifier<'_>> {
        AuthorityKeyIdentifier::read(self.value(&oid::AUTHORITY_KEY_IDENTIFIER)?).ok()
    }

    /// True if the certificate is a precertificate (RFC 6962 §3.1), which nothing may be signed with.
    pub fn is_precertificate(&self) -> bool {
        self.0.known.poison
    }

    /// True for an OCSP responder that is not itself checked for revocation (RFC 6960 §4.2.2.2.1).
    pub fn has_ocsp_nocheck(&self) -> bool {
        self.0.known.ocsp_nocheck
    }

    /// The identifier's content octets of the first critical extension that is not recognised.
    pub fn unrecognised_critical_extension(&self) -> Option<&[u8]> {
        self.0.known.unrecognised_critical.map(|id| self.octets(id))
    }

    /// Verifies this certificate's signature with the key of `issuer`; names and usages are not looked at.
    ///
    /// # Errors
    /// `algorithm_not_allowed` if the algorithm is not supported or not one of the issuer's key,
    /// `unknown_issuer` if the signature does not verify.
    pub fn verify_signature(
        &self,
        issuer: &Certificate,
        verifier: &dyn SignatureVerifier,
    ) -> Result<(), Denial> {
        let algorithm = self.signature_algorithm().with_key(issuer.key_algorithm()).ok_or(Denial::new(
            ReasonCode::AlgorithmNotAllowed,
            "the certificate's signature algorithm is not supported or not one of its issuer's key",
        ))?;
        verifier.verify(algorithm, issuer.public_key(), self.tbs(), self.signature()).map_err(|_| {
            Denial::new(
                ReasonCode::UnknownIssuer,
                "the certificate's signature does not verify with its issuer's key",
            )
        })
    }

    fn octets(&self, span: Span) -> &[u8] {
        span.of(self.der())
    }

    fn find(&self, id: &ObjectIdentifier) -> Option<&Extension> {
        self.0.extensions.iter().find(|extension| extension.id(self.der()) == id.as_bytes())
    }

    fn value(&self, id: &ObjectIdentifier) -> Option<Reader<'_>> {
        self.find(id).map(|extension| extension.reader(self.der()))
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.der() == other.der()
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = self.fingerprint();
        let start = fingerprint.get(..8).unwrap_or_default();
        write!(f, "Certificate(sha256 {}.., {} octets)", hex::encode(start), self.der().len())
    }
}
