//! The services that turn a signature into evidence: timestamp authority, log, and the issuers' status addresses.

use ca_api::client::{CaClient, ClientError};
use clap::Args;
use reqwest::Client;
use serde_json::Value;
use tlog_client::{LogClient, Submission};
use trust_store::Certificate;
use trust_store::attestation::Staples;
use trust_store::general_name::GeneralName;
use trust_store::json::Bytes;
use trust_store::log_entry::TransparencyLogEntry;
use trust_store::rekor::HashedRekord;
use trust_store::tsp::{self, TimestampToken};

use super::signer::sha256;
use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};
use crate::home::Home;
use crate::log::log_failure;
use crate::net::TlsFlags;

/// Largest timestamp answer, bytes.
const MAX_TIMESTAMP: usize = 64 << 10;

/// Where evidence comes from.
#[derive(Debug, Args)]
pub struct ServiceFlags {
    /// Base URL of the signing log
    #[arg(long, value_name = "URL")]
    log_url: Option<String>,
    /// Full URL of the timestamp authority
    #[arg(long, value_name = "URL")]
    tsa_url: Option<String>,
    #[command(flatten)]
    tls: TlsFlags,
}

impl ServiceFlags {
    /// Base URL of the log, where it was given.
    pub fn log_url(&self) -> Option<&str> {
        self.log_url.as_deref()
    }

    /// Full URL of the timestamp authority, where it was given.
    pub fn tsa_url(&self) -> Option<&str> {
        self.tsa_url.as_deref()
    }

    /// The services.
    ///
    /// # Errors
    /// Exit code 2 when an address is not known or a TLS file cannot be used.
    pub fn services(&self, home: &Home) -> Outcome<Services> {
        let log = home.log_url(self.log_url.as_deref())?;
        Services::new(self.tls.client(home)?, &log, &home.tsa_url(self.tsa_url.as_deref())?)
    }

    /// The HTTP client.
    ///
    /// # Errors
    /// Exit code 2 when a TLS file cannot be used.
    pub fn client(&self, home: &Home) -> Outcome<reqwest::Client> {
        self.tls.client(home)
    }
}

/// Clients of the services.
#[derive(Clone, Debug)]
pub struct Services {
    http: Client,
    log: LogClient,
    tsa_url: String,
}

impl Services {
    /// Services at these addresses; `tsa_url` is complete.
    ///
    /// # Errors
    /// Exit code 2 when the log's address is no URL.
    pub fn new(http: Client, log_url: &str, tsa_url: &str) -> Outcome<Self> {
        let log = LogClient::new(http.clone(), log_url).or_fail(Exit::Usage, "the log's address")?;
        Ok(Self { http, log, tsa_url: tsa_url.to_owned() })
    }

    /// A token over a signature: the whole `TimeStampResp`, checked to stamp these bytes with our nonce. Whether its
    /// authority is trusted is for the verifier to say.
    ///
    /// # Errors
    /// Exit code 69 when the authority cannot be reached, 1 when its answer is of no use.
    pub async fn timestamp(&self, signature: &[u8]) -> Outcome<Vec<u8>> {
        let nonce = uuid::Uuid::new_v4();
        // A positive number of exactly sixteen bytes: the first bit stays clear, the byte is never zero.
        let mut nonce: [u8; 16] = *nonce.as_bytes();
        nonce[0] = nonce[0] & 0x7f | 0x40;
        let imprint = sha256(signature);
        let unreachable = |error: reqwest::Error| {
            Failure::new(
                Exit::Unavailable,
                format!("the timestamp authority at {}: {}", self.tsa_url, chain(&error)),
            )
            .hint("is ca-service running at that address?")
        };
        let mut response = self
            .http
            .post(&self.tsa_url)
            .header("content-type", "application/timestamp-query")
            .body(tsp::request(&imprint, &nonce))
            .send()
            .await
            .map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_TIMESTAMP {
                return Err(Failure::failed("the timestamp authority's answer is larger than 64 KiB"));
            }
        }
        if !status.is_success() {
            let exit = if status.is_server_error() { Exit::Unavailable } else { Exit::Failure };
            return Err(Failure::new(exit, format!("the timestamp authority answers {status}"))
                .hint("its log says why; trying again may work"));
        }
        let token = TimestampToken::from_response(&body)
            .or_fail(Exit::Failure, "the timestamp authority's answer")?;
        if token.imprint().1 != imprint || token.nonce() != Some(&nonce[..]) {
            return Err(Failure::failed("the timestamp authority answered another request"));
        }
        Ok(body)
    }

    /// Records an entry and returns it with its proof, checked to be the entry that was sent. An entry that is there already,
    /// because an earlier answer was lost, is as good: its proof is fetched.
    ///
    /// # Errors
    /// Exit code 69 when the log cannot be reached or is overloaded, 1 when it refuses.
    pub async fn record(&self, request: &Value, entry: &HashedRekord) -> Outcome<TransparencyLogEntry> {
        let answer = match self.log.submit(request).await.map_err(log_failure)? {
            Submission::Accepted(answer) => answer,
            Submission::Duplicate { index } => self.log.log_entry(index).await.map_err(log_failure)?,
        };
        let logged = TransparencyLogEntry::parse(answer.to_string().as_bytes())
            .or_fail(Exit::Failure, "the log's answer")?;
        let body = entry.canonical_body().or_fail(Exit::Failure, "writing the log entry")?;
        if logged.canonicalized_body != body || logged.inclusion_proof.is_none() {
            return Err(Failure::failed("the log answered with another entry than the one that was sent"));
        }
        Ok(logged)
    }

    /// Revocation evidence for a chain, as [`staples`].
    pub async fn staples(&self, chain: &[Certificate]) -> Staples {
        staples(&self.http, chain).await
    }
}

/// The CRLs that the chain's certificates name. An issuer that publishes none, or a status address that is down, is no
/// obstacle to signing: verifiers look for fresh evidence themselves, so what cannot be had is left out.
pub async fn staples(http: &Client, chain: &[Certificate]) -> Staples {
    let client = CaClient::new(http.clone(), "");
    let mut staples = Staples::default();
    for certificate in chain {
        let Some(url) = crl_url(certificate) else { continue };
        let fetched: Result<Vec<u8>, ClientError> = client.fetch(&url).await;
        if let Ok(crl) = fetched
            && !staples.crl.iter().any(|known: &Bytes| known.0 == crl)
        {
            staples.crl.push(Bytes(crl));
        }
    }
    staples
}

/// The first HTTP address of a certificate's CRL.
pub fn crl_url(certificate: &Certificate) -> Option<String> {
    use trust_store::extension::DistributionPointName;
    certificate.crl_distribution_points()?.iter().find_map(|point| match point.name {
        Some(DistributionPointName::Full(names)) => names.iter().find_map(|name| match name {
            GeneralName::Uri(uri) if uri.starts_with("http") => Some(uri.to_owned()),
            _ => None,
        }),
        _ => None,
    })
}
