//! The page for people: static files that show what everybody may read. They are served from memory.
//!
//! The page may load nothing from elsewhere, run nothing inline and send nothing out: its policy says so.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue};
use service::Problem;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::{Context, Route, any_of};

/// Scripts and styles of this server only, requests to this server only, no frames, no forms, no markup from text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

pub(super) fn routes(context: BoxedFilter<(Context,)>) -> Route {
    any_of([
        warp::path::end().and(warp::get()).and(context.clone()).map(|_: Context| answer("")).boxed(),
        warp::path!("page" / String)
            .and(warp::get())
            .and(context)
            .map(|name: String, _: Context| answer(&name))
            .boxed(),
    ])
}

/// A file of the page by its name; the empty one is the page itself.
fn file(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "" => ("text/html; charset=utf-8", include_str!("../../../web/index.html")),
        "page.css" => ("text/css; charset=utf-8", include_str!("../../../web/page.css")),
        "page.js" => ("text/javascript; charset=utf-8", include_str!("../../../web/page.js")),
        "icon.svg" => ("image/svg+xml", include_str!("../../../web/icon.svg")),
        _ => return None,
    })
}

fn answer(name: &str) -> Response {
    let Some((kind, text)) = file(name) else {
        return Problem::not_found("the page has no such file").into_response();
    };
    let mut response = Response::new(Bytes::from_static(text.as_bytes()).into());
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
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
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_with_the_policy_and_nothing_else_is() {
        for name in ["", "page.css", "page.js", "icon.svg"] {
            let response = answer(name);
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY, "{name}");
        }
        for name in ["index.html", "../page.js", "page.js/", "."] {
            assert_eq!(answer(name).status(), 404, "{name}");
        }
    }

    /// What the policy would stop must not be there in the first place, and text of others never becomes markup.
    #[test]
    fn no_file_holds_inline_scripts_foreign_addresses_or_markup_from_text() {
        for name in ["", "page.css", "page.js"] {
            let (_, text) = file(name).unwrap();
            for banned in [
                "innerHTML",
                "outerHTML",
                "insertAdjacent",
                "document.write",
                "eval(",
                "Function(",
                "style=",
                "onclick=",
                "javascript:",
                "://",
                "<style",
            ] {
                assert!(!text.contains(banned), "{name} holds {banned}");
            }
        }
        assert_eq!(file("").unwrap().1.matches("<script").count(), 1);
    }
}
