//! Sigstore SigningConfig v0.2, where a client signs, and ClientTrustConfig, both trust files in one.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::json::{self, null_as_default};
use crate::time::UnixTime;
use crate::trusted_root::{MAX_TRUSTED_ROOT_BYTES, TrustedRoot};
use crate::validity::Validity;

/// Media type of a signing configuration.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.signingconfig.v0.2+json";
/// Media type of a client trust configuration.
pub const CLIENT_TRUST_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json";
/// Largest signing configuration that is read, in bytes.
pub const MAX_SIGNING_CONFIG_BYTES: usize = 256 << 10;

/// Which services a client uses to sign. Lists stand newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SigningConfig {
    media_type: String,
    /// Certificate authorities (Fulcio API version 1 in `majorApiVersion`), base URLs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ca_urls: Vec<Service>,
    /// Identity providers, base URLs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub oidc_urls: Vec<Service>,
    /// Transparency logs, base URLs; `majorApiVersion` 2 is Rekor v2.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rekor_tlog_urls: Vec<Service>,
    /// How many logs to use.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rekor_tlog_config: ServiceConfiguration,
    /// Timestamp authorities, FULL URLs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tsa_urls: Vec<Service>,
    /// How many timestamp authorities to use.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tsa_config: ServiceConfiguration,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Service {
    /// Its address.
    pub url: String,
    /// Major version of its interface.
    pub major_api_version: u32,
    /// When it may be used.
    #[serde(default, deserialize_with = "null_as_default")]
    pub valid_for: Validity,
    /// Who runs it: a URI without scheme.
    #[serde(default, skip_serializing_if = "String::is_empty", deserialize_with = "null_as_default")]
    pub operator: String,
}

/// How many services of a list to use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfiguration {
    /// The rule.
    #[serde(default)]
    pub selector: Selector,
    /// The number that `EXACT` demands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// A rule for choosing services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selector {
    /// Every valid one.
    #[serde(rename = "ALL")]
    All,
    /// One of the valid ones.
    #[default]
    #[serde(rename = "ANY")]
    Any,
    /// Exactly `count` of different operators.
    #[serde(rename = "EXACT")]
    Exact,
    /// Not stated.
    #[serde(rename = "SERVICE_SELECTOR_UNDEFINED")]
    Undefined,
}

impl SigningConfig {
    /// An empty configuration, to be filled and written.
    pub fn new() -> Self {
        Self {
            media_type: MEDIA_TYPE.to_owned(),
            ca_urls: Vec::new(),
            oidc_urls: Vec::new(),
            rekor_tlog_urls: Vec::new(),
            rekor_tlog_config: ServiceConfiguration::default(),
            tsa_urls: Vec::new(),
            tsa_config: ServiceConfiguration::default(),
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`] for unknown fields, [`Error::Unsupported`] for another media type.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let config: Self = json::parse("signing configuration", bytes, MAX_SIGNING_CONFIG_BYTES)?;
        config.validate()?;
        Ok(config)
    }

    /// Writes the file, indented.
    ///
    /// # Errors
    /// None in practice; see [`json::write`].
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        json::write_pretty("signing configuration", self)
    }

    /// The first service of `list` with this major version that is valid at `time`.
    pub fn select(list: &[Service], major_api_version: u32, time: UnixTime) -> Option<&Service> {
        list.iter().find(|service| {
            service.major_api_version == major_api_version && service.valid_for.contains(time)
        })
    }

    fn validate(&self) -> Result<(), Error> {
        media_type("signing configuration", &self.media_type, MEDIA_TYPE)
    }
}

impl Default for SigningConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Trusted root and signing configuration in one file, as Python clients take them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClientTrustConfig {
    media_type: String,
    /// What to trust.
    pub trusted_root: TrustedRoot,
    /// Where to sign.
    pub signing_config: SigningConfig,
}

impl ClientTrustConfig {
    /// Both files in one.
    pub fn new(trusted_root: TrustedRoot, signing_config: SigningConfig) -> Self {
        Self { media_type: CLIENT_TRUST_MEDIA_TYPE.to_owned(), trusted_root, signing_config }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// As [`TrustedRoot::parse`] and [`SigningConfig::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let limit = MAX_TRUSTED_ROOT_BYTES.saturating_add(MAX_SIGNING_CONFIG_BYTES);
        let config: Self = json::parse("client trust configuration", bytes, limit)?;
        media_type("client trust configuration", &config.media_type, CLIENT_TRUST_MEDIA_TYPE)?;
        config.trusted_root.validate()?;
        config.signing_config.validate()?;
        Ok(config)
    }

    /// Writes the file, indented.
    ///
    /// # Errors
    /// As [`TrustedRoot::to_json`].
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        self.trusted_root.validate()?;
        json::write_pretty("client trust configuration", self)
    }
}

fn media_type(what: &'static str, found: &str, known: &str) -> Result<(), Error> {
    if found == known {
        return Ok(());
    }
    let shown: String = found.chars().take(80).collect();
    Err(Error::unsupported(what, format!("media type `{shown}`; known is `{known}`")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn reads_what_it_writes_and_selects_by_version_and_time() {
        let service = |version, start| Service {
            url: "https://log".into(),
            major_api_version: version,
            valid_for: Validity::since(UnixTime(start)),
            operator: "mentat.internal".into(),
        };
        let mut config = SigningConfig::new();
        config.rekor_tlog_urls = vec![service(2, 100), service(1, 0)];
        let parsed = SigningConfig::parse(&config.to_json().unwrap()).unwrap();
        assert_eq!(parsed, config);
        assert!(SigningConfig::select(&parsed.rekor_tlog_urls, 2, UnixTime(99)).is_none());
        assert_eq!(SigningConfig::select(&parsed.rekor_tlog_urls, 2, UnixTime(100)), Some(&service(2, 100)));

        let both = ClientTrustConfig::new(TrustedRoot::new(), config);
        assert_eq!(ClientTrustConfig::parse(&both.to_json().unwrap()).unwrap(), both);
    }

    #[test]
    fn refuses_other_versions_and_unknown_fields() {
        let text = String::from_utf8(SigningConfig::new().to_json().unwrap()).unwrap();
        assert!(matches!(
            SigningConfig::parse(text.replace("v0.2", "v0.1").as_bytes()),
            Err(Error::Unsupported { .. })
        ));
        assert!(SigningConfig::parse(text.replace("\"caUrls\"", "\"x\": 1, \"caUrls\"").as_bytes()).is_err());
        assert!(SigningConfig::parse(text.replace("ANY", "SOME").as_bytes()).is_err());
    }
}
