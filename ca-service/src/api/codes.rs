//! `POST /api/v1/codes`: a code that proves an e-mail address, sent there.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::RequestCode;
use http::StatusCode;
use service::Problem;
use service::rate_limit::ClientKey;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{answer, json, request, status, with};
use crate::CertificateAuthority;

pub(super) fn routes(authority: &Arc<CertificateAuthority>) -> BoxedFilter<(Response,)> {
    warp::path!("api" / "v1" / "codes")
        .and(warp::post())
        .and(request::json_body())
        .and(status::client())
        .and(with(authority))
        .and_then(|body, client, authority| async move { answer(send(body, client, authority).await) })
        .boxed()
}

/// 202 says that the mail server took a letter, not that somebody reads it.
async fn send(
    body: Bytes,
    client: Option<ClientKey>,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: RequestCode = request::parse(&body)?;
    let sent = authority.mail_code(&asked, client).await?;
    Ok(json(StatusCode::ACCEPTED, &sent))
}
