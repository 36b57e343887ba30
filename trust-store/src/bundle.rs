//! Sigstore bundles: v0.3 is written, v0.1, v0.2 and v0.3 are read.
//!
//! A bundle is one signature with everything a stock client needs to verify it offline: the certificate or a hint at
//! the key, log entries, timestamp tokens, and the signed content. The JSON form is in `bundle_json`.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::bundle_json;
use crate::dsse::Envelope;
use crate::error::Error;
use crate::json;
use crate::key_details::HashAlgorithm;
use crate::log_entry::TransparencyLogEntry;

/// Media type that is written.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Largest bundle that is read, in bytes.
pub const MAX_BUNDLE_BYTES: usize = 8 << 20;
/// Most log entries, and most timestamp tokens, that a bundle may carry.
pub const MAX_EVIDENCE: usize = 32;
/// Most certificates of a v0.1 or v0.2 chain.
pub const MAX_CHAIN: usize = 16;

/// Version of a bundle's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BundleVersion {
    /// 0.1: a signed entry timestamp suffices.
    V0_1,
    /// 0.2: every log entry needs an inclusion proof.
    V0_2,
    /// 0.3: as 0.2, with a single certificate in place of a chain.
    V0_3,
}

/// A bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Version of its format.
    pub version: BundleVersion,
    /// What verifies the signature.
    pub key: KeyMaterial,
    /// Log entries, each with its proof.
    pub log_entries: Vec<TransparencyLogEntry>,
    /// RFC 3161 timestamp tokens (`TimeStampResp`, DER) over the signature bytes.
    pub timestamps: Vec<Vec<u8>>,
    /// What was signed, with the signature.
    pub content: Content,
}

/// What verifies the signature of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyMaterial {
    /// The end-entity certificate, DER.
    Certificate(Vec<u8>),
    /// The end-entity certificate and issuers, DER, end-entity first (v0.1 and v0.2 only). Issuers are candidates, not
    /// trust anchors.
    Chain(Vec<Vec<u8>>),
    /// A key that the verifier knows; the hint is not trusted.
    PublicKey {
        /// Names the key.
        hint: String,
    },
}

/// The signed content of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A DSSE envelope with exactly one signature.
    Dsse(Envelope),
    /// A signature over an artifact that is not in the bundle.
    Message {
        /// Digest of the artifact, if the bundle names one; a hint, compared and never trusted.
        digest: Option<(HashAlgorithm, Vec<u8>)>,
        /// The signature over the artifact's bytes.
        signature: Vec<u8>,
    },
}

impl Bundle {
    /// A v0.3 bundle of a DSSE envelope signed with a certificate.
    pub fn for_envelope(certificate: Vec<u8>, envelope: Envelope) -> Self {
        Self {
            version: BundleVersion::V0_3,
            key: KeyMaterial::Certificate(certificate),
            log_entries: Vec::new(),
            timestamps: Vec::new(),
            content: Content::Dsse(envelope),
        }
    }

    /// A v0.3 bundle of a signature over an artifact with this SHA-256 digest.
    pub fn for_message(certificate: Vec<u8>, digest: [u8; 32], signature: Vec<u8>) -> Self {
        let digest = Some((HashAlgorithm::Sha256, digest.to_vec()));
        Self {
            version: BundleVersion::V0_3,
            key: KeyMaterial::Certificate(certificate),
            log_entries: Vec::new(),
            timestamps: Vec::new(),
            content: Content::Message { digest, signature },
        }
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`MAX_BUNDLE_BYTES`], [`MAX_EVIDENCE`] or [`MAX_CHAIN`]; [`Error::Unsupported`] for
    /// another media type; [`Error::Malformed`] for unknown fields, a chain in v0.3, no or two contents or keys, other
    /// than one signature in an envelope, or a hint that disagrees with the envelope's key id.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let wire: bundle_json::Wire = json::parse("bundle", bytes, MAX_BUNDLE_BYTES)?;
        wire.into_bundle()
    }

    /// Writes the JSON form, compact; a bundle that was read keeps its version.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a chain in v0.3.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        if self.version == BundleVersion::V0_3 && matches!(self.key, KeyMaterial::Chain(_)) {
            return Err(Error::malformed("bundle", "version 0.3 carries one certificate, not a chain"));
        }
        json::write("bundle", &bundle_json::Wire::from(self.clone()))
    }

    /// The end-entity certificate, DER; `None` for a bundle with a bare key.
    pub fn certificate(&self) -> Option<&[u8]> {
        match &self.key {
            KeyMaterial::Certificate(der) => Some(der),
            KeyMaterial::Chain(chain) => chain.first().map(Vec::as_slice),
            KeyMaterial::PublicKey { .. } => None,
        }
    }

    /// The signature bytes, which a timestamp token covers.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an envelope with other than one signature.
    pub fn signature(&self) -> Result<&[u8], Error> {
        match &self.content {
            Content::Dsse(envelope) => Ok(&envelope.single_signature()?.sig),
            Content::Message { signature, .. } => Ok(signature),
        }
    }
}

impl BundleVersion {
    pub(crate) fn from_media_type(media_type: &str) -> Option<Self> {
        let plain = "application/vnd.dev.sigstore.bundle+json;version=";
        match media_type {
            MEDIA_TYPE => Some(Self::V0_3),
            _ => match media_type.strip_prefix(plain)? {
                "0.1" => Some(Self::V0_1),
                "0.2" => Some(Self::V0_2),
                "0.3" => Some(Self::V0_3),
                _ => None,
            },
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::V0_1 => "application/vnd.dev.sigstore.bundle+json;version=0.1",
            Self::V0_2 => "application/vnd.dev.sigstore.bundle+json;version=0.2",
            Self::V0_3 => MEDIA_TYPE,
        }
    }
}

