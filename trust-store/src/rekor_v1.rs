//! Rekor v1 entries, for verification only: `hashedrekord` and `dsse` 0.0.1, `intoto` 0.0.2, and signed entry
//! timestamps.
//!
//! A body is read for the members that bind it to a bundle: digest, signature and key. The rest of it is the log's own
//! business, so other members are read over; the entry as a whole is bound by its leaf hash or its timestamp.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use tlog::signature::SignatureVerifier;

use crate::error::Error;
use crate::jcs;
use crate::json::{self, Object, Value};
use crate::key_details::{HashAlgorithm, KeyDetails};
use crate::log_entry::TransparencyLogEntry;
use crate::pem;

/// What an entry of Rekor v1 says about a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedObject {
    /// Hash of what was signed, or of the payload of the envelope that was signed.
    pub hash: HashAlgorithm,
    /// The digest.
    pub digest: Vec<u8>,
    /// Whether `digest` is of an envelope's payload (not of its pre-authentication encoding).
    pub digest_of: DigestOf,
    /// The signature.
    pub signature: Vec<u8>,
    /// DER of the certificate or SubjectPublicKeyInfo that the entry names.
    pub verifier: Vec<u8>,
}

/// What the digest of an entry is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestOf {
    /// The signed bytes.
    Message,
    /// The payload inside the envelope.
    Payload,
}

impl SignedObject {
    /// Reads the body of an entry.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for another kind or version; [`Error::Malformed`] or [`Error::TooLarge`] for a body that
    /// is not one of these.
    pub fn from_entry(entry: &TransparencyLogEntry) -> Result<Self, Error> {
        let body: Value =
            json::parse("log entry", &entry.canonicalized_body, crate::log_entry::MAX_ENTRY_BYTES)?;
        let (kind, version) = (text(&body, &["kind"])?, text(&body, &["apiVersion"])?);
        if (kind, version) != (entry.kind.as_str(), entry.version.as_str()) {
            return Err(malformed("kind or version of the body differ from the entry's"));
        }
        match (kind, version) {
            ("hashedrekord", "0.0.1") => {
                let (hash, digest) = digest(&body, &["spec", "data", "hash"])?;
                Ok(Self {
                    hash,
                    digest,
                    digest_of: DigestOf::Message,
                    signature: decode(text(&body, &["spec", "signature", "content"])?)?,
                    verifier: verifier(text(&body, &["spec", "signature", "publicKey", "content"])?)?,
                })
            }
            ("dsse", "0.0.1") => {
                let (hash, digest) = digest(&body, &["spec", "payloadHash"])?;
                let signature = single(&body, &["spec", "signatures"])?;
                Ok(Self {
                    hash,
                    digest,
                    digest_of: DigestOf::Payload,
                    signature: decode(text(signature, &["signature"])?)?,
                    verifier: verifier(text(signature, &["verifier"])?)?,
                })
            }
            ("intoto", "0.0.2") => {
                let (hash, digest) = digest(&body, &["spec", "content", "payloadHash"])?;
                let signature = single(&body, &["spec", "content", "envelope", "signatures"])?;
                // The envelope's own base64 text is what this kind encodes once more.
                let once = decode(text(signature, &["sig"])?)?;
                let inner = core::str::from_utf8(&once).map_err(|_| malformed("a signature is not text"))?;
                Ok(Self {
                    hash,
                    digest,
                    digest_of: DigestOf::Payload,
                    signature: decode(inner)?,
                    verifier: verifier(text(signature, &["publicKey"])?)?,
                })
            }
            _ => {
                let shown: String = kind.chars().chain(" ".chars()).chain(version.chars()).take(64).collect();
                Err(Error::unsupported("log entry", format!("kind and version `{shown}`")))
            }
        }
    }
}

/// The bytes that a signed entry timestamp covers: canonical JSON of body, time, log id and index.
///
/// # Errors
/// [`Error::Malformed`] for an index or time that canonical JSON cannot carry.
pub fn promise_message(entry: &TransparencyLogEntry) -> Result<Vec<u8>, Error> {
    let index = i64::try_from(entry.log_index).map_err(|_| malformed("the index is over 2^63-1"))?;
    let members = Object::from([
        ("body".into(), Value::String(json::base64_encode(&entry.canonicalized_body))),
        ("integratedTime".into(), Value::Integer(entry.integrated_time)),
        ("logID".into(), Value::String(hex::encode(&entry.log_id))),
        ("logIndex".into(), Value::Integer(index)),
    ]);
    jcs::canonicalize(&Value::Object(members))
}

/// Checks the signed entry timestamp of an entry with the log's key.
///
/// # Errors
/// [`Error::Malformed`] if there is none or it does not verify.
pub fn verify_promise(
    entry: &TransparencyLogEntry,
    details: KeyDetails,
    public_key: &[u8],
    verifier: &dyn SignatureVerifier,
) -> Result<(), Error> {
    let promise =
        entry.inclusion_promise.as_ref().ok_or_else(|| malformed("the entry has no signed timestamp"))?;
    let message = promise_message(entry)?;
    let verified = verifier.verify(details.algorithm()?, public_key, &message, promise);
    verified.map_err(|_| malformed("the signed entry timestamp does not verify"))
}

