//! TBSCertificate (RFC 5280 §4.1) from a profile and a decided request. Built once; never re-encoded afterwards.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use der::asn1::AnyRef;
use der::{Decode, Encode, Sequence};
use spki::{AlgorithmIdentifierRef, ObjectIdentifier};
use x509_cert::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{KeyUsages, SubjectKeyIdentifier};
use x509_cert::time::Validity;

use crate::algorithm::SignatureAlgorithm;
use crate::error::Error;
use crate::extension::{self, Criticality};
use crate::identity::Identity;
use crate::key::{KeyIdentifier, KeyUse, SubjectPublicKey};
use crate::name::DistinguishedName;
use crate::oid;
use crate::profile::{Kind, Profile};
use crate::serial::{SerialNumber, Shard, ShardCount};
use crate::signed::ToBeSigned;
use crate::time::{UnixTime, unix_time, x509_time};

/// Largest certificate read, in octets.
pub const MAX_CERTIFICATE: usize = 64 * 1024;

/// Where relying parties find the status of what an issuer issued. All `http`, fixed at the ceremony.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusUrls {
    /// Base without a trailing slash, such as `http://status.example.org`.
    pub base: String,
    /// Name of the issuer in paths: `/crl/NAME.crl`, `/crl/NAME/SHARD.crl`, `/ca/NAME.cer`.
    pub issuer: String,
    /// Number of CRL shards.
    pub shards: ShardCount,
}

impl StatusUrls {
    /// The CRL that covers a shard; with one shard, the complete CRL.
    #[must_use]
    pub fn crl(&self, shard: Shard) -> String {
        if self.shards == ShardCount::ONE {
            self.full_crl()
        } else {
            alloc::format!("{}/crl/{}/{}.crl", self.base, self.issuer, shard.0)
        }
    }

    /// The CRL of everything the issuer issued.
    #[must_use]
    pub fn full_crl(&self) -> String {
        alloc::format!("{}/crl/{}.crl", self.base, self.issuer)
    }

    /// What was revoked since the base of the delta list.
    #[must_use]
    pub fn delta_crl(&self) -> String {
        alloc::format!("{}/crl/{}/delta.crl", self.base, self.issuer)
    }

    /// The issuer's certificate.
    #[must_use]
    pub fn certificate(&self) -> String {
        alloc::format!("{}/ca/{}.cer", self.base, self.issuer)
    }

    /// The OCSP responder.
    #[must_use]
    pub fn ocsp(&self) -> String {
        alloc::format!("{}/ocsp", self.base)
    }
}

/// What a builder must know of the certificate that will sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Subject of the issuer, byte for byte (C10).
    pub name: DistinguishedName,
    /// Its subjectKeyIdentifier.
    pub key_identifier: Vec<u8>,
    /// Its public key.
    pub public_key: SubjectPublicKey,
    /// Start of its validity.
    pub not_before: UnixTime,
    /// Last second of its validity; nothing it issues lives longer.
    pub not_after: UnixTime,
    /// The algorithm it signs with.
    pub algorithm: SignatureAlgorithm,
    /// Where its status objects are.
    pub status: StatusUrls,
}

impl Issuer {
    /// Reads what is needed from the issuer's own certificate.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`] (also when there is no subjectKeyIdentifier), [`Error::KeyNotAllowed`].
    pub fn from_certificate(
        der: &[u8],
        algorithm: SignatureAlgorithm,
        status: StatusUrls,
    ) -> Result<Self, Error> {
        let certificate = parse(der)?;
        let tbs = certificate.tbs_certificate();
        let malformed = Error::malformed("issuer certificate");
        let identifier: SubjectKeyIdentifier = tbs
            .get_extension::<SubjectKeyIdentifier>()
            .map_err(&malformed)?
            .ok_or_else(|| Error::Malformed {
                what: "issuer certificate",
                detail: "no key identifier".into(),
            })?
            .1;
        let spki = tbs.subject_public_key_info().to_der().map_err(&malformed)?;
        Ok(Self {
            name: DistinguishedName::from_der(&tbs.subject().to_der().map_err(&malformed)?)?,
            key_identifier: identifier.0.as_bytes().to_vec(),
            public_key: SubjectPublicKey::from_spki(&spki, KeyUse::Authority)?,
            not_before: unix_time(tbs.validity().not_before),
            not_after: unix_time(tbs.validity().not_after),
            algorithm,
            status,
        })
    }
}

/// Parses a certificate within the size limit.
///
/// # Errors
/// [`Error::TooLarge`] or [`Error::Malformed`].
pub fn parse(der: &[u8]) -> Result<x509_cert::Certificate, Error> {
    if der.len() > MAX_CERTIFICATE {
        return Err(Error::TooLarge { what: "certificate", limit: MAX_CERTIFICATE });
    }
    x509_cert::Certificate::from_der(der).map_err(Error::malformed("certificate"))
}

