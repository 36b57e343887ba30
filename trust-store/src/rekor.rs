//! Rekor v2 entries: `hashedrekord` 0.0.2, its canonical body, and the requests that create it.
//!
//! The log keeps one entry type. A request for it comes as `hashedRekordRequestV002`, or as `dsseRequestV002`, which is
//! re-encoded: an envelope is logged as a `hashedrekord` over the hash of its pre-authentication encoding, with the
//! envelope's only signature. [`HashedRekord::canonical_body`] is the leaf of the tree, byte for byte.
//!
//! For the log server: [`HashedRekord::from_request`] reads either request, `canonical_body` gives the bytes to store,
//! and [`crate::log_entry::TransparencyLogEntry`] is the answer. For a client: [`HashedRekord::request`].

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::dsse::Envelope;
use crate::error::Error;
use crate::json::{self, Bytes};
use crate::key_details::{HashAlgorithm, KeyDetails};

/// Kind of the entry, as `kindVersion` and the body name it.
pub const KIND: &str = "hashedrekord";
/// Version of the entry.
pub const VERSION: &str = "0.0.2";
/// Largest creation request in bytes of JSON: an envelope with its base64 overhead.
pub const MAX_REQUEST_BYTES: usize = 6 << 20;
/// Largest canonical body in bytes: the limit of an entry in an entry bundle.
pub const MAX_BODY_BYTES: usize = 65_535;

/// The key that an entry names for its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifierKey {
    /// A certificate, DER.
    Certificate(Vec<u8>),
    /// A bare key, DER SubjectPublicKeyInfo.
    PublicKey(Vec<u8>),
}

/// A `hashedrekord` 0.0.2 entry: a digest, a signature over the data it stands for, and the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedRekord {
    /// Digest of the signed data, by the hash of `key_details`.
    pub digest: Vec<u8>,
    /// The signature as the client made it (ASN.1 DER for ECDSA).
    pub signature: Vec<u8>,
    /// The verifying key or certificate.
    pub verifier: VerifierKey,
    /// Type of that key, and the hash.
    pub key_details: KeyDetails,
}

impl HashedRekord {
    /// An entry over `digest`.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the digest has not the length that `key_details` demands, or signature or key are empty.
    pub fn new(
        digest: Vec<u8>,
        signature: Vec<u8>,
        verifier: VerifierKey,
        key_details: KeyDetails,
    ) -> Result<Self, Error> {
        let expected = key_details.hash().output_length();
        if digest.len() != expected {
            let detail =
                format!("the digest has {} bytes, {} demands {expected}", digest.len(), key_details.as_str());
            return Err(Error::malformed("log entry", detail));
        }
        let (VerifierKey::Certificate(key) | VerifierKey::PublicKey(key)) = &verifier;
        if signature.is_empty() || key.is_empty() {
            return Err(Error::malformed("log entry", "signature or key is empty"));
        }
        Ok(Self { digest, signature, verifier, key_details })
    }

    /// The entry of a DSSE envelope: the hash of its pre-authentication encoding and its only signature.
    ///
    /// # Errors
    /// As [`HashedRekord::new`] and [`Envelope::single_signature`].
    pub fn for_envelope(
        envelope: &Envelope,
        verifier: VerifierKey,
        key_details: KeyDetails,
    ) -> Result<Self, Error> {
        let signature = envelope.single_signature()?.sig.clone();
        Self::new(key_details.hash().digest(&envelope.pae()), signature, verifier, key_details)
    }

    /// Reads a creation request of either type in either spelling of protobuf's JSON form (`lowerCamelCase` or
    /// `snake_case`). Nothing is verified: the log checks the signature against the digest before it accepts.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`MAX_REQUEST_BYTES`]; [`Error::Malformed`] for unknown fields, no or two request
    /// types, or more than one verifier of an envelope.
    pub fn from_request(bytes: &[u8]) -> Result<Self, Error> {
        let request: Request = json::parse("log entry request", bytes, MAX_REQUEST_BYTES)?;
        match request {
            Request { hashed_rekord_request_v002: Some(request), dsse_request_v002: None } => {
                let (verifier, key_details) = request.signature.verifier.into_parts()?;
                Self::new(request.digest.0, request.signature.content.0, verifier, key_details)
            }
            Request { hashed_rekord_request_v002: None, dsse_request_v002: Some(request) } => {
                let mut verifiers = request.verifiers.into_iter();
                let (Some(verifier), None) = (verifiers.next(), verifiers.next()) else {
                    return Err(Error::malformed(
                        "log entry request",
                        "an envelope needs exactly one verifier",
                    ));
                };
                let (verifier, key_details) = verifier.into_parts()?;
                Self::for_envelope(&request.envelope, verifier, key_details)
            }
            _ => Err(Error::malformed(
                "log entry request",
                "exactly one of hashedRekordRequestV002 and dsseRequestV002 is needed",
            )),
        }
    }

