//! Reads what is left of a request body before an answer that came early.
//!
//! An answer before the end of a body makes an HTTP/2 server reset the stream with NO_ERROR (RFC 9113 section 8.1), and
//! clients that are in use throw the answer away then (curl before 8). A rest that is small is therefore read to its end
//! first. Of a long one the client learns by the reset that nobody wants it.

use std::time::Duration;

use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Longest rest, in bytes, that is read. The client may have sent as much before it could hear anything: it is the window
/// that a stream begins with (RFC 9113 section 6.9.2).
const SMALL: u64 = 64 * 1024;

/// Reads the rest to its end, unless it is long or does not come within `patience`.
pub(crate) async fn read_out(mut rest: Incoming, patience: Duration) {
    if rest.size_hint().lower() > SMALL {
        return;
    }
    let reading = async {
        let mut left = SMALL;
        while let Some(Ok(frame)) = rest.frame().await {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(still) = left.checked_sub(length) else { return };
            left = still;
        }
    };
    // When it does not come, the answer is given all the same.
    let _ = tokio::time::timeout(patience, reading).await;
}
