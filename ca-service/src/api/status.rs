//! CRLs, CA certificates and OCSP over plain HTTP, with the caching headers of RFC 9919 §5.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::Bytes;
use ca_pki::ocsp::MAX_REQUEST;
use ca_pki::serial::Shard;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use service::Problem;
use service::peer::Peer;
use service::rate_limit::ClientKey;
use sha2::{Digest, Sha256};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::problem::problem;
use super::{answer, binary, request, with};
use crate::CertificateAuthority;
use crate::error::CaError;
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
    let max_age = authority.settings().publish_interval.as_secs();
    let caching = Caching {
        etag: &published.etag,
        this_update: published.this_update,
        next_update: published.next_update,
        max_age: max_age as i64,
    };
    Ok(caching.respond("application/pkix-crl", published.der.clone(), headers))
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
    let OcspAnswer { der, cacheable } = authority.ocsp(&request, client).await;
    let Some((this_update, next_update)) = cacheable else {
        return uncached(binary("application/ocsp-response", der));
    };
    // A revocation must be seen at once (O6), so caches ask again soon; the answer itself lives longer, and no cache keeps it to its
    // end (O5).
    let left = next_update - authority.clock.for_records().0;
    let max_age = (left - 1).clamp(0, 10);
    let etag = format!("\"{}\"", hex::encode(Sha256::digest(&der)));
    Caching { etag: &etag, this_update, next_update, max_age }.respond(
        "application/ocsp-response",
        der,
        headers,
    )
}

fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The request of a GET path: base64, percent-encoded or not, padded or not (O5).
fn decode_path(path: &str) -> Option<Vec<u8>> {
    if path.len() > 3 * MAX_REQUEST {
        return None;
    }
    let mut text = Vec::with_capacity(path.len());
    let mut octets = path.bytes();
    while let Some(octet) = octets.next() {
        if octet == b'%' {
            let digits = [octets.next()?, octets.next()?];
            text.extend(hex::decode(digits).ok()?);
        } else {
            text.push(octet);
        }
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let lenient = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    STANDARD.decode(&text).or_else(|_| lenient.decode(&text)).ok()
}

struct Caching<'a> {
    etag: &'a str,
    this_update: i64,
    next_update: i64,
    max_age: i64,
}

impl Caching<'_> {
    /// Whether the client has this very object (RFC 9110 §13.2.2: the tag decides where there is one, else the date).
    fn is_known(&self, request: &HeaderMap) -> bool {
        if request.contains_key(IF_NONE_MATCH) {
            return request
                .get_all(IF_NONE_MATCH)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|tag| tag.trim().trim_start_matches("W/") == self.etag || tag.trim() == "*");
        }
        let since = request.get(IF_MODIFIED_SINCE).and_then(|value| value.to_str().ok());
        since.and_then(from_http_date).is_some_and(|since| since >= self.this_update)
    }

    fn respond(&self, content_type: &'static str, body: Bytes, request: &HeaderMap) -> Response {
        let known = self.is_known(request);
        let mut response = if known {
            let mut response = Response::default();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            binary(content_type, body)
        };
        let headers = response.headers_mut();
        if known {
            headers.remove(CONTENT_TYPE);
        }
        let cache_control = format!("public, no-transform, must-revalidate, max-age={}", self.max_age);
        for (name, value) in [
            (CACHE_CONTROL, cache_control),
            (ETAG, self.etag.to_owned()),
            (LAST_MODIFIED, http_date(self.this_update)),
            (EXPIRES, http_date(self.next_update)),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The seconds of an IMF-fixdate; none for the obsolete forms, which only cost a full answer.
fn from_http_date(text: &str) -> Option<i64> {
    let [_, day, month, year, time, "GMT"] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    let month = u8::try_from(MONTHS.iter().position(|name| *name == month)? + 1).ok()?;
    let [hour, minute, second] = time.split(':').collect::<Vec<_>>()[..] else { return None };
    let number = |text: &str| text.parse::<u8>().ok();
    let date = der::DateTime::new(
        year.parse().ok()?,
        month,
        number(day)?,
        number(hour)?,
        number(minute)?,
        number(second)?,
    );
    i64::try_from(date.ok()?.unix_duration().as_secs()).ok()
}

/// IMF-fixdate of RFC 9110 §5.6.7.
fn http_date(seconds: i64) -> String {
    let text = ca_pki::UnixTime(seconds).to_rfc3339();
    let (year, month, day, time) = match (text.get(0..4), text.get(5..7), text.get(8..10), text.get(11..19)) {
        (Some(year), Some(month), Some(day), Some(time)) => (year, month, day, time),
        _ => return String::new(),
    };
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let month = month.parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1)).copied());
    let weekday =
        usize::try_from(seconds.div_euclid(86_400).rem_euclid(7)).ok().and_then(|day| DAYS.get(day).copied());
    format!("{}, {day} {} {year} {time} GMT", weekday.unwrap_or_default(), month.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_imf_fixdates() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn a_date_is_read_back_and_anything_else_is_none() {
        for seconds in [0, 784_111_777, 1_794_000_000] {
            assert_eq!(from_http_date(&http_date(seconds)), Some(seconds));
        }
        for text in ["", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37", "a b c d e GMT"] {
            assert_eq!(from_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn the_tag_decides_and_where_there_is_none_the_date_does() {
        let caching =
            Caching { etag: "\"x\"", this_update: 784_111_777, next_update: 800_000_000, max_age: 1 };
        let asked = |name: http::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        let same = http_date(784_111_777);
        assert!(caching.is_known(&asked(IF_MODIFIED_SINCE, &same)));
        assert!(caching.is_known(&asked(IF_MODIFIED_SINCE, &http_date(784_111_778))));
        assert!(!caching.is_known(&asked(IF_MODIFIED_SINCE, &http_date(784_111_776))));
        assert!(!caching.is_known(&asked(IF_MODIFIED_SINCE, "yesterday")));
        let mut both = asked(IF_NONE_MATCH, "\"y\"");
        both.insert(IF_MODIFIED_SINCE, same.parse().unwrap());
        assert!(!caching.is_known(&both));
        assert!(caching.is_known(&asked(IF_NONE_MATCH, "\"y\", W/\"x\"")));
    }

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
