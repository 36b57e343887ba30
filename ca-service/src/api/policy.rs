//! `POST /api/v1/policy/explain`: what would become of an identity token.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::ExplainToken;
use ca_pki::jws::MAX_TOKEN;
use http::StatusCode;
use service::Problem;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::roles::Access;
use super::{answer, json, request, with};
use crate::CertificateAuthority;
use crate::role::Action;

pub(super) fn routes(authority: &Arc<CertificateAuthority>, access: &Access) -> BoxedFilter<(Response,)> {
    warp::path!("api" / "v1" / "policy" / "explain")
        .and(warp::post())
        .and(access.filter(Action::Read))
        .and(request::json_body())
        .and(with(authority))
        .and_then(|_, body, authority| async move { answer(explain(body, authority).await) })
        .boxed()
}

async fn explain(body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: ExplainToken = request::parse(&body)?;
    if asked.token.len() > MAX_TOKEN {
        return Err(Problem::bad_request("out_of_range", "an identity token has at most 16 KiB"));
    }
    Ok(json(StatusCode::OK, &authority.explain_token(&asked.token).await?))
}
