//! Asking an OCSP responder (RFC 6960 §4.1, RFC 9919 §3): whom, and the octets of the question.
//!
//! In scope: which addresses a certificate names, and a request for the status of one certificate, without a nonce, so that the
//! responder may answer from its cache. Sending it is for whoever has a network; the answer is [`crate::ocsp`]'s.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use crate::certificate::Certificate;
use crate::encode::element;
use crate::general_name::GeneralName;
use crate::oid;

/// Media type of a request that is posted (RFC 6960 appendix A.1).
pub const MEDIA_TYPE: &str = "application/ocsp-request";

/// Most addresses of one certificate that are looked at.
const MAX_RESPONDERS: usize = 8;

/// Longest address of a responder, in octets.
const MAX_ADDRESS: usize = 2048;

/// AlgorithmIdentifier of SHA-256, without parameters (RFC 5754 §2).
const SHA256_IDENTIFIER: [u8; 13] =
    [0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The HTTP and HTTPS addresses of a certificate's OCSP responders (RFC 5280 §4.2.2.1), in its order of preference. Whoever
/// made the certificate chose them: ask none that nothing else vouches for.
pub fn responders(certificate: &Certificate) -> Vec<String> {
    let Some(access) = certificate.authority_information_access() else { return Vec::new() };
    let addresses = access.iter().filter_map(|(method, location)| match location {
        GeneralName::Uri(uri) if method == oid::AD_OCSP.as_bytes() && uri.len() <= MAX_ADDRESS => Some(uri),
        _ => None,
    });
    let http = |uri: &&str| uri.starts_with("http://") || uri.starts_with("https://");
    addresses.filter(http).take(MAX_RESPONDERS).map(|uri| uri.to_string()).collect()
}

/// An OCSPRequest for one certificate of this issuer (RFC 6960 §4.1.1), its CertID made with SHA-256 (RFC 9919 §3.1.1), DER.
pub fn request(certificate: &Certificate, issuer: &Certificate) -> Vec<u8> {
    let name = element(OCTET_STRING, &[&Sha256::digest(certificate.issuer_der())]);
    let key = element(OCTET_STRING, &[&Sha256::digest(issuer.public_key())]);
    let serial = element(INTEGER, &[certificate.serial()]);
    let id = element(SEQUENCE, &[&SHA256_IDENTIFIER, &name, &key, &serial]);
    // Request, requestList, tbsRequest, OCSPRequest: none has another member.
    (0..4).fold(id, |content, _| element(SEQUENCE, &[&content]))
}
