//! Certificate and CRL extensions, built from the typed structures of RFC 5280 §4.2 and §5.2.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use const_oid::ObjectIdentifier;
use der::Encode;
use der::asn1::{Ia5String, OctetString};
use der::flagset::FlagSet;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::certpolicy::PolicyInformation;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AccessDescription, AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, BasicConstraints,
    CertificatePolicies, CrlDistributionPoints, ExtendedKeyUsage, FreshestCrl, IssuingDistributionPoint,
    KeyUsage, KeyUsages, SubjectKeyIdentifier,
};

use crate::error::Error;
use crate::identity::Identity;
use crate::key::KeyIdentifier;
use crate::time::{self, UnixTime};
use crate::{encoding, oid};

/// Whether a verifier that does not know an extension must refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criticality {
    /// It must.
    Critical,
    /// It may ignore the extension.
    NonCritical,
}

/// An extension from the DER of its value.
///
/// # Errors
/// [`Error::Malformed`] when the value is longer than DER allows.
pub fn raw(oid: ObjectIdentifier, criticality: Criticality, value: Vec<u8>) -> Result<Extension, Error> {
    let extn_value = OctetString::new(value).map_err(Error::malformed("extension"))?;
    Ok(Extension { extn_id: oid, critical: criticality == Criticality::Critical, extn_value })
}

fn typed(oid: ObjectIdentifier, criticality: Criticality, value: &impl Encode) -> Result<Extension, Error> {
    raw(oid, criticality, value.to_der().map_err(Error::malformed("extension"))?)
}

pub(crate) fn basic_constraints_ca(path_length: Option<u8>) -> Result<Extension, Error> {
    let value = BasicConstraints { ca: true, path_len_constraint: path_length };
    typed(oid::BASIC_CONSTRAINTS, Criticality::Critical, &value)
}

pub(crate) fn basic_constraints_end_entity() -> Result<Extension, Error> {
    let value = BasicConstraints { ca: false, path_len_constraint: None };
    typed(oid::BASIC_CONSTRAINTS, Criticality::Critical, &value)
}

pub(crate) fn key_usage(usages: impl Into<FlagSet<KeyUsages>>) -> Result<Extension, Error> {
    typed(oid::KEY_USAGE, Criticality::Critical, &KeyUsage(usages.into()))
}

pub(crate) fn extended_key_usage(
    criticality: Criticality,
    purposes: Vec<ObjectIdentifier>,
) -> Result<Extension, Error> {
    typed(oid::EXTENDED_KEY_USAGE, criticality, &ExtendedKeyUsage(purposes))
}

pub(crate) fn subject_key_identifier(identifier: KeyIdentifier) -> Result<Extension, Error> {
    let octets = OctetString::new(identifier.0).map_err(Error::malformed("key identifier"))?;
    typed(oid::SUBJECT_KEY_IDENTIFIER, Criticality::NonCritical, &SubjectKeyIdentifier(octets))
}

pub(crate) fn authority_key_identifier(identifier: &[u8]) -> Result<Extension, Error> {
    let octets = OctetString::new(identifier).map_err(Error::malformed("key identifier"))?;
    let value = AuthorityKeyIdentifier { key_identifier: Some(octets), ..AuthorityKeyIdentifier::default() };
    typed(oid::AUTHORITY_KEY_IDENTIFIER, Criticality::NonCritical, &value)
}

pub(crate) fn subject_alt_name(criticality: Criticality, identity: &Identity) -> Result<Extension, Error> {
    let name = match identity {
        Identity::Email(address) => GeneralName::Rfc822Name(ia5(address)?),
        Identity::Uri(uri) => GeneralName::UniformResourceIdentifier(ia5(uri)?),
    };
    typed(oid::SUBJECT_ALT_NAME, criticality, &vec![name])
}

pub(crate) fn certificate_policies(policies: &[ObjectIdentifier]) -> Result<Extension, Error> {
    let policies = policies
        .iter()
        .map(|policy| PolicyInformation { policy_identifier: *policy, policy_qualifiers: None })
        .collect();
    typed(oid::CERTIFICATE_POLICIES, Criticality::NonCritical, &CertificatePolicies(policies))
}

pub(crate) fn crl_distribution_point(url: &str) -> Result<Extension, Error> {
    let point =
        DistributionPoint { distribution_point: Some(full_name(url)?), reasons: None, crl_issuer: None };
    typed(oid::CRL_DISTRIBUTION_POINTS, Criticality::NonCritical, &CrlDistributionPoints(vec![point]))
}

