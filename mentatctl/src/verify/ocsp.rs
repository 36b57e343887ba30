//! Asks the OCSP responders that certificates name (RFC 6960, RFC 9919): a revocation shows there at once, and in the
//! lists only when the next one is published. Nothing that is answered here is believed; the verifier judges it.

use std::collections::BTreeSet;

use reqwest::{Client, StatusCode};
use sha2::{Digest as _, Sha256};
use trust_store::evidence::Evidence;
use trust_store::general_name::GeneralName;
use trust_store::ocsp::MAX_LENGTH;
use trust_store::path::VerifiedChain;
use trust_store::{Certificate, oid};

use crate::exit::chain;

/// Adds what the responders of these chains answer, and gives what kept one from answering. An answer without a status (the
/// responder does not know the certificate, or cannot say now) is no evidence, and is left out; so is none.
pub async fn ask(evidence: &mut Evidence, chains: &[VerifiedChain], http: &Client) -> Vec<String> {
    let mut asked = BTreeSet::new();
    let mut unanswered = Vec::new();
    for (certificate, issuer) in chains.iter().flat_map(VerifiedChain::links) {
        let Some(url) = responder(certificate) else { continue };
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

/// The first HTTP address of a certificate's OCSP responder.
fn responder(certificate: &Certificate) -> Option<String> {
    certificate.authority_information_access()?.iter().find_map(|(method, location)| match location {
        GeneralName::Uri(uri) if method == oid::AD_OCSP.as_bytes() && uri.starts_with("http") => {
            Some(uri.to_owned())
        }
        _ => None,
    })
}

/// An OCSPRequest for one certificate (RFC 6960 section 4.1.1) with SHA-256 (RFC 9919 section 3.1.1), DER.
fn request(certificate: &Certificate, issuer: &Certificate) -> Vec<u8> {
    /// AlgorithmIdentifier of SHA-256, without parameters (RFC 5754 section 2).
    const SHA256_IDENTIFIER: [u8; 13] =
        [0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
    const INTEGER: u8 = 0x02;
    const OCTET_STRING: u8 = 0x04;
    const SEQUENCE: u8 = 0x30;
    let name = element(OCTET_STRING, &Sha256::digest(certificate.issuer_der()));
    let key = element(OCTET_STRING, &Sha256::digest(issuer.public_key()));
    let serial = element(INTEGER, certificate.serial());
    let id = element(SEQUENCE, &[&SHA256_IDENTIFIER[..], &name, &key, &serial].concat());
    // Request, requestList, tbsRequest, OCSPRequest: none has another member.
    (0..4).fold(id, |content, _| element(SEQUENCE, &content))
}

/// One DER element. A request is about 120 octets: two length octets always suffice.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
    [&head[..], content].concat()
}

async fn post(http: &Client, url: &str, question: Vec<u8>) -> Result<Vec<u8>, String> {
    let unavailable = |why: String| format!("the OCSP responder at {url} {why}");
    let lost = |error: reqwest::Error| unavailable(format!("cannot be reached: {}", chain(&error)));
    let request = http.post(url).header("content-type", "application/ocsp-request").body(question);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal() {
        assert_eq!(element(4, &[7; 3]), [4, 3, 7, 7, 7]);
        assert_eq!(element(0x30, &[0; 0x80])[..3], [0x30, 0x81, 0x80]);
        assert_eq!(element(0x30, &[0; 0x7f])[..2], [0x30, 0x7f]);
    }
}
