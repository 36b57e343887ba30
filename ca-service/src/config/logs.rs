//! The transparency logs in the configuration: addresses, keys, and TLS of the CA's requests to them.

use std::path::PathBuf;

use serde::Deserialize;
use service::{ClientTls, StartRefusal};

use super::Settings;

/// What `check` believes the logs by, as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckConfig {
    /// `log_keys.json` of `mentatctl trust export`: origin, keys and address of each log, and of each shard that was frozen.
    pub log_keys: PathBuf,
}

/// The issuance log as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuanceLogConfig {
    /// Base URL: `…/ct/v1/add-pre-chain` is below it.
    pub url: String,
    /// PEM file with the log's public key (SubjectPublicKeyInfo); SCTs are verified with it. Read by `serve` only.
    pub public_key_file: PathBuf,
    /// PEM file with authorities for the log's TLS certificate; absent: those of the system.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file with the client certificate that the CA shows to the log, then its intermediates.
    #[serde(default)]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file with its key, mode 0600.
    #[serde(default)]
    pub tls_key_file: Option<PathBuf>,
}

impl IssuanceLogConfig {
    pub(crate) fn tls(&self, settings: &Settings) -> Result<ClientTls, StartRefusal> {
        let path = |file: &Option<PathBuf>| file.as_deref().map(|file| settings.path(file));
        let [ca, cert, key] = [&self.tls_ca_file, &self.tls_cert_file, &self.tls_key_file].map(path);
        let tls = ClientTls::new("issuance_log", ca, cert, key)?;
        tls.allow("issuance_log.url", &self.url)?;
        Ok(tls)
    }
}

/// The event log as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventLogConfig {
    /// Base URL: `…/api/v1/entries` is below it.
    pub url: String,
    /// PEM file with authorities for the log's TLS certificate; absent: those of the system.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file with the client certificate that the CA shows to the log, then its intermediates.
    #[serde(default)]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file with its key, mode 0600.
    #[serde(default)]
    pub tls_key_file: Option<PathBuf>,
}

impl EventLogConfig {
    pub(crate) fn tls(&self, settings: &Settings) -> Result<ClientTls, StartRefusal> {
        let path = |file: &Option<PathBuf>| file.as_deref().map(|file| settings.path(file));
        let [ca, cert, key] = [&self.tls_ca_file, &self.tls_cert_file, &self.tls_key_file].map(path);
        let tls = ClientTls::new("event_log", ca, cert, key)?;
        tls.allow("event_log.url", &self.url)?;
        Ok(tls)
    }
}
