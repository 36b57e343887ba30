//! A deadline for the work on one request that costs no timer where it can be had without.
//!
//! An HTTP/1 connection is looked at at least every two seconds, and with it the request that it is answering (see
//! `watch`): the deadline is kept to within that. An HTTP/2 request is a task of its own, which nothing would wake, and
//! gets a timer.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::Version;

use crate::clock::monotonic;

/// What the future gives, or `None` once `limit` is over. `version` is that of the request which is being answered, in
/// whose own task this must be awaited.
pub async fn within<F: Future>(limit: Duration, version: Version, future: F) -> Option<F::Output> {
    if version > Version::HTTP_11 {
        return tokio::time::timeout(limit, future).await.ok();
    }
    let mut future = pin!(future);
    let until = monotonic().saturating_add(limit);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if monotonic() >= until => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}
