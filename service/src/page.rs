//! The page of a server: static files, served from memory to browsers of people.
//!
//! A page may load nothing from elsewhere, run nothing inline, send nothing out and be framed by nobody: its policy says so, for every
//! server in the same words (Content Security Policy level 3, Trusted Types).

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Response};

/// Scripts and styles of this server only, requests to this server only, no frames, no forms, no markup from text.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
                          form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTML in UTF-8.
    Html,
    /// A module of JavaScript in UTF-8.
    Script,
    /// A style sheet in UTF-8.
    Style,
    /// An image in SVG.
    Svg,
}

impl Kind {
    fn media_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
            Self::Svg => "image/svg+xml",
        }
    }
}

/// A file of the page as an answer.
pub fn answer(kind: Kind, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    headers(kind, response.headers_mut());
    response
}

fn headers(kind: Kind, headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_TYPE, kind.media_type()),
        // The files belong together: a browser asks again rather than mix two versions.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_says_what_it_is_and_what_a_browser_may_do_with_it() {
        for (kind, expected) in [
            (Kind::Html, "text/html; charset=utf-8"),
            (Kind::Script, "text/javascript; charset=utf-8"),
            (Kind::Style, "text/css; charset=utf-8"),
            (Kind::Svg, "image/svg+xml"),
        ] {
            let answer = answer(kind, "x");
            let said: Vec<(&str, &str)> = answer
                .headers()
                .iter()
                .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                .collect();
            let wanted = [
                ("content-type", expected),
                ("cache-control", "no-cache"),
                ("content-security-policy", POLICY),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
            ];
            assert_eq!(said, wanted);
            assert_eq!(answer.body().as_ref(), b"x");
        }
    }
}
