//! Request bodies: bounded before they are read, unknown fields refused.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ca_api::limits::MAX_JSON_BODY;
use futures_util::{Stream, StreamExt as _};
use serde::de::DeserializeOwned;
use service::Problem;
use warp::Filter;

/// The whole body. One that is declared or turns out to be longer than `limit` is refused without holding more of it.
pub(super) fn body(limit: usize) -> impl Filter<Extract = (Bytes,), Error = warp::Rejection> + Clone {
    warp::header::optional::<u64>("content-length").and(warp::body::stream()).and_then(
        move |declared, chunks| async move { whole(limit, declared, chunks).await.map_err(warp::Rejection::from) },
    )
}

/// The same for surfaces with refusals of their own form: the handler sees the problem.
pub(super) fn bounded(
    limit: usize,
) -> impl Filter<Extract = (Result<Bytes, Problem>,), Error = warp::Rejection> + Clone {
    warp::header::optional::<u64>("content-length")
        .and(warp::body::stream())
        .then(move |declared, chunks| whole(limit, declared, chunks))
}

async fn whole(
    limit: usize,
    declared: Option<u64>,
    chunks: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Bytes, Problem> {
    let too_large = || Problem::too_large(limit as u64);
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let mut chunks = std::pin::pin!(chunks);
    let mut body = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|_| Problem::bad_request("body_read", "the request body could not be read"))?;
        if chunk.remaining() > limit - body.len() {
            return Err(too_large());
        }
        body.put(chunk);
    }
    Ok(body.freeze())
}

/// A JSON body.
pub(super) fn json_body() -> impl Filter<Extract = (Bytes,), Error = warp::Rejection> + Clone {
    body(MAX_JSON_BODY)
}

/// Parses a JSON body.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request("malformed", error.to_string()))
}
