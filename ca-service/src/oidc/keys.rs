//! The keys of an issuer: fetched by discovery (OpenID Connect Discovery 1.0 §4), bounded, kept for a while.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ca_pki::jws::{Jwk, MAX_KEY_SET, parse_key_set};
use futures_util::future::BoxFuture;
use reqwest::redirect;
use serde::Deserialize;
use service::StartRefusal;

use super::OidcError;
use super::config::may_be_asked;

/// Keys older than this are asked for again before they are used.
pub const REFRESH_AFTER: Duration = Duration::from_secs(600);
/// Keys older than this are not used: an issuer that withdrew a key is obeyed within this time even when it cannot be asked.
pub const KEEP_FOR: Duration = Duration::from_secs(3600);
/// Pause between two attempts, whoever asks for whatever key: strangers cannot make the CA hammer an issuer.
pub const PAUSE: Duration = Duration::from_secs(5);
/// How long one answer of an issuer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest discovery document in bytes.
const MAX_DISCOVERY: usize = 64 * 1024;

/// Where an issuer's keys come from.
pub trait KeySource: Send + Sync {
    /// Asks for the present keys.
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<Jwk>, OidcError>>;
}

/// The keys of one issuer, and when they were fetched.
pub struct KeyCache {
    source: Arc<dyn KeySource>,
    kept: RwLock<Option<Arc<Kept>>>,
    /// When the issuer was last asked. Whoever holds it asks; the others wait for the outcome.
    asked_at: tokio::sync::Mutex<Option<Duration>>,
}

struct Kept {
    keys: Vec<Jwk>,
    at: Duration,
}

/// Keys that may be used now.
pub struct CurrentKeys(Arc<Kept>);

impl CurrentKeys {
    /// The keys.
    #[must_use]
    pub fn as_slice(&self) -> &[Jwk] {
        &self.0.keys
    }
}

impl KeyCache {
    /// An empty cache.
    #[must_use]
    pub fn new(source: Arc<dyn KeySource>) -> Self {
        Self { source, kept: RwLock::new(None), asked_at: tokio::sync::Mutex::new(None) }
    }

    /// The keys, asked for where they are old or do not hold the one that is wanted. `now` is on a monotonic clock.
    ///
    /// # Errors
    /// [`OidcError::Unavailable`] when there are none that are young enough.
    pub async fn keys(&self, wanted: Option<&str>, now: Duration) -> Result<CurrentKeys, OidcError> {
        let serves = |kept: &Kept| {
            now.saturating_sub(kept.at) < REFRESH_AFTER
                && wanted.is_none_or(|id| kept.keys.iter().any(|key| key.is_called(id)))
        };
        if let Some(kept) = self.kept().filter(|kept| serves(kept)) {
            return Ok(CurrentKeys(kept));
        }
        let mut asked_at = self.asked_at.lock().await;
        // Somebody else may have fetched them meanwhile.
        if let Some(kept) = self.kept().filter(|kept| serves(kept)) {
            return Ok(CurrentKeys(kept));
        }
        let mut failure = OidcError::Unavailable("the issuer was asked a moment ago".to_owned());
        if asked_at.is_none_or(|at| now.saturating_sub(at) >= PAUSE) {
            *asked_at = Some(now);
            match self.source.fetch().await {
                Ok(keys) => {
                    let fresh = Arc::new(Kept { keys, at: now });
                    *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&fresh));
                    return Ok(CurrentKeys(fresh));
                }
                Err(error) => {
                    tracing::warn!(%error, "the keys of an identity issuer cannot be fetched");
                    failure = error;
                }
            }
        }
        match self.kept().filter(|kept| now.saturating_sub(kept.at) < KEEP_FOR) {
            Some(kept) => Ok(CurrentKeys(kept)),
            None => Err(failure),
        }
    }

    fn kept(&self) -> Option<Arc<Kept>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An issuer that is asked over HTTP.
pub struct HttpKeys {
    client: reqwest::Client,
    issuer: String,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl HttpKeys {
    /// The issuer, with the authorities for its TLS certificate where they are private.
    ///
    /// # Errors
    /// [`StartRefusal`] for an unusable TLS file.
    pub fn new(issuer: &str, tls_ca: Option<&Path>) -> Result<Self, StartRefusal> {
        let mut builder =
            reqwest::Client::builder().timeout(PATIENCE).redirect(redirect::Policy::none()).no_proxy();
        if let Some(path) = tls_ca {
            let refuse = |error: Box<dyn std::error::Error + Send + Sync>| {
                StartRefusal::new(
                    format!("[[oidc]] {issuer}: tls_ca_file {} cannot be used", path.display()),
                    "give a PEM file",
                )
                .because(error)
            };
            let pem = std::fs::read(path).map_err(|error| refuse(error.into()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| refuse(error.into()))?;
            builder = builder.tls_certs_only(roots);
        }
        let client = builder.build().map_err(|error| {
            StartRefusal::new(format!("[[oidc]] {issuer}: no HTTP client can be made"), "check tls_ca_file")
                .because(error)
        })?;
        Ok(Self { client, issuer: issuer.to_owned() })
    }

    async fn get(&self, url: &str, limit: usize) -> Result<Vec<u8>, OidcError> {
        let failed = |error: reqwest::Error| OidcError::Unavailable(error.to_string());
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        if response.status() != http::StatusCode::OK {
            return Err(OidcError::Unavailable(format!("{url} answers {}", response.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if chunk.len() > limit - body.len() {
                return Err(OidcError::Unavailable(format!("the answer of {url} is too large")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl KeySource for HttpKeys {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<Jwk>, OidcError>> {
        Box::pin(async move {
            let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
            let discovery: Discovery = serde_json::from_slice(&self.get(&url, MAX_DISCOVERY).await?)
                .map_err(|_| OidcError::Unavailable(format!("{url} is no discovery document")))?;
            // §4.3: else one issuer could speak for another.
            if discovery.issuer != self.issuer {
                return Err(OidcError::Unavailable(format!("{url} is of another issuer")));
            }
            if !may_be_asked(&discovery.jwks_uri) {
                return Err(OidcError::Unavailable(format!("{url}: jwks_uri is not https")));
            }
            Ok(parse_key_set(&self.get(&discovery.jwks_uri, MAX_KEY_SET).await?)?)
        })
    }
}
