//! `GET /openapi.json`: the description of this surface (OpenAPI 3.1), as it is checked in.

use http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::binary;

/// The description. A test compares it with the routes and with real answers.
pub const DOCUMENT: &str = include_str!("../../../docs/openapi/ca-service.json");

pub(super) fn routes() -> BoxedFilter<(Response,)> {
    warp::path!("openapi.json").and(warp::get()).map(show).boxed()
}

fn show() -> Response {
    let mut response = binary("application/json", DOCUMENT.as_bytes());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
