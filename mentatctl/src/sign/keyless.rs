//! A signer for the moment: a key that lives as long as this process, and a certificate for whoever an identity token names.

use std::path::PathBuf;

use clap::Args;
use hsm::KeyAlgorithm;
use hsm::developer::DeveloperKey;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::json;
use trust_store::Certificate;
use trust_store::json::base64_encode;
use zeroize::Zeroizing;

use super::key::shared;
use super::signer::Signer;
use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};
use crate::home::read_secret;
use crate::net::block_on;
use crate::{chain_file, csr};

/// Largest answer of a certificate authority, bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Where CI systems put a token that they made for this job; stock clients read it too.
const VARIABLE: &str = "SIGSTORE_ID_TOKEN";

/// Where the identity token of a signer is.
#[derive(Args)]
pub struct TokenFlags {
    /// OpenID Connect token of the signer: the key lives for this call alone, and the certificate is asked for by the token. Other
    /// processes may see a command line: a file or the environment is the better place [default: the environment variable
    /// SIGSTORE_ID_TOKEN, where no certificate and no key is named]
    #[arg(long, value_name = "TOKEN", conflicts_with = "identity_token_file")]
    identity_token: Option<String>,
    /// File that holds the token, as some CI systems hand it out
    #[arg(long, value_name = "FILE")]
    identity_token_file: Option<PathBuf>,
}

/// Says whether there is a token, and nothing of it.
impl std::fmt::Debug for TokenFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.identity_token.as_ref().map(|_| "…");
        f.debug_struct("TokenFlags").field("token", &token).field("file", &self.identity_token_file).finish()
    }
}

impl TokenFlags {
    /// The token that the command line names.
    ///
    /// # Errors
    /// Exit code 2 when the file cannot be read or is empty.
    pub fn given(&self) -> Outcome<Option<Zeroizing<String>>> {
        let token = match (&self.identity_token, &self.identity_token_file) {
            (Some(token), _) => Zeroizing::new(token.clone()),
            (None, Some(file)) => read_secret(file)?,
            (None, None) => return Ok(None),
        };
        // Written by `echo`, it ends with a newline.
        match token.trim() {
            "" => Err(missing()),
            token => Ok(Some(Zeroizing::new(token.to_owned()))),
        }
    }

    /// The same, else that of the environment.
    ///
    /// # Errors
    /// As [`TokenFlags::given`].
    pub fn read(&self) -> Outcome<Option<Zeroizing<String>>> {
        match self.given()? {
            Some(token) => Ok(Some(token)),
            None => Ok(std::env::var(VARIABLE)
                .ok()
                .map(Zeroizing::new)
                .filter(|token| !token.trim().is_empty())
                .map(|token| Zeroizing::new(token.trim().to_owned()))),
        }
    }
}

/// What is said where a token is needed and there is none.
pub fn missing() -> Failure {
    Failure::usage("there is no identity token")
        .hint(format!("give --identity-token-file FILE or --identity-token TOKEN, or set {VARIABLE}"))
}

/// A new key with a certificate for the token's identity. The chain holds no root: that is the verifier's own.
///
/// # Errors
/// Exit code 69 when the authority cannot be reached, 1 when it refuses.
pub fn signer(http: &Client, ca_url: &str, token: &str) -> Outcome<Signer> {
    let key = DeveloperKey::generate(KeyAlgorithm::EcdsaP256).or_fail(Exit::Failure, "making the key")?;
    let request = csr::bare_request_pem(&key)?;
    let certificates = block_on(certify(http, ca_url, token, &request))?;
    Signer::new(shared(key), certificates)
}

/// The answer to a request for a certificate.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Issued {
    signed_certificate_embedded_sct: Embedded,
}

#[derive(Deserialize)]
struct Embedded {
    chain: Chain,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<String>,
}

/// Asks for a certificate: Fulcio's interface, version 2, with a certificate request, which proves possession itself.
async fn certify(http: &Client, base: &str, token: &str, request: &str) -> Outcome<Vec<Certificate>> {
    let url = format!("{}/api/v2/signingCert", base.trim_end_matches('/'));
    let unreachable = |error: reqwest::Error| {
        Failure::new(Exit::Unavailable, format!("the certificate authority at {url}: {}", chain(&error)))
    };
    let body = json!({ "certificateSigningRequest": base64_encode(request.as_bytes()) });
    let mut response = http.post(&url).bearer_auth(token).json(&body).send().await.map_err(unreachable)?;
    let status = response.status();
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        answer.extend_from_slice(&chunk);
        if answer.len() > MAX_ANSWER {
            return Err(Failure::failed("the certificate authority's answer is larger than 1 MiB"));
        }
    }
    if status == StatusCode::ACCEPTED {
        return Err(Failure::failed(
            "people must approve the certificate, and a key that lives as long as this command cannot wait for them",
        )
        .code("awaits_approval")
        .hint("sign with a key of your own: mentatctl pki request-cert"));
    }
    if status != StatusCode::OK {
        let exit = if status.is_server_error() { Exit::Unavailable } else { Exit::Failure };
        // The authority's own words, bounded; the token is in none of ours.
        let words: String = String::from_utf8_lossy(&answer).chars().take(300).collect();
        return Err(Failure::new(exit, format!("the certificate authority answers {status}: {words}")));
    }
    let issued: Issued =
        serde_json::from_slice(&answer).or_fail(Exit::Failure, "the certificate authority's answer")?;
    let pem = issued.signed_certificate_embedded_sct.chain.certificates.join("\n");
    let certificates = chain_file::parse(&pem, "the certificate authority's answer")
        .map_err(|failure| Failure { exit: Exit::Failure, ..failure })?;
    if certificates.len() < 2 {
        return Err(Failure::failed("the certificate authority's answer holds no issuer"));
    }
    Ok(certificates.into_iter().filter(|link| link.subject_der() != link.issuer_der()).collect())
}