/// The subjectKeyIdentifier of a certificate, if it has one: what certificates below it name as their issuer's.
///
/// # Errors
/// [`Error::Malformed`], also when it is not of 20 octets.
pub fn key_identifier(certificate: &x509_cert::Certificate) -> Result<Option<KeyIdentifier>, Error> {
    let found = certificate
        .tbs_certificate()
        .get_extension::<SubjectKeyIdentifier>()
        .map_err(Error::malformed("key identifier"))?;
    let Some((_, identifier)) = found else { return Ok(None) };
    let octets = identifier.0.as_bytes().try_into();
    Ok(Some(KeyIdentifier(
        octets.map_err(|_| Error::Malformed { what: "key identifier", detail: "not of 20 octets".into() })?,
    )))
}

/// A request after every decision about it was made.
#[derive(Debug, Clone)]
pub struct Decided<'a> {
    /// Chosen serial number, reserved before anything is signed.
    pub serial: &'a SerialNumber,
    /// Subject name.
    pub subject: &'a DistinguishedName,
    /// The verified identity; required for subscribers, absent otherwise.
    pub identity: Option<&'a Identity>,
    /// The key whose possession was proven.
    pub public_key: &'a SubjectPublicKey,
    /// First second of validity.
    pub not_before: UnixTime,
    /// Who vouched for the identity: the URL of the OIDC issuer, or of this CA for one-time tokens.
    pub identity_issuer: Option<&'a str>,
    /// Further Sigstore claims (.2 to .6, .9 to .22) in ascending order of their OIDs.
    pub claims: &'a [(ObjectIdentifier, String)],
}

/// Whether the bytes are for a precertificate or for a certificate without an SCT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// With the poison extension of RFC 6962 §3.1 in last place.
    Precertificate,
    /// The certificate itself.
    Certificate,
}

#[derive(Sequence)]
struct TbsCertificate<'a> {
    #[asn1(context_specific = "0", default = "Default::default")]
    version: Version,
    serial_number: AnyRef<'a>,
    signature: AlgorithmIdentifierRef<'a>,
    // Names and key stay the bytes they were received as: a re-encoding could differ from the issuer's (C10).
    issuer: AnyRef<'a>,
    validity: Validity,
    subject: AnyRef<'a>,
    subject_public_key_info: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

/// Builds the to-be-signed bytes of a certificate of `profile` under `issuer`.
///
/// The end of validity is `not_before` + lifetime − 1 s, cut at the issuer's own end (C2).
///
/// # Errors
/// [`Error::Unsupported`] when identity and profile do not fit or the issuer is not valid at `not_before`,
/// [`Error::UnrepresentableTime`], [`Error::Malformed`].
pub fn build(
    profile: &Profile,
    issuer: &Issuer,
    request: &Decided<'_>,
    form: Form,
) -> Result<ToBeSigned, Error> {
    let signer = Signer {
        name: &issuer.name,
        key_identifier: Some(&issuer.key_identifier),
        not_after: issuer.not_after,
        algorithm: issuer.algorithm,
        status: &issuer.status,
    };
    if request.not_before < issuer.not_before || request.not_before > issuer.not_after {
        return Err(Error::Unsupported("the issuer is not valid at the start of the certificate"));
    }
    if profile.kind() == Kind::Root {
        return Err(Error::Unsupported("a root is its own issuer"));
    }
    encode(profile, &signer, request, form)
}

/// Builds the to-be-signed bytes of a self-signed root.
///
/// # Errors
/// As [`build`]; [`Error::Unsupported`] when the profile is not a root's.
pub fn build_root(
    profile: &Profile,
    algorithm: SignatureAlgorithm,
    request: &Decided<'_>,
    status: &StatusUrls,
) -> Result<ToBeSigned, Error> {
    if profile.kind() != Kind::Root {
        return Err(Error::Unsupported("only a root is its own issuer"));
    }
    let signer = Signer {
        name: request.subject,
        key_identifier: None,
        not_after: UnixTime(i64::MAX),
        algorithm,
        status,
    };
    encode(profile, &signer, request, Form::Certificate)
}

struct Signer<'a> {
    name: &'a DistinguishedName,
    key_identifier: Option<&'a [u8]>,
    not_after: UnixTime,
    algorithm: SignatureAlgorithm,
    status: &'a StatusUrls,
}

