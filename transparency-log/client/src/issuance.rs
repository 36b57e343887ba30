//! Submitting certificate chains to an issuance log (RFC 6962 section 4, static-ct-api).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tlog::Hash;
use tlog::static_ct::{DigitallySigned, Extensions, SignedCertificateTimestamp};

use crate::client::LogClient;
use crate::error::Error;
use crate::submit::json_bytes;

#[derive(Deserialize)]
struct SctAnswer {
    sct_version: u8,
    id: String,
    timestamp: u64,
    extensions: String,
    signature: String,
}

impl SctAnswer {
    fn read(self) -> Option<SignedCertificateTimestamp> {
        if self.sct_version != 0 || self.timestamp > tlog::MAX_SIZE {
            return None;
        }
        Some(SignedCertificateTimestamp {
            log_id: Hash::from_base64(&self.id).ok()?,
            timestamp: self.timestamp,
            extensions: Extensions::parse(&STANDARD.decode(&self.extensions).ok()?).ok()?,
            signature: DigitallySigned::parse(&STANDARD.decode(&self.signature).ok()?).ok()?,
        })
    }
}

/// What the submitter of a chain does with the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// Embeds or keeps the promise.
    Sct,
    /// Only notes where the entry is.
    Index,
}

/// What a log said to one chain of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum ChainResult {
    /// Its promise. Parsed, not verified.
    Promised(SignedCertificateTimestamp),
    /// The log refused it; the others of the batch are not affected.
    Refused {
        /// The HTTP status the chain alone would have got.
        status: u16,
        /// The log's problem document.
        problem: Value,
    },
    /// Where its entry is.
    Sequenced {
        /// Index of the entry.
        index: u64,
    },
}

#[derive(Deserialize)]
struct ChainsAnswer {
    results: Vec<ChainItem>,
}

#[derive(Deserialize)]
struct ChainItem {
    sct: Option<SctAnswer>,
    index: Option<u64>,
    problem: Option<Value>,
}

