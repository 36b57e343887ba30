//! `POST /api/v1/tokens`.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::CreateToken;
use http::StatusCode;
use service::Problem;
use service::admin::{AdminAuth, AdminIdentity};
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::{answer, json, request, with};
use crate::CertificateAuthority;

pub(super) fn routes(authority: &Arc<CertificateAuthority>, admin: &AdminAuth) -> BoxedFilter<(Response,)> {
    warp::path!("api" / "v1" / "tokens")
        .and(warp::post())
        .and(admin.filter())
        .and(request::json_body())
        .and(with(authority))
        .and_then(|admin, body, authority| async move { answer(create(admin, body, authority).await) })
        .boxed()
}

async fn create(
    admin: AdminIdentity,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: CreateToken = request::parse(&body)?;
    let token = authority.create_token(&asked, &format!("admin:{}", admin.name())).await?;
    Ok(json(StatusCode::CREATED, &token))
}
