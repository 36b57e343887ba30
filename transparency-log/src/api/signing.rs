//! `POST /api/v2/log/entries` (Rekor v2).

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderValue;
use http_body_util::Full;
use log_store::{Clock as _, Novelty};
use service::Problem;
use trust_store::UnixTime;
use trust_store::rekor::{self, HashedRekord};

use super::problem::of_refused;
use super::{Handled, Submission, entry, respond};
use crate::admission::{Admission, Refused, verify_signing};
use crate::clock::LogClock;
use crate::logs::ServedLog;

/// Largest request.
pub(crate) const MAX_BODY: usize = rekor::MAX_REQUEST_BYTES;

pub(crate) async fn create(log: &Arc<ServedLog>, submission: Submission, body: Bytes) -> Handled {
    let canonical = verified_body(log, &body)?;
    drop(body);
    let (receipt, entry) = entry::publish(log, submission, canonical).await?;
    if receipt.novelty == Novelty::Duplicate {
        let problem = Problem::conflict(
            "duplicate",
            format!("the entry is in the log already, at index {}", receipt.index),
        )
        .with_member("log_index", receipt.index);
        let mut response = problem.to_response().map(Full::new);
        response.headers_mut().insert("x-log-index", HeaderValue::from(receipt.index));
        return Ok(response);
    }
    let json = entry.to_json().map_err(Problem::internal)?;
    Ok(respond(StatusCode::CREATED, "application/json", "no-store", json.into()))
}

/// Reads a request and verifies signature and signer; the bytes to log.
pub(crate) fn verified_body(log: &ServedLog, request: &[u8]) -> Result<Vec<u8>, Problem> {
    let Admission::Signing { authorities, registered } = &log.admission else {
        return Err(Problem::internal("the log has no admission rule for signatures"));
    };
    let refused = |error: trust_store::error::Error| of_refused(Refused::from(error));
    let entry = HashedRekord::from_request(request).map_err(refused)?;
    let now = UnixTime(i64::try_from(LogClock.unix_millis() / 1000).unwrap_or(i64::MAX));
    verify_signing(&entry, authorities, registered, now).map_err(of_refused)?;
    entry.canonical_body().map_err(refused)
}