pub(crate) fn authority_info_access(ca_issuers: &str, ocsp: Option<&str>) -> Result<Extension, Error> {
    let describe = |method, url: &str| {
        Ok::<_, Error>(AccessDescription {
            access_method: method,
            access_location: GeneralName::UniformResourceIdentifier(ia5(url)?),
        })
    };
    let mut descriptions = Vec::new();
    if let Some(ocsp) = ocsp {
        descriptions.push(describe(oid::AD_OCSP, ocsp)?);
    }
    descriptions.push(describe(oid::AD_CA_ISSUERS, ca_issuers)?);
    typed(oid::AUTHORITY_INFO_ACCESS, Criticality::NonCritical, &AuthorityInfoAccessSyntax(descriptions))
}

/// id-pkix-ocsp-nocheck (RFC 6960 §4.2.2.2.1): the responder's own certificate needs no status.
pub(crate) fn ocsp_no_check() -> Result<Extension, Error> {
    raw(oid::OCSP_NO_CHECK, Criticality::NonCritical, vec![5, 0])
}

/// Both Sigstore issuer extensions (sigstore-contract §4): .1 holds raw bytes, .8 a DER UTF8String.
///
/// # Errors
/// [`Error::Malformed`] when it cannot be encoded.
pub fn sigstore_issuer(issuer: &str) -> Result<[Extension; 2], Error> {
    let wrapped = encoding::tlv(encoding::UTF8_STRING, &[issuer.as_bytes()]);
    Ok([
        raw(oid::SIGSTORE_ISSUER_V1, Criticality::NonCritical, issuer.as_bytes().to_vec())?,
        raw(oid::SIGSTORE_ISSUER_V2, Criticality::NonCritical, wrapped)?,
    ])
}

/// A further Sigstore extension: raw bytes in the deprecated ones (.2 to .6), a DER UTF8String from .9 on.
///
/// # Errors
/// [`Error::Malformed`] when it cannot be encoded.
pub fn sigstore_claim(oid: ObjectIdentifier, value: &str) -> Result<Extension, Error> {
    let content = if oid::sigstore::RAW.contains(&oid) {
        value.as_bytes().to_vec()
    } else {
        encoding::tlv(encoding::UTF8_STRING, &[value.as_bytes()])
    };
    raw(oid, Criticality::NonCritical, content)
}

pub(crate) fn crl_number(number: u64) -> Result<Extension, Error> {
    raw(oid::CRL_NUMBER, Criticality::NonCritical, encoding::unsigned(&number.to_be_bytes()))
}

pub(crate) fn delta_crl_indicator(base: u64) -> Result<Extension, Error> {
    raw(oid::DELTA_CRL_INDICATOR, Criticality::Critical, encoding::unsigned(&base.to_be_bytes()))
}

/// freshestCRL (RFC 5280 §5.2.6): where the delta list of the same scope is.
pub(crate) fn freshest_crl(url: &str) -> Result<Extension, Error> {
    let point =
        DistributionPoint { distribution_point: Some(full_name(url)?), reasons: None, crl_issuer: None };
    typed(oid::FRESHEST_CRL, Criticality::NonCritical, &FreshestCrl(vec![point]))
}

/// issuingDistributionPoint with the URL of the shard, byte for byte the one that certificates name.
pub(crate) fn issuing_distribution_point(url: &str) -> Result<Extension, Error> {
    let value = IssuingDistributionPoint {
        distribution_point: Some(full_name(url)?),
        only_contains_user_certs: false,
        only_contains_ca_certs: false,
        only_some_reasons: None,
        indirect_crl: false,
        only_contains_attribute_certs: false,
    };
    typed(oid::ISSUING_DISTRIBUTION_POINT, Criticality::Critical, &value)
}

/// expiredCertsOnCRL (X.509 §9.5.2.8): entries of certificates that expired since `since` are kept.
pub(crate) fn expired_certs_on_crl(since: UnixTime) -> Result<Extension, Error> {
    raw(oid::EXPIRED_CERTS_ON_CRL, Criticality::NonCritical, time::generalized(since)?)
}

fn full_name(url: &str) -> Result<DistributionPointName, Error> {
    Ok(DistributionPointName::FullName(vec![GeneralName::UniformResourceIdentifier(ia5(url)?)]))
}

fn ia5(text: &str) -> Result<Ia5String, Error> {
    Ia5String::new(text)
        .map_err(|_| Error::Malformed { what: "IA5String", detail: String::from("not ASCII") })
}
