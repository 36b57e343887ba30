//! Who is told of certificates that end soon.

use std::path::PathBuf;

use serde::Deserialize;
use service::{ClientTls, StartRefusal};

use super::Settings;

/// Most different times before an end.
const MOST_TIMES: usize = 8;

/// The webhook as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpiryWarningsConfig {
    /// Where warnings are sent: `https://…`, or `http://` on this machine.
    pub url: String,
    /// File with the secret that signs them (HMAC-SHA256), 16 to 1024 bytes on one line, mode 0600.
    pub secret_file: PathBuf,
    /// Days before the end at which a certificate is named. Default 30, 7 and 1.
    #[serde(default = "default_days")]
    pub days: Vec<u16>,
    /// PEM file with authorities for the receiver's TLS certificate; absent: those of the system.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file with the client certificate that the CA shows, then its intermediates.
    #[serde(default)]
    pub tls_cert_file: Option<PathBuf>,
    /// PEM file with its key, mode 0600.
    #[serde(default)]
    pub tls_key_file: Option<PathBuf>,
}

fn default_days() -> Vec<u16> {
    vec![30, 7, 1]
}

impl ExpiryWarningsConfig {
    pub(crate) fn tls(&self, settings: &Settings) -> Result<ClientTls, StartRefusal> {
        let path = |file: &Option<PathBuf>| file.as_deref().map(|file| settings.path(file));
        let [ca, cert, key] = [&self.tls_ca_file, &self.tls_cert_file, &self.tls_key_file].map(path);
        let tls = ClientTls::new("expiry_warnings", ca, cert, key)?;
        tls.allow("expiry_warnings.url", &self.url)?;
        Ok(tls)
    }

    pub(super) fn validate(&self, settings: &Settings) -> Result<(), StartRefusal> {
        self.tls(settings)?;
        let distinct: std::collections::BTreeSet<_> = self.days.iter().collect();
        let fit = !self.days.is_empty()
            && self.days.len() <= MOST_TIMES
            && distinct.len() == self.days.len()
            && self.days.iter().all(|days| (1..=180).contains(days));
        if fit {
            return Ok(());
        }
        Err(StartRefusal::new(
            "expiry_warnings.days are not 1 to 8 different numbers from 1 to 180",
            "write for example [30, 7, 1]",
        ))
    }
}
