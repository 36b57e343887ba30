//! gRPC beside HTTP: whose requests these are, who answers them, and how a body that cannot be read is refused.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

use crate::body::{BodyFailure, BoxError, RequestBody};
use crate::dispatch::App;

type GrpcBody = UnsyncBoxBody<Bytes, BoxError>;
type GrpcFuture = Pin<Box<dyn Future<Output = Response<GrpcBody>> + Send>>;
/// gRPC is not the hot path: boxed, so that it does not show in every type.
pub(crate) type Grpc = Box<dyn Fn(Request<RequestBody>) -> GrpcFuture + Send + Sync>;

/// Boxes a gRPC service.
pub(crate) fn boxed<A: App>(app: A) -> Grpc {
    Box::new(move |request| {
        let answer = app.clone().answer(request);
        Box::pin(async move {
            let Ok(response) = answer.await;
            response.map(|body| body.map_err(Into::into).boxed_unsync())
        })
    })
}

pub(crate) fn is_meant(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The refusal in the form of gRPC over HTTP/2, headers only: its status codes 4 (`DEADLINE_EXCEEDED`), 11 (`OUT_OF_RANGE`) and
/// 14 (`UNAVAILABLE`), and the code that a problem document would have as `mentat-reason`.
pub(crate) fn refusal(failure: BodyFailure) -> Response<Bytes> {
    let (status, reason, text) = match failure {
        BodyFailure::NoRoom => {
            ("14", "overloaded", "too many bytes of requests are under way; repeat the call later")
        }
        BodyFailure::Stalled => ("4", "body_timeout", "the request stopped coming"),
        BodyFailure::TooLarge => ("11", "too_large", "the request is too long"),
    };
    let mut response = Response::new(Bytes::new());
    let headers = response.headers_mut();
    for (name, value) in [("grpc-status", status), ("grpc-message", text), ("mentat-reason", reason)] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