fn member<'a>(value: &'a Value, path: &[&str]) -> Result<&'a Value, Error> {
    path.iter()
        .try_fold(value, |value, key| value.member(key))
        .ok_or_else(|| malformed(&format!("the body has no `{}`", path.join("."))))
}

fn text<'a>(value: &'a Value, path: &[&str]) -> Result<&'a str, Error> {
    member(value, path)?.as_str().ok_or_else(|| malformed(&format!("`{}` is not a text", path.join("."))))
}

fn single<'a>(value: &'a Value, path: &[&str]) -> Result<&'a Value, Error> {
    match member(value, path)? {
        Value::Array(items) => match items.as_slice() {
            [only] => Ok(only),
            _ => Err(malformed("the entry holds other than one signature")),
        },
        _ => Err(malformed("the signatures are not a list")),
    }
}

fn digest(value: &Value, path: &[&str]) -> Result<(HashAlgorithm, Vec<u8>), Error> {
    let hash = member(value, path)?;
    let algorithm = HashAlgorithm::from_name(text(hash, &["algorithm"])?)
        .ok_or_else(|| malformed("the hash algorithm is not SHA-2"))?;
    let digest =
        hex::decode(text(hash, &["value"])?).map_err(|_| malformed("a digest is not hexadecimal"))?;
    Ok((algorithm, digest))
}

fn decode(text: &str) -> Result<Vec<u8>, Error> {
    json::base64_decode("log entry", text)
}

/// Base64 of a PEM certificate or public key.
fn verifier(text: &str) -> Result<Vec<u8>, Error> {
    let pem = decode(text)?;
    let pem = core::str::from_utf8(&pem).map_err(|_| malformed("the key is not PEM"))?;
    for label in [pem::CERTIFICATE, "PUBLIC KEY"] {
        if let Ok(blocks) = pem::decode(pem, label, 1)
            && let Some(first) = blocks.into_iter().next()
        {
            return Ok(first);
        }
    }
    Err(malformed("the key is neither a certificate nor a public key in PEM"))
}

fn malformed(detail: &str) -> Error {
    Error::malformed("log entry", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, version: &str, spec: &str) -> TransparencyLogEntry {
        TransparencyLogEntry {
            log_index: 7,
            log_id: alloc::vec![0xab; 32],
            kind: kind.into(),
            version: version.into(),
            integrated_time: 1_700_000_000,
            inclusion_promise: None,
            inclusion_proof: None,
            canonicalized_body: format!(r#"{{"apiVersion":"{version}","kind":"{kind}","spec":{spec}}}"#)
                .into_bytes(),
        }
    }

    fn key() -> String {
        json::base64_encode(pem::encode(b"\x30\x00", "PUBLIC KEY").as_bytes())
    }

    #[test]
    fn reads_the_three_kinds() {
        let hash = r#"{"algorithm":"sha256","value":"0102"}"#;
        let twice = json::base64_encode(b"c2ln");
        let expected = |digest_of| SignedObject {
            hash: HashAlgorithm::Sha256,
            digest: alloc::vec![1, 2],
            digest_of,
            signature: b"sig".to_vec(),
            verifier: b"\x30\x00".to_vec(),
        };
        let key = key();
        for (kind, version, spec, digest_of) in [
            (
                "hashedrekord",
                "0.0.1",
                format!(
                    r#"{{"data":{{"hash":{hash}}},"signature":{{"content":"c2ln","publicKey":{{"content":"{key}"}}}}}}"#
                ),
                DigestOf::Message,
            ),
            (
                "dsse",
                "0.0.1",
                format!(
                    r#"{{"envelopeHash":{hash},"payloadHash":{hash},"signatures":[{{"signature":"c2ln","verifier":"{key}"}}]}}"#
                ),
                DigestOf::Payload,
            ),
            (
                "intoto",
                "0.0.2",
                format!(
                    r#"{{"content":{{"envelope":{{"payloadType":"t","signatures":[{{"sig":"{twice}","publicKey":"{key}"}}]}},"payloadHash":{hash}}}}}"#
                ),
                DigestOf::Payload,
            ),
        ] {
            let found = SignedObject::from_entry(&entry(kind, version, &spec)).unwrap();
            assert_eq!(found, expected(digest_of), "{kind}");
        }
    }

    #[test]
    fn refuses_other_kinds_and_several_signatures() {
        assert!(matches!(
            SignedObject::from_entry(&entry("rpm", "0.0.1", "{}")),
            Err(Error::Unsupported { .. })
        ));
        let mut other = entry("dsse", "0.0.1", "{}");
        other.kind = "intoto".into();
        assert!(matches!(SignedObject::from_entry(&other), Err(Error::Malformed { .. })));
        let two = r#"{"payloadHash":{"algorithm":"sha256","value":"01"},"signatures":[{},{}]}"#;
        assert!(matches!(
            SignedObject::from_entry(&entry("dsse", "0.0.1", two)),
            Err(Error::Malformed { .. })
        ));
    }

    #[test]
    fn promise_bytes_are_frozen() {
        let entry =
            TransparencyLogEntry { canonicalized_body: b"{}".to_vec(), ..entry("dsse", "0.0.1", "{}") };
        let expected = format!(
            r#"{{"body":"e30=","integratedTime":1700000000,"logID":"{}","logIndex":7}}"#,
            "ab".repeat(32)
        );
        assert_eq!(promise_message(&entry).unwrap(), expected.as_bytes());
    }
}
