//! `POST /api/v1/timestamp`: RFC 3161 over HTTP (§3.4), and the JSON form that npm clients send. `GET …/certchain`: who
//! signs, as Sigstore's timestamp authorities tell it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use ca_api::limits::MAX_TIMESTAMP_JSON;
use ca_api::{DigestAlgorithm, TimestampJson};
use ca_pki::timestamp::{ImprintHash, MAX_REQUEST};
use http::StatusCode;
use service::Problem;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{answer, binary, request, with};
use crate::CertificateAuthority;
use crate::authority::names;
use crate::error::CaError;

pub(super) fn routes(authority: &Arc<CertificateAuthority>) -> BoxedFilter<(Response,)> {
    let stamp = warp::path!("api" / "v1" / "timestamp")
        .and(warp::post())
        .and(warp::header::optional::<String>("content-type"))
        .and(request::body(MAX_REQUEST))
        .and(with(authority))
        .and_then(|content_type, body, authority| async move {
            answer(stamped(content_type, body, authority).await)
        });
    let chain = warp::path!("api" / "v1" / "timestamp" / "certchain")
        .and(warp::get())
        .and(with(authority))
        .and_then(|authority: Arc<CertificateAuthority>| async move { answer(chain_of(&authority)) });
    stamp.or(chain).unify().boxed()
}

/// The authority's certificate, its issuer and the root, in PEM. Where anchors come from is the trusted root: this is for
/// whoever compares.
fn chain_of(authority: &CertificateAuthority) -> Result<Response, Problem> {
    let chain = &authority.authority(names::TIMESTAMP_AUTHORITY).map_err(Problem::from)?.chain;
    let text: Result<String, ca_pki::Error> =
        chain.iter().map(|der| ca_pki::pem::encode("CERTIFICATE", der)).collect();
    Ok(binary("application/pem-certificate-chain", text.map_err(CaError::from)?))
}

async fn stamped(
    content_type: Option<String>,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let content_type = content_type.unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let reply = match media_type {
        "application/timestamp-query" => authority.timestamp(&body).await,
        "application/json" => {
            if body.len() > MAX_TIMESTAMP_JSON {
                return Err(Problem::too_large(MAX_TIMESTAMP_JSON as u64));
            }
            let asked: TimestampJson = request::parse(&body)?;
            let digest = STANDARD
                .decode(&asked.artifact_hash)
                .map_err(|_| Problem::bad_request("malformed", "artifactHash is not base64"))?;
            let hash = match asked.hash_algorithm {
                DigestAlgorithm::Sha256 => ImprintHash::Sha256,
                DigestAlgorithm::Sha384 => ImprintHash::Sha384,
                DigestAlgorithm::Sha512 => ImprintHash::Sha512,
            };
            if digest.len() != hash.digest_length() {
                return Err(Problem::bad_request(
                    "malformed",
                    "artifactHash is not a digest of hashAlgorithm",
                ));
            }
            authority.timestamp_digest(hash, &digest).await
        }
        _ => {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
                .with_detail("send application/timestamp-query or application/json"));
        }
    };
    Ok(binary("application/timestamp-reply", reply))
}
