//! The page for people: static files that search, decode and verify in the browser. They are served from memory; what
//! they ask for are the reads that everybody has.
//!
//! The page may load nothing from elsewhere, run nothing inline and send nothing out: its policy says so.

use bytes::Bytes;
use http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::api::respond;

/// Scripts and styles of this server only, requests to this server only, no frames, no forms, no markup from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";
/// The files belong together: a browser asks again rather than mix two versions.
const CACHE: &str = "no-cache";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page by the request's path.
pub(crate) fn file(path: &str) -> Option<Response<Full<Bytes>>> {
    let (content_type, text) = match path {
        "/" => (HTML, include_str!("../web/index.html")),
        "/page/page.css" => (CSS, include_str!("../web/page.css")),
        "/page/page.js" => (SCRIPT, include_str!("../web/page.js")),
        "/page/artifact.js" => (SCRIPT, include_str!("../web/artifact.js")),
        "/page/bytes.js" => (SCRIPT, include_str!("../web/bytes.js")),
        "/page/certificate.js" => (SCRIPT, include_str!("../web/certificate.js")),
        "/page/der.js" => (SCRIPT, include_str!("../web/der.js")),
        "/page/entry.js" => (SCRIPT, include_str!("../web/entry.js")),
        "/page/event.js" => (SCRIPT, include_str!("../web/event.js")),
        "/page/merkle.js" => (SCRIPT, include_str!("../web/merkle.js")),
        "/page/note.js" => (SCRIPT, include_str!("../web/note.js")),
        "/page/icon.svg" => ("image/svg+xml", include_str!("../web/icon.svg")),
        _ => return None,
    };
    let mut response = respond(StatusCode::OK, content_type, CACHE, Bytes::from_static(text.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &str); 11] = [
        ("/", include_str!("../web/index.html")),
        ("/page/page.css", include_str!("../web/page.css")),
        ("/page/page.js", include_str!("../web/page.js")),
        ("/page/artifact.js", include_str!("../web/artifact.js")),
        ("/page/bytes.js", include_str!("../web/bytes.js")),
        ("/page/certificate.js", include_str!("../web/certificate.js")),
        ("/page/der.js", include_str!("../web/der.js")),
        ("/page/entry.js", include_str!("../web/entry.js")),
        ("/page/event.js", include_str!("../web/event.js")),
        ("/page/merkle.js", include_str!("../web/merkle.js")),
        ("/page/note.js", include_str!("../web/note.js")),
    ];

    #[test]
    fn every_file_is_served_with_the_policy_and_nothing_else_is() {
        for (path, _) in FILES {
            let response = file(path).unwrap();
            assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY, "{path}");
            assert_eq!(response.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        }
        for path in ["", "/page", "/page/", "/page/../page.js", "/page/page.js/", "/index.html"] {
            assert!(file(path).is_none(), "{path}");
        }
    }

    /// What the policy would stop must not be there in the first place, and text of others never becomes markup.
    #[test]
    fn no_file_holds_inline_scripts_foreign_addresses_or_markup_from_text() {
        for (path, text) in FILES {
            for banned in [
                "innerHTML",
                "outerHTML",
                "insertAdjacent",
                "document.write",
                "eval(",
                "Function(",
                "style=",
                "onclick=\"",
                "javascript:",
            ] {
                assert!(!text.contains(banned), "{path} holds {banned}");
            }
            for (at, _) in text.match_indices("://") {
                let from = text[..at].rfind([' ', '"', '`', '(']).map_or(0, |at| at + 1);
                // Only the example of an event type, which is a name and is never fetched.
                assert!(
                    text[from..].starts_with("https://mentat.internal/"),
                    "{path}: {}",
                    &text[from..at + 20]
                );
            }
        }
        assert!(!FILES[0].1.contains("<style") && FILES[0].1.matches("<script").count() == 1);
    }

    #[test]
    fn every_import_of_a_script_is_a_file() {
        for (path, text) in FILES.iter().filter(|(path, _)| path.ends_with(".js")) {
            for import in text.lines().filter_map(|line| line.split(" from \"./").nth(1)) {
                let name = import.split('"').next().unwrap();
                assert!(file(&format!("/page/{name}")).is_some(), "{path} imports {name}");
            }
        }
    }
}
