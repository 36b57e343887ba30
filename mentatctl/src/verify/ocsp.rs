//! Asks the OCSP responders that certificates name (RFC 6960, RFC 9919): a revocation shows there at once, and in the
//! lists only when the next one is published. Nothing that is answered here is believed; the verifier judges it.

use std::collections::BTreeSet;

use reqwest::{Client, StatusCode};
use trust_store::evidence::Evidence;
use trust_store::ocsp::MAX_LENGTH;
use trust_store::ocsp_request::{MEDIA_TYPE, request, responders};
use trust_store::path::VerifiedChain;

use crate::exit::chain;

/// Adds what the responders of these chains answer, and gives what kept one from answering. An answer without a status (the
/// responder does not know the certificate, or cannot say now) is no evidence, and is left out; so is none.
pub async fn ask(evidence: &mut Evidence, chains: &[VerifiedChain], http: &Client) -> Vec<String> {
    let mut asked = BTreeSet::new();
    let mut unanswered = Vec::new();
    for (certificate, issuer) in chains.iter().flat_map(VerifiedChain::links) {
        let Some(url) = responders(certificate).into_iter().next() else { continue };
        let question = request(certificate, issuer);
        if asked.insert((url.clone(), question.clone())) {
            match post(http, &url, question).await {
                // What cannot be read, or holds no status, is no evidence.
                Ok(answer) => drop(evidence.add_ocsp(&answer)),
                Err(why) => unanswered.push(why),
            }
        }
    }
    unanswered
}

async fn post(http: &Client, url: &str, question: Vec<u8>) -> Result<Vec<u8>, String> {
    let unavailable = |why: String| format!("the OCSP responder at {url} {why}");
    let lost = |error: reqwest::Error| unavailable(format!("cannot be reached: {}", chain(&error)));
    let request = http.post(url).header("content-type", MEDIA_TYPE).body(question);
    let mut response = request.send().await.map_err(lost)?;
    if response.status() != StatusCode::OK {
        return Err(unavailable(format!("answers {}", response.status())));
    }
    let mut answer = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(lost)? {
        answer.extend_from_slice(&piece);
        if answer.len() > MAX_LENGTH {
            return Err(unavailable(format!("answers with more than {} KiB", MAX_LENGTH >> 10)));
        }
    }
    Ok(answer)
}
