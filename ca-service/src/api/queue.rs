//! `/api/v1/requests`: what waits for people's approval.

use std::sync::Arc;

use bytes::Bytes;
use ca_api::limits::MAX_QUEUE_PAGE;
use ca_api::{
    ApproveRequests, DecidedRequests, DenyRequests, QueueQuery, QueuedRequest, RequestApproval, RequestQueue,
    RequestState, RequestStatus,
};
use http::StatusCode;
use http::header::{HeaderValue, LOCATION, RETRY_AFTER};
use service::Problem;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::roles::{Access, Caller};
use super::{answer, json, request, with};
use crate::CertificateAuthority;
use crate::error::CaError;
use crate::queue::QueueRefusal;
use crate::queue::statement::statement;
use crate::role::Action;
use crate::storage::queue::{self, QueueSearch, QueueState};

/// Seconds after which the requester of what waits asks again.
const ASK_AGAIN: u32 = 15;

pub(super) fn routes(authority: &Arc<CertificateAuthority>, access: &Access) -> BoxedFilter<(Response,)> {
    let list = warp::path!("api" / "v1" / "requests")
        .and(warp::get())
        .and(access.filter(Action::Read))
        .and(warp::query::<QueueQuery>())
        .and(with(authority))
        .and_then(|_, query, authority| async move { answer(list(query, authority).await) });
    let show = warp::path!("api" / "v1" / "requests" / String)
        .and(warp::get())
        .and(access.filter(Action::Read))
        .and(with(authority))
        .and_then(|id, _, authority| async move { answer(show(id, authority).await) });
    let stands = warp::path!("api" / "v1" / "requests" / String / "status")
        .and(warp::get())
        .and(with(authority))
        .and_then(|id, authority| async move { answer(stands(id, authority).await) });
    let approve = warp::path!("api" / "v1" / "requests" / "approve")
        .and(warp::post())
        .and(access.filter(Action::DecideRequests))
        .and(request::json_body())
        .and(with(authority))
        .and_then(|caller, body, authority| async move { answer(approve(caller, body, authority).await) });
    let deny = warp::path!("api" / "v1" / "requests" / "deny")
        .and(warp::post())
        .and(access.filter(Action::DecideRequests))
        .and(request::json_body())
        .and(with(authority))
        .and_then(|caller, body, authority| async move { answer(deny(caller, body, authority).await) });
    approve.or(deny).unify().or(list).unify().or(show).unify().or(stands).unify().boxed()
}

/// The answer to whoever's certificate waits for people; every other failure is given back.
pub(super) fn accepted(error: CaError) -> Result<Response, CaError> {
    let CaError::Queue(QueueRefusal::Awaiting { id, needed, given, expires_at }) = error else {
        return Err(error);
    };
    let id = hex::encode(id);
    let location = format!("/api/v1/requests/{id}/status");
    let status = RequestStatus {
        id,
        state: RequestState::Waiting,
        approvals_needed: needed,
        approvals_given: given,
        expires_at: expires_at.0,
        reason: None,
    };
    let mut response = json(StatusCode::ACCEPTED, &status);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(ASK_AGAIN));
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, location);
    }
    Ok(response)
}

async fn list(query: QueueQuery, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(MAX_QUEUE_PAGE);
    if !(1..=MAX_QUEUE_PAGE).contains(&limit) {
        return Err(CaError::OutOfRange { field: "limit", reason: "must be 1 to 100" }.into());
    }
    let search = QueueSearch {
        state: query.state.map(stored_state),
        after: query.after.unwrap_or(0),
        // One more than asked for says whether there is another page.
        limit: limit + 1,
    };
    let mut found = authority.store().queue(search).await.map_err(CaError::from)?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|last| last.number);
    let requests = found.iter().map(|request| shown(&authority, request)).collect::<Result<_, CaError>>()?;
    Ok(json(StatusCode::OK, &RequestQueue { requests, next }))
}

async fn show(id: String, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let request = authority.queued_request(&id).await?;
    Ok(json(StatusCode::OK, &shown(&authority, &request)?))
}

/// How a request stands: for whoever has its id, which its requester alone was told.
async fn stands(id: String, authority: Arc<CertificateAuthority>) -> Result<Response, Problem> {
    let request = authority.queued_request(&id).await?;
    Ok(json(StatusCode::OK, &authority.request_status(&request, authority.clock.for_records())?))
}

async fn approve(
    caller: Caller,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: ApproveRequests = request::parse(&body)?;
    let requests = authority.approve_requests(&asked, &caller.operator()).await?;
    Ok(json(StatusCode::OK, &DecidedRequests { requests }))
}

async fn deny(
    caller: Caller,
    body: Bytes,
    authority: Arc<CertificateAuthority>,
) -> Result<Response, Problem> {
    let asked: DenyRequests = request::parse(&body)?;
    let requests = authority.deny_requests(&asked, &caller.operator()).await?;
    Ok(json(StatusCode::OK, &DecidedRequests { requests }))
}

/// A request for operators. Its text is made anew from what the certificate would be made from.
fn shown(authority: &CertificateAuthority, request: &queue::QueuedRequest) -> Result<QueuedRequest, CaError> {
    let approvals = request.approvals.iter();
    let approvals =
        approvals.map(|approval| RequestApproval { approver: approval.approver.clone(), at: approval.at.0 });
    Ok(QueuedRequest {
        number: request.number,
        status: authority.request_status(request, authority.clock.for_records())?,
        statement: statement(&request.content)?,
        approvals: approvals.collect(),
        closed_by: request.closed_by.clone(),
    })
}

fn stored_state(state: RequestState) -> QueueState {
    match state {
        RequestState::Waiting => QueueState::Waiting,
        RequestState::Approved => QueueState::Approved,
        RequestState::Issued => QueueState::Issued,
        RequestState::Denied => QueueState::Denied,
        RequestState::Expired => QueueState::Expired,
        RequestState::Ended => QueueState::Ended,
    }
}
