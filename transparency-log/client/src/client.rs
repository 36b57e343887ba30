//! One log behind its base URL, or its copy in a folder: reading checkpoints, tiles, bundles.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tlog::bundle::MAX_BUNDLE_SIZE;
use tlog::note::MAX_NOTE_SIZE;
use tlog::{BundleId, Policy, SignatureVerifier, TileId, TilePath, VerifiedCheckpoint, VerifierKey};

use crate::error::Error;
use crate::folder;
use crate::http::{self, Answer, Request, RetryPolicy};
use crate::tiles::TileCache;

/// Largest JSON answer that is read.
pub(crate) const JSON_LIMIT: usize = 8 * 1024 * 1024;

/// Where a log's files come from.
#[derive(Clone, Debug)]
enum Source {
    Folder(Arc<Path>),
    Server(reqwest::Client),
}

/// A log at a base URL, or a copy of one in a folder. Cheap to clone; clones share connections and the cache of verified tiles.
///
/// What the log says is not trusted: methods that return `Verified…` values or proofs have checked them, the
/// others say that they return bytes.
#[derive(Clone, Debug)]
pub struct LogClient {
    source: Source,
    base: Arc<str>,
    retry: RetryPolicy,
    bearer: Option<Arc<str>>,
    cache: Arc<TileCache>,
}

