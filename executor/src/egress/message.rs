//! A guest's request and its answer, as JSON.
//!
//! A request is brought into one form, and everything is decided on that form: `METHOD`, scheme, host, port, path, header
//! fields. What has two readings is refused, not repaired.

use executor_api::Base64Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use trust_store::capability::{Capability, HostPattern, Protocol};

use super::Refused;

/// Longest URL, bytes.
pub(crate) const MAX_URL: usize = 8 << 10;

/// Most header fields of a request.
const MAX_HEADERS: usize = 64;

/// Most bytes of names and values of the header fields of a request or an answer.
pub(super) const MAX_HEADER_BYTES: usize = 32 << 10;

/// Methods that have a body and an answer each, and nothing to do with tunnels.
pub(crate) const METHODS: &[&str] = &["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

/// Header fields that belong to the connection, or say again what the URL or the body says.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "get")]
    method: String,
    url: String,
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

/// A request in its one form.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    /// Lower-case host name or IPv4 address.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Outgoing {
    /// Reads what a guest wrote.
    pub(super) fn read(arguments: &[u8]) -> Result<Self, Refused> {
        let written: Written = serde_json::from_slice(arguments)
            .map_err(|_| Refused::Malformed("it is not of the documented form"))?;
        if !METHODS.contains(&written.method.as_str()) {
            return Err(Refused::Malformed("the method is none that guests may use"));
        }
        let method = Method::from_bytes(written.method.as_bytes())
            .map_err(|_| Refused::Malformed("the method is none that guests may use"))?;
        let (url, host, port) = target(&written.url)?;
        let body = match (written.body, written.text) {
            (None, None) => Vec::new(),
            (None, Some(text)) => text.into_bytes(),
            (Some(body), None) => body.0,
            (Some(_), Some(_)) => return Err(Refused::Malformed("`body` and `text` exclude each other")),
        };
        if !body.is_empty() && matches!(method, Method::GET | Method::HEAD) {
            return Err(Refused::Malformed("GET and HEAD have no body"));
        }
        Ok(Self { method, url, host, port, headers: headers(written.headers)?, body })
    }

    /// Whether the connection is encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The capability that a guest needs for this request.
    pub(super) fn capability(&self) -> Result<Capability, Refused> {
        let host = HostPattern::new(&self.host).map_err(|_| Refused::Malformed("the host is none"))?;
        let (protocol, default) =
            if self.is_encrypted() { (Protocol::Https, 443) } else { (Protocol::Http, 80) };
        Ok(Capability::Network { protocol, host, port: Some(self.port).filter(|port| *port != default) })
    }
}

/// Scheme, host and port, from a URL that has one reading only.
fn target(text: &str) -> Result<(Url, String, u16), Refused> {
    let no = |why| Err(Refused::Malformed(why));
    if text.len() > MAX_URL {
        return no("the URL is too long");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"<>^`{|}#".contains(&b)) {
        return no("the URL has a character that must be escaped, or a fragment");
    }
    let rest = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) | (None, Some(rest)) => rest,
        (None, None) => return no("the URL begins with neither https:// nor http://"),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return no("the URL names a user");
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let host = host.to_ascii_lowercase();
    // Names in their ASCII form without a trailing dot, and addresses in their plain form: what every library reads alike.
    if HostPattern::new(&host).map_or(true, |host| host.is_wildcard()) {
        return no("the host is no name in ASCII and no plain IPv4 address");
    }
    let Ok(url) = Url::parse(text) else { return no("the URL is none") };
    let written_port = match port {
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port != 0 && !digits.starts_with(['0', '+']) => Some(port),
            _ => return no("the port is none"),
        },
        None => None,
    };
    let Some(known_port) = url.port_or_known_default() else { return no("the port is none") };
    // The library must have read the same as we did.
    if url.host_str() != Some(host.as_str())
        || written_port.is_some_and(|port| port != known_port)
        || !url.username().is_empty()
        || url.password().is_some()
        || url.fragment().is_some()
    {
        return no("the URL can be read in two ways");
    }
    Ok((url, host, known_port))
}

/// Header fields as somebody wrote them, none of them the connection's.
pub(crate) fn headers(written: Vec<(String, String)>) -> Result<HeaderMap, Refused> {
    let bytes: usize = written.iter().map(|(name, value)| name.len() + value.len()).sum();
    if written.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(Refused::TooLarge("there are too many header fields, or they are too long"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Refused::Malformed("the name of a header field is none"))?;
        if OURS.contains(&name.as_str()) {
            return Err(Refused::Malformed("a header field belongs to the connection"));
        }
        let value = HeaderValue::from_str(&value)
            .map_err(|_| Refused::Malformed("the value of a header field has a control character"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[derive(Serialize)]
struct Answer<'a> {
    status: u16,
    headers: Vec<(&'a str, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Base64Bytes>,
    /// The body, where it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

/// An answer as it is read, at most `limit` bytes.
pub(crate) fn answer(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    limit: usize,
) -> Result<Vec<u8>, Refused> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MAX_HEADER_BYTES {
        return Err(Refused::TooLarge("the header fields of the answer are too long"));
    }
    let readable =
        headers.iter().filter(|(name, _)| !OURS.contains(&name.as_str()) || *name == "content-length");
    let headers =
        readable.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let text = std::str::from_utf8(body).ok();
    let body = text.is_none().then(|| Base64Bytes(body.to_vec()));
    let answer = serde_json::to_vec(&Answer { status, headers: headers.collect(), body, text })
        .map_err(|_| Refused::Unreachable("the answer cannot be written as JSON"))?;
    if answer.len() > limit {
        return Err(Refused::TooLarge("the answer is longer than one host call may give"));
    }
    Ok(answer)
}
