//! Requests with bounded answers and patient retries.

use std::io::Read as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;

use crate::error::Error;

/// Most characters of a refusal that are kept for the error text.
const DETAIL_LIMIT: usize = 2048;

/// Refusals are read up to this size also where the answer proper would have to be smaller.
const REFUSAL_LIMIT: usize = 64 * 1024;

/// How patient a client is with a log that answers 429, 502, 503 or 504, or cannot be reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// Wait before the second attempt when the log does not name one; doubled for each further attempt.
    pub wait: Duration,
    /// Longest wait between two attempts, also when the log asks for more.
    pub max_wait: Duration,
    /// Longest time for one attempt, from connecting to the last byte of the answer.
    pub timeout: Duration,
}

impl Default for RetryPolicy {
    /// Five attempts, one second apart and growing to at most ten, each at most 30 seconds long.
    fn default() -> Self {
        Self {
            attempts: 5,
            wait: Duration::from_secs(1),
            max_wait: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
        }
    }
}

/// A request that can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) body: Option<(&'static str, Bytes)>,
    pub(crate) bearer: Option<String>,
    /// Largest answer that is read.
    pub(crate) limit: usize,
}

/// The fields of a problem document (RFC 9457) that say why.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: Option<String>,
}

/// An answer whose body was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The answer as an error, for a status the caller does not expect.
    pub(crate) fn into_error(self) -> Error {
        let text = match serde_json::from_slice(&self.body) {
            Ok(Problem { code, detail: Some(detail) }) => format!("{code}: {detail}"),
            Ok(Problem { code, detail: None }) => code,
            Err(_) => String::from_utf8_lossy(&self.body).into_owned(),
        };
        let detail = text.chars().filter(|c| !c.is_control()).take(DETAIL_LIMIT).collect();
        Error::Status { status: self.status.as_u16(), detail }
    }

    /// Demands one of the given statuses.
    pub(crate) fn expect(self, statuses: &[StatusCode]) -> Result<Self, Error> {
        if statuses.contains(&self.status) { Ok(self) } else { Err(self.into_error()) }
    }
}

/// Sends a request until it is answered with something else than overload.
pub(crate) async fn send(client: &Client, policy: &RetryPolicy, request: &Request) -> Result<Answer, Error> {
    let mut wait = policy.wait;
    let mut attempt = 1;
    loop {
        let last = attempt >= policy.attempts.max(1);
        let pause = match send_once(client, policy, request).await {
            Ok(answer) if is_overload(answer.status) => {
                if last {
                    return Err(Error::Overloaded { status: answer.status.as_u16(), attempts: attempt });
                }
                retry_after(&answer.headers).unwrap_or(wait)
            }
            Ok(answer) => return Ok(answer),
            // Reads may always be repeated; writes only when nothing can have reached the log.
            Err(Error::Transport(error))
                if !last && (error.is_connect() || request.method == Method::GET) =>
            {
                wait
            }
            Err(error) => return Err(error),
        };
        tokio::time::sleep(pause.min(policy.max_wait)).await;
        wait = wait.saturating_mul(2).min(policy.max_wait);
        attempt += 1;
    }
}

async fn send_once(client: &Client, policy: &RetryPolicy, request: &Request) -> Result<Answer, Error> {
    let mut builder = client
        .request(request.method.clone(), &request.url)
        .timeout(policy.timeout)
        .header(ACCEPT_ENCODING, "gzip, identity");
    if let Some((content_type, body)) = &request.body {
        builder = builder.header(CONTENT_TYPE, *content_type).body(body.clone());
    }
    if let Some(token) = &request.bearer {
        builder = builder.bearer_auth(token);
    }
    let mut response = builder.send().await.map_err(Error::Transport)?;
    let status = response.status();
    let headers = response.headers().clone();
    let limit = if status.is_success() { request.limit } else { request.limit.max(REFUSAL_LIMIT) };
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(Error::Transport)? {
        if body.len() + chunk.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        body.extend_from_slice(&chunk);
    }
    let body = match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => body.freeze(),
        // Logs may serve stored gzip without asking who can read it.
        Some(b"gzip") => decompress(&body, limit)?,
        Some(_) => return Err(Error::Answer { what: "of an encoding asked for" }),
    };
    Ok(Answer { status, headers, body })
}

/// Decompresses at most `limit` bytes: a few bytes of gzip can stand for gigabytes.
fn decompress(body: &[u8], limit: usize) -> Result<Bytes, Error> {
    let mut plain = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(body)
        .take(most)
        .read_to_end(&mut plain)
        .map_err(|_| Error::Answer { what: "gzip, though it says so" })?;
    if plain.len() > limit { Err(Error::TooLarge { limit }) } else { Ok(plain.into()) }
}

fn is_overload(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// The wait a log asks for, in its form of whole seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
