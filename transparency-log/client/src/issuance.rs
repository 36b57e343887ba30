//! Submitting certificate chains to an issuance log (RFC 6962 section 4, static-ct-api).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;
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
        let bad = || Error::Answer { what: "a signed certificate timestamp" };
        let answer: SctAnswer = serde_json::from_slice(&answer.body).map_err(|_| bad())?;
        if answer.sct_version != 0 || answer.timestamp > tlog::MAX_SIZE {
            return Err(bad());
        }
        let extensions = STANDARD.decode(&answer.extensions).map_err(|_| bad())?;
        let signature = STANDARD.decode(&answer.signature).map_err(|_| bad())?;
        Ok(SignedCertificateTimestamp {
            log_id: Hash::from_base64(&answer.id).map_err(|_| bad())?,
            timestamp: answer.timestamp,
            extensions: Extensions::parse(&extensions)?,
            signature: DigitallySigned::parse(&signature)?,
        })
    }
}

/// Largest certificate that is read.
const MAX_CERTIFICATE_SIZE: usize = 64 * 1024;
