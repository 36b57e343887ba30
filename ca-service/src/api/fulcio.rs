//! `/api/v2/signingCert`, `/api/v2/trustBundle`, `/api/v2/configuration`: Fulcio's REST interface as stock clients use it
//! (sigstore-contract §3). Bodies follow the JSON mapping of protocol buffers; unknown fields are refused.

pub mod grpc;

use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use ca_api::limits::MAX_JSON_BODY;
use ca_pki::jws::MAX_TOKEN;
use ca_pki::{TokenRefusal, pem};
use http::StatusCode;
use http::header::RETRY_AFTER;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::peer::{self, Peer};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::roles::connected_as;
use super::{json, queue, request, with};
use crate::CertificateAuthority;
use crate::authority::{LoadedAuthority, names};
use crate::error::CaError;
use crate::fulcio::{CertificateRequest, KeyProof};
use crate::issuance::Issued;
use crate::oidc::OidcError;
use crate::queue::QueueRefusal;

pub(super) fn routes(authority: &Arc<CertificateAuthority>) -> BoxedFilter<(Response,)> {
    let certify = warp::path!("api" / "v2" / "signingCert")
        .and(warp::post())
        .and(warp::header::optional::<String>("authorization"))
        .and(peer::peer())
        .and(request::bounded(MAX_JSON_BODY))
        .and(with(authority))
        .and_then(|header, peer, body, authority| async move {
            answer(certify(header, &peer, body, authority).await)
        });
    let bundle = warp::path!("api" / "v2" / "trustBundle")
        .and(warp::get())
        .and(with(authority))
        .and_then(|authority: Arc<CertificateAuthority>| async move { answer(trust_bundle(&authority)) });
    let configuration = warp::path!("api" / "v2" / "configuration")
        .and(warp::get())
        .and(with(authority))
        .map(|authority: Arc<CertificateAuthority>| configuration(&authority));
    certify.or(bundle).unify().or(configuration).unify().boxed()
}