impl ChainItem {
    fn read(self, wanted: Wanted) -> Option<ChainResult> {
        match (self, wanted) {
            (Self { sct: Some(sct), index: None, problem: None }, Wanted::Sct) => {
                sct.read().map(ChainResult::Promised)
            }
            (Self { sct: None, index: Some(index), problem: None }, Wanted::Index) => {
                Some(ChainResult::Sequenced { index })
            }
            (Self { sct: None, index: None, problem: Some(problem) }, _) => {
                let status = problem.get("status").and_then(Value::as_u64)?.try_into().ok()?;
                Some(ChainResult::Refused { status, problem })
            }
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct RootsAnswer {
    certificates: Vec<String>,
}

impl LogClient {
    /// Submits a certificate with its chain, end-entity certificate first, each in DER. The SCT is parsed; its
    /// signature is verified by whoever knows the log's key
    /// ([`SignedCertificateTimestamp::verify`]).
    ///
    /// # Errors
    /// [`Error::Status`] when the log refuses the chain, [`Error::Overloaded`] after the last attempt,
    /// [`Error::Answer`], and transport errors.
    pub async fn add_chain(&self, chain: &[&[u8]]) -> Result<SignedCertificateTimestamp, Error> {
        self.submit_chain("ct/v1/add-chain", chain).await
    }

    /// Submits a precertificate with its chain, as [`add_chain`](Self::add_chain).
    ///
    /// # Errors
    /// As [`add_chain`](Self::add_chain).
    pub async fn add_pre_chain(&self, chain: &[&[u8]]) -> Result<SignedCertificateTimestamp, Error> {
        self.submit_chain("ct/v1/add-pre-chain", chain).await
    }

    /// Submits chains and precertificates' chains in one call (`POST {base}/api/v1/batch`), each as
    /// [`add_chain`](Self::add_chain) and [`add_pre_chain`](Self::add_pre_chain) take it. The log answers as soon as every
    /// entry has its index, durably; the results are in the order of the chains.
    ///
    /// # Errors
    /// As [`add_chain`](Self::add_chain) when the log refuses the whole batch ([`Error::Status`] 404 when it knows no
    /// batches of chains); [`Error::Answer`] also when the number of results is not that of the chains.
    pub async fn submit_chains(&self, chains: &[(&[Vec<u8>], Wanted)]) -> Result<Vec<ChainResult>, Error> {
        let answer = self.post("api/v1/batch?ack=sequenced", "application/json", batch_body(chains)).await?;
        let answer = answer.expect(&[StatusCode::OK])?;
        let bad = || Error::Answer { what: "the results of a batch of chains" };
        let answer: ChainsAnswer = serde_json::from_slice(&answer.body).map_err(|_| bad())?;
        if answer.results.len() != chains.len() {
            return Err(bad());
        }
        let results = answer.results.into_iter().zip(chains).map(|(item, (_, wanted))| item.read(*wanted));
        results.collect::<Option<_>>().ok_or_else(bad)
    }

    /// Roots from which the log accepts chains, each in DER. Not verified.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Answer`], and transport errors.
    pub async fn accepted_roots(&self) -> Result<Vec<Vec<u8>>, Error> {
        let answer: RootsAnswer = self.get_json("ct/v1/get-roots", "a list of roots").await?;
        let decoded = answer.certificates.iter().map(|root| STANDARD.decode(root));
        decoded.collect::<Result<_, _>>().map_err(|_| Error::Answer { what: "a list of roots" })
    }

    /// An issuer's certificate in DER by its SHA-256 fingerprint; compared with the fingerprint.
    ///
    /// # Errors
    /// [`Error::Status`], [`Error::Answer`] when the certificate is another one, and transport errors.
    pub async fn issuer(&self, fingerprint: &Hash) -> Result<Vec<u8>, Error> {
        let path = format!("issuer/{fingerprint}");
        let answer = self.get(&path, MAX_CERTIFICATE_SIZE).await?.expect(&[StatusCode::OK])?;
        if Hash::digest(&answer.body) != *fingerprint {
            return Err(Error::Answer { what: "the certificate asked for" });
        }
        Ok(answer.body.to_vec())
    }

    async fn submit_chain(&self, path: &str, chain: &[&[u8]]) -> Result<SignedCertificateTimestamp, Error> {
        let chain: Vec<String> = chain.iter().map(|der| STANDARD.encode(der)).collect();
        let answer = self.post(path, "application/json", json_bytes(&json!({ "chain": chain }))).await?;
        let answer = answer.expect(&[StatusCode::OK])?;
        serde_json::from_slice(&answer.body)
            .ok()
            .and_then(SctAnswer::read)
            .ok_or(Error::Answer { what: "a signed certificate timestamp" })
    }
}

/// The body of a batch. Written as it goes out: nothing in it needs an escape, and chains are most of what a CA sends.
fn batch_body(chains: &[(&[Vec<u8>], Wanted)]) -> Bytes {
    let octets: usize = chains.iter().flat_map(|(chain, _)| chain.iter()).map(Vec::len).sum();
    let mut body = String::with_capacity(octets / 3 * 4 + chains.len().saturating_mul(64) + 32);
    body.push_str("{\"entries\":[");
    for (number, (chain, wanted)) in chains.iter().enumerate() {
        body.push_str(if number == 0 { "{\"chain\":[" } else { ",{\"chain\":[" });
        for (position, der) in chain.iter().enumerate() {
            body.push_str(if position == 0 { "\"" } else { ",\"" });
            STANDARD.encode_string(der, &mut body);
            body.push('"');
        }
        body.push_str(match wanted {
            Wanted::Sct => "]}",
            Wanted::Index => "],\"answer\":\"index\"}",
        });
    }
    body.push_str("]}");
    body.into()
}

/// Largest certificate that is read.
const MAX_CERTIFICATE_SIZE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_batch_is_frozen() {
        let (long, short) = ([vec![1, 2, 3], vec![4]], [vec![255, 254]]);
        let body = batch_body(&[(&long, Wanted::Sct), (&short, Wanted::Index)]);
        let expected = r#"{"entries":[{"chain":["AQID","BA=="]},{"chain":["//4="],"answer":"index"}]}"#;
        assert_eq!(String::from_utf8(body.to_vec()).unwrap(), expected);
        assert_eq!(batch_body(&[]).as_ref(), br#"{"entries":[]}"#);
    }
}
