//! Submissions that are answered with a proof: waiting for them, and the answer's form.

use std::sync::Arc;

use bytes::Bytes;
use log_store::{Ack, Entry, Error, LogKind, Publication, Receipt};
use service::Problem;
use service::deadline::within;
use tlog::hash::leaf_hash;
use tokio::sync::oneshot;
use trust_store::log_entry::{InclusionEvidence, TransparencyLogEntry};
use trust_store::rekor;

use super::Submission;
use super::problem::{Oversize, of_store};
use crate::logs::ServedLog;

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
