//! What must hold for any bytes whatsoever that strangers send to the authority before it knows them: the parsers of
//! `ca-pki` do not panic, and what they accept is within its bounds and means the same when it is written again.
//!
//! Each function says whether the bytes were accepted. Seeds of binary formats are kept as text: `hex ` and digits, white
//! space between them as one likes.
#![allow(dead_code, reason = "every fuzz target uses one function")]

use ca_pki::SubjectPublicKey;
use ca_pki::csr::{MAX_REQUEST, VerifiedRequest};
use ca_pki::jws::{Jws, MAX_KEY_SET, MAX_TOKEN, parse_key_set};
use ca_pki::key::KeyUse;
use ca_pki::ocsp::OcspRequest;
use ca_pki::timestamp::TimestampRequest;
use trust_store::signature::{Algorithm, InvalidSignature, SignatureVerifier};

/// What a target runs; says whether the bytes were accepted.
pub(crate) type Property = fn(&[u8]) -> bool;

/// The name and function of every target.
pub(crate) const TARGETS: &[(&str, Property)] = &[
    ("ca_pki_certificate_request", certificate_request),
    ("ca_pki_identity_token", identity_token),
    ("ca_pki_key_set", key_set),
    ("ca_pki_ocsp_request", ocsp_request),
    ("ca_pki_timestamp_request", timestamp_request),
];

/// The bytes of a seed: hexadecimal after `hex `, else the data itself.
pub(crate) fn decode(data: &[u8]) -> Vec<u8> {
    let Some(text) = data.strip_prefix(b"hex ") else { return data.to_vec() };
    let digits: Vec<u8> =
        text.iter().filter_map(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Lets every signature pass, so that whatever follows a verified one is reached as well.
struct Anything;

impl SignatureVerifier for Anything {
    fn verify(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Ok(())
    }
    fn verify_digest(&self, _: Algorithm, _: &[u8], _: &[u8], _: &[u8]) -> Result<(), InvalidSignature> {
        Ok(())
    }
}

/// PKCS #10, as DER and as PEM; the key that comes out is one that a certificate may have.
pub(crate) fn certificate_request(data: &[u8]) -> bool {
    let mut accepted = false;
    for key_use in [KeyUse::Authority, KeyUse::Subscriber, KeyUse::PostQuantumSubscriber] {
        let text = std::str::from_utf8(data).ok();
        let binary = decode(data);
        let requests = [
            VerifiedRequest::from_der(&binary, key_use, &Anything).ok(),
            text.and_then(|text| VerifiedRequest::from_pem(text, key_use, &Anything).ok()),
        ];
        assert!(requests[0].is_none() || binary.len() <= MAX_REQUEST);
        for request in requests.into_iter().flatten() {
            let key = request.public_key();
            assert!(SubjectPublicKey::from_spki(key.spki(), key_use).is_ok_and(|again| again == *key));
            accepted = true;
        }
    }
    accepted
}

/// RFC 7515, compact form: what a verified token holds is what was signed, and a key that fits none of it is refused.
pub(crate) fn identity_token(data: &[u8]) -> bool {
    let Ok(token) = std::str::from_utf8(data) else { return false };
    let Ok(jws) = Jws::parse(token) else { return false };
    assert!(token.len() <= MAX_TOKEN);
    let payload = jws.unverified_payload().to_vec();
    assert!(Jws::parse(token).is_ok_and(|jws| jws.verify(&[], &Anything).is_err()), "verified without a key");
    let keys = parse_key_set(KEYS.as_bytes()).unwrap_or_default();
    if let Ok(verified) = jws.verify(&keys, &Anything) {
        assert_eq!(verified.as_bytes(), payload);
    }
    true
}

/// A key set of one key on P-256.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE","y":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI"}]}"#;

/// RFC 7517: a set that is accepted is accepted again, with the same keys.
pub(crate) fn key_set(data: &[u8]) -> bool {
    let Ok(keys) = parse_key_set(data) else { return false };
    assert!(data.len() <= MAX_KEY_SET && keys.len() <= 64);
    assert_eq!(parse_key_set(data), Ok(keys));
    true
}

/// OCSP: what is echoed is what was received, and asks for the same certificate.
pub(crate) fn ocsp_request(data: &[u8]) -> bool {
    let data = &decode(data);
    let Ok(request) = OcspRequest::from_der(data) else { return false };
    let echoed = request.encoded_id();
    assert!(data.windows(echoed.len()).any(|window| window == echoed), "the id is not as received");
    let nonce = request.nonce.as_deref().unwrap_or_default();
    assert!(nonce.is_empty() || data.windows(nonce.len()).any(|window| window == nonce), "another nonce");
    let again = OcspRequest::for_certificate(request.cert_id.clone());
    assert_eq!(again.cert_id, request.cert_id);
    true
}

/// RFC 3161: an accepted digest has the length of its algorithm, so a request can be made of it again.
pub(crate) fn timestamp_request(data: &[u8]) -> bool {
    let Ok(request) = TimestampRequest::from_der(&decode(data)) else { return false };
    let digest = vec![0; request.hash().digest_length()];
    let again = TimestampRequest::for_digest(request.hash(), &digest);
    assert!(again.is_ok_and(|again| again.hash() == request.hash() && again.policy().is_none()));
    true
}
