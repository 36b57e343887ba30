//! `POST <base>/api/v1/entries` of an event log: a DSSE envelope with an in-toto statement.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use log_store::Novelty;
use service::Problem;
use trust_store::dsse::Envelope;
use trust_store::json;
use trust_store::provider::AwsLc;

use super::problem::of_refused;
use super::{Handled, Submission, entry, respond};
use crate::admission::{Admission, Refused};
use crate::logs::ServedLog;

/// Largest request.
pub(crate) const MAX_BODY: usize = 128 << 10;

/// 201 with the entry and its proof; 200 with the same when it was in the log already.
pub(crate) async fn create(log: &Arc<ServedLog>, submission: Submission, body: Bytes) -> Handled {
    let canonical = verified_body(log, &body)?;
    drop(body);
    let (receipt, entry) = entry::publish(log, submission, canonical).await?;
    let status = if receipt.novelty == Novelty::Duplicate { StatusCode::OK } else { StatusCode::CREATED };
    let json = entry.to_json().map_err(Problem::internal)?;
    Ok(respond(status, "application/json", "no-store", json.into()))
}

/// Verifies the statement's signature; the bytes to log are the envelope's compact JSON without key hints.
pub(crate) fn verified_body(log: &ServedLog, request: &[u8]) -> Result<Vec<u8>, Problem> {
    let Admission::Event(rules) = &log.admission else {
        return Err(Problem::internal("the log has no admission rule for events"));
    };
    let refused = |error: trust_store::error::Error| of_refused(Refused::from(error));
    let mut envelope = Envelope::parse(request).map_err(refused)?;
    rules.verify(&envelope, &AwsLc).map_err(|denial| of_refused(Refused::from(denial)))?;
    for signature in &mut envelope.signatures {
        signature.keyid.clear();
    }
    json::write("event", &envelope).map_err(refused)
}
