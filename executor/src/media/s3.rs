//! Objects in an S3 bucket: `GET` and create-only `PUT` under content-addressed names.
//!
//! Requests are signed in their query (Signature Version 4) and live for a minute. The bucket is not believed: what it gives is
//! bounded while it is read, and compared with its digest by the store above.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executor_engine::ModuleDigest;
use http::StatusCode;
use http::header::{CONTENT_TYPE, IF_NONE_MATCH};
use parking_lot::Mutex;
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use service::StartRefusal;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::{MediaBackend, MediaError, Until};
use crate::clock;
use crate::config::{BucketStyle, S3Settings};
use crate::runtime::AdmissionId;
use crate::waiting::{Interrupted, wait_for};

/// Requests of all guests under way.
const MAX_UNDER_WAY: usize = 64;

/// Those of one agent: a quarter, so that one whose objects are slow keeps no other from its own.
const MAX_OF_ONE: usize = MAX_UNDER_WAY / 4;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a signed request may be used.
const SIGNED_FOR: Duration = Duration::from_secs(60);

/// Attempts at an upload that another one of the same object came in between of.
const ATTEMPTS: usize = 3;

/// Time between two of them.
const PAUSE: Duration = Duration::from_millis(100);

/// Largest file with credentials, bytes.
const MAX_CREDENTIALS: usize = 16 << 10;

/// A bucket.
#[derive(Clone)]
pub(crate) struct S3 {
    bucket: Arc<Bucket>,
    credentials: Arc<Credentials>,
    prefix: String,
    client: reqwest::Client,
    runtime: Handle,
    under_way: Arc<Semaphore>,
    of_agents: Arc<Mutex<HashMap<AdmissionId, usize>>>,
}

/// One request of an agent, counted until this is dropped.
struct OfAgent {
    all: Arc<Mutex<HashMap<AdmissionId, usize>>>,
    admission: AdmissionId,
}

impl OfAgent {
    /// One more, unless there are as many as one may have.
    fn of(all: &Arc<Mutex<HashMap<AdmissionId, usize>>>, admission: AdmissionId) -> Option<Self> {
        let mut counts = all.lock();
        let count = counts.entry(admission).or_default();
        if *count >= MAX_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Self { all: Arc::clone(all), admission })
    }
}

impl Drop for OfAgent {
    fn drop(&mut self) {
        let mut counts = self.all.lock();
        if let Some(count) = counts.get_mut(&self.admission) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.admission);
            }
        }
    }
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3").field("bucket", &self.bucket.name()).finish_non_exhaustive()
    }
}

impl S3 {
    /// The bucket of the configuration. Requests run on the tokio runtime that this is called in; none is sent yet.
    pub(crate) fn new(settings: &S3Settings) -> Result<Self, StartRefusal> {
        let unusable =
            |what: &str| StartRefusal::new(format!("media.s3: {what}"), "correct the section [media.s3]");
        let url =
            reqwest::Url::parse(&settings.url).map_err(|error| unusable("`url` is no URL").because(error))?;
        let style = match settings.style {
            BucketStyle::Path => UrlStyle::Path,
            BucketStyle::VirtualHost => UrlStyle::VirtualHost,
        };
        let bucket = Bucket::new(url, style, settings.bucket.clone(), settings.region.clone())
            .map_err(|error| unusable("no address of the bucket can be made").because(error))?;
        let client = settings
            .tls
            .builder()?
            .connect_timeout(CONNECT)
            .timeout(settings.timeout)
            .build()
            .map_err(|error| unusable("no client can be made").because(error.without_url()))?;
        Ok(Self {
            bucket: Arc::new(bucket),
            credentials: Arc::new(credentials(settings)?),
            prefix: settings.prefix.clone(),
            client,
            runtime: Handle::current(),
            under_way: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            of_agents: Arc::default(),
        })
    }

    fn key(&self, digest: ModuleDigest) -> String {
        format!("{}{digest}", self.prefix)
    }

    fn now() -> Result<jiff::Timestamp, MediaError> {
        // A clock outside the calendar signs nothing that anybody accepts.
        jiff::Timestamp::from_second(clock::unix_seconds()).map_err(|_| MediaError::Unreachable)
    }

