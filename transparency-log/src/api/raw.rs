//! `POST <base>/add`: the body is the entry, the answer its index.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use log_store::{Entry, MAX_ENTRY};
use service::body::RequestBody;
use service::{Peer, Problem};

use super::entry::wait;
use super::problem::{Oversize, of_store};
use super::{Handled, Submission, body, respond};
use crate::logs::ServedLog;

pub(crate) async fn add(
    log: &Arc<ServedLog>,
    submission: Submission,
    request: Request<RequestBody>,
) -> Handled {
    if let Some(auth) = &log.add_token {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Problem::internal("a request without a peer"))?;
        auth.authenticate(request.headers(), &peer)
            .map_err(|_| Problem::forbidden("not_allowed", "this log takes entries with its token only"))?;
    }
    let bytes = body(request, MAX_ENTRY, Oversize::PayloadTooLarge).await?;
    let store = |error| of_store(error, Oversize::PayloadTooLarge);
    let entry = Entry::plain(bytes).map_err(store)?;
    let answer = log.log.submit(submission.writer, entry, submission.ack).map_err(store)?;
    let receipt = wait(log, answer, submission).await.map_err(store)?;
    let text = format!("{}\n", receipt.index);
    Ok(respond(StatusCode::OK, "text/plain; charset=utf-8", "no-store", Bytes::from(text)))
}
