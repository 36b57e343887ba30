//! A request and its answer, as JSON: what the operation `request` of `network:` capabilities speaks, the other way round.

use std::convert::Infallible;

use bytes::Bytes;
use executor_api::Base64Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::combinators::MapErr;
use http_body_util::{BodyExt as _, Full};
use serde::Deserialize;
use wasmtime_wasi_http::Error;

use crate::egress::message::{self, MAX_URL, METHODS};

/// Whom a handler is asked as: there is no name and no port behind it.
const AUTHORITY: &str = "localhost";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "get")]
    method: String,
    #[serde(default = "root")]
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: Option<Base64Bytes>,
    /// The body as text instead.
    #[serde(default)]
    text: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// A body that is there as a whole.
pub(super) type Body = MapErr<Full<Bytes>, fn(Infallible) -> Error>;

/// An input that is no request: what an HTTP server would answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRequest {
    status: u16,
    why: &'static str,
}

impl NoRequest {
    /// The output of the call, at most `limit` bytes: nothing where it has no room.
    pub(super) fn answer(&self, limit: usize) -> Vec<u8> {
        message::answer(self.status, &HeaderMap::new(), self.why.as_bytes().to_vec(), limit)
            .unwrap_or_default()
    }
}

/// Reads the input of a call.
pub(super) fn read(input: &[u8]) -> Result<Request<Body>, NoRequest> {
    let no = |status, why| NoRequest { status, why };
    let written: Written =
        serde_json::from_slice(input).map_err(|_| no(400, "the input is not of the documented form"))?;
    if !METHODS.contains(&written.method.as_str()) {
        return Err(no(501, "the method is none that handlers are asked with"));
    }
    let method = Method::from_bytes(written.method.as_bytes())
        .map_err(|_| no(501, "the method is none that handlers are asked with"))?;
    if written.path.len() > MAX_URL {
        return Err(no(414, "the path is too long"));
    }
    let plain = |b: u8| b.is_ascii_graphic() && !b"\\\"<>^`{|}#".contains(&b);
    if !written.path.starts_with('/') || !written.path.bytes().all(plain) {
        return Err(no(400, "the path does not begin with a slash, or has a character that must be escaped"));
    }
    let uri = Uri::builder().scheme("http").authority(AUTHORITY).path_and_query(written.path).build();
    let uri = uri.map_err(|_| no(400, "the path is none"))?;
    let body = match (written.body, written.text) {
        (None, None) => Vec::new(),
        (None, Some(text)) => text.into_bytes(),
        (Some(body), None) => body.0,
        (Some(_), Some(_)) => return Err(no(400, "`body` and `text` exclude each other")),
    };
    if !body.is_empty() && matches!(method, Method::GET | Method::HEAD) {
        return Err(no(400, "GET and HEAD have no body"));
    }
    let mut headers = message::headers(written.headers).map_err(|refused| match refused {
        crate::egress::Refused::TooLarge(why) => no(431, why),
        crate::egress::Refused::Malformed(why) => no(400, why),
        _ => no(400, "a header field is none"),
    })?;
    if !body.is_empty() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let never: fn(Infallible) -> Error = |never| match never {};
    let mut request = Request::new(Full::new(Bytes::from(body)).map_err(never));
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
    Ok(request)
}

/// What a handler gave.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Given {
    /// Whether the handler says that it failed.
    pub(super) fn is_failure(&self) -> bool {
        self.status >= 500
    }

    /// The output of the call, at most `limit` bytes.
    pub(super) fn answer(self, limit: usize) -> Result<Vec<u8>, String> {
        message::answer(self.status, &self.headers, self.body, limit)
            .map_err(|refused| format!("the answer cannot be given: {refused}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(input: &str) -> u16 {
        read(input.as_bytes()).map(drop).unwrap_err().status
    }

    #[test]
    fn an_input_is_a_request_with_one_reading() {
        let request = read(b"{}").unwrap();
        assert_eq!(
            (request.method(), request.uri().to_string().as_str()),
            (&Method::GET, "http://localhost/")
        );
        let input =
            r#"{"method":"POST","path":"/a/b?c=d%20e","headers":[["X-One","1"],["x-one","2"]],"text":"hi"}"#;
        let request = read(input.as_bytes()).unwrap();
        assert_eq!(request.uri().path_and_query().unwrap(), "/a/b?c=d%20e");
        let ones: Vec<_> = request.headers().get_all("x-one").iter().collect();
        assert_eq!(ones, ["1", "2"]);
        assert_eq!(request.headers()[CONTENT_LENGTH], "2");
        let bytes = read(br#"{"method":"PUT","body":"/w=="}"#).unwrap();
        assert_eq!(bytes.headers()[CONTENT_LENGTH], "1");
    }

    #[test]
    fn what_is_no_request_is_answered_as_a_server_would() {
        let long = "a".repeat(MAX_URL);
        for (input, status) in [
            (String::new(), 400),
            ("hello".into(), 400),
            (r#"{"url":"/"}"#.into(), 400),
            (r#"{"method":"CONNECT"}"#.into(), 501),
            (r#"{"method":"get"}"#.into(), 501),
            (r#"{"path":"a"}"#.into(), 400),
            (r#"{"path":"http://other.example/"}"#.into(), 400),
            (r#"{"path":"/a b"}"#.into(), 400),
            (r#"{"path":"/a#b"}"#.into(), 400),
            (format!(r#"{{"path":"/{long}"}}"#), 414),
            (r#"{"text":"a","body":"YQ==","method":"PUT"}"#.into(), 400),
            (r#"{"text":"a"}"#.into(), 400),
            (r#"{"headers":[["host","evil.example"]]}"#.into(), 400),
            (r#"{"headers":[["content-length","9"]]}"#.into(), 400),
            (r#"{"headers":[["a","b\r\nc: d"]]}"#.into(), 400),
            (format!(r#"{{"headers":[["a","{}"]]}}"#, "b".repeat(40_000)), 431),
        ] {
            assert_eq!(refused(&input), status, "{}", &input[..input.len().min(80)]);
        }
        let answer = read(b"hello").map(drop).unwrap_err().answer(1000);
        let expected = br#"{"status":400,"headers":[],"text":"the input is not of the documented form"}"#;
        assert_eq!(answer, expected);
        let without_room = read(b"hello").map(drop).unwrap_err().answer(expected.len() - 1);
        assert_eq!(without_room, b"", "a worker that said more would be taken for one that lies");
    }
}
