//! `POST /api/v1/tokens`.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::CreateToken;
use http::StatusCode;
use service::Problem;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::roles::{Access, Caller};
use super::{answer, json, request, with};
use crate::CertificateAuthority;
use crate::role::Action;

pub(super) fn routes(authority: &Arc<CertificateAuthority>, access: &Access) -> BoxedFilter<(Response,)> {
    warp::path!("api" / "v1" / "tokens")
        .and(warp::post())
        .and(access.filter(Action::CreateToken))
        .and(request::json_body())
        .and(with(authority))
        .and_then(|caller, body, authority| async move { answer(create(caller, body, authority).await) })
        .boxed()
}

async fn create(
    caller: Caller,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: CreateToken = request::parse(&body)?;
    let token = authority.create_token(&asked, caller.operator()).await?;
    Ok(json(StatusCode::CREATED, &token))
}
