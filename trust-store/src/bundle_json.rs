//! JSON form of a bundle (protobuf's JSON mapping), and what it must fulfil to become a [`Bundle`].

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bundle::{Bundle, BundleVersion, Content, KeyMaterial, MAX_CHAIN, MAX_EVIDENCE};
use crate::dsse::Envelope;
use crate::error::Error;
use crate::json::{Bytes, null_as_default};
use crate::key_details::HashAlgorithm;
use crate::log_entry::TransparencyLogEntry;
use crate::trusted_root::{CertificateChain, RawCertificate};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Wire {
    #[serde(alias = "media_type")]
    media_type: String,
    #[serde(alias = "verification_material")]
    verification_material: VerificationMaterial,
    #[serde(alias = "message_signature", default, skip_serializing_if = "Option::is_none")]
    message_signature: Option<MessageSignature>,
    #[serde(alias = "dsse_envelope", default, skip_serializing_if = "Option::is_none")]
    dsse_envelope: Option<Envelope>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct VerificationMaterial {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<RawCertificate>,
    #[serde(
        rename = "x509CertificateChain",
        alias = "x509_certificate_chain",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    x509_certificate_chain: Option<CertificateChain>,
    #[serde(alias = "public_key", default, skip_serializing_if = "Option::is_none")]
    public_key: Option<PublicKeyHint>,
    #[serde(alias = "tlog_entries", default, deserialize_with = "null_as_default")]
    tlog_entries: Vec<TransparencyLogEntry>,
    #[serde(alias = "timestamp_verification_data", default, deserialize_with = "null_as_default")]
    timestamp_verification_data: Timestamps,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKeyHint {
    #[serde(default, deserialize_with = "null_as_default")]
    hint: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Timestamps {
    #[serde(
        rename = "rfc3161Timestamps",
        alias = "rfc3161_timestamps",
        default,
        deserialize_with = "null_as_default"
    )]
    rfc3161_timestamps: Vec<Timestamp>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Timestamp {
    #[serde(alias = "signed_timestamp")]
    signed_timestamp: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MessageSignature {
    #[serde(alias = "message_digest", default, skip_serializing_if = "Option::is_none")]
    message_digest: Option<MessageDigest>,
    signature: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageDigest {
    algorithm: HashAlgorithm,
    digest: Bytes,
}

impl Wire {
    pub(crate) fn into_bundle(self) -> Result<Bundle, Error> {
        let Some(version) = BundleVersion::from_media_type(&self.media_type) else {
            let shown: String = self.media_type.chars().take(80).collect();
            return Err(Error::unsupported(
                "bundle",
                format!("media type `{shown}`; versions 0.1 to 0.3 are read"),
            ));
        };
        let material = self.verification_material;
        let timestamps = material.timestamp_verification_data.rfc3161_timestamps;
        if material.tlog_entries.len() > MAX_EVIDENCE || timestamps.len() > MAX_EVIDENCE {
            return Err(Error::TooLarge { what: "list of evidence in a bundle", limit: MAX_EVIDENCE });
        }
        let key = match (material.certificate, material.x509_certificate_chain, material.public_key) {
            (Some(certificate), None, None) => KeyMaterial::Certificate(certificate.raw_bytes.0),
            (None, Some(_), None) if version == BundleVersion::V0_3 => {
                return Err(malformed("version 0.3 carries one certificate, not a chain"));
            }
            (None, Some(chain), None) if chain.certificates.len() > MAX_CHAIN => {
                return Err(Error::TooLarge { what: "certificate chain of a bundle", limit: MAX_CHAIN });
            }
            (None, Some(chain), None) => KeyMaterial::Chain(
                chain.certificates.into_iter().map(|certificate| certificate.raw_bytes.0).collect(),
            ),
            (None, None, Some(key)) => KeyMaterial::PublicKey { hint: key.hint },
            _ => {
                return Err(malformed(
                    "exactly one of certificate, x509CertificateChain and publicKey is needed",
                ));
            }
        };
        let content = match (self.message_signature, self.dsse_envelope) {
            (Some(message), None) => Content::Message {
                digest: message.message_digest.map(|digest| (digest.algorithm, digest.digest.0)),
                signature: message.signature.0,
            },
            (None, Some(envelope)) => Content::Dsse(envelope),
            _ => return Err(malformed("exactly one of messageSignature and dsseEnvelope is needed")),
        };
        let bundle = Bundle {
            version,
            key,
            log_entries: material.tlog_entries,
            timestamps: timestamps.into_iter().map(|timestamp| timestamp.signed_timestamp.0).collect(),
            content,
        };
        validate(&bundle)?;
        Ok(bundle)
    }
}

fn validate(bundle: &Bundle) -> Result<(), Error> {
    if bundle.signature()?.is_empty() {
        return Err(malformed("the signature is empty"));
    }
    let has_certificate = bundle.certificate().is_some_and(|der| !der.is_empty());
    if !has_certificate && !matches!(bundle.key, KeyMaterial::PublicKey { .. }) {
        return Err(malformed("the certificate is empty"));
    }
    if let (KeyMaterial::PublicKey { hint }, Content::Dsse(envelope)) = (&bundle.key, &bundle.content) {
        let keyid = &envelope.single_signature()?.keyid;
        if !keyid.is_empty() && keyid != hint {
            return Err(malformed("key hint and key id of the envelope differ"));
        }
    }
    Ok(())
}

impl From<Bundle> for Wire {
    fn from(bundle: Bundle) -> Self {
        let (certificate, x509_certificate_chain, public_key) = match bundle.key {
            KeyMaterial::Certificate(der) => (Some(RawCertificate { raw_bytes: Bytes(der) }), None, None),
            KeyMaterial::Chain(chain) => (None, Some(CertificateChain::new(chain)), None),
            KeyMaterial::PublicKey { hint } => (None, None, Some(PublicKeyHint { hint })),
        };
        let (message_signature, dsse_envelope) = match bundle.content {
            Content::Dsse(envelope) => (None, Some(envelope)),
            Content::Message { digest, signature } => {
                let message_digest =
                    digest.map(|(algorithm, digest)| MessageDigest { algorithm, digest: Bytes(digest) });
                (Some(MessageSignature { message_digest, signature: Bytes(signature) }), None)
            }
        };
        let rfc3161_timestamps =
            bundle.timestamps.into_iter().map(|token| Timestamp { signed_timestamp: Bytes(token) }).collect();
        Self {
            media_type: bundle.version.media_type().to_owned(),
            verification_material: VerificationMaterial {
                certificate,
                x509_certificate_chain,
                public_key,
                tlog_entries: bundle.log_entries,
                timestamp_verification_data: Timestamps { rfc3161_timestamps },
            },
            message_signature,
            dsse_envelope,
        }
    }
}

fn malformed(detail: &str) -> Error {
    Error::malformed("bundle", detail)
}
