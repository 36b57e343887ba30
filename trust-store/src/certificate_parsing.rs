//! Reads the DER of a certificate (RFC 5280 §4.1) into the places of its fields.

use alloc::vec::Vec;

use const_oid::ObjectIdentifier;

use crate::algorithm::{KeyAlgorithm, SignatureAlgorithm};
use crate::certificate::{KnownExtensions, MAX_SERIAL_LENGTH, Parts, Version};
use crate::extension::{
    AuthorityKeyIdentifier, BasicConstraints, CertificatePolicies, DistributionPoints, ExtendedKeyUsage,
    Extension, KeyUsage, NameConstraints, PolicyConstraints, PolicyMappings, read_extensions,
};
use crate::general_name::GeneralNames;
use crate::name::CanonicalName;
use crate::oid;
use crate::x690::{Malformed, Reader, tag};

/// The one finding that is not a matter of shape.
pub(crate) const UNKNOWN_VERSION: &str = "certificate version is not known";

pub(crate) fn parse(input: &[u8]) -> Result<Parts, Malformed> {
    let mut outer = Reader::only(input, tag::SEQUENCE)?.reader();
    let tbs = outer.expect(tag::SEQUENCE)?;
    let outer_algorithm = outer.expect(tag::SEQUENCE)?;
    let signature = outer.expect(tag::BIT_STRING)?.octet_bit_string()?;
    outer.finish()?;

    let mut fields = tbs.reader();
    let version = match fields.optional(tag::constructed(0))? {
        None => Version::V1,
        Some(wrapper) => {
            let mut inner = wrapper.reader();
            let number = inner.expect(tag::INTEGER)?;
            inner.finish()?;
            match number.small_integer() {
                Ok(1) => Version::V2,
                Ok(2) => Version::V3,
                Ok(0) => return Err(number.error("version 1 is written although it is the default")),
                _ => return Err(number.error(UNKNOWN_VERSION)),
            }
        }
    };
    let serial = fields.expect(tag::INTEGER)?;
    if serial.integer()?.len() > MAX_SERIAL_LENGTH {
        return Err(serial.error("serial number is longer than 20 octets"));
    }
    let algorithm = fields.expect(tag::SEQUENCE)?;
    if algorithm.der() != outer_algorithm.der() {
        return Err(algorithm.error("inner and outer signature algorithm differ"));
    }
    let issuer = fields.expect(tag::SEQUENCE)?;
    let issuer_name = CanonicalName::from_element(issuer)?;
    let mut validity = fields.sequence()?;
    let (not_before, not_after) = (validity.read()?.time()?, validity.read()?.time()?);
    validity.finish()?;
    let subject = fields.expect(tag::SEQUENCE)?;
    let subject_name = if subject.der() == issuer.der() {
        issuer_name.clone()
    } else {
        CanonicalName::from_element(subject)?
    };
    let spki = fields.expect(tag::SEQUENCE)?;
    let mut key_fields = spki.reader();
    let key_algorithm = KeyAlgorithm::from_element(key_fields.expect(tag::SEQUENCE)?)?;
    let key = key_fields.expect(tag::BIT_STRING)?.octet_bit_string()?;
    key_fields.finish()?;
    for unique_identifier in [tag::primitive(1), tag::primitive(2)] {
        if let Some(element) = fields.optional(unique_identifier)? {
            element.bit_string()?;
            if version == Version::V1 {
                return Err(element.error("unique identifier in a version 1 certificate"));
            }
        }
    }
    let mut extensions = Vec::new();
    if let Some(wrapper) = fields.optional(tag::constructed(3))? {
        if version != Version::V3 {
            return Err(wrapper.error("extensions in a certificate below version 3"));
        }
        let mut inner = wrapper.reader();
        extensions = read_extensions(inner.expect(tag::SEQUENCE)?, input)?;
        inner.finish()?;
    }
    fields.finish()?;
    Ok(Parts {
        known: check_extensions(&extensions, input)?,
        der: input.into(),
        tbs: tbs.span(),
        version,
        serial: serial.content_span(),
        signature_algorithm: SignatureAlgorithm::from_element(algorithm)?,
        issuer: issuer.span(),
        issuer_name,
        not_before,
        not_after,
        subject: subject.span(),
        subject_name,
        spki: spki.span(),
        key_algorithm,
        key,
        signature,
        extensions,
    })
}

fn check_extensions(extensions: &[Extension], input: &[u8]) -> Result<KnownExtensions, Malformed> {
    let mut known = KnownExtensions::default();
    for extension in extensions {
        let mut value = extension.reader(input);
        let id = extension.id(input);
        let is = |known: &ObjectIdentifier| known.as_bytes() == id;
        // Recognised are the extensions that path validation or revocation processes; any other makes a
        // certificate unusable if it is critical (RFC 5280 §4.2).
        let recognised = if is(&oid::BASIC_CONSTRAINTS) {
            known.basic_constraints = Some(BasicConstraints::read(value)?);
            true
        } else if is(&oid::KEY_USAGE) {
            known.key_usage = Some(KeyUsage::read(value)?);
            true
        } else if is(&oid::EXTENDED_KEY_USAGE) {
            ExtendedKeyUsage::read(value)?;
            true
        } else if is(&oid::SUBJECT_ALTERNATIVE_NAME) {
            GeneralNames::from_reader(value.sequence()?)?;
            value.finish()?;
            true
        } else if is(&oid::CERTIFICATE_POLICIES) {
            CertificatePolicies::read(value)?;
            true
        } else if is(&oid::POLICY_MAPPINGS) {
            PolicyMappings::read(value)?;
            true
        } else if is(&oid::POLICY_CONSTRAINTS) {
            known.policy_constraints = Some(PolicyConstraints::read(value)?);
            true
        } else if is(&oid::INHIBIT_ANY_POLICY) {
            known.inhibit_any_policy = Some(value.expect(tag::INTEGER)?.small_integer()?);
            value.finish()?;
            true
        } else if is(&oid::NAME_CONSTRAINTS) {
            NameConstraints::read(value)?;
            true
        } else if is(&oid::CRL_DISTRIBUTION_POINTS) || is(&oid::FRESHEST_CRL) {
            DistributionPoints::read(value)?;
            true
        } else if is(&oid::SUBJECT_KEY_IDENTIFIER) {
            value.expect(tag::OCTET_STRING)?;
            value.finish()?;
            true
        } else if is(&oid::AUTHORITY_KEY_IDENTIFIER) {
            AuthorityKeyIdentifier::read(value)?;
            true
        } else if is(&oid::OCSP_NOCHECK) {
            known.ocsp_nocheck = true;
            true
        } else if is(&oid::PRECERTIFICATE_POISON) {
            known.poison = true;
            true // the path check has its own rule for precertificates
        } else {
            false
        };
        if extension.is_critical() && !recognised && known.unrecognised_critical.is_none() {
            known.unrecognised_critical = Some(extension.id_span());
        }
    }
    Ok(known)
}