    /// The creation request of this entry, as `hashedRekordRequestV002`.
    ///
    /// # Errors
    /// None in practice; see [`json::write`].
    pub fn request(&self) -> Result<Vec<u8>, Error> {
        let request = Request {
            hashed_rekord_request_v002: Some(HashedRekordRequest {
                digest: Bytes(self.digest.clone()),
                signature: self.wire_signature(),
            }),
            dsse_request_v002: None,
        };
        json::write("log entry request", &request)
    }

    /// The bytes that the log stores and hashes: canonical JSON (RFC 8785) of the entry.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`MAX_BODY_BYTES`].
    pub fn canonical_body(&self) -> Result<Vec<u8>, Error> {
        // The members stand in canonical order and all text is ASCII without escapes: compact JSON is canonical here.
        let body = Body {
            api_version: VERSION.to_string(),
            kind: KIND.to_string(),
            spec: Spec {
                hashed_rekord_v002: HashedRekordBody {
                    data: Data { algorithm: self.key_details.hash(), digest: Bytes(self.digest.clone()) },
                    signature: self.wire_signature(),
                },
            },
        };
        let bytes = json::write("log entry", &body)?;
        if bytes.len() > MAX_BODY_BYTES {
            return Err(Error::TooLarge { what: "log entry", limit: MAX_BODY_BYTES });
        }
        Ok(bytes)
    }

    /// Reads a canonical body; only the bytes that [`HashedRekord::canonical_body`] writes are accepted.
    ///
    /// # Errors
    /// [`Error::TooLarge`] or [`Error::Malformed`].
    pub fn from_canonical_body(bytes: &[u8]) -> Result<Self, Error> {
        let body: Body = json::parse("log entry", bytes, MAX_BODY_BYTES)?;
        let HashedRekordBody { data, signature } = body.spec.hashed_rekord_v002;
        let (verifier, key_details) = signature.verifier.into_parts()?;
        let entry = Self::new(data.digest.0, signature.content.0, verifier, key_details)?;
        if entry.canonical_body()? != bytes {
            return Err(Error::malformed("log entry", "the body is not in canonical form"));
        }
        Ok(entry)
    }

    fn wire_signature(&self) -> WireSignature {
        let (x509_certificate, public_key) = match &self.verifier {
            VerifierKey::Certificate(der) => (Some(RawBytes { raw_bytes: Bytes(der.clone()) }), None),
            VerifierKey::PublicKey(spki) => (None, Some(RawBytes { raw_bytes: Bytes(spki.clone()) })),
        };
        let key_details = self.key_details;
        let verifier = WireVerifier { key_details, public_key, x509_certificate };
        WireSignature { content: Bytes(self.signature.clone()), verifier }
    }
}

