//! HTTP/JSON.

#[cfg_attr(not(feature = "deployments"), path = "http/without_deployments.rs")]
mod deployments;
mod holds;
mod page;
mod receipts;
mod streaming;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executor_api::trial::Trial;
use executor_api::{Execute, Stop, Stopped, Upload};
use executor_engine::ModuleDigest;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::{Peer, Problem};
use warp::filters::BoxedFilter;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::access::{Access, Role};
use super::answers::{Answer, answer_of};
use crate::admission::Denied;
use crate::callers::Caller;
use crate::executor::{Executor, Terms};
use crate::runtime::{Said, Selector};
use crate::telemetry::TraceParent;

/// The methods that a path takes, for a 405's `Allow`.
pub(crate) fn methods(path: &str) -> &'static str {
    match path.strip_prefix("/api/v1/").unwrap_or_default() {
        "agents" | "deployments" | "holds" => "GET, HEAD, POST",
        "explain" | "instances/stop" | "evidence/refresh" | "policy/trial" | "drain" | "undrain" => "POST",
        path if path.starts_with("agents/") && (path.ends_with("/execute") || path.ends_with("/stream")) => {
            "POST"
        }
        path if path.starts_with("agents/") => "GET, HEAD, DELETE",
        path if path.starts_with("holds/") => "DELETE",
        path if path.strip_prefix("deployments/").is_some_and(|rest| rest.contains('/')) => "POST",
        _ => "GET, HEAD",
    }
}

/// Request paths by which requests are counted.
pub const ROUTES: &[&str] = &[
    "/api/v1/agents",
    "/api/v1/explain",
    "/api/v1/status",
    "/api/v1/drain",
    "/api/v1/undrain",
    "/api/v1/evidence",
    "/api/v1/instances",
    "/api/v1/policy",
    "/api/v1/deployments",
    "/api/v1/holds",
    "/api/v1/receipts",
    "/api/v1/streams",
    "/receipts",
    "/page",
];

/// Every route.
pub fn routes(executor: Arc<Executor>, access: Access) -> BoxedFilter<(Response,)> {
    let context = {
        let (executor, access) = (executor, access);
        warp::any()
            .map(move || (Arc::clone(&executor), access.clone()))
            .and(warp::header::headers_cloned())
            .and(service::peer::peer())
            .and(warp::method())
            .and(warp::host::optional())
            .and_then(context)
            .boxed()
    };
    // What is asked for most comes first.
    let routes = any_of([
        warp::path!("agents" / String / "execute")
            .and(warp::post())
            .and(body_of(&context, Role::Execute))
            .and_then(execute)
            .boxed(),
        warp::path!("agents" / String / "stream")
            .and(warp::post())
            .and(body_of(&context, Role::Execute))
            .and_then(streaming::execute)
            .boxed(),
        warp::path!("agents").and(warp::post()).and(body_of(&context, Role::Deploy)).and_then(load).boxed(),
        warp::path!("agents")
            .and(warp::get())
            .and(context.clone())
            .map(|c: Context| c.read(|caller| Ok(json(&c.executor.list_for(caller)))))
            .boxed(),
        warp::path!("agents" / String).and(warp::get()).and(context.clone()).map(one).boxed(),
        warp::path!("agents" / String).and(warp::delete()).and(context.clone()).and_then(unload).boxed(),
        warp::path!("explain").and(warp::post()).and(body_of(&context, Role::Read)).and_then(explain).boxed(),
        warp::path!("instances" / "stop")
            .and(warp::post())
            .and(body_of(&context, Role::Stop))
            .map(stop)
            .boxed(),
        warp::path!("instances")
            .and(warp::get())
            .and(context.clone())
            .map(|c: Context| c.read(|caller| Ok(json(&c.executor.instances_for(caller)))))
            .boxed(),
        warp::path!("status")
            .and(warp::get())
            .and(context.clone())
            .map(|c: Context| c.read(|_| Ok(json(&c.executor.status()))))
            .boxed(),
        warp::path!("evidence" / "refresh").and(warp::post()).and(context.clone()).and_then(refresh).boxed(),
        warp::path!("policy" / "trial")
            .and(warp::post())
            .and(body_of(&context, Role::Administer))
            .and_then(try_policy)
            .boxed(),
        warp::path!("drain").and(warp::post()).and(context.clone()).and_then(drain).boxed(),
        warp::path!("undrain").and(warp::post()).and(context.clone()).and_then(undrain).boxed(),
        warp::path!("streams" / String)
            .and(warp::get())
            .and(warp::query::<streaming::Wanted>())
            .and(context.clone())
            .map(streaming::read_on)
            .boxed(),
        deployments::routes(&context),
        holds::routes(&context),
    ]);
    any_of([
        warp::path!("api" / "v1" / ..).and(routes).boxed(),
        receipts::routes(context.clone()),
        page::routes(context),
    ])
}

