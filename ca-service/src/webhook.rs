//! Messages to somebody else's HTTP server, signed so that the receiver knows whose they are.
//!
//! `Mentat-Signature: t=TIME,v1=MAC`: MAC is HMAC-SHA256 in hexadecimal, under the shared secret, of the decimal TIME (seconds since
//! 1970), a full stop and the body. A receiver computes it anew, compares in constant time, and refuses a TIME far from its own.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::hmac;
use ca_pki::UnixTime;
use service::exit::one_line;
use service::{ClientTls, StartRefusal, secret};
use trust_store::sorted_json::SortedJson;

use crate::config::{ExpiryWarningsConfig, RequestWebhookConfig, Settings};

/// Longest time for one message.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest secret, in bytes.
const MAX_SECRET: usize = 1024;
/// Shortest secret, in bytes.
const MIN_SECRET: usize = 16;

/// The receiver did not take a message; it may have it all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the webhook did not take the message: {0}")]
pub struct NotTaken(String);

/// One receiver.
pub struct Webhook {
    http: reqwest::Client,
    url: String,
    key: hmac::Key,
}

impl Webhook {
    /// The configured receiver of warnings.
    ///
    /// # Errors
    /// [`StartRefusal`] for a secret or TLS file that cannot be used.
    pub fn open(settings: &Settings, config: &ExpiryWarningsConfig) -> Result<Self, StartRefusal> {
        Self::to(&config.url, &settings.path(&config.secret_file), &config.tls(settings)?)
    }

    /// The configured receiver of notices of requests that wait.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of_requests(settings: &Settings, config: &RequestWebhookConfig) -> Result<Self, StartRefusal> {
        Self::to(&config.url, &settings.path(&config.secret_file), &config.tls(settings)?)
    }

    fn to(url: &str, path: &Path, tls: &ClientTls) -> Result<Self, StartRefusal> {
        let secret = secret::read_line(path, MAX_SECRET)?;
        if secret.len() < MIN_SECRET {
            return Err(StartRefusal::new(
                format!("{} is shorter than {MIN_SECRET} bytes", path.display()),
                "make another one, such as with: openssl rand -hex 32",
            ));
        }
        let http = tls.client_for(url, PATIENCE)?;
        Ok(Self { http, url: url.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, &secret) })
    }

    /// Sends one message. Any 2xx is an acceptance; the answer's body is not read.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub async fn send(&self, message: SortedJson, at: UnixTime) -> Result<(), NotTaken> {
        let body = message.into_string();
        let request = self
            .http
            .post(&self.url)
            .header("content-type", "application/json")
            .header("mentat-signature", signature(&self.key, at, &body))
            .body(body);
        // The address may hold a secret of the receiver's own.
        let answer = request.send().await.map_err(|error| NotTaken(one_line(&error.without_url())))?;
        if answer.status().is_success() { Ok(()) } else { Err(NotTaken(answer.status().to_string())) }
    }
}

fn signature(key: &hmac::Key, at: UnixTime, body: &str) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{}.", at.0).as_bytes());
    context.update(body.as_bytes());
    format!("t={},v1={}", at.0, hex::encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with OpenSSL: `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'a secret of sixteen'`.
    #[test]
    fn the_signed_bytes_are_frozen() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"a secret of sixteen");
        assert_eq!(
            signature(&key, UnixTime(1_700_000_000), r#"{"a":1}"#),
            "t=1700000000,v1=fbd8ce753f0c0643c2d4fef4959c30b175367059e6f5453bddeb7b24a3d1ae24"
        );
    }
}
