//! `add-chain`, `add-pre-chain` and `get-roots` (RFC 6962 section 4, static-ct-api).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hsm::{Input, IntentId, Purpose, SignatureAlgorithm, SigningIntent};
use http::StatusCode;
use log_store::{CertificateEntry, Clock as _, Entry, Error, extensions};
use serde::Deserialize;
use serde_json::json;
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

pub(crate) async fn add(log: &Arc<ServedLog>, submission: Submission, body: Bytes, form: Form) -> Handled {
    let entry = verified_entry(log, &body, form)?;
    let store = |error| match error {
        // Authorities retry in step with each other unless they are told different times.
        Error::Overloaded { .. } => Problem::unavailable("overloaded", spread_seconds())
            .with_detail("the log is at capacity; retry later"),
        other => of_store(other, Oversize::BadRequest),
    };
    let answer = log
        .log
        .submit(submission.writer, Entry::certificate(entry.clone()).map_err(store)?, submission.ack)
        .map_err(store)?;
    let receipt = entry::wait(log, answer, submission).await.map_err(store)?;
    let Some((_, signer)) = log.keys.primary() else {
        return Err(Problem::internal("the log has no key"));
    };
    // RFC 6962 section 3.2: the log's id is the hash of its key, not that of its note key.
    let log_id = STANDARD.encode(signer.public_key().spki_sha256());
    let input = entry.sct_input(receipt.index, receipt.time_millis);
    let (signer, digest) = (signer.clone(), Hash::digest(&input));
    let signature = tokio::task::spawn_blocking(move || {
        let intent = SigningIntent::new(Purpose::Sct, IntentId::new(digest.as_bytes())?);
        signer.sign(Input::Message(&input), SignatureAlgorithm::EcdsaP256Sha256, &intent)
    })
    .await
    .map_err(Problem::internal)?
    .map_err(|error| Problem::unavailable("signer", 1).with_internal(error))?;
    let signature =
        DigitallySigned::ecdsa_sha256(signature.into_vec()).to_bytes().map_err(Problem::internal)?;
    Ok(json_answer(
        StatusCode::OK,
        &json!({
            "sct_version": 0,
            "id": log_id,
            "timestamp": receipt.time_millis,
            "extensions": STANDARD.encode(extensions(receipt.index)),
            "signature": STANDARD.encode(signature),
        }),
    ))
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

fn verified_entry(log: &ServedLog, body: &[u8], form: Form) -> Result<CertificateEntry, Problem> {
    let malformed = |detail: String| Problem::bad_request("malformed", detail);
    let request: AddChain = serde_json::from_slice(body)
        .map_err(|error| malformed(format!("the request is not valid: {error}")))?;
    if request.chain.is_empty() || request.chain.len() > MAX_CHAIN {
        return Err(malformed(format!("a chain has 1 to {MAX_CHAIN} certificates")));
    }
    let mut certificates = Vec::with_capacity(request.chain.len());
    for text in &request.chain {
        let der = STANDARD.decode(text).map_err(|_| malformed("a certificate is not base64".to_owned()))?;
        certificates.push(Certificate::from_der(&der).map_err(|denial| of_refused(denial.into()))?);
    }
    let (leaf, issuers) =
        certificates.split_first().ok_or_else(|| malformed("the chain is empty".to_owned()))?;
    let policy = match (form, leaf.is_precertificate()) {
        (Form::Precertificate, true) => Precertificates::Accepted,
        (Form::Final, false) => Precertificates::Refused,
        (Form::Precertificate, false) => {
            return Err(malformed("a precertificate without the poison extension".to_owned()));
        }
        (Form::Final, true) => return Err(malformed("a precertificate belongs to add-pre-chain".to_owned())),
    };
    let Admission::Issuance(authorities) = &log.admission else {
        return Err(Problem::internal("the log has no admission rule for certificates"));
    };
    let now = UnixTime(i64::try_from(LogClock.unix_millis() / 1000).unwrap_or(i64::MAX));
    let chain = authorities.submitted(leaf, issuers, now, policy).map_err(of_refused)?;
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
        issuers
            .keep(certificate)
            .map_err(|error| Problem::unavailable("storage", 10).with_internal(error))?;
    }
    Ok(())
}
