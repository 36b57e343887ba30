//! The HTTP surface: routes, and nothing that decides.

mod authorities;
mod certificates;
mod codes;
pub mod fulcio;
pub mod openapi;
mod overview;
mod own;
mod page;
mod policy;
mod problem;
mod problem_reports;
mod queue;
mod request;
mod revocations;
pub mod roles;
mod status;
mod timestamp;
mod tokens;

use std::sync::Arc;

use warp::filters::BoxedFilter;
use warp::{Filter, Reply};

use crate::CertificateAuthority;

pub use problem::problem;
use roles::Access;

/// Route prefixes by which requests are counted.
pub const ROUTES: &[&str] = &[
    "/api/v1/certificates",
    "/api/v1/codes",
    "/api/v1/own",
    "/api/v1/policy",
    "/api/v1/problem-reports",
    "/api/v1/renewals",
    "/api/v1/requests",
    "/api/v1/revocations",
    "/api/v1/tokens",
    "/api/v1/timestamp",
    "/api/v1/authorities",
    "/api/v1/overview",
    "/openapi.json",
    "/page",
    "/api/v2/signingCert",
    "/api/v2",
    "/ocsp",
    "/crl",
    "/ca",
];

/// The methods that a path takes, for a 405's `Allow`.
#[must_use]
pub fn methods(path: &str) -> &'static str {
    match path {
        "/api/v1/certificates" | "/api/v1/problem-reports" | "/ocsp" => "GET, HEAD, POST",
        "/api/v1/tokens" | "/api/v1/codes" | "/api/v1/timestamp" | "/api/v2/signingCert" => "POST",
        "/api/v1/own/certificates" | "/api/v1/own/revocations" => "POST",
        "/api/v1/renewals" | "/api/v1/renewals/challenges" => "POST",
        "/api/v1/policy/explain" | "/api/v1/revocations" | "/api/v1/revocations/plan" => "POST",
        "/api/v1/requests/approve" | "/api/v1/requests/deny" => "POST",
        path if path.starts_with("/api/v1/certificates/") && path.ends_with("/revoke") => "POST",
        path if path.starts_with("/api/v1/problem-reports/") && path.ends_with("/close") => "POST",
        _ => "GET, HEAD",
    }
}

/// Everything the main listener answers.
#[must_use]
pub fn routes(
    authority: &Arc<CertificateAuthority>,
    access: &Access,
) -> BoxedFilter<(warp::reply::Response,)> {
    status_routes(authority)
        .or(certificates::routes(authority, access))
        .unify()
        .or(revocations::routes(authority, access))
        .unify()
        .or(own::routes(authority))
        .unify()
        .or(queue::routes(authority, access))
        .unify()
        .or(fulcio::routes(authority))
        .unify()
        .or(timestamp::routes(authority))
        .unify()
        .or(tokens::routes(authority, access))
        .unify()
        .or(codes::routes(authority))
        .unify()
        .or(policy::routes(authority, access))
        .unify()
        .or(problem_reports::routes(authority, access))
        .unify()
        .or(authorities::routes(authority))
        .unify()
        .or(overview::routes(authority, access))
        .unify()
        .or(page::routes())
        .unify()
        .boxed()
}

/// What the read-only listener answers, and the main one too: CRLs, CA certificates, OCSP, and the description of the surface.
#[must_use]
pub fn status_routes(authority: &Arc<CertificateAuthority>) -> BoxedFilter<(warp::reply::Response,)> {
    status::routes(authority).or(openapi::routes()).unify().boxed()
}

/// Gives a handler the CA.
fn with(
    authority: &Arc<CertificateAuthority>,
) -> impl Filter<Extract = (Arc<CertificateAuthority>,), Error = std::convert::Infallible> + Clone + use<> {
    let authority = Arc::clone(authority);
    warp::any().map(move || Arc::clone(&authority))
}

/// A JSON answer that no cache keeps.
fn json<T: serde::Serialize>(status: http::StatusCode, value: &T) -> warp::reply::Response {
    let mut response = warp::reply::json(value).into_response();
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

/// A binary answer of a media type.
fn binary(content_type: &'static str, body: impl Into<bytes::Bytes>) -> warp::reply::Response {
    let mut response = warp::reply::Response::new(body.into().into());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// The answer of a handler, or its problem document.
fn answer(
    outcome: Result<warp::reply::Response, service::Problem>,
) -> Result<warp::reply::Response, std::convert::Infallible> {
    Ok(outcome.unwrap_or_else(Reply::into_response))
}