impl KeyMaterial {
    /// The issuers that came along, DER.
    pub fn issuers(&self) -> &[Vec<u8>] {
        match self {
            Self::Chain(chain) => chain.get(1..).unwrap_or_default(),
            Self::Certificate(_) | Self::PublicKey { .. } => &[],
        }
    }
}

/// A bundle file may hold several bundles, one per line (`.sigstore.jsonl`).
///
/// # Errors
/// As [`Bundle::parse`], for the first line that fails; [`Error::TooLarge`] over [`MAX_EVIDENCE`] lines.
pub fn parse_lines(bytes: &[u8]) -> Result<Vec<Bundle>, Error> {
    let mut bundles = vec![];
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        if bundles.len() == MAX_EVIDENCE {
            return Err(Error::TooLarge { what: "list of bundles", limit: MAX_EVIDENCE });
        }
        bundles.push(Bundle::parse(line)?);
    }
    Ok(bundles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> Bundle {
        let mut bundle =
            Bundle::for_envelope(b"cert".to_vec(), Envelope::new("t", b"p".to_vec(), b"s".to_vec()));
        bundle.timestamps.push(b"tsr".to_vec());
        bundle
    }

    fn text() -> String {
        String::from_utf8(bundle().to_json().unwrap()).unwrap()
    }

    #[test]
    fn json_form_is_frozen() {
        assert_eq!(
            text(),
            concat!(
                r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":"#,
                r#"{"rawBytes":"Y2VydA=="},"tlogEntries":[],"timestampVerificationData":{"rfc3161Timestamps":"#,
                r#"[{"signedTimestamp":"dHNy"}]}},"dsseEnvelope":{"payload":"cA==","payloadType":"t","#,
                r#""signatures":[{"sig":"cw=="}]}}"#
            )
        );
        assert_eq!(Bundle::parse(text().as_bytes()).unwrap(), bundle());
    }

    #[test]
    fn reads_older_versions_with_a_chain_and_a_message() {
        let old = r#"{"mediaType":"application/vnd.dev.sigstore.bundle+json;version=0.1","verificationMaterial":
            {"x509CertificateChain":{"certificates":[{"rawBytes":"AQ=="},{"rawBytes":"Ag=="}]},"tlogEntries":[],
            "timestampVerificationData":null},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"AQ=="},
            "signature":"cw=="}}"#;
        let bundle = Bundle::parse(old.as_bytes()).unwrap();
        assert_eq!(bundle.version, BundleVersion::V0_1);
        assert_eq!((bundle.certificate(), bundle.key.issuers()), (Some(&[1][..]), &[vec![2]][..]));
        assert_eq!(Bundle::parse(&bundle.to_json().unwrap()).unwrap(), bundle);
        let new = old.replace("+json;version=0.1", ".v0.3+json");
        assert!(matches!(Bundle::parse(new.as_bytes()), Err(Error::Malformed { .. })), "no chain in v0.3");
    }

    #[test]
    fn refuses_ambiguous_and_unknown_content() {
        for (from, to) in [
            ("\"verificationMaterial\"", "\"extra\":1,\"verificationMaterial\""),
            ("\"tlogEntries\"", "\"extra\":1,\"tlogEntries\""),
            ("\"tlogEntries\"", "\"publicKey\":{\"hint\":\"h\"},\"tlogEntries\""),
            ("\"certificate\":{\"rawBytes\":\"Y2VydA==\"},", ""),
            ("\"dsseEnvelope\"", "\"messageSignature\":{\"signature\":\"cw==\"},\"dsseEnvelope\""),
            ("[{\"sig\":\"cw==\"}]", "[{\"sig\":\"cw==\"},{\"sig\":\"cw==\"}]"),
            ("Y2VydA==", ""),
        ] {
            let bad = text().replacen(from, to, 1);
            assert_ne!(bad, text());
            assert!(matches!(Bundle::parse(bad.as_bytes()), Err(Error::Malformed { .. })), "{to}");
        }
        let other = text().replace("v0.3", "v0.9");
        assert!(matches!(Bundle::parse(other.as_bytes()), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn bounds_the_number_of_timestamps() {
        let mut bundle = bundle();
        bundle.timestamps = vec![b"t".to_vec(); MAX_EVIDENCE + 1];
        assert!(matches!(Bundle::parse(&bundle.to_json().unwrap()), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn hint_and_key_id_must_agree() {
        let key = text().replace(r#""certificate":{"rawBytes":"Y2VydA=="}"#, r#""publicKey":{"hint":"h"}"#);
        assert!(Bundle::parse(key.as_bytes()).is_ok());
        let same = key.replace(r#""sig":"cw==""#, r#""sig":"cw==","keyid":"h""#);
        assert!(Bundle::parse(same.as_bytes()).is_ok());
        let other = key.replace(r#""sig":"cw==""#, r#""sig":"cw==","keyid":"i""#);
        assert!(Bundle::parse(other.as_bytes()).is_err());
    }

    #[test]
    fn reads_one_bundle_per_line() {
        let lines = alloc::format!("{}\n\n{}\n", text(), text());
        assert_eq!(parse_lines(lines.as_bytes()).unwrap().len(), 2);
    }
}
