//! `/api/v1/revocations`: plan and carry out the revocation of many certificates.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::limits::MAX_ORDER_BODY;
use ca_api::{PlanRevocations, RevokeMany};
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
    let plan = warp::path!("api" / "v1" / "revocations" / "plan")
        .and(warp::post())
        .and(access.filter(Action::PlanRevocations))
        .and(request::json_body())
        .and(with(authority))
        .and_then(|_, body, authority| async move { answer(plan(body, authority).await) });
    let carry_out = warp::path!("api" / "v1" / "revocations")
        .and(warp::post())
        .and(access.filter(Action::Administer))
        // Room for the approvals of a whole quorum.
        .and(request::body(MAX_ORDER_BODY))
        .and(with(authority))
        .and_then(|caller, body, authority| async move { answer(carry_out(caller, body, authority).await) });
    plan.or(carry_out).unify().boxed()
}

async fn plan(body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: PlanRevocations = request::parse(&body)?;
    Ok(json(StatusCode::OK, &authority.plan_revocations(&asked).await?))
}

async fn carry_out(
    caller: Caller,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: RevokeMany = request::parse(&body)?;
    Ok(json(StatusCode::OK, &authority.revoke_many(&asked, &caller.actor()).await?))
}
