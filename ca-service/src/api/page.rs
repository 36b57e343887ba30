//! The page for operators: static files that show what the read-only role may see. What they ask for is what every client asks for.
//!
//! The page may load nothing from elsewhere, run nothing inline and send nothing out: its policy says so.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::filters::path::FullPath;
use warp::reply::Response;

use super::binary;

/// Scripts and styles of this server only, requests to this server only, no frames, no forms, no markup from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

pub(super) fn routes() -> BoxedFilter<(Response,)> {
    // The path first: of paths that there are not, the method is nothing to complain about.
    warp::path::full()
        .and_then(|path: FullPath| async move { file(path.as_str()).ok_or_else(warp::reject::not_found) })
        .and(warp::get())
        .boxed()
}

/// A file of the page by the request's path.
fn file(path: &str) -> Option<Response> {
    let (content_type, text) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("../../web/index.html")),
        "/page/page.css" => ("text/css; charset=utf-8", include_str!("../../web/page.css")),
        "/page/page.js" => ("text/javascript; charset=utf-8", include_str!("../../web/page.js")),
        "/page/icon.svg" => ("image/svg+xml", include_str!("../../web/icon.svg")),
        _ => return None,
    };
    let mut response = binary(content_type, text.as_bytes());
    let headers = response.headers_mut();
    for (name, value) in [
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
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &str); 3] = [
        ("/", include_str!("../../web/index.html")),
        ("/page/page.css", include_str!("../../web/page.css")),
        ("/page/page.js", include_str!("../../web/page.js")),
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
                "localStorage",
                "sessionStorage",
                "document.cookie",
                "://",
            ] {
                assert!(!text.contains(banned), "{path} holds {banned}");
            }
        }
    }
}