    fn wait<T: Send + 'static>(
        &self,
        until: &Until,
        work: impl Future<Output = Result<T, MediaError>> + Send + 'static,
    ) -> Result<T, MediaError> {
        let own = OfAgent::of(&self.of_agents, until.admission).ok_or(MediaError::Busy)?;
        let place = Arc::clone(&self.under_way).try_acquire_owned().map_err(|_| MediaError::Busy)?;
        let work = async move {
            let done = work.await;
            drop((place, own));
            done
        };
        wait_for(&self.runtime, work, &until.kill, until.deadline).unwrap_or_else(|interrupted| {
            Err(match interrupted {
                Interrupted::Broken => MediaError::Unreachable,
                Interrupted::Stopped => MediaError::Stopped,
                Interrupted::TimedOut => MediaError::TimedOut,
            })
        })
    }

    async fn get(self, digest: ModuleDigest, limit: u64) -> Result<Vec<u8>, MediaError> {
        let key = self.key(digest);
        let url =
            self.bucket.get_object(Some(&self.credentials), &key).sign_with_time(SIGNED_FOR, &Self::now()?);
        let mut response = self.client.get(url).send().await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(MediaError::NotFound),
            status => return Err(MediaError::Refused { status: status.as_u16() }),
        }
        if response.content_length().is_some_and(|length| length > limit) {
            return Err(MediaError::TooLarge);
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(MediaError::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn put(self, digest: ModuleDigest, media_type: String, bytes: Bytes) -> Result<(), MediaError> {
        let key = self.key(digest);
        let mut left = ATTEMPTS;
        loop {
            left = left.saturating_sub(1);
            let mut action = self.bucket.put_object(Some(&self.credentials), &key);
            // Signed, so that nobody between here and the bucket makes it a replacement.
            action.headers_mut().insert("if-none-match", "*");
            let url = action.sign_with_time(SIGNED_FOR, &Self::now()?);
            let request = self
                .client
                .put(url)
                .header(IF_NONE_MATCH, "*")
                .header(CONTENT_TYPE, media_type.as_str())
                .body(bytes.clone());
            let status = request.send().await.map_err(failed)?.status();
            match status {
                StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => return Ok(()),
                // Something is there already. Whoever may write to the bucket can put another thing under this name; reading compares,
                // and whoever reads learns that it was altered.
                StatusCode::PRECONDITION_FAILED => return Ok(()),
                // Somebody else is writing it at this moment.
                StatusCode::CONFLICT if left > 0 => tokio::time::sleep(PAUSE).await,
                status => return Err(MediaError::Refused { status: status.as_u16() }),
            }
        }
    }
}

impl MediaBackend for S3 {
    fn read(&self, digest: ModuleDigest, limit: u64, until: &Until) -> Result<Vec<u8>, MediaError> {
        self.wait(until, self.clone().get(digest, limit))
    }

    fn write(
        &self,
        digest: ModuleDigest,
        media_type: &str,
        bytes: &[u8],
        until: &Until,
    ) -> Result<(), MediaError> {
        let bytes = Bytes::copy_from_slice(bytes);
        self.wait(until, self.clone().put(digest, media_type.to_owned(), bytes))
    }
}

/// Sorts what the client reports by type. Its text has the signed address in it and goes nowhere.
fn failed(error: reqwest::Error) -> MediaError {
    if error.is_timeout() { MediaError::TimedOut } else { MediaError::Unreachable }
}

/// Access key, secret key and, where there is one, session token: a line each.
fn credentials(settings: &S3Settings) -> Result<Credentials, StartRefusal> {
    let path = &settings.credentials_file;
    let refuse = || {
        let what = format!("{} holds no credentials", path.display());
        StartRefusal::new(
            what,
            "write the access key, the secret key and, if there is one, the session token, a line each",
        )
    };
    let bytes = service::secret::read(path, MAX_CREDENTIALS)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| refuse())?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [key, secret] => Ok(Credentials::new(*key, *secret)),
        [key, secret, token] => Ok(Credentials::new_with_token(*key, *secret, *token)),
        _ => Err(refuse()),
    }
}

#[cfg(test)]
#[path = "s3_tests.rs"]
mod tests;