/// The body of a request. Names in lowerCamelCase and in snake_case mean the same.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SigningRequest {
    credentials: Option<Credentials>,
    #[serde(alias = "certificate_signing_request")]
    certificate_signing_request: Option<String>,
    #[serde(alias = "public_key_request")]
    public_key_request: Option<PublicKeyRequest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    #[serde(rename = "oidcIdentityToken", alias = "oidc_identity_token")]
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKeyRequest {
    #[serde(rename = "publicKey", alias = "public_key")]
    public_key: PublicKey,
    #[serde(rename = "proofOfPossession", alias = "proof_of_possession")]
    proof: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKey {
    /// A hint, as a name or a number: the key itself decides.
    #[serde(default, rename = "algorithm")]
    _algorithm: serde::de::IgnoredAny,
    content: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SigningAnswer {
    signed_certificate_embedded_sct: Embedded,
}

#[derive(Serialize)]
struct Embedded {
    chain: Chain,
}

/// PEM certificates, the end-entity side first, the root last.
#[derive(Serialize)]
struct Chain {
    certificates: Vec<String>,
}

#[derive(Serialize)]
struct TrustBundle {
    chains: Vec<Chain>,
}

#[derive(Serialize)]
struct Configuration {
    issuers: Vec<Issuer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issuer {
    issuer_url: String,
    audience: String,
    challenge_claim: &'static str,
    issuer_type: &'static str,
}

/// A refusal in the form of gRPC gateways.
#[derive(Debug, Serialize)]
struct Refusal {
    code: u32,
    message: String,
    details: [(); 0],
    /// Seconds after which asking again may help.
    #[serde(skip)]
    retry_after: Option<u32>,
}

/// Codes of gRPC.
const INVALID_ARGUMENT: u32 = 3;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const FAILED_PRECONDITION: u32 = 9;
const INTERNAL: u32 = 13;

impl Refusal {
    fn invalid(message: impl Into<String>) -> Self {
        Self::new(INVALID_ARGUMENT, message)
    }

    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: [], retry_after: None }
    }
}

/// The requester's to mend, or ours. Internal texts go to the log only.
impl From<CaError> for Refusal {
    fn from(error: CaError) -> Self {
        if let CaError::Queue(refusal) = &error {
            return Self::new(of_queue(refusal), refusal.to_string());
        }
        if let CaError::Oidc(refusal @ OidcError::ClaimNotAllowed(_)) = &error {
            return Self::new(PERMISSION_DENIED, refusal.to_string());
        }
        if let CaError::TooManyCertificates { after_seconds } = &error {
            let retry_after = Some(*after_seconds);
            return Self { retry_after, ..Self::new(RESOURCE_EXHAUSTED, error.to_string()) };
        }
        let theirs = match &error {
            CaError::Oidc(refusal) => {
                !matches!(refusal, OidcError::Unavailable(_) | OidcError::Token(TokenRefusal::KeySet(_)))
            }
            CaError::KeyCompromised | CaError::KeyEvidenceMissing => true,
            CaError::RequestConflict => true,
            CaError::Request(_) => true,
            CaError::Pki(refusal) => {
                matches!(refusal, ca_pki::Error::IdentityNotAllowed(_) | ca_pki::Error::NameNotAllowed(_))
            }
            _ => false,
        };
        if theirs {
            return Self::invalid(error.to_string());
        }
        let problem = Problem::from(error);
        // Writes the internal text to the log; the document itself has another form here.
        let _ = problem.to_document();
        let message = problem.detail().unwrap_or("internal error").to_owned();
        Self::new(INTERNAL, message)
    }
}

/// What clients make of a request that people must approve: whether to give up, to ask somebody, or to come again.
fn of_queue(refusal: &QueueRefusal) -> u32 {
    match refusal {
        QueueRefusal::Full(_) => RESOURCE_EXHAUSTED,
        QueueRefusal::Denied(_) | QueueRefusal::RequesterUnnamed | QueueRefusal::Unapproved { .. } => {
            PERMISSION_DENIED
        }
        _ => FAILED_PRECONDITION,
    }
}

fn answer(outcome: Result<Response, Refusal>) -> Result<Response, std::convert::Infallible> {
    Ok(outcome.unwrap_or_else(|refusal| {
        let status = match refusal.code {
            // As gateways write them.
            INVALID_ARGUMENT | FAILED_PRECONDITION => StatusCode::BAD_REQUEST,
            PERMISSION_DENIED => StatusCode::FORBIDDEN,
            RESOURCE_EXHAUSTED => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = json(status, &refusal);
        if let Some(seconds) = refusal.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }))
}

async fn certify(
    header: Option<String>,
    peer: &Peer,
    body: Result<Bytes, Problem>,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Refusal> {
    let body = body.map_err(|_| Refusal::invalid("the request is too large or was cut off"))?;
    let request =
        CertificateRequest { connection: connected_as(Some(peer)), ..parse(header.as_deref(), &body)? };
    let issued = match authority.certify_identity(request).await {
        Ok(issued) => issued,
        // No client of the interface takes this for a certificate; it says what its user has to wait for.
        Err(error) => return Ok(queue::accepted(error)?),
    };
    let certificates = certificates_of(&issued)?;
    let answer =
        SigningAnswer { signed_certificate_embedded_sct: Embedded { chain: Chain { certificates } } };
    Ok(json(StatusCode::OK, &answer))
}

fn parse(header: Option<&str>, body: &[u8]) -> Result<CertificateRequest, Refusal> {
    let asked: SigningRequest =
        serde_json::from_slice(body).map_err(|error| Refusal::invalid(format!("the request: {error}")))?;
    let bearer = header.map(|value| {
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let token = match (bearer, asked.credentials) {
        (None, None) => return Err(Refusal::invalid("there is no identity token")),
        (Some(None), _) => return Err(Refusal::invalid("the Authorization header is not a Bearer token")),
        (Some(Some(token)), None) => token,
        (None, Some(credentials)) => credentials.token,
        (Some(Some(token)), Some(credentials)) if token == credentials.token => token,
        (Some(Some(_)), Some(_)) => return Err(Refusal::invalid("header and body hold different tokens")),
    };
    if token.len() > MAX_TOKEN {
        return Err(Refusal::invalid("the identity token is too long"));
    }
    let key = match (asked.certificate_signing_request, asked.public_key_request) {
        (Some(request), None) => {
            let text = bytes_field("certificateSigningRequest", &request)?;
            let text = String::from_utf8(text)
                .map_err(|_| Refusal::invalid("certificateSigningRequest is not PEM in base64"))?;
            KeyProof::Request(text)
        }
        (None, Some(request)) => KeyProof::Challenge {
            signature: bytes_field("proofOfPossession", &request.proof)?,
            public_key: request.public_key.content,
        },
        _ => {
            return Err(Refusal::invalid(
                "give either certificateSigningRequest or publicKeyRequest, and not both",
            ));
        }
    };
    Ok(CertificateRequest { token, key, connection: None })
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const PLAIN: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const FOR_URLS: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// A `bytes` field in the JSON mapping: either alphabet of base64, padded or not.
fn bytes_field(name: &str, text: &str) -> Result<Vec<u8>, Refusal> {
    let engine = if text.contains(['-', '_']) { FOR_URLS } else { PLAIN };
    engine.decode(text).map_err(|_| Refusal::invalid(format!("{name} is not base64")))
}

fn encoded(der: &[u8]) -> Result<String, Refusal> {
    pem::encode("CERTIFICATE", der).map_err(|error| CaError::from(error).into())
}

/// A certificate with its issuers, the root last.
fn certificates_of(issued: &Issued) -> Result<Vec<String>, Refusal> {
    std::iter::once(&issued.certificate).chain(&issued.chain).map(|der| encoded(der)).collect()
}

/// The chains that certificates end in, the newest first: those of before are still good.
fn chains_of(authority: &CertificateAuthority) -> Result<Vec<Vec<String>>, Refusal> {
    let chain = |issuer: &LoadedAuthority| issuer.chain.iter().map(|der| encoded(der)).collect();
    authority.generations(names::CODE_SIGNING).map(chain).collect()
}

fn trust_bundle(authority: &CertificateAuthority) -> Result<Response, Refusal> {
    let chains = chains_of(authority)?.into_iter().map(|certificates| Chain { certificates }).collect();
    Ok(json(StatusCode::OK, &TrustBundle { chains }))
}

fn configuration(authority: &CertificateAuthority) -> Response {
    let issuers = authority.issuers().rules().iter().map(|rule| {
        let (issuer_type, challenge_claim) = rule.identity.described();
        Issuer {
            issuer_url: rule.issuer.clone(),
            audience: rule.audience.clone(),
            challenge_claim,
            issuer_type,
        }
    });
    json(StatusCode::OK, &Configuration { issuers: issuers.collect() })
}
