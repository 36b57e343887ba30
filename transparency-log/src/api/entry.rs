//! Submissions that are answered with a proof: waiting for them, and the answer's form.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use log_store::{Ack, Entry, Error, LogKind, Novelty, Publication, Receipt};
use serde::Deserialize;
use serde_json::{Value, json};
use service::Problem;
use service::deadline::within;
use tlog::hash::leaf_hash;
use tokio::sync::oneshot;
use trust_store::log_entry::{InclusionEvidence, TransparencyLogEntry};
use trust_store::rekor;

use super::problem::{Oversize, of_store};
use super::{Handled, Submission, event, json as json_answer, signing};
use crate::logs::ServedLog;

/// Largest body of a batch; `server.limits.body_bytes` has the same default.
pub(crate) const MAX_BATCH: usize = 4 << 20;
/// Most entries of a batch.
const MAX_BATCH_ENTRIES: usize = 1000;

/// Waits for the answer to a submission, with a deadline.
pub(crate) async fn wait(
    log: &ServedLog,
    answer: oneshot::Receiver<Result<Receipt, Error>>,
    submission: Submission,
) -> Result<Receipt, Error> {
    let level = match submission.ack {
        Ack::Sequenced => "sequenced",
        Ack::Published => "published",
        Ack::Witnessed => "witnessed",
    };
    match within(log.settings.ack_timeout, submission.version, answer).await {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(Error::Stopped("it stopped before it answered".to_owned())),
        None => Err(Error::Pending { level }),
    }
}

/// Submits an entry and waits until a published checkpoint covers it. The proof is verified before it leaves.
pub(crate) async fn publish(
    log: &Arc<ServedLog>,
    submission: Submission,
    body: Vec<u8>,
) -> Result<(Receipt, TransparencyLogEntry), Problem> {
    let store = |error| of_store(error, Oversize::BadRequest);
    let body = Bytes::from(body);
    let entry = Entry::plain(body.clone()).map_err(store)?;
    let answer = log.log.submit(submission.writer, entry, submission.ack).map_err(store)?;
    let receipt = wait(log, answer, submission).await.map_err(store)?;
    let publication =
        receipt.publication.clone().ok_or_else(|| Problem::internal("published without a checkpoint"))?;
    let entry = evidence(log, receipt.index, body.to_vec(), &publication)?;
    Ok((receipt, entry))
}

/// The entry with its verified inclusion proof.
pub(crate) fn evidence(
    log: &ServedLog,
    index: u64,
    body: Vec<u8>,
    publication: &Publication,
) -> Result<TransparencyLogEntry, Problem> {
    let tree = publication.tree();
    let proof =
        log.log.inclusion_proof(index, publication).map_err(|error| of_store(error, Oversize::BadRequest))?;
    let leaf = match log.kind {
        LogKind::Issuance => {
            log.kind.leaf_hash(&body).ok_or_else(|| Problem::internal("an entry of another kind"))?
        }
        _ => leaf_hash(&body),
    };
    let _ = proof
        .verify(&leaf, &tree)
        .map_err(|error| Problem::internal(format!("own proof of entry {index}: {error}")))?;
    let checkpoint = String::from_utf8(publication.note().to_vec()).map_err(Problem::internal)?;
    let log_id = log.keys.primary().map_or_else(Vec::new, |(key, _)| key.key_hash().0.to_vec());
    let (kind, version) = match log.kind {
        LogKind::Signing => (rekor::KIND, rekor::VERSION),
        LogKind::Issuance => ("static-ct", "1.1.0"),
        LogKind::Event => ("dsse-event", "1"),
        _ => ("raw", "1"),
    };
    Ok(TransparencyLogEntry {
        log_index: index,
        log_id,
        kind: kind.to_owned(),
        version: version.to_owned(),
        integrated_time: 0,
        inclusion_promise: None,
        inclusion_proof: Some(InclusionEvidence {
            log_index: index,
            root_hash: tree.root,
            tree_size: tree.size,
            hashes: proof.path,
            checkpoint,
        }),
        canonicalized_body: body,
    })
}

/// `{"entries":[request, ...]}`: each as the single endpoint takes it; one checkpoint covers all of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    entries: Vec<Value>,
}

/// Verifies the requests of a batch. Up to a thousand signatures must not hold up the threads that answer others.
async fn verified_bodies(
    log: Arc<ServedLog>,
    requests: Vec<Value>,
) -> Result<Vec<Result<Vec<u8>, Problem>>, Problem> {
    let verify = move || {
        let verify_one = |request: Value| {
            let request = request.to_string();
            match log.kind {
                LogKind::Signing => signing::verified_body(&log, request.as_bytes()),
                _ => event::verified_body(&log, request.as_bytes()),
            }
        };
        requests.into_iter().map(verify_one).collect()
    };
    tokio::task::spawn_blocking(verify).await.map_err(Problem::internal)
}

/// `POST <base>/api/v1/batch`: 200 with one result per entry, in order: `{"entry": ...}`, with `"duplicate": true` where
/// it was there before, or `{"problem": ...}`.
pub(crate) async fn batch(log: &Arc<ServedLog>, submission: Submission, body: Bytes) -> Handled {
    let batch: Batch = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request("malformed", format!("the batch is not valid: {error}")))?;
    if batch.entries.is_empty() || batch.entries.len() > MAX_BATCH_ENTRIES {
        return Err(Problem::bad_request(
            "malformed",
            format!("a batch has 1 to {MAX_BATCH_ENTRIES} entries"),
        ));
    }
    let store = |error| of_store(error, Oversize::BadRequest);
    let mut verified = Vec::with_capacity(batch.entries.len());
    let mut submitted = Vec::new();
    for body in verified_bodies(log.clone(), batch.entries).await? {
        let body = body.and_then(|body| {
            let bytes = Bytes::from(body);
            submitted.push(Entry::plain(bytes.clone()).map_err(store)?);
            Ok(bytes)
        });
        verified.push(body);
    }
    let mut answers =
        log.log.submit_all(submission.writer, submitted, submission.ack).map_err(store)?.into_iter();
    let (mut results, mut receipts) = (Vec::with_capacity(verified.len()), Vec::new());
    for body in verified {
        let (Ok(body), Some(answer)) = (&body, if body.is_ok() { answers.next() } else { None }) else {
            receipts.push(body.map(|_| None).map_err(|problem| json!({ "problem": problem.to_document() })));
            continue;
        };
        let receipt = wait(log, answer, submission).await.map_err(store)?;
        receipts.push(Ok(Some((receipt, body.clone()))));
    }
    // The newest checkpoint covers every entry.
    let newest = receipts
        .iter()
        .filter_map(|receipt| receipt.as_ref().ok()?.as_ref()?.0.publication.clone())
        .max_by_key(|publication| publication.tree().size);
    for receipt in receipts {
        results.push(match (receipt, &newest) {
            (Ok(Some((receipt, body))), Some(publication)) => {
                let entry = evidence(log, receipt.index, body.to_vec(), publication)?;
                let entry: Value = serde_json::from_slice(&entry.to_json().map_err(Problem::internal)?)
                    .map_err(Problem::internal)?;
                json!({ "entry": entry, "duplicate": receipt.novelty == Novelty::Duplicate })
            }
            (Err(problem), _) => problem,
            _ => return Err(Problem::internal("a batch entry without an answer")),
        });
    }
    Ok(json_answer(StatusCode::OK, &json!({ "results": results })))
}
