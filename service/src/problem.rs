//! Problem documents (RFC 9457): what a client is told when a request is refused.
//!
//! A problem has a stable `code` for programs, a `detail` for people outside, and an internal text that goes to the log
//! and never to the client. Server errors carry an `instance` that is logged with the internal text, so that an
//! operator finds the one by the other.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Media type of a problem document.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";
/// What a code is prefixed with to make the document's `type`.
pub const TYPE_PREFIX: &str = "urn:mentat:problem:";

/// A refusal. `Problem` is a warp reply and converts into a rejection, so handlers may return it with `?`.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: Option<String>,
    internal: Option<Arc<str>>,
    retry_after: Option<u32>,
    allow: Option<&'static str>,
    members: Option<Box<Map<String, Value>>>,
}

/// The document as it is sent; clients parse it with this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProblemDocument {
    /// `urn:mentat:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// Stable code for programs.
    pub code: String,
    /// Short text of the status.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong with this request and what to do; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Names this occurrence in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Members a server adds for its own codes.
    #[serde(flatten)]
    pub members: Map<String, Value>,
}

impl Problem {
    /// A problem with a stable code (`lower_snake_case`).
    #[must_use]
    pub fn new(status: StatusCode, code: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code: code.into(),
            detail: None,
            internal: None,
            retry_after: None,
            allow: None,
            members: None,
        }
    }

    /// 400 with a code.
    #[must_use]
    pub fn bad_request(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code).with_detail(detail)
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found").with_detail(detail)
    }

    /// 401; tells the client to send a bearer token.
    #[must_use]
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized").with_detail(detail)
    }

    /// 403.
    #[must_use]
    pub fn forbidden(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code).with_detail(detail)
    }

    /// 409.
    #[must_use]
    pub fn conflict(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code).with_detail(detail)
    }

    /// 405: the path takes these methods (`GET, HEAD`) only.
    #[must_use]
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
            .with_detail(format!("this path does not accept the request's method; it takes {allow}"))
            .with_allow(allow)
    }

    /// Names the methods that the path does take, which a 405 must (RFC 9110 section 15.5.6).
    #[must_use]
    pub const fn with_allow(mut self, allow: &'static str) -> Self {
        self.allow = Some(allow);
        self
    }

    /// 413: the body is over the limit.
    #[must_use]
    pub fn too_large(limit: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large")
            .with_detail(format!("the request body is longer than {limit} bytes"))
    }

    /// 429: retry after this many seconds.
    #[must_use]
    pub fn too_many_requests(retry_after_seconds: u32) -> Self {
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests")
            .with_detail("too many requests from this client; wait and retry");
        problem.retry_after = Some(retry_after_seconds);
        problem
    }

    /// 503: retry after this many seconds.
    #[must_use]
    pub fn unavailable(code: impl Into<Cow<'static, str>>, retry_after_seconds: u32) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code);
        problem.retry_after = Some(retry_after_seconds);
        problem
    }

    /// 507: no space is left where this would be recorded. Not 503: asking again at once does not help.
    #[must_use]
    pub fn storage_full(error: impl fmt::Display) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full")
            .with_detail(
                "the server's disk is full and nothing was recorded; free space on it, then repeat the call",
            )
            .with_retry_after(30)
            .with_internal(error)
    }

    /// 500; the error goes to the log, not to the client.
    #[must_use]
    pub fn internal(error: impl fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal").with_internal(error)
    }

    /// Adds the text for people outside.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the text for the log only.
    #[must_use]
    pub fn with_internal(mut self, internal: impl fmt::Display) -> Self {
        self.internal = Some(Arc::from(internal.to_string()));
        self
    }

    /// Adds a `Retry-After` header.
    #[must_use]
    pub const fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Adds a member to the document. The standard members cannot be replaced.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        if !matches!(name, "type" | "code" | "title" | "status" | "detail" | "instance") {
            self.members.get_or_insert_default().insert(name.to_owned(), value.into());
        }
        self
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The text for people outside.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The text for the log only.
    #[must_use]
    pub fn internal_text(&self) -> Option<&str> {
        self.internal.as_deref()
    }

    /// Logs the internal text and gives the document.
    #[must_use]
    pub fn to_document(&self) -> ProblemDocument {
        let instance = self.status.is_server_error().then(next_instance);
        let (code, status) = (&*self.code, self.status.as_u16());
        match (&instance, self.internal.as_deref()) {
            (Some(instance), internal) if self.status != StatusCode::SERVICE_UNAVAILABLE => {
                tracing::error!(code, status, instance, internal, "request failed");
            }
            (_, Some(internal)) => tracing::info!(code, status, internal, "request refused"),
            (_, None) => tracing::debug!(code, status, detail = self.detail, "request refused"),
        }
        ProblemDocument {
            kind: format!("{TYPE_PREFIX}{code}"),
            code: code.to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status,
            detail: self.detail.clone(),
            instance,
            members: self.members.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// The response: document, media type, `Retry-After`, `WWW-Authenticate`, and `Cache-Control: no-store`.
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        let document = serde_json::to_vec(&self.to_document()).unwrap_or_default();
        let mut response = Response::new(Bytes::from(document));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.code)?;
        self.detail.as_deref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

impl std::error::Error for Problem {}

impl warp::Reply for Problem {
    fn into_response(self) -> warp::reply::Response {
        self.to_response().map(Into::into)
    }
}

impl warp::reject::Reject for Problem {}

/// A name for one occurrence, unique in this process's log.
fn next_instance() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("urn:mentat:instance:{:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_members_of_rfc_9457_and_no_internal_text() {
        let problem = Problem::bad_request("csr_weak_key", "use P-256")
            .with_internal("password=hunter2")
            .with_member("offset", 7)
            .with_member("status", 200);
        let response = problem.to_response();
        assert_eq!(response.headers()[CONTENT_TYPE], CONTENT_TYPE_PROBLEM);
        let document: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "type": "urn:mentat:problem:csr_weak_key", "code": "csr_weak_key", "title": "Bad Request",
                "status": 400, "detail": "use P-256", "offset": 7
            })
        );
    }

    #[test]
    fn server_errors_name_their_log_line_and_nothing_else() {
        let response = Problem::internal("disk /dev/sda1 failed").to_response();
        let document: ProblemDocument = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(document.detail, None);
        assert!(document.instance.unwrap().starts_with("urn:mentat:instance:"));
        assert!(!response.body().windows(3).any(|w| w == b"sda"));
    }

    #[test]
    fn waiting_and_authentication_are_said_in_headers() {
        assert_eq!(Problem::too_many_requests(3).to_response().headers()[RETRY_AFTER], "3");
        let post_only = Problem::method_not_allowed("POST");
        assert_eq!(
            (post_only.to_response().headers()[ALLOW].as_bytes(), post_only.code()),
            (&b"POST"[..], "method_not_allowed")
        );
        let full = Problem::storage_full("/dev/sda1: ENOSPC").to_response();
        assert_eq!((full.status().as_u16(), full.headers()[RETRY_AFTER].as_bytes()), (507, &b"30"[..]));
        assert_eq!(Problem::unauthorized("x").to_response().headers()[WWW_AUTHENTICATE], "Bearer");
    }
}