/// The first route that fits. Boxed one by one: nested in each other, every further route would be one more copy of the
/// machinery of all the others, in the binary and in the compiler.
fn any_of(routes: impl IntoIterator<Item = Route, IntoIter: DoubleEndedIterator>) -> Route {
    let none = warp::any().and_then(|| async { Err::<Response, _>(warp::reject::not_found()) }).boxed();
    routes.into_iter().rev().fold(none, |rest, route| route.or(rest).unify().boxed())
}

type Route = BoxedFilter<(Response,)>;

/// What every handler needs.
struct Context {
    executor: Arc<Executor>,
    access: Access,
    headers: HeaderMap,
    peer: Peer,
}

impl Context {
    fn allow(&self, role: Role) -> Result<Caller, Problem> {
        self.access.check(role, &self.headers, &self.peer).map_err(|denied| {
            self.executor.metrics().caller_refused(denied.code);
            problem(&denied)
        })
    }

    /// Answers whoever may read, by what that caller may see.
    fn read(&self, answer: impl FnOnce(&Caller) -> Result<Response, Denied>) -> Response {
        let answered =
            self.allow(Role::Read).and_then(|caller| answer(&caller).map_err(|denied| problem(&denied)));
        answered.unwrap_or_else(Reply::into_response)
    }
}

async fn context(
    (executor, access): (Arc<Executor>, Access),
    headers: HeaderMap,
    peer: Peer,
    method: http::Method,
    authority: Option<http::uri::Authority>,
) -> Result<Context, Rejection> {
    match access.not_from_a_page(&method, authority.as_ref(), &headers) {
        Ok(()) => Ok(Context { executor, access, headers, peer }),
        Err(refused) => Err(warp::reject::custom(problem(&refused))),
    }
}

/// A request with a body, of a caller whose role includes what it is for. That is judged by the headers: of whoever may not, no byte of
/// the body is waited for. No other filter reads one.
fn body_of(context: &BoxedFilter<(Context,)>, role: Role) -> BoxedFilter<(Context, Caller, Bytes)> {
    let judge = move |context: Context| async move {
        match context.allow(role) {
            Ok(caller) => Ok((context, caller)),
            Err(refused) => Err(warp::reject::custom(refused)),
        }
    };
    context.clone().and_then(judge).untuple_one().and(warp::body::bytes()).boxed()
}

async fn load(context: Context, caller: Caller, body: Bytes) -> Result<Response, Rejection> {
    Ok(answer(
        async {
            let upload: Upload = parse(&body)?;
            drop(body);
            let (attestation, module) = (upload.attestation.as_deref(), Bytes::from(upload.module.0));
            let loaded = context.executor.load(&caller, &upload.manifest, attestation, module).await;
            Ok(with_status(StatusCode::CREATED, &loaded.map_err(|denied| problem(&denied))?))
        }
        .await,
    ))
}

async fn explain(context: Context, caller: Caller, body: Bytes) -> Result<Response, Rejection> {
    Ok(answer(
        async {
            let upload: Upload = parse(&body)?;
            drop(body);
            let (attestation, module) = (upload.attestation.as_deref(), Bytes::from(upload.module.0));
            let explained = context.executor.explain(&caller, &upload.manifest, attestation, module).await;
            Ok(json(&explained.map_err(|denied| problem(&denied))?))
        }
        .await,
    ))
}

async fn execute(
    agent: String,
    context: Context,
    caller: Caller,
    body: Bytes,
) -> Result<Response, Rejection> {
    Ok(answer(
        async {
            let call: Execute = if body.is_empty() { Execute::default() } else { parse(&body)? };
            let terms = terms(&call, &context.headers, caller);
            let done = context.executor.execute(&agent, Bytes::from(call.input.0), terms).await;
            Ok(json(&super::executed(done.map_err(|denied| problem(&denied))?)))
        }
        .await,
    ))
}

