//! PKCS #10 requests (RFC 2986): the key and its proof of possession are taken, everything else is ignored (E3), but for what no honest
//! request has: something twice, or the wish to be an authority.

use alloc::vec::Vec;

use const_oid::ObjectIdentifier;
use der::{Decode, Encode, Reader, SliceReader};
use trust_store::signature::SignatureVerifier;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::request::{CertReq, CertReqInfo};

use crate::error::Error;
use crate::key::{KeyUse, SubjectPublicKey};
use crate::{oid, pem};

/// Largest request read, in octets of DER.
pub const MAX_REQUEST: usize = 16 * 1024;

/// A request whose signature was verified with the key that it carries.
#[derive(Debug, Clone)]
pub struct VerifiedRequest {
    public_key: SubjectPublicKey,
    carries_extensions: bool,
}

impl VerifiedRequest {
    /// Parses a DER request, judges its key for `key_use` (C9) and verifies its self-signature.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`], [`Error::AuthorityRequested`], [`Error::KeyNotAllowed`], [`Error::Unsupported`] for a signature
    /// algorithm outside the list (SHA-1, MD5, PSS), [`Error::ProofOfPossession`].
    pub fn from_der(der: &[u8], key_use: KeyUse, verifier: &dyn SignatureVerifier) -> Result<Self, Error> {
        if der.len() > MAX_REQUEST {
            return Err(Error::TooLarge { what: "certificate request", limit: MAX_REQUEST });
        }
        let malformed = Error::malformed("certificate request");
        let request = CertReq::from_der(der).map_err(&malformed)?;
        let spki = request.info.public_key.to_der().map_err(&malformed)?;
        let public_key = SubjectPublicKey::from_spki(&spki, key_use)?;
        let parameters = request.algorithm.parameters.as_ref().map(der::Any::to_ref);
        let algorithm = public_key.verification_algorithm(&request.algorithm.oid, parameters).ok_or(
            Error::Unsupported("the request's signature algorithm: use SHA-256, SHA-384 or SHA-512"),
        )?;
        let signature = request.signature.as_bytes().ok_or(Error::ProofOfPossession)?;
        let signed = signed_part(der).map_err(&malformed)?;
        verifier
            .verify(algorithm, public_key.bits(), signed, signature)
            .map_err(|_| Error::ProofOfPossession)?;
        wishes(&request.info)?;
        Ok(Self { public_key, carries_extensions: !request.info.attributes.is_empty() })
    }

    /// The same from PEM text (`CERTIFICATE REQUEST` or the older `NEW CERTIFICATE REQUEST`).
    ///
    /// # Errors
    /// As [`VerifiedRequest::from_der`].
    pub fn from_pem(text: &str, key_use: KeyUse, verifier: &dyn SignatureVerifier) -> Result<Self, Error> {
        let labels = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];
        let der = pem::decode("certificate request", &labels, text, 2 * MAX_REQUEST)?;
        Self::from_der(&der, key_use, verifier)
    }

    /// The key to certify.
    #[must_use]
    pub fn public_key(&self) -> &SubjectPublicKey {
        &self.public_key
    }

    /// Whether the request asked for attributes or extensions, all of which are ignored.
    #[must_use]
    pub fn carries_attributes(&self) -> bool {
        self.carries_extensions
    }
}

/// PKCS #9 extensionRequest.
const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");

/// Refuses what is there twice, and the wish to be an authority.
fn wishes(request: &CertReqInfo) -> Result<(), Error> {
    let malformed = |detail: &str| Error::Malformed { what: "certificate request", detail: detail.into() };
    let mut kinds: Vec<ObjectIdentifier> = request.attributes.iter().map(|attribute| attribute.oid).collect();
    kinds.sort_unstable();
    if kinds.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
        return Err(malformed("an attribute stands twice"));
    }
    let asked = request.attributes.iter().filter(|attribute| attribute.oid == EXTENSION_REQUEST);
    for list in asked.flat_map(|attribute| attribute.values.iter()) {
        let list: Vec<Extension> = list.decode_as().map_err(Error::malformed("certificate request"))?;
        let mut seen: Vec<ObjectIdentifier> = list.iter().map(|extension| extension.extn_id).collect();
        seen.sort_unstable();
        if seen.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(malformed("an extension stands twice"));
        }
        let constraints = list.iter().find(|extension| extension.extn_id == oid::BASIC_CONSTRAINTS);
        if let Some(constraints) = constraints {
            let constraints = BasicConstraints::from_der(constraints.extn_value.as_bytes());
            if constraints.map_err(Error::malformed("certificate request"))?.ca {
                return Err(Error::AuthorityRequested);
            }
        }
    }
    Ok(())
}

