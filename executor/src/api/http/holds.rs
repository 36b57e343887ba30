//! Holds over HTTP/JSON.

use bytes::Bytes;
use executor_api::hold::HoldRequest;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::{Context, Route, answer, any_of, body_of, json, parse, problem};
use crate::api::access::Role;
use crate::callers::Caller;

pub(super) fn routes(context: &BoxedFilter<(Context,)>) -> Route {
    any_of([
        warp::path!("holds").and(warp::post()).and(body_of(context, Role::Stop)).and_then(hold).boxed(),
        warp::path!("holds").and(warp::get()).and(context.clone()).map(list).boxed(),
        warp::path!("holds" / String).and(warp::delete()).and(context.clone()).and_then(release).boxed(),
    ])
}

async fn hold(context: Context, _: Caller, body: Bytes) -> Result<Response, Rejection> {
    let result = async {
        let request: HoldRequest = parse(&body)?;
        let report = context.executor.hold(&request).await;
        Ok(json(&report.map_err(|denied| problem(&denied))?))
    };
    Ok(answer(result.await))
}

/// For those who give them: the reasons are theirs.
fn list(context: Context) -> Response {
    answer(context.allow(Role::Stop).map(|_| json(&context.executor.holds())))
}

async fn release(id: String, context: Context) -> Result<Response, Rejection> {
    let result = async {
        context.allow(Role::Stop)?;
        let hold = context.executor.release_hold(&id).await;
        Ok(json(&hold.map_err(|denied| problem(&denied))?))
    };
    Ok(answer(result.await))
}
