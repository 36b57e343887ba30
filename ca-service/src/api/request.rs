//! Request bodies: bounded before they are parsed, unknown fields refused.

use bytes::Bytes;
use ca_api::limits::MAX_JSON_BODY;
use serde::de::DeserializeOwned;
use service::Problem;
use warp::Filter;

/// The whole body; its size is bounded below warp, and here for this kind of request.
pub(super) fn body(limit: usize) -> impl Filter<Extract = (Bytes,), Error = warp::Rejection> + Clone {
    warp::body::bytes().and_then(move |body: Bytes| async move {
        if body.len() > limit {
            Err(warp::Rejection::from(Problem::too_large(limit as u64)))
        } else {
            Ok(body)
        }
    })
}

/// A JSON body.
pub(super) fn json_body() -> impl Filter<Extract = (Bytes,), Error = warp::Rejection> + Clone {
    body(MAX_JSON_BODY)
}

/// Parses a JSON body.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request("malformed_body", error.to_string()))
}
