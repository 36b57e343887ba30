//! CRLs, CA certificates and OCSP over plain HTTP, with the caching headers of RFC 9919 §5.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::Bytes;
use ca_pki::ocsp::MAX_REQUEST;
use ca_pki::serial::Shard;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, StatusCode};
use service::Problem;
use service::peer::Peer;
use service::rate_limit::ClientKey;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::problem::problem;
use super::{answer, binary, request, with};
use crate::CertificateAuthority;
use crate::error::CaError;
use crate::http_caching::CachingHeaders;
use crate::responder::OcspAnswer;
use crate::storage::CrlPart;

pub(super) fn routes(authority: &Arc<CertificateAuthority>) -> BoxedFilter<(Response,)> {
    let ocsp_post = warp::path!("ocsp")
        .and(warp::post())
        .and(warp::header::optional::<String>("content-type"))
        .and(request::body(MAX_REQUEST))
        .and(client())
        .and(with(authority))
        .and_then(|content_type, body, client, authority| async move {
            answer(ocsp_post(content_type, body, client, authority).await)
        });
    let ocsp_get = warp::path("ocsp")
        .and(warp::get())
        .and(warp::path::tail())
        .and(warp::header::headers_cloned())
        .and(client())
        .and(with(authority))
        .and_then(|tail: warp::path::Tail, headers, client, authority| async move {
            answer(Ok(ocsp_get(tail.as_str(), &headers, client, authority).await))
        });
    let complete = warp::path!("crl" / String)
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(with(authority))
        .and_then(|file: String, headers, authority: Arc<CertificateAuthority>| async move {
            answer(complete_crl(&file, &headers, &authority))
        });
    let shard = warp::path!("crl" / String / String)
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(with(authority))
        .and_then(|issuer: String, file: String, headers, authority: Arc<CertificateAuthority>| async move {
            answer(crl_shard(&issuer, &file, &headers, &authority))
        });
    let certificate = warp::path!("ca" / String).and(warp::get()).and(with(authority)).and_then(
        |file: String, authority: Arc<CertificateAuthority>| async move {
            answer(ca_certificate(&file, &authority))
        },
    );
    ocsp_get.or(ocsp_post).unify().or(shard).unify().or(complete).unify().or(certificate).unify().boxed()
}

/// Whom requests with a nonce are counted for.
pub(super) fn client() -> impl Filter<Extract = (Option<ClientKey>,), Error = std::convert::Infallible> + Clone
{
    warp::ext::optional::<Peer>().map(|peer: Option<Peer>| peer.as_ref().map(ClientKey::of))
}

const UNKNOWN: &str = "no such revocation list or certificate";

fn complete_crl(
    file: &str,
    headers: &HeaderMap,
    authority: &CertificateAuthority,
) -> Result<Response, Problem> {
    let issuer = file.strip_suffix(".crl").ok_or_else(|| Problem::not_found(UNKNOWN))?;
    crl(issuer, CrlPart::Complete, headers, authority)
}

fn crl_shard(
    issuer: &str,
    file: &str,
    headers: &HeaderMap,
    authority: &CertificateAuthority,
) -> Result<Response, Problem> {
    if file == "delta.crl" {
        return crl(issuer, CrlPart::Delta, headers, authority);
    }
    let shard = file
        .strip_suffix(".crl")
        .filter(|digits| digits.bytes().all(|octet| octet.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Problem::not_found(UNKNOWN))?;
    crl(issuer, CrlPart::Shard(Shard(shard)), headers, authority)
}

fn crl(
    issuer: &str,
    part: CrlPart,
    headers: &HeaderMap,
    authority: &CertificateAuthority,
) -> Result<Response, Problem> {
    // What a successor revoked is in none of these lists.
    authority.still_serves().map_err(|error| problem(&CaError::Store(error)))?;
    let published = authority.published_crl(issuer, part).ok_or_else(|| Problem::not_found(UNKNOWN))?;
    let max_age = authority.settings().publish_interval.as_secs() as i64;
    Ok(cached("application/pkix-crl", published.der.clone(), &published.caching, max_age, headers))
}

fn ca_certificate(file: &str, authority: &CertificateAuthority) -> Result<Response, Problem> {
    let unknown = || Problem::not_found(UNKNOWN);
    let name = file.strip_suffix(".cer").ok_or_else(unknown)?;
    let loaded = authority.authorities().get(name).filter(|loaded| !loaded.certificate.is_empty());
    let loaded = loaded.ok_or_else(unknown)?;
    let mut response = binary("application/pkix-cert", loaded.certificate.clone());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=86400"));
    Ok(response)
}

async fn ocsp_post(
    content_type: Option<String>,
    body: Bytes,
    client: Option<ClientKey>,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    if content_type.as_deref().is_some_and(|given| !given.starts_with("application/ocsp-request")) {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
            .with_detail("send application/ocsp-request"));
    }
    // RFC 9919 §5: caches keep answers to GET only.
    let answer = authority.ocsp(&body, client).await;
    Ok(uncached(binary("application/ocsp-response", answer.der)))
}

async fn ocsp_get(
    path: &str,
    headers: &HeaderMap,
    client: Option<ClientKey>,
    authority: Arc<CertificateAuthority>,
) -> Response {
    let request = decode_path(path).unwrap_or_default();
    let OcspAnswer { der, given_at, cacheable } = authority.ocsp(&request, client).await;
    let Some(lasting) = cacheable else {
        return uncached(binary("application/ocsp-response", der));
    };
    // A revocation must be seen at once (O6), so caches ask again soon; the answer itself lives longer, and no cache keeps it to its
    // end (O5).
    let max_age = (lasting.next_update() - given_at - 1).clamp(0, 10);
    let caching = lasting.headers(&der);
    cached("application/ocsp-response", der, caching, max_age, headers)
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Base64 whose padding is there or not.
static LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The request of a GET path: base64, percent-encoded or not, padded or not (O5).
fn decode_path(path: &str) -> Option<Vec<u8>> {
    if path.len() > 3 * MAX_REQUEST {
        return None;
    }
    let mut text = Vec::with_capacity(path.len());
    let mut octets = path.bytes();
    while let Some(octet) = octets.next() {
        if octet == b'%' {
            let mut decoded = [0];
            hex::decode_to_slice([octets.next()?, octets.next()?], &mut decoded).ok()?;
            text.extend(decoded);
        } else {
            text.push(octet);
        }
    }
    STANDARD.decode(&text).or_else(|_| LENIENT.decode(&text)).ok()
}

/// An answer that caches may keep for so many seconds, or that the client's own copy is still this one.
fn cached(
    content_type: &'static str,
    body: Bytes,
    caching: &CachingHeaders,
    max_age: i64,
    request: &HeaderMap,
) -> Response {
    let mut response = if caching.is_known(request) {
        let mut response = Response::default();
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        binary(content_type, body)
    };
    caching.put_into(response.headers_mut(), max_age);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_decode_with_and_without_escapes_and_padding() {
        let request = [0xfb, 0xff, 0xfe, 1];
        for path in ["+//+AQ==", "%2B%2F%2f%2BAQ%3D%3D", "+//+AQ"] {
            assert_eq!(decode_path(path).as_deref(), Some(&request[..]), "{path}");
        }
        for path in ["%", "%2", "%zz", "!!", &"A".repeat(3 * MAX_REQUEST + 1)] {
            assert_eq!(decode_path(path), None, "{path}");
        }
    }
}
