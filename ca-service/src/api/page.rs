//! The page for operators: static files that show what the read-only role may see. What they ask for is what every client asks for.

use service::page::{self, Kind};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::filters::path::FullPath;
use warp::reply::Response;

pub(super) fn routes() -> BoxedFilter<(Response,)> {
    // The path first: of paths that there are not, the method is nothing to complain about.
    warp::path::full()
        .and_then(|path: FullPath| async move { file(path.as_str()).ok_or_else(warp::reject::not_found) })
        .and(warp::get())
        .boxed()
}

/// A file of the page by the request's path.
fn file(path: &str) -> Option<Response> {
    let (kind, text) = match path {
        "/" => (Kind::Html, include_str!("../../web/index.html")),
        "/page/page.css" => (Kind::Style, include_str!("../../web/page.css")),
        "/page/page.js" => (Kind::Script, include_str!("../../web/page.js")),
        "/page/icon.svg" => (Kind::Svg, include_str!("../../web/icon.svg")),
        _ => return None,
    };
    Some(page::answer(kind, text).map(Into::into))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_with_the_policy_and_nothing_else_is() {
        for path in ["/", "/page/page.css", "/page/page.js", "/page/icon.svg"] {
            assert_eq!(file(path).unwrap().headers()["content-security-policy"], page::POLICY, "{path}");
        }
        for path in ["", "/page", "/page/", "/page/../page.js", "/page/page.js/", "/index.html"] {
            assert!(file(path).is_none(), "{path}");
        }
    }
}
