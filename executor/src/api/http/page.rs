//! The page for people: static files, served from memory to everybody. They hold nothing of what they show; that the page asks
//! for in the role of whoever looks at it.

use service::Problem;
use service::page::{self, Kind};
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Reply as _};

use super::{Context, Route, any_of};

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
fn file(name: &str) -> Option<(Kind, &'static str)> {
    Some(match name {
        "" => (Kind::Html, include_str!("../../../web/index.html")),
        "page.css" => (Kind::Style, include_str!("../../../web/page.css")),
        "page.js" => (Kind::Script, include_str!("../../../web/page.js")),
        "icon.svg" => (Kind::Svg, include_str!("../../../web/icon.svg")),
        _ => return None,
    })
}

fn answer(name: &str) -> Response {
    match file(name) {
        Some((kind, text)) => page::answer(kind, text).map(Into::into),
        None => Problem::not_found("the page has no such file").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_served_with_the_policy_and_nothing_else_is() {
        for name in ["", "page.css", "page.js", "icon.svg"] {
            let response = answer(name);
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-security-policy"], page::POLICY, "{name}");
        }
        for name in ["index.html", "../page.js", "page.js/", "."] {
            assert_eq!(answer(name).status(), 404, "{name}");
        }
    }
}
