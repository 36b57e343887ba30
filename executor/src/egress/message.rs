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
    text: Option<String>,
}

/// An answer as it is read, at most `limit` bytes. One that would be longer is not written first: six bytes may stand for one of its body.
pub(crate) fn answer(
    status: u16,
    headers: &HeaderMap,
    body: Vec<u8>,
    limit: usize,
) -> Result<Vec<u8>, Refused> {
    const TOO_LONG: Refused = Refused::TooLarge("the answer is longer than one host call may give");
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > MAX_HEADER_BYTES {
        return Err(Refused::TooLarge("the header fields of the answer are too long"));
    }
    let readable =
        headers.iter().filter(|(name, _)| !OURS.contains(&name.as_str()) || *name == "content-length");
    let headers =
        readable.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    let (body, text) = match String::from_utf8(body) {
        Ok(text) => (None, Some(text)),
        Err(binary) => (Some(Base64Bytes(binary.into_bytes())), None),
    };
    // Base64 is made in one piece, four bytes of three.
    if body.as_ref().is_some_and(|body| (body.0.len() / 3).saturating_mul(4) > limit) {
        return Err(TOO_LONG);
    }
    let mut answer = Within { bytes: Vec::new(), limit };
    serde_json::to_writer(&mut answer, &Answer { status, headers: headers.collect(), body, text }).map_err(
        |error| {
            if error.is_io() {
                TOO_LONG
            } else {
                Refused::Unreachable("the answer cannot be written as JSON")
            }
        },
    )?;
    Ok(answer.bytes)
}

/// Takes so many bytes, and then fails.
struct Within {
    bytes: Vec<u8>,
    limit: usize,
}

impl std::io::Write for Within {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        if piece.len() > self.limit.saturating_sub(self.bytes.len()) {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_may_be_and_no_longer() {
        for body in [vec![1; 1000], vec![b'a'; 1000], vec![0xff; 1000]] {
            let give = |limit| answer(200, &HeaderMap::new(), body.clone(), limit).map(|answer| answer.len());
            let length = give(usize::MAX).unwrap();
            assert_eq!(give(length), Ok(length));
            for less in [length - 1, 1000, 10, 0] {
                assert_eq!(give(less).unwrap_err().reason(), "egress_too_large", "{less} of {length}");
            }
        }
    }

    /// What is refused is not written first: of a body of control characters that would be six times its length.
    #[test]
    fn what_is_too_long_is_not_written_to_its_end() {
        let mut answer = Within { bytes: Vec::new(), limit: 10_000 };
        let refused = serde_json::to_writer(&mut answer, &"\u{1}".repeat(10_000)).unwrap_err();
        assert!(refused.is_io() && answer.bytes.len() <= 10_000);
        assert!(answer.bytes.capacity() <= 20_000, "{}", answer.bytes.capacity());
    }
}
