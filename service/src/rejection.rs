//! The one place where a warp rejection becomes a problem document.

use std::convert::Infallible;
use std::error::Error;

use http::StatusCode;
use warp::Reply;
use warp::filters::body::BodyDeserializeError;
use warp::reject::{
    InvalidHeader, InvalidQuery, LengthRequired, MethodNotAllowed, MissingHeader, PayloadTooLarge, Rejection,
    UnsupportedMediaType,
};

use crate::problem::Problem;

/// The problem a rejection stands for. A [`Problem`] a handler gave wins; an unknown path is `not_found`; anything
/// unexpected is `internal`.
#[must_use]
pub fn problem_of(rejection: &Rejection) -> Problem {
    if let Some(problem) = rejection.find::<Problem>() {
        return problem.clone();
    }
    if rejection.is_not_found() {
        return Problem::not_found("nothing is served at this path");
    }
    if let Some(error) = rejection.find::<BodyDeserializeError>() {
        let reason = error.source().map_or_else(String::new, |source| format!(": {source}"));
        return Problem::bad_request("malformed", format!("the request body does not parse{reason}"));
    }
    if let Some(header) = rejection.find::<MissingHeader>() {
        return Problem::bad_request("missing_header", format!("the header {} is missing", header.name()));
    }
    if let Some(header) = rejection.find::<InvalidHeader>() {
        return Problem::bad_request("invalid_header", format!("the header {} is not valid", header.name()));
    }
    if rejection.find::<InvalidQuery>().is_some() {
        return Problem::bad_request("invalid_query", "the query string is not valid");
    }
    if rejection.find::<LengthRequired>().is_some() {
        return Problem::new(StatusCode::LENGTH_REQUIRED, "length_required")
            .with_detail("send a Content-Length header");
    }
    if rejection.find::<PayloadTooLarge>().is_some() {
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large")
            .with_detail("the request body is longer than this path accepts");
    }
    if rejection.find::<UnsupportedMediaType>().is_some() {
        return Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
            .with_detail("this path does not accept the request's Content-Type");
    }
    // Last of the known ones: a path that matched one route and a method that matched another end up here.
    if rejection.find::<MethodNotAllowed>().is_some() {
        return Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed")
            .with_detail("this path does not accept the request's method");
    }
    let shown = format!("{rejection:?}");
    // warp keeps this type private. The dispatcher knows why the body failed and answers instead of this.
    if shown.contains("BodyReadError") {
        return Problem::bad_request("body_read", "the request body could not be read");
    }
    Problem::internal(format!("unexpected rejection {shown}"))
}

/// The `recover` handler of every server.
pub(crate) async fn recover(rejection: Rejection) -> Result<warp::reply::Response, Infallible> {
    Ok(problem_of(&rejection).into_response())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use warp::Filter;

    use super::*;

    async fn code_of<F>(routes: F, request: http::Request<&'static str>) -> (u16, String)
    where
        F: Filter<Error = Rejection> + Clone + Send + Sync + 'static,
        F::Extract: Reply + Send,
    {
        use tower::ServiceExt as _;
        let request = request.map(|body| http_body_util::Full::new(bytes::Bytes::from(body)));
        let response = warp::service(routes.recover(recover)).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        let document: crate::problem::ProblemDocument = serde_json::from_slice(&body).unwrap();
        (status, document.code)
    }

    fn request(method: Method, path: &str, body: &'static str) -> http::Request<&'static str> {
        http::Request::builder().method(method).uri(path).body(body).unwrap()
    }

    #[tokio::test]
    async fn every_kind_of_rejection_has_its_code() {
        let routes = warp::path("json")
            .and(warp::post())
            .and(warp::body::json())
            .map(|value: u32| value.to_string())
            .or(warp::path("header").and(warp::header::<u32>("x-number")).map(|n: u32| n.to_string()))
            .unify()
            .or(warp::path("problem").and_then(|| async {
                Err::<String, _>(Rejection::from(Problem::conflict("taken", "it is taken")))
            }))
            .unify()
            .or(warp::path("surprise")
                .and_then(|| async { Err::<String, _>(warp::reject::custom(Surprise)) }))
            .unify();
        let cases = [
            (request(Method::POST, "/json", "not json"), (400, "malformed")),
            (request(Method::GET, "/json", ""), (405, "method_not_allowed")),
            (request(Method::GET, "/header", ""), (400, "missing_header")),
            (request(Method::GET, "/problem", ""), (409, "taken")),
            (request(Method::GET, "/surprise", ""), (500, "internal")),
            (request(Method::GET, "/elsewhere", ""), (404, "not_found")),
        ];
        for (request, (status, code)) in cases {
            assert_eq!(code_of(routes, request).await, (status, code.to_owned()));
        }
    }

    #[derive(Debug)]
    struct Surprise;
    impl warp::reject::Reject for Surprise {}
}
