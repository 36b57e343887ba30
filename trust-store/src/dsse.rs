//! DSSE, the Dead Simple Signing Envelope, version 1: envelope and pre-authentication encoding.

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::json;

/// The payload type of an in-toto statement.
pub const IN_TOTO_PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Largest envelope that is read, in bytes of JSON. A statement of ours is a few kilobytes; provenance of large builds
/// reaches some hundred.
pub const MAX_ENVELOPE_BYTES: usize = 4 << 20;

/// A DSSE envelope: a payload with its type, and signatures over both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Envelope {
    /// The signed bytes.
    #[serde(with = "bytes")]
    pub payload: Vec<u8>,
    /// What the bytes are; signed together with them.
    #[serde(alias = "payload_type")]
    pub payload_type: String,
    /// Signatures over [`Envelope::pae`]. Evidence of ours holds exactly one.
    pub signatures: Vec<Signature>,
}

/// One signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The signature: ASN.1 DER for ECDSA, raw bytes for Ed25519.
    #[serde(with = "bytes")]
    pub sig: Vec<u8>,
    /// A hint at the key, never trusted. Empty in evidence signed with a certificate.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "json::null_as_default")]
    pub keyid: String,
}

impl Envelope {
    /// An envelope with one signature, made over [`pae`] of the same two values.
    pub fn new(payload_type: &str, payload: Vec<u8>, signature: Vec<u8>) -> Self {
        let signatures = vec![Signature { sig: signature, keyid: String::new() }];
        Self { payload, payload_type: payload_type.to_string(), signatures }
    }

    /// Reads an envelope from its JSON form.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`MAX_ENVELOPE_BYTES`], else [`Error::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        json::parse("DSSE envelope", bytes, MAX_ENVELOPE_BYTES)
    }

    /// The bytes that were signed.
    pub fn pae(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// The only signature of the envelope.
    ///
    /// # Errors
    /// [`Error::Malformed`] unless there is exactly one, and it is not empty: a second signature would ride along
    /// unverified.
    pub fn single_signature(&self) -> Result<&Signature, Error> {
        match self.signatures.as_slice() {
            [only] if !only.sig.is_empty() => Ok(only),
            [_] => Err(Error::malformed("DSSE envelope", "its signature is empty")),
            _ => Err(Error::malformed("DSSE envelope", "it must carry exactly one signature")),
        }
    }
}

/// Pre-authentication encoding: `DSSEv1 SP len(type) SP type SP len(payload) SP payload`, lengths in ASCII decimal.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let type_length = payload_type.len().to_string();
    let payload_length = payload.len().to_string();
    [
        b"DSSEv1 ",
        type_length.as_bytes(),
        b" ",
        payload_type.as_bytes(),
        b" ",
        payload_length.as_bytes(),
        b" ",
        payload,
    ]
    .concat()
}

mod bytes {
    use super::Vec;
    use crate::json::Bytes;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        Bytes(bytes.to_vec()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Bytes::deserialize(deserializer).map(|bytes| bytes.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pae_equals_the_specification_example() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn reads_its_own_form_and_both_spellings() {
        let envelope = Envelope::new("t", b"p".to_vec(), b"s".to_vec());
        let text = json::write("envelope", &envelope).unwrap();
        assert_eq!(text, br#"{"payload":"cA==","payloadType":"t","signatures":[{"sig":"cw=="}]}"#);
        assert_eq!(Envelope::parse(&text).unwrap(), envelope);
        let other = br#"{"payload":"cA==","payload_type":"t","signatures":[{"sig":"cw==","keyid":""}]}"#;
        assert_eq!(Envelope::parse(other).unwrap(), envelope);
    }

    #[test]
    fn refuses_unknown_fields_and_other_than_one_signature() {
        assert!(Envelope::parse(br#"{"payload":"","payloadType":"t","signatures":[],"x":1}"#).is_err());
        for signatures in [r#"[]"#, r#"[{"sig":"cw=="},{"sig":"cw=="}]"#, r#"[{"sig":""}]"#] {
            let text = alloc::format!(r#"{{"payload":"","payloadType":"t","signatures":{signatures}}}"#);
            assert!(Envelope::parse(text.as_bytes()).unwrap().single_signature().is_err(), "{signatures}");
        }
    }
}
