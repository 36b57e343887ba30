//! `add-chain`, `add-pre-chain` and `get-roots` (RFC 6962 section 4, static-ct-api), and many chains in one call.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hsm::{Input, IntentId, Purpose, SignatureAlgorithm, SigningIntent};
use http::StatusCode;
use log_store::{CertificateEntry, Clock as _, Entry, Error, Receipt, extensions};
use serde::Deserialize;
use serde_json::{Value, json};
use service::Problem;
use tlog::hash::Hash;
use tlog::static_ct::DigitallySigned;
use trust_store::certificate::Certificate;
use trust_store::path::{Precertificates, VerifiedChain};
use trust_store::{UnixTime, oid, sct};

use super::problem::{Oversize, of_refused, of_store};
use super::{Handled, Submission, entry, json as json_answer};
use crate::admission::{Admission, Refused};
use crate::clock::LogClock;
use crate::issuers::Issuers;
use crate::logs::ServedLog;

/// Largest request: an entry is at most 64 KiB, base64 and chain included.
pub(crate) const MAX_BODY: usize = 256 << 10;
const MAX_CHAIN: usize = 10;
/// Chains of a batch that are verified where the request is read, as single ones are.
const FEW: usize = 4;

/// Which of the two endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Final,
    Precertificate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddChain {
    chain: Vec<String>,
}

/// A chain of a batch: the poison extension says which of the two endpoints it stands for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchedChain {
    chain: Vec<String>,
    #[serde(default)]
    answer: Wanted,
}

/// What the submitter of a batch does with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Wanted {
    /// Embeds or keeps the promise.
    #[default]
    Sct,
    /// Only notes where the entry is: no promise is signed.
    Index,
}

pub(crate) async fn add(log: &Arc<ServedLog>, submission: Submission, body: Bytes, form: Form) -> Handled {
    let request: AddChain = parsed(&body)?;
    let entry = verified_entry(log, &request.chain, Some(form), &mut Vec::new())?;
    drop((request, body));
    let answer = log
        .log
        .submit(submission.writer, Entry::certificate(entry.clone()).map_err(refusal)?, submission.ack)
        .map_err(refusal)?;
    let receipt = entry::wait(log, answer, submission).await.map_err(refusal)?;
    let signing = Arc::clone(log);
    let promise = tokio::task::spawn_blocking(move || promise(&signing, &entry, &receipt));
    Ok(json_answer(StatusCode::OK, &promise.await.map_err(Problem::internal)??))
}

/// 200 with one result per chain, in order: `{"sct": …}`, `{"index": …}` where no more is wanted, or `{"problem": …}`.
pub(crate) async fn add_all(
    log: &Arc<ServedLog>,
    submission: Submission,
    requests: Vec<Bytes>,
    peer: IpAddr,
) -> Handled {
    let verifying = Arc::clone(log);
    let many = requests.len() > FEW;
    let verify = move || {
        let mut known = Vec::new();
        let mut verify = |request: Bytes| {
            if request.len() > MAX_BODY {
                return Err(Oversize::BadRequest.problem(MAX_BODY));
            }
            let BatchedChain { chain, answer } = parsed(&request)?;
            Ok((verified_entry(&verifying, &chain, None, &mut known)?, answer))
        };
        requests.into_iter().map(&mut verify).collect::<Vec<_>>()
    };
    // Signatures by the hundred must not hold up the threads that answer others.
    let verified = if many { log.batches.next(peer).await?.run(verify).await? } else { verify() };
    let mut submitted = Vec::new();
    let verified: Vec<_> = verified
        .into_iter()
        .map(|verified| {
            let (entry, wanted) = verified?;
            submitted.push(Entry::certificate(entry.clone()).map_err(refusal)?);
            Ok((entry, wanted))
        })
        .collect();
    let mut answers =
        log.log.submit_all(submission.writer, submitted, submission.ack).map_err(refusal)?.into_iter();
    let mut receipts = Vec::with_capacity(verified.len());
    for verified in verified {
        receipts.push(match verified {
            Err(problem) => Err(problem),
            Ok((entry, wanted)) => {
                let answer = answers.next().ok_or_else(|| Problem::internal("an entry without an answer"))?;
                Ok((entry, wanted, entry::wait(log, answer, submission).await.map_err(refusal)?))
            }
        });
    }
    let sign = receipts.iter().any(|receipt| matches!(receipt, Ok((_, Wanted::Sct, _))));
    let signing = Arc::clone(log);
    let answer = move || {
        let result = |receipt: Result<(CertificateEntry, Wanted, Receipt), Problem>| {
            let answer = receipt.and_then(|(entry, wanted, receipt)| match wanted {
                Wanted::Index => Ok(json!({ "index": receipt.index })),
                Wanted::Sct => Ok(json!({ "sct": promise(&signing, &entry, &receipt)? })),
            });
            answer.unwrap_or_else(|problem| json!({ "problem": problem.to_document() }))
        };
        receipts.into_iter().map(result).collect::<Vec<_>>()
    };
    let results = match (sign, many) {
        (true, true) => log.batches.next(peer).await?.run(answer).await?,
        // A signer may block.
        (true, false) => tokio::task::spawn_blocking(answer).await.map_err(Problem::internal)?,
        (false, _) => answer(),
    };
    Ok(json_answer(StatusCode::OK, &json!({ "results": results })))
}

