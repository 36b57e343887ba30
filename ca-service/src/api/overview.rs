//! `GET /api/v1/overview`.

use std::sync::Arc;

use http::StatusCode;
use service::Problem;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::roles::Access;
use super::{answer, json, with};
use crate::CertificateAuthority;
use crate::role::Action;

pub(super) fn routes(authority: &Arc<CertificateAuthority>, access: &Access) -> BoxedFilter<(Response,)> {
    warp::path!("api" / "v1" / "overview")
        .and(warp::get())
        .and(access.filter(Action::Read))
        .and(with(authority))
        .and_then(|_, authority| async move { answer(show(authority).await) })
        .boxed()
}

async fn show(authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &authority.overview().await?))
}