/// The CertificationRequestInfo exactly as received: what the signature covers.
fn signed_part(der: &[u8]) -> der::Result<&[u8]> {
    let mut reader = SliceReader::new(der)?;
    reader.sequence(|inner| {
        let signed = inner.tlv_bytes()?;
        inner.tlv_bytes()?;
        inner.tlv_bytes()?;
        Ok::<_, der::Error>(signed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::KeyRefusal;
    use rcgen::{CertificateParams, KeyPair};
    use trust_store::provider::AwsLc;

    fn request(pair: &KeyPair, params: CertificateParams) -> Vec<u8> {
        params.serialize_request(pair).unwrap().der().to_vec()
    }

    #[test]
    fn takes_the_key_and_nothing_else() {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(std::vec!["evil.example".into()]).unwrap();
        let verified =
            VerifiedRequest::from_der(&request(&pair, params), KeyUse::Subscriber, &AwsLc).unwrap();
        assert_eq!(verified.public_key().spki(), rcgen::PublicKeyData::subject_public_key_info(&pair));
        assert!(verified.carries_attributes());
    }

    #[test]
    fn a_request_to_be_an_authority_and_extensions_that_stand_twice_are_refused() {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let refused = |params: CertificateParams| {
            VerifiedRequest::from_der(&request(&pair, params), KeyUse::Subscriber, &AwsLc).unwrap_err()
        };
        let mut authority = CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        assert_eq!(refused(authority), Error::AuthorityRequested);
        let mut twice = CertificateParams::new(std::vec!["a.example".into()]).unwrap();
        let name = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 17], std::vec![0x30, 0]);
        twice.custom_extensions.push(name);
        let Error::Malformed { detail, .. } = refused(twice) else { panic!("another error") };
        assert_eq!(detail, "an extension stands twice");
    }

    #[test]
    fn an_attribute_that_stands_twice_is_refused() {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(std::vec!["a.example".into()]).unwrap();
        // extensionRequest, beside the one of the parameters: an empty list of extensions.
        let again =
            rcgen::Attribute { oid: &[1, 2, 840, 113_549, 1, 9, 14], values: std::vec![0x31, 2, 0x30, 0] };
        let asked = params.serialize_request_with_attributes(&pair, std::vec![again]).unwrap();
        let refused = VerifiedRequest::from_der(asked.der(), KeyUse::Subscriber, &AwsLc).unwrap_err();
        let Error::Malformed { detail, .. } = refused else { panic!("another error: {refused}") };
        assert_eq!(detail, "an attribute stands twice");
    }

    #[test]
    fn an_altered_request_has_no_proof_of_possession() {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let mut der = request(&pair, CertificateParams::default());
        let name = der.windows(5).position(|window| window == b"rcgen").unwrap();
        der[name] ^= 1;
        assert_eq!(
            VerifiedRequest::from_der(&der, KeyUse::Subscriber, &AwsLc).unwrap_err(),
            Error::ProofOfPossession
        );
    }

    #[test]
    fn truncated_oversized_and_foreign_keys_are_refused() {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let der = request(&pair, CertificateParams::default());
        for length in 0..der.len() {
            assert!(VerifiedRequest::from_der(&der[..length], KeyUse::Subscriber, &AwsLc).is_err());
        }
        let mut trailing = der.clone();
        trailing.push(0);
        assert!(matches!(
            VerifiedRequest::from_der(&trailing, KeyUse::Subscriber, &AwsLc),
            Err(Error::Malformed { .. })
        ));
        let large = std::vec![0x30; MAX_REQUEST + 1];
        assert!(matches!(
            VerifiedRequest::from_der(&large, KeyUse::Subscriber, &AwsLc),
            Err(Error::TooLarge { .. })
        ));
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let refused = VerifiedRequest::from_der(
            &request(&ed25519, CertificateParams::default()),
            KeyUse::Subscriber,
            &AwsLc,
        )
        .unwrap_err();
        assert_eq!(refused, Error::KeyNotAllowed(KeyRefusal::Algorithm));
    }
}