fn refusal(error: Error) -> Problem {
    match error {
        // Authorities retry in step with each other unless they are told different times.
        Error::Overloaded { .. } => Problem::unavailable("overloaded", spread_seconds())
            .with_detail("the log is at capacity; retry later"),
        other => of_store(other, Oversize::BadRequest),
    }
}

/// The signed promise about a sequenced entry, as RFC 6962 section 4.1 writes it. Blocks.
fn promise(log: &ServedLog, entry: &CertificateEntry, receipt: &Receipt) -> Result<Value, Problem> {
    let Some((_, signer)) = log.keys.primary() else {
        return Err(Problem::internal("the log has no key"));
    };
    // RFC 6962 section 3.2: the log's id is the hash of its key, not that of its note key.
    let log_id = STANDARD.encode(signer.public_key().spki_sha256());
    let input = entry.sct_input(receipt.index, receipt.time_millis);
    let signature = IntentId::new(Hash::digest(&input).as_bytes())
        .and_then(|id| {
            let intent = SigningIntent::new(Purpose::Sct, id);
            signer.sign(Input::Message(&input), SignatureAlgorithm::EcdsaP256Sha256, &intent)
        })
        .map_err(|error| Problem::unavailable("signer", 1).with_internal(error))?;
    let signature =
        DigitallySigned::ecdsa_sha256(signature.into_vec()).to_bytes().map_err(Problem::internal)?;
    Ok(json!({
        "sct_version": 0,
        "id": log_id,
        "timestamp": receipt.time_millis,
        "extensions": STANDARD.encode(extensions(receipt.index)),
        "signature": STANDARD.encode(signature),
    }))
}

/// One to five seconds, in turn.
fn spread_seconds() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed) % 5 + 1
}

pub(crate) fn roots(log: &ServedLog) -> Handled {
    let Admission::Issuance(authorities) = &log.admission else {
        return Err(Problem::not_found("this log has no roots"));
    };
    let roots: Vec<_> = authorities.anchors().iter().map(|anchor| STANDARD.encode(anchor.der())).collect();
    Ok(json_answer(StatusCode::OK, &json!({ "certificates": roots })))
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::bad_request("malformed", detail.into())
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| malformed(format!("the request is not valid: {error}")))
}

/// Verifies a chain, and that it is of this form where one is demanded. `known` keeps the issuers' certificates that were
/// read from the same texts before: chains of one batch share them.
fn verified_entry(
    log: &ServedLog,
    chain: &[String],
    form: Option<Form>,
    known: &mut Vec<(String, Certificate)>,
) -> Result<CertificateEntry, Problem> {
    if chain.is_empty() || chain.len() > MAX_CHAIN {
        return Err(malformed(format!("a chain has 1 to {MAX_CHAIN} certificates")));
    }
    let read = |text: &String| {
        let der = STANDARD.decode(text).map_err(|_| malformed("a certificate is not base64"))?;
        Certificate::from_der(&der).map_err(|denial| of_refused(denial.into()))
    };
    let (leaf, above) = chain.split_first().ok_or_else(|| malformed("the chain is empty"))?;
    let leaf = &read(leaf)?;
    let mut issuers = Vec::with_capacity(above.len());
    for text in above {
        if let Some((_, certificate)) = known.iter().find(|(seen, _)| seen == text) {
            issuers.push(certificate.clone());
            continue;
        }
        let certificate = read(text)?;
        if known.len() < MAX_CHAIN {
            known.push((text.clone(), certificate.clone()));
        }
        issuers.push(certificate);
    }
    let is_precertificate = leaf.is_precertificate();
    let form = form.unwrap_or(if is_precertificate { Form::Precertificate } else { Form::Final });
    let policy = match (form, is_precertificate) {
        (Form::Precertificate, true) => Precertificates::Accepted,
        (Form::Final, false) => Precertificates::Refused,
        (Form::Precertificate, false) => {
            return Err(malformed("a precertificate without the poison extension"));
        }
        (Form::Final, true) => return Err(malformed("a precertificate belongs to add-pre-chain")),
    };
    let Admission::Issuance(authorities) = &log.admission else {
        return Err(Problem::internal("the log has no admission rule for certificates"));
    };
    let now = UnixTime(i64::try_from(LogClock.unix_millis() / 1000).unwrap_or(i64::MAX));
    let chain = authorities.submitted(leaf, &issuers, now, policy).map_err(of_refused)?;
    log.issuers.as_ref().map_or(Ok(()), |kept| keep(kept, &chain))?;
    let fingerprints = chain.certificates().iter().skip(1).map(Certificate::fingerprint).collect();
    Ok(match form {
        Form::Final => CertificateEntry::certificate(leaf.der().to_vec(), fingerprints),
        Form::Precertificate => {
            let issuer_key_hash = Hash::digest(chain.issuer().spki_der()).0;
            let tbs = sct::tbs_without(leaf, &oid::PRECERTIFICATE_POISON)
                .map_err(|denial| of_refused(Refused::from(denial)))?;
            CertificateEntry::precertificate(issuer_key_hash, tbs, leaf.der().to_vec(), fingerprints)
        }
    })
}

/// Every issuer an entry refers to can be fetched.
fn keep(issuers: &Issuers, chain: &VerifiedChain) -> Result<(), Problem> {
    for certificate in chain.certificates().iter().skip(1) {
        issuers.keep(certificate).map_err(|error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Problem::storage_full(error),
            _ => Problem::unavailable("storage", 10).with_internal(error),
        })?;
    }
    Ok(())
}