fn terms(call: &Execute, headers: &HeaderMap, caller: Caller) -> Terms {
    let trace = headers.get("traceparent").and_then(|value| TraceParent::parse(value.to_str().ok()?));
    Terms {
        deadline: call.deadline_ms.map(Duration::from_millis),
        session: call.session.clone(),
        idempotency_key: call.idempotency_key.clone(),
        receipt: call.receipt,
        resumable: call.resumable,
        trace,
        caller,
    }
}

async fn refresh(context: Context) -> Result<Response, Rejection> {
    Ok(answer(
        async {
            context.allow(Role::Administer)?;
            Ok(json(&context.executor.refresh().await))
        }
        .await,
    ))
}

async fn drain(context: Context) -> Result<Response, Rejection> {
    Ok(match context.allow(Role::Administer) {
        Err(refused) => refused.into_response(),
        Ok(_) => service_state(context.executor.drain().await),
    })
}

async fn undrain(context: Context) -> Result<Response, Rejection> {
    Ok(match context.allow(Role::Administer) {
        Err(refused) => refused.into_response(),
        Ok(_) => service_state(context.executor.undrain().await),
    })
}

fn service_state(status: Result<executor_api::Status, Denied>) -> Response {
    answer(status.map(|status| json(&status)).map_err(|denied| problem(&denied)))
}

async fn try_policy(context: Context, _: Caller, body: Bytes) -> Result<Response, Rejection> {
    Ok(answer(
        async {
            let trial: Trial = parse(&body)?;
            let report = context.executor.try_policy(trial.policy.as_bytes()).await;
            Ok(json(&report.map_err(|denied| problem(&denied))?))
        }
        .await,
    ))
}

fn one(agent: String, context: Context) -> Response {
    context.read(|caller| {
        Ok(match context.executor.find_for(caller, &agent)? {
            Some(summary) => json(&summary),
            None => Problem::not_found("no admitted agent has this id or digest").into_response(),
        })
    })
}

async fn unload(agent: String, context: Context) -> Result<Response, Rejection> {
    let unloaded = async {
        let caller = context.allow(Role::Deploy)?;
        context.executor.unload_for(&caller, &agent).await.map_err(|denied| problem(&denied))
    };
    Ok(answer(unloaded.await.map(|_| StatusCode::NO_CONTENT.into_response())))
}

fn stop(context: Context, _: Caller, body: Bytes) -> Response {
    let stopped = || {
        let stop: Stop = parse(&body)?;
        let digest = match stop.digest {
            None => None,
            Some(text) => Some(ModuleDigest::parse(&text).ok_or_else(|| {
                Problem::bad_request("invalid_argument", "`digest` is 64 hexadecimal digits")
            })?),
        };
        let selector = Selector { agent: stop.agent, digest, signer: stop.signer, ..Selector::default() };
        let stopped = context.executor.stop(&selector).map_err(|denied| problem(&denied))?;
        Ok(json(&Stopped { stopped }))
    };
    answer(stopped())
}

fn answer(result: Result<Response, Problem>) -> Response {
    result.unwrap_or_else(Reply::into_response)
}

fn json<T: Serialize>(value: &T) -> Response {
    warp::reply::json(value).into_response()
}

fn with_status<T: Serialize>(status: StatusCode, value: &T) -> Response {
    warp::reply::with_status(warp::reply::json(value), status).into_response()
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::bad_request("malformed", format!("the request body is not of the documented form: {error}"))
    })
}

/// A refusal as problem document: code, step, the caller's text and what the guest said; the operator's text goes to the log.
pub(crate) fn problem(denied: &Denied) -> Problem {
    let Answer { http: status, retry_after, .. } = answer_of(denied);
    let mut problem = Problem::new(status, denied.code)
        .with_detail(denied.message.clone())
        .with_member("step", denied.step);
    if let Some(seconds) = retry_after {
        problem = problem.with_retry_after(seconds);
    }
    let said =
        denied.said.as_ref().and_then(|said| serde_json::to_value(super::said(Said::clone(said))).ok());
    if let Some(serde_json::Value::Object(members)) = said {
        for (name, value) in members {
            problem = problem.with_member(&name, value);
        }
    }
    if denied.operator.is_empty() { problem } else { problem.with_internal(&denied.operator) }
}
