//! `sign-bundle`: the command-line protocol of Sigstore's conformance suite. Signs a file, or an in-toto statement, with a
//! key that lives for this one signature and a certificate for whoever the identity token names.

use std::path::{Path, PathBuf};

use clap::Args;
use hsm::developer::DeveloperKey;
use hsm::{Input, KeyAlgorithm};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::json;
use trust_store::bundle::{Bundle, Content};
use trust_store::json::base64_encode;
use trust_store::rekor::{HashedRekord, VerifierKey};
use trust_store::signing_config::{Service, SigningConfig};
use trust_store::statement::{MAX_STATEMENT_BYTES, Statement};
use trust_store::{Certificate, UnixTime};

use crate::exit::{Exit, Failure, OrFail as _, Outcome, chain};
use crate::home::{Home, Secrecy, read_file, read_text, write_file};
use crate::net::{TlsFlags, block_on};
use crate::output::{Output, Tone, shown};
use crate::sign::{Services, Signer, collect, sha256_of_file, unlogged};
use crate::{chain_file, clock, csr, verify_bundle};

/// Largest answer of a certificate authority, bytes.
const MAX_ANSWER: usize = 1 << 20;
/// A bundle has no place for revocation evidence, so none is fetched.
const NO_STAPLES: &[Certificate] = &[];

/// `sign-bundle`.
#[derive(Debug, Args)]
pub struct SignBundle {
    /// Accepted for the protocol's sake; the addresses always come from the signing configuration
    #[arg(long, hide = true)]
    staging: bool,
    /// The file is an in-toto statement, to be signed as it is
    #[arg(long)]
    in_toto: bool,
    /// OpenID Connect token of the signer
    #[arg(long, value_name = "TOKEN", env = "SIGSTORE_ID_TOKEN", hide_env_values = true)]
    identity_token: String,
    /// The bundle to write
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// trusted_root.json, by which the new bundle is verified before it is written [default: of the stack, else
    /// ~/.mentat/trusted_root.json]
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// signing_config.json [default: beside the trusted root]
    #[arg(long, value_name = "FILE")]
    signing_config: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFlags,
    /// The file to sign
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs `sign-bundle`.
///
/// # Errors
/// Exit code 2 when a file cannot be read, 69 when a service cannot be reached, 1 when one refuses, 3 when what came out
/// does not verify.
pub fn run(sign: &SignBundle, home: &Home, out: &Output) -> Outcome {
    let root_path = home.trusted_root(sign.trusted_root.as_deref())?;
    let root = read_text(&root_path)?;
    let config_path =
        sign.signing_config.clone().unwrap_or_else(|| root_path.with_file_name("signing_config.json"));
    let config =
        SigningConfig::parse(&read_file(&config_path)?).or_fail(Exit::Usage, config_path.display())?;
    let now = clock::now();
    let ca = service(&config.ca_urls, 1, "certificate authority", now)?;
    let log = service(&config.rekor_tlog_urls, 2, "transparency log", now)?;
    let tsa = service(&config.tsa_urls, 1, "timestamp authority", now)?;
    let http = sign.tls.client(home)?;
    let services = Services::new(http.clone(), &log.url, &tsa.url)?;
    // Read before a certificate is asked for: what cannot be signed needs none.
    let input = Artifact::read(&sign.file, sign.in_toto)?;
    let key = DeveloperKey::generate(KeyAlgorithm::EcdsaP256).or_fail(Exit::Failure, "making the key")?;
    let request = csr::bare_request_pem(&key)?;
    let certificates = block_on(certify(&http, &ca.url, &sign.identity_token, &request))?;
    let signer = Signer::new(crate::sign::key::shared(key), certificates)?;
    let (bundle, digest) = input.sign(&signer, &services)?;
    let json = bundle.to_json().or_fail(Exit::Failure, "writing the bundle")?;
    verify_own(&json, &root, &digest, &signer)?;
    write_file(&sign.bundle, &json, Secrecy::Public)?;
    out.line(format!("{} {} as {}", out.paint(Tone::Good, "signed"), sign.file.display(), signer.name()));
    out.value(|| json!({ "ok": true, "bundle": shown(&sign.bundle), "signer": signer.name() }));
    Ok(Exit::Ok)
}

/// What is to be signed.
enum Artifact {
    /// A file, by its digest.
    Blob([u8; 32]),
    /// The bytes of an in-toto statement, and the digest of one of its subjects.
    Statement(Vec<u8>, String),
}

impl Artifact {
    fn read(path: &Path, in_toto: bool) -> Outcome<Self> {
        if !in_toto {
            return Ok(Self::Blob(sha256_of_file(path)?));
        }
        let bytes = trust_store_files::atomic::read(path, MAX_STATEMENT_BYTES as u64)
            .map_err(|error| crate::release::file_failure(&error, Exit::Usage))?;
        let statement = Statement::parse(&bytes).or_fail(Exit::Usage, path.display())?;
        let digests = statement.subject.iter().find_map(|subject| subject.digest.get("sha256").cloned());
        let digest = digests
            .ok_or_else(|| Failure::usage(format!("{} names no subject by its SHA-256", path.display())))?;
        Ok(Self::Statement(bytes, digest))
    }

    fn sign(self, signer: &Signer, services: &Services) -> Outcome<(Bundle, String)> {
        let digest = match self {
            Self::Statement(payload, digest) => {
                let (bundle, entry) = unlogged(payload, signer)?;
                return Ok((collect(bundle, &entry, NO_STAPLES, services)?.bundle, digest));
            }
            Self::Blob(digest) => digest,
        };
        let signature = signer.sign_input(Input::Digest(&digest))?;
        let certificate = signer.certificate().der().to_vec();
        let bundle = Bundle::for_message(certificate.clone(), digest, signature.clone());
        debug_assert!(matches!(bundle.content, Content::Message { .. }));
        let entry = HashedRekord::new(
            digest.to_vec(),
            signature,
            VerifierKey::Certificate(certificate),
            signer.key_details,
        )
        .or_fail(Exit::Failure, "making the log entry")?;
        Ok((collect(bundle, &entry, NO_STAPLES, services)?.bundle, hex::encode(digest)))
    }
}

fn service<'a>(list: &'a [Service], version: u32, what: &str, now: UnixTime) -> Outcome<&'a Service> {
    SigningConfig::select(list, version, now).ok_or_else(|| {
        Failure::usage(format!(
            "the signing configuration names no {what} with API version {version} that is valid at this time"
        ))
    })
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
    Ok(certificates)
}

/// What is written is what verifies.
fn verify_own(bundle: &[u8], root: &str, digest: &str, signer: &Signer) -> Outcome<()> {
    let identity = trust_store::identity::Identity::of_certificate(signer.certificate())
        .map_err(crate::verify::denied)?;
    let bundle = std::str::from_utf8(bundle).or_fail(Exit::Failure, "writing the bundle")?;
    verify_bundle::decide(
        bundle,
        root,
        digest,
        &json!({
            "identity": identity.subject(), "issuer": identity.issuer(),
        }),
    )
}