// The wire forms. Members of what becomes a body stand in canonical (sorted) order.

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(
        rename = "hashedRekordRequestV002",
        alias = "hashed_rekord_request_v002",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    hashed_rekord_request_v002: Option<HashedRekordRequest>,
    #[serde(
        rename = "dsseRequestV002",
        alias = "dsse_request_v002",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    dsse_request_v002: Option<DsseRequest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HashedRekordRequest {
    digest: Bytes,
    signature: WireSignature,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DsseRequest {
    envelope: Envelope,
    verifiers: Vec<WireVerifier>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    api_version: String,
    kind: String,
    spec: Spec,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(rename = "hashedRekordV002")]
    hashed_rekord_v002: HashedRekordBody,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HashedRekordBody {
    data: Data,
    signature: WireSignature,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    algorithm: HashAlgorithm,
    digest: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature {
    content: Bytes,
    verifier: WireVerifier,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WireVerifier {
    #[serde(alias = "key_details")]
    key_details: KeyDetails,
    #[serde(alias = "public_key", default, skip_serializing_if = "Option::is_none")]
    public_key: Option<RawBytes>,
    #[serde(
        rename = "x509Certificate",
        alias = "x509_certificate",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    x509_certificate: Option<RawBytes>,
}

impl WireVerifier {
    fn into_parts(self) -> Result<(VerifierKey, KeyDetails), Error> {
        let key = match (self.x509_certificate, self.public_key) {
            (Some(certificate), None) => VerifierKey::Certificate(certificate.raw_bytes.0),
            (None, Some(key)) => VerifierKey::PublicKey(key.raw_bytes.0),
            _ => {
                let detail = "a verifier is exactly one of x509Certificate and publicKey";
                return Err(Error::malformed("log entry", detail));
            }
        };
        Ok((key, self.key_details))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBytes {
    #[serde(alias = "raw_bytes")]
    raw_bytes: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> HashedRekord {
        let certificate = VerifierKey::Certificate(b"cert".to_vec());
        HashedRekord::new([7; 32].to_vec(), b"sig".to_vec(), certificate, KeyDetails::EcdsaP256Sha256)
            .unwrap()
    }

    const FROZEN: &str = concat!(
        r#"{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","#,
        r#""digest":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="},"signature":{"content":"c2ln","verifier":"#,
        r#"{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":"Y2VydA=="}}}}}}"#
    );

    #[test]
    fn canonical_body_is_frozen_and_canonical() {
        let body = entry().canonical_body().unwrap();
        assert_eq!(core::str::from_utf8(&body).unwrap(), FROZEN);
        let value = json::parse::<json::Value>("x", &body, MAX_BODY_BYTES).unwrap();
        assert_eq!(crate::jcs::canonicalize(&value).unwrap(), body);
        assert_eq!(HashedRekord::from_canonical_body(&body).unwrap(), entry());
    }

    #[test]
    fn public_key_body_is_frozen() {
        let key = VerifierKey::PublicKey(b"key".to_vec());
        let entry = HashedRekord::new([1; 64].to_vec(), b"s".to_vec(), key, KeyDetails::Ed25519).unwrap();
        let text = String::from_utf8(entry.canonical_body().unwrap()).unwrap();
        assert!(
            text.ends_with(r#""verifier":{"keyDetails":"PKIX_ED25519","publicKey":{"rawBytes":"a2V5"}}}}}}"#)
        );
        assert!(text.contains(r#""algorithm":"SHA2_512""#));
    }

    #[test]
    fn refuses_any_other_spelling_of_a_body() {
        for other in [
            FROZEN.replace(":{\"data\"", ": {\"data\""),
            FROZEN.replace("SHA2_256", "SHA2_384"),
            FROZEN.replace("rawBytes", "raw_bytes"),
            FROZEN.replace("\"kind\":\"hashedrekord\"", "\"kind\":\"dsse\""),
            FROZEN.replace("\"apiVersion\":\"0.0.2\",", ""),
        ] {
            assert!(HashedRekord::from_canonical_body(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn reads_both_spellings_of_a_request() {
        let camel = entry().request().unwrap();
        assert_eq!(HashedRekord::from_request(&camel).unwrap(), entry());
        let snake = r#"{"hashed_rekord_request_v002":{"digest":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","signature":
            {"content":"c2ln","verifier":{"x509_certificate":{"raw_bytes":"Y2VydA=="},"key_details":"PKIX_ECDSA_P256_SHA_256"}}}}"#;
        assert_eq!(HashedRekord::from_request(snake.as_bytes()).unwrap(), entry());
    }

    #[test]
    fn re_encodes_an_envelope_over_its_pre_authentication_encoding() {
        let text = r#"{"dsseRequestV002":{"envelope":{"payload":"cA==","payloadType":"t","signatures":[{"sig":"c2ln","keyid":""}]},
            "verifiers":[{"x509Certificate":{"rawBytes":"Y2VydA=="},"keyDetails":"PKIX_ECDSA_P256_SHA_256"}]}}"#;
        let entry = HashedRekord::from_request(text.as_bytes()).unwrap();
        assert_eq!(entry.digest, HashAlgorithm::Sha256.digest(b"DSSEv1 1 t 1 p"));
        assert_eq!(entry.signature, b"sig");
    }

    #[test]
    fn refuses_wrong_requests() {
        let good = String::from_utf8(entry().request().unwrap()).unwrap();
        for bad in [
            good.replace("\"digest\"", "\"extra\":1,\"digest\""),
            good.replace("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=", "Bwc="),
            good.replace("c2ln", ""),
            good.replace("\"x509Certificate\":{\"rawBytes\":\"Y2VydA==\"}", "\"publicKey\":null"),
            "{}".to_string(),
        ] {
            assert!(HashedRekord::from_request(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
