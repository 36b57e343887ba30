//! Deployments over HTTP/JSON.

use bytes::Bytes;
use executor_api::deployment::Deploy;
use http::StatusCode;
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::{Context, Route, answer, any_of, body_of, json, parse, problem, with_status};
use crate::api::access::Role;
use crate::callers::Caller;

pub(super) fn routes(context: &BoxedFilter<(Context,)>) -> Route {
    any_of([
        warp::path!("deployments")
            .and(warp::post())
            .and(body_of(context, Role::Deploy))
            .and_then(deploy)
            .boxed(),
        warp::path!("deployments")
            .and(warp::get())
            .and(context.clone())
            .map(|c: Context| c.read(|caller| Ok(json(&c.executor.deployments_for(caller)))))
            .boxed(),
        warp::path!("deployments" / String).and(warp::get()).and(context.clone()).map(one).boxed(),
        warp::path!("deployments" / String / String)
            .and(warp::post())
            .and(context.clone())
            .and_then(change)
            .boxed(),
    ])
}

async fn deploy(context: Context, caller: Caller, body: Bytes) -> Result<Response, Rejection> {
    Ok(answer(
        async {
            let request: Deploy = parse(&body)?;
            context.executor.allow(&caller, &request.agent).map_err(|denied| problem(&denied))?;
            let deployed = context.executor.deploy(&request).await;
            Ok(with_status(StatusCode::ACCEPTED, &deployed.map_err(|denied| problem(&denied))?))
        }
        .await,
    ))
}

fn one(agent: String, context: Context) -> Response {
    context.read(|caller| {
        context.executor.allow(caller, &agent)?;
        context.executor.deployment(&agent).map(|deployment| json(&deployment))
    })
}

async fn change(agent: String, what: String, context: Context) -> Result<Response, Rejection> {
    let result = async {
        let caller = context.allow(Role::Deploy)?;
        context.executor.allow(&caller, &agent).map_err(|denied| problem(&denied))?;
        let changed = match what.as_str() {
            "promote" => context.executor.promote(&agent).await,
            "rollback" => context.executor.rollback(&agent).await,
            _ => return Err(service::Problem::not_found("a deployment is promoted or rolled back")),
        };
        Ok(json(&changed.map_err(|denied| problem(&denied))?))
    };
    Ok(answer(result.await))
}