impl LogClient {
    /// A client for the log at `base_url`, such as `https://log.example` or `http://127.0.0.1:8080/issuance`. TLS
    /// settings, proxies and connection pools are those of `http`.
    ///
    /// # Errors
    /// [`Error::BaseUrl`] unless it is an absolute http or https URL without query and fragment.
    pub fn new(http: reqwest::Client, base_url: &str) -> Result<Self, Error> {
        let url = reqwest::Url::parse(base_url).map_err(|_| Error::BaseUrl { url: base_url.to_owned() })?;
        if !matches!(url.scheme(), "http" | "https")
            || url.cannot_be_a_base()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(Error::BaseUrl { url: base_url.to_owned() });
        }
        Ok(Self {
            source: Source::Server(http),
            base: url.as_str().trim_end_matches('/').into(),
            retry: RetryPolicy::default(),
            bearer: None,
            cache: Arc::default(),
        })
    }

    /// A reader of a log's copy in a folder, in the form in which logs publish themselves, as `mentatctl log export` writes it. What
    /// it returns is checked as a server's answers are; whatever else a server does has status 404 or 405 here.
    #[must_use]
    pub fn over_folder(folder: &Path) -> Self {
        Self {
            source: Source::Folder(folder.into()),
            base: folder.to_string_lossy().into(),
            retry: RetryPolicy::default(),
            bearer: None,
            cache: Arc::default(),
        }
    }

    /// Sets how patient the client is.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { retry, ..self }
    }

    /// Sends `Authorization: Bearer` with every request.
    #[must_use]
    pub fn with_bearer(self, token: &str) -> Self {
        Self { bearer: Some(token.into()), ..self }
    }

    /// Whether it reads a copy in a folder.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        matches!(self.source, Source::Folder(_))
    }

    /// The base URL without trailing slash, or the folder.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// The published checkpoint as bytes, not verified.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::TooLarge`] and transport errors.
    pub async fn checkpoint_note(&self) -> Result<Bytes, Error> {
        Ok(self.get("checkpoint", MAX_NOTE_SIZE).await?.expect(&[StatusCode::OK])?.body)
    }

    /// Fetches the published checkpoint and verifies it.
    ///
    /// # Errors
    /// As [`checkpoint_note`](Self::checkpoint_note) and [`VerifiedCheckpoint::open`].
    pub async fn checkpoint(
        &self,
        origin: &str,
        keys: &[VerifierKey],
        verifier: &dyn SignatureVerifier,
    ) -> Result<VerifiedCheckpoint, Error> {
        let note = self.checkpoint_note().await?;
        Ok(VerifiedCheckpoint::open(&note, origin, keys, verifier)?)
    }

    /// Fetches the published checkpoint and verifies it under a policy, with its quorum of witnesses.
    ///
    /// # Errors
    /// As [`checkpoint_note`](Self::checkpoint_note) and [`Policy::open`].
    pub async fn checkpoint_under(
        &self,
        policy: &Policy,
        verifier: &dyn SignatureVerifier,
    ) -> Result<VerifiedCheckpoint, Error> {
        let note = self.checkpoint_note().await?;
        Ok(policy.open(&note, verifier)?)
    }

    /// The bytes of a tile, not verified. A partial tile that is gone is cut from the full one.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::TooLarge`] and transport errors.
    pub async fn tile(&self, id: TileId) -> Result<Bytes, Error> {
        let full = TilePath::Hashes(id.to_full());
        let bytes = self.resource(TilePath::Hashes(id), full, id.to_full().byte_len()).await?;
        // A full tile in the place of a partial one is cut; anything else is left for verification to refuse.
        Ok(if bytes.len() == id.to_full().byte_len() { bytes.slice(..id.byte_len()) } else { bytes })
    }

    /// The bytes of an entry bundle, not verified: either exactly this one or, when it is gone, the full one.
    /// The second value says which.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::TooLarge`] and transport errors.
    pub async fn bundle(&self, id: BundleId) -> Result<(BundleId, Bytes), Error> {
        self.partial_or_full(id, TilePath::Entries, MAX_BUNDLE_SIZE).await
    }

    /// The bytes of a certificate log's data tile, as [`bundle`](Self::bundle).
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::TooLarge`] and transport errors.
    pub async fn data_tile(&self, id: BundleId) -> Result<(BundleId, Bytes), Error> {
        self.partial_or_full(id, TilePath::Data, MAX_BUNDLE_SIZE).await
    }

    pub(crate) fn cache(&self) -> &TileCache {
        &self.cache
    }

    pub(crate) async fn get(&self, path: &str, limit: usize) -> Result<Answer, Error> {
        self.send(Method::GET, path, None, limit).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, Error> {
        self.post_with_limit(path, content_type, body, JSON_LIMIT).await
    }

    pub(crate) async fn post_with_limit(
        &self,
        path: &str,
        content_type: &'static str,
        body: Bytes,
        limit: usize,
    ) -> Result<Answer, Error> {
        self.send(Method::POST, path, Some((content_type, body)), limit).await
    }

    pub(crate) async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        what: &'static str,
    ) -> Result<T, Error> {
        let answer = self.get(path, JSON_LIMIT).await?.expect(&[StatusCode::OK])?;
        serde_json::from_slice(&answer.body).map_err(|_| Error::Answer { what })
    }

    pub(crate) async fn get_query_json<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        what: &'static str,
    ) -> Result<T, Error> {
        let query = query.iter().map(|(name, value)| {
            let value: String = url_encode(value);
            format!("{name}={value}")
        });
        let query: Vec<String> = query.collect();
        self.get_json(&format!("{path}?{}", query.join("&")), what).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Bytes)>,
        limit: usize,
    ) -> Result<Answer, Error> {
        let http = match &self.source {
            Source::Folder(folder) if method == Method::GET => {
                return folder::read(folder, path, limit).await;
            }
            Source::Folder(_) => {
                let detail = "a copy in a folder takes nothing".to_owned();
                return Err(Error::Status { status: StatusCode::METHOD_NOT_ALLOWED.as_u16(), detail });
            }
            Source::Server(http) => http,
        };
        let bearer = self.bearer.as_deref().map(str::to_owned);
        let request = Request { method, url: format!("{}/{path}", self.base), body, bearer, limit };
        http::send(http, &self.retry, &request).await
    }

    async fn partial_or_full(
        &self,
        id: BundleId,
        path: fn(BundleId) -> TilePath,
        limit: usize,
    ) -> Result<(BundleId, Bytes), Error> {
        let answer = self.get(&path(id).to_string(), limit).await?;
        if is_gone(answer.status) && !id.is_full() {
            let full = self.get(&path(id.to_full()).to_string(), limit).await?;
            return Ok((id.to_full(), full.expect(&[StatusCode::OK])?.body));
        }
        Ok((id, answer.expect(&[StatusCode::OK])?.body))
    }

    async fn resource(&self, path: TilePath, full: TilePath, limit: usize) -> Result<Bytes, Error> {
        let answer = self.get(&path.to_string(), limit).await?;
        if is_gone(answer.status) && path != full {
            return Ok(self.get(&full.to_string(), limit).await?.expect(&[StatusCode::OK])?.body);
        }
        Ok(answer.expect(&[StatusCode::OK])?.body)
    }
}

/// A value of a query: everything but unreserved characters (RFC 3986 section 2.3) as percent and hexadecimal.
fn url_encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn is_gone(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}
