//! `/api/v1/problem-reports`: what is said to be wrong with certificates, and what was decided.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::{CloseReport, ProblemQuery, ProblemReports, ReportProblem};
use http::StatusCode;
use service::Problem;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::roles::{Access, Caller};
use super::{answer, json, request, with};
use crate::CertificateAuthority;
use crate::error::CaError;
use crate::role::Action;

/// Reports of a page, as the store gives them.
const PAGE: usize = 100;

pub(super) fn routes(authority: &Arc<CertificateAuthority>, access: &Access) -> BoxedFilter<(Response,)> {
    let report = warp::path!("api" / "v1" / "problem-reports")
        .and(warp::post())
        .and(access.filter(Action::ReportProblem))
        .and(request::json_body())
        .and(with(authority))
        .and_then(|caller, body, authority| async move { answer(report(caller, body, authority).await) });
    let list = warp::path!("api" / "v1" / "problem-reports")
        .and(warp::get())
        .and(access.filter(Action::Read))
        .and(warp::query::<ProblemQuery>())
        .and(with(authority))
        .and_then(|_, query, authority| async move { answer(list(query, authority).await) });
    let close = warp::path!("api" / "v1" / "problem-reports" / i64 / "close")
        .and(warp::post())
        .and(access.filter(Action::Administer))
        .and(request::json_body())
        .and(with(authority))
        .and_then(
            |id, caller, body, authority| async move { answer(close(id, caller, body, authority).await) },
        );
    report.or(list).unify().or(close).unify().boxed()
}

async fn report(
    caller: Caller,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: ReportProblem = request::parse(&body)?;
    Ok(json(StatusCode::CREATED, &authority.report_problem(&asked, &caller.actor()).await?))
}

async fn list(query: ProblemQuery, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let page = authority.store().problems(query.open, query.after.unwrap_or(0)).await;
    let reports = page.map_err(CaError::from)?;
    let next = (reports.len() == PAGE).then(|| reports.last().map(|last| last.id)).flatten();
    Ok(json(StatusCode::OK, &ProblemReports { reports, next }))
}

async fn close(
    id: i64,
    caller: Caller,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: CloseReport = request::parse(&body)?;
    authority.close_problem(id, &asked.decision, &caller.actor()).await?;
    Ok(json(StatusCode::OK, &authority.problem(id).await?))
}
