//! Sigstore TrustedRoot: the logs, certificate authorities and timestamp authorities that a verifier trusts.
//!
//! Read from and written to one JSON file. The types here are the file's own; a verifier turns them into keys and
//! anchors once, see [`crate::trust_material`].

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::json::{self, Bytes, null_as_default};
use crate::key_details::{HashAlgorithm, KeyDetails};
use crate::validity::Validity;

/// Media type that is written.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot+json;version=0.1";
/// Media types that are read.
pub const MEDIA_TYPES: [&str; 3] = [
    MEDIA_TYPE,
    "application/vnd.dev.sigstore.trustedroot.v0.1+json",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
];
/// Largest file that is read, in bytes.
pub const MAX_TRUSTED_ROOT_BYTES: usize = 4 << 20;
/// Most instances of one kind that are read.
pub const MAX_INSTANCES: usize = 256;

/// The trusted root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TrustedRoot {
    media_type: String,
    /// Transparency logs of signatures.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tlogs: Vec<LogInstance>,
    /// Authorities that issue signing certificates.
    #[serde(default, deserialize_with = "null_as_default")]
    pub certificate_authorities: Vec<Authority>,
    /// Logs of certificates.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ctlogs: Vec<LogInstance>,
    /// Authorities that issue timestamp tokens.
    #[serde(default, deserialize_with = "null_as_default")]
    pub timestamp_authorities: Vec<Authority>,
}

/// A log and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LogInstance {
    /// `https://ORIGIN`; its host is the origin of the log.
    pub base_url: String,
    /// Hash of the tree.
    pub hash_algorithm: HashAlgorithm,
    /// The key that signs checkpoints, entry timestamps or certificate timestamps.
    pub public_key: LogKey,
    /// For a Rekor v2 log the full 32-byte checkpoint key id, else SHA-256 of the key's SPKI.
    pub log_id: KeyId,
    /// Key id of the checkpoint line where it differs from `log_id` (TrustedRoot 0.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_key_id: Option<KeyId>,
    /// Who runs it: a URI without scheme (TrustedRoot 0.2).
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub operator: String,
}

/// `{"keyId": base64}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KeyId {
    /// The identifier.
    pub key_id: Bytes,
}

/// The key of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LogKey {
    /// DER SubjectPublicKeyInfo (under two deprecated names of `key_details`, RSAPublicKey).
    pub raw_bytes: Bytes,
    /// Type and hash.
    pub key_details: KeyDetails,
    /// When the key signs; `start` is demanded.
    #[serde(default, deserialize_with = "null_as_default")]
    pub valid_for: Validity,
}

/// A certificate or timestamp authority with one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Authority {
    /// Its name, for readers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub subject: DistinguishedName,
    /// Its address, for readers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub uri: String,
    /// The chain, end-entity side first, trust anchor last.
    pub cert_chain: CertificateChain,
    /// When it signs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub valid_for: Validity,
    /// As for a log.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub operator: String,
}

/// Name of an authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DistinguishedName {
    /// O.
    pub organization: String,
    /// CN.
    pub common_name: String,
}

/// `{"certificates": [{"rawBytes": base64 DER}]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateChain {
    /// DER certificates.
    pub certificates: Vec<RawCertificate>,
}

/// One certificate of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RawCertificate {
    /// DER.
    pub raw_bytes: Bytes,
}

impl CertificateChain {
    /// A chain of DER certificates, end-entity side first.
    pub fn new(certificates: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self {
            certificates: certificates
                .into_iter()
                .map(|der| RawCertificate { raw_bytes: Bytes(der) })
                .collect(),
        }
    }

    /// The DER certificates.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.certificates.iter().map(|certificate| certificate.raw_bytes.0.as_slice())
    }
}

