//! `/api/v1/own` and `/api/v1/renewals`: one's own certificates, by proof of a certified key.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::CertificateList;
use ca_api::possession::{ListOwn, Renew, RevokeOwn};
use http::StatusCode;
use service::Problem;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::certificates::{delivered, record, revocation};
use super::{answer, json, queue, request, with};
use crate::CertificateAuthority;

pub(super) fn routes(authority: &Arc<CertificateAuthority>) -> BoxedFilter<(Response,)> {
    let list = warp::path!("api" / "v1" / "own" / "certificates")
        .and(warp::post())
        .and(request::json_body())
        .and(with(authority))
        .and_then(|body, authority| async move { answer(list(body, authority).await) });
    let revoke = warp::path!("api" / "v1" / "own" / "revocations")
        .and(warp::post())
        .and(request::json_body())
        .and(with(authority))
        .and_then(|body, authority| async move { answer(revoke(body, authority).await) });
    let renew = warp::path!("api" / "v1" / "renewals")
        .and(warp::post())
        .and(request::json_body())
        .and(with(authority))
        .and_then(|body, authority| async move { answer(renew(body, authority).await) });
    list.or(revoke).unify().or(renew).unify().boxed()
}

async fn list(body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: ListOwn = request::parse(&body)?;
    let (found, next) = CertificateAuthority::page_of_own(authority.list_own(&asked).await?);
    let certificates =
        found.iter().map(|stored| record(&authority, stored)).collect::<Result<_, Problem>>()?;
    Ok(json(StatusCode::OK, &CertificateList { certificates, next }))
}

async fn revoke(body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: RevokeOwn = request::parse(&body)?;
    Ok(json(StatusCode::OK, &revocation(&authority.revoke_own(&asked).await?)))
}

async fn renew(body: Bytes, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let asked: Renew = request::parse(&body)?;
    match authority.renew_own(&asked).await {
        Ok(issued) => Ok(json(StatusCode::CREATED, &delivered(&authority, &issued)?)),
        Err(error) => Ok(queue::accepted(error)?),
    }
}