fn encode(
    profile: &Profile,
    signer: &Signer<'_>,
    request: &Decided<'_>,
    form: Form,
) -> Result<ToBeSigned, Error> {
    if profile.kind().is_subscriber() != request.identity.is_some() {
        return Err(Error::Unsupported("subscribers, and nobody else, have an identity"));
    }
    let malformed = Error::malformed("certificate");
    let last = request.not_before.plus(profile.lifetime() - 1).min(signer.not_after);
    let mut extensions = extensions(profile, signer, request)?;
    if form == Form::Precertificate {
        extensions.push(extension::raw(oid::PRECERTIFICATE_POISON, Criticality::Critical, vec![5, 0])?);
    }
    let serial = request.serial.to_der();
    let algorithm = signer.algorithm.identifier();
    let tbs = TbsCertificate {
        version: Version::V3,
        serial_number: AnyRef::from_der(&serial).map_err(&malformed)?,
        signature: AlgorithmIdentifierRef::from_der(&algorithm).map_err(&malformed)?,
        issuer: AnyRef::from_der(signer.name.as_der()).map_err(&malformed)?,
        validity: Validity::new(x509_time(request.not_before)?, x509_time(last)?),
        subject: AnyRef::from_der(request.subject.as_der()).map_err(&malformed)?,
        subject_public_key_info: AnyRef::from_der(request.public_key.spki()).map_err(&malformed)?,
        extensions,
    };
    Ok(ToBeSigned::new(tbs.to_der().map_err(&malformed)?, signer.algorithm))
}

fn extensions(
    profile: &Profile,
    signer: &Signer<'_>,
    request: &Decided<'_>,
) -> Result<Vec<Extension>, Error> {
    let mut list = Vec::with_capacity(12);
    let certificate_signing = || extension::key_usage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
    let digital_signature = || extension::key_usage(KeyUsages::DigitalSignature);
    let purpose = |criticality, purpose| extension::extended_key_usage(criticality, vec![purpose]);
    match profile.kind() {
        Kind::Root => {
            list.push(extension::basic_constraints_ca(None)?);
            list.push(certificate_signing()?);
        }
        kind @ (Kind::CodeSigningIssuer | Kind::CrossCertificate | Kind::TimeStampingIssuer) => {
            let levels_below = u8::from(kind == Kind::CrossCertificate);
            list.push(extension::basic_constraints_ca(Some(levels_below))?);
            list.push(certificate_signing()?);
            let allowed =
                if kind == Kind::TimeStampingIssuer { oid::KP_TIME_STAMPING } else { oid::KP_CODE_SIGNING };
            list.push(purpose(Criticality::NonCritical, allowed)?);
        }
        Kind::OcspResponder => {
            list.push(extension::basic_constraints_end_entity()?);
            list.push(digital_signature()?);
            list.push(purpose(Criticality::NonCritical, oid::KP_OCSP_SIGNING)?);
            list.push(extension::ocsp_no_check()?);
        }
        Kind::TimestampAuthority => {
            list.push(extension::basic_constraints_end_entity()?);
            list.push(digital_signature()?);
            list.push(purpose(Criticality::Critical, oid::KP_TIME_STAMPING)?);
        }
        Kind::CodeSigningBaseline | Kind::Internal | Kind::Keyless => {
            list.push(digital_signature()?);
            list.push(purpose(Criticality::NonCritical, oid::KP_CODE_SIGNING)?);
        }
    }
    list.push(extension::subject_key_identifier(request.public_key.key_identifier())?);
    if let Some(identifier) = signer.key_identifier {
        list.push(extension::authority_key_identifier(identifier)?);
    }
    if let Some(identity) = request.identity {
        // RFC 5280 §4.2.1.6: critical exactly when it is the only name.
        let criticality =
            if request.subject.is_empty() { Criticality::Critical } else { Criticality::NonCritical };
        list.push(extension::subject_alt_name(criticality, identity)?);
    }
    if !profile.policies().is_empty() {
        list.push(extension::certificate_policies(profile.policies())?);
    }
    if !matches!(profile.kind(), Kind::Root | Kind::OcspResponder) {
        let shard = request.serial.shard(signer.status.shards);
        list.push(extension::crl_distribution_point(&signer.status.crl(shard))?);
    }
    if !matches!(profile.kind(), Kind::Root | Kind::OcspResponder | Kind::Keyless) {
        let ocsp = profile.has_ocsp().then(|| signer.status.ocsp());
        list.push(extension::authority_info_access(&signer.status.certificate(), ocsp.as_deref())?);
    }
    if let Some(issuer) = request.identity_issuer {
        list.extend(extension::sigstore_issuer(issuer)?);
    }
    for (oid, value) in request.claims {
        list.push(extension::sigstore_claim(*oid, value)?);
    }
    Ok(list)
}