impl LogInstance {
    /// Host of [`LogInstance::base_url`]: the origin of a Rekor v2 log.
    pub fn host(&self) -> &str {
        let rest = self.base_url.split_once("://").map_or(self.base_url.as_str(), |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        authority.split_once(':').map_or(authority, |(host, _)| host)
    }
}

impl TrustedRoot {
    /// An empty root, to be filled and written.
    pub fn new() -> Self {
        Self {
            media_type: MEDIA_TYPE.to_owned(),
            tlogs: Vec::new(),
            certificate_authorities: Vec::new(),
            ctlogs: Vec::new(),
            timestamp_authorities: Vec::new(),
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::TooLarge`] over [`MAX_TRUSTED_ROOT_BYTES`] or [`MAX_INSTANCES`]; [`Error::Unsupported`] for another
    /// media type; [`Error::Malformed`] for unknown fields, an empty chain, a log without start time, log id or with
    /// another tree hash than SHA-256.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let root: Self = json::parse("trusted root", bytes, MAX_TRUSTED_ROOT_BYTES)?;
        root.validate()?;
        Ok(root)
    }

    /// Writes the file, indented.
    ///
    /// # Errors
    /// As [`TrustedRoot::parse`], so that no file is written that cannot be read.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        self.validate()?;
        json::write_pretty("trusted root", self)
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if !MEDIA_TYPES.contains(&self.media_type.as_str()) {
            let shown: String = self.media_type.chars().take(80).collect();
            return Err(Error::unsupported("trusted root", format!("media type `{shown}`")));
        }
        let counts = [
            self.tlogs.len(),
            self.ctlogs.len(),
            self.certificate_authorities.len(),
            self.timestamp_authorities.len(),
        ];
        if counts.into_iter().any(|count| count > MAX_INSTANCES) {
            return Err(Error::TooLarge { what: "list of trusted instances", limit: MAX_INSTANCES });
        }
        for log in self.tlogs.iter().chain(&self.ctlogs) {
            let fault = if log.public_key.valid_for.start.is_none() {
                "validFor.start is missing"
            } else if log.log_id.key_id.0.is_empty() {
                "logId.keyId is empty"
            } else if log.host().is_empty() {
                "baseUrl has no host"
            } else if log.hash_algorithm != HashAlgorithm::Sha256 {
                "the tree hash is not SHA2_256"
            } else {
                continue;
            };
            return Err(Error::malformed("trusted root", format!("log `{}`: {fault}", log.base_url)));
        }
        for authority in self.certificate_authorities.iter().chain(&self.timestamp_authorities) {
            if authority.cert_chain.certificates.is_empty() {
                return Err(Error::malformed(
                    "trusted root",
                    format!("authority `{}` has no chain", authority.uri),
                ));
            }
        }
        Ok(())
    }
}

impl Default for TrustedRoot {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixTime;
    use alloc::vec;

    fn root() -> TrustedRoot {
        let mut root = TrustedRoot::new();
        root.tlogs.push(LogInstance {
            base_url: "https://signing.ab12cd34.mentat.internal".into(),
            hash_algorithm: HashAlgorithm::Sha256,
            public_key: LogKey {
                raw_bytes: Bytes(vec![1]),
                key_details: KeyDetails::Ed25519,
                valid_for: Validity::since(UnixTime(0)),
            },
            log_id: KeyId { key_id: Bytes(vec![2; 32]) },
            checkpoint_key_id: None,
            operator: String::new(),
        });
        root.certificate_authorities.push(Authority {
            subject: DistinguishedName { organization: "O".into(), common_name: "CN".into() },
            uri: "https://ca".into(),
            cert_chain: CertificateChain::new([vec![3]]),
            valid_for: Validity::since(UnixTime(0)),
            operator: String::new(),
        });
        root
    }

    #[test]
    fn reads_what_it_writes() {
        let bytes = root().to_json().unwrap();
        assert_eq!(TrustedRoot::parse(&bytes).unwrap(), root());
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(r#""keyDetails": "PKIX_ED25519""#));
        assert!(!text.contains("checkpointKeyId"), "version 0.1 does not know it");
    }

    #[test]
    fn host_is_without_scheme_port_and_path() {
        for (url, host) in
            [("https://a.b", "a.b"), ("http://a.b:80/c", "a.b"), ("a.b/c", "a.b"), ("https://", "")]
        {
            let log = LogInstance { base_url: url.into(), ..root().tlogs.remove(0) };
            assert_eq!(log.host(), host, "{url}");
        }
    }

    #[test]
    fn refuses_incomplete_or_unknown_content() {
        let text = String::from_utf8(root().to_json().unwrap()).unwrap();
        for (from, to) in [
            ("\"tlogs\"", "\"extra\": [], \"tlogs\""),
            ("1970-01-01T00:00:00Z", "soon"),
            ("\"start\"", "\"end\""),
            ("SHA2_256", "SHA2_512"),
            ("\"rawBytes\": \"Aw==\"", ""),
            ("PKIX_ED25519", "PKIX_UNKNOWN"),
        ] {
            let bad = text.replacen(from, to, 1);
            assert_ne!(bad, text);
            assert!(TrustedRoot::parse(bad.as_bytes()).is_err(), "{to}");
        }
        let other = text.replace("version=0.1", "version=9");
        assert!(matches!(TrustedRoot::parse(other.as_bytes()), Err(Error::Unsupported { .. })));
    }
}
