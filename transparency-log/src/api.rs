//! HTTP in and out. Routes are matched here; status codes of failures are decided in `problem`.

mod entry;
mod event;
mod issuance;
mod problem;
mod raw;
mod reads;
mod signing;

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use log_store::{LogKind, WriterId};
use service::body::RequestBody;
use service::peer::ListenerKind;
use service::{Peer, Problem};

use crate::logs::{ServedLog, describe};

pub(crate) use entry::evidence;
pub(crate) use reads::{parameter, published};

/// A response with its whole body.
pub(crate) type Answer = Response<Full<Bytes>>;
/// What a handler returns.
pub(crate) type Handled = Result<Answer, Problem>;

/// A failure to read the log.
pub(crate) fn of_store(error: log_store::Error) -> Problem {
    problem::of_store(error, problem::Oversize::BadRequest)
}

/// Longest time that a submission waits for its acknowledgement.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// What all requests share.
pub(crate) struct State {
    /// Longest base first.
    pub(crate) logs: Vec<Arc<ServedLog>>,
    pub(crate) public_url: Option<String>,
    /// Whether the main listener speaks TLS.
    pub(crate) transport: Transport,
}

/// What the main listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    Tls,
}

/// Answers one request.
pub(crate) async fn answer(state: Arc<State>, request: Request<RequestBody>) -> Result<Answer, Infallible> {
    Ok(route(&state, request).await.unwrap_or_else(|problem| problem.to_response().map(Full::new)))
}

async fn route(state: &State, request: Request<RequestBody>) -> Handled {
    let path = request.uri().path();
    if path == "/api/v1/logs" {
        only(request.method(), &Method::GET)?;
        return Ok(list(state, &request));
    }
    for log in &state.logs {
        if let Some(rest) = path.strip_prefix(log.base.as_str()).and_then(|rest| rest.strip_prefix('/')) {
            let rest = rest.to_owned();
            return in_log(log, &rest, request).await;
        }
    }
    Err(unknown())
}

/// `rest` is the path below the log's base, without its slash.
async fn in_log(log: &Arc<ServedLog>, rest: &str, request: Request<RequestBody>) -> Handled {
    let post = match (log.kind, rest) {
        (LogKind::Raw, "add") => Some(Write::Raw),
        (LogKind::Signing, "api/v2/log/entries") => Some(Write::Signing),
        (LogKind::Event, "api/v1/entries") => Some(Write::Event),
        (LogKind::Signing | LogKind::Event, "api/v1/batch") => Some(Write::Batch),
        (LogKind::Issuance, "ct/v1/add-chain") => Some(Write::Chain),
        (LogKind::Issuance, "ct/v1/add-pre-chain") => Some(Write::Precertificate),
        _ => None,
    };
    if let Some(write) = post {
        only(request.method(), &Method::POST)?;
        return write.handle(log, request).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"));
    }
    let rest = match log.kind {
        LogKind::Signing => rest.strip_prefix("api/v2/").unwrap_or(rest),
        _ => rest,
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    reads::read(log, rest, &query).await
}

enum Write {
    Raw,
    Signing,
    Event,
    Batch,
    Chain,
    Precertificate,
}

impl Write {
    async fn handle(self, log: &Arc<ServedLog>, request: Request<RequestBody>) -> Handled {
        let writer = writer(&request);
        match self {
            Self::Raw => raw::add(log, writer, request).await,
            Self::Signing => signing::create(log, writer, body(request, signing::MAX_BODY).await?).await,
            Self::Event => event::create(log, writer, body(request, event::MAX_BODY).await?).await,
            Self::Batch => entry::batch(log, writer, body(request, entry::MAX_BATCH).await?).await,
            Self::Chain => {
                issuance::add(log, writer, body(request, issuance::MAX_BODY).await?, issuance::Form::Final)
                    .await
            }
            Self::Precertificate => {
                issuance::add(
                    log,
                    writer,
                    body(request, issuance::MAX_BODY).await?,
                    issuance::Form::Precertificate,
                )
                .await
            }
        }
    }
}

fn list(state: &State, request: &Request<RequestBody>) -> Answer {
    let url = state.public_url.clone().unwrap_or_else(|| {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let scheme = match (state.transport, request.extensions().get::<Peer>().map(Peer::listener)) {
            (Transport::Plain, _) | (_, Some(ListenerKind::ReadOnly)) => "http",
            (Transport::Tls, _) => "https",
        };
        host.map_or_else(String::new, |host| format!("{scheme}://{host}"))
    });
    let described: Vec<_> = state.logs.iter().map(|log| describe(&log.settings, &log.keys, &url)).collect();
    json(StatusCode::OK, &described)
}

/// The whole body, bounded before it is read to its end.
pub(crate) async fn body(request: Request<RequestBody>, limit: usize) -> Result<Bytes, Problem> {
    let limited = http_body_util::Limited::new(request.into_body(), limit);
    match limited.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::too_large(limit as u64)),
        Err(error) => Err(Problem::bad_request("body_incomplete", "the request's body did not arrive whole")
            .with_internal(error)),
    }
}

/// Names the connection for batching.
fn writer(request: &Request<RequestBody>) -> WriterId {
    let mut hasher = DefaultHasher::new();
    request.extensions().get::<Peer>().map(Peer::address).hash(&mut hasher);
    WriterId(hasher.finish())
}

fn only(method: &Method, allowed: &Method) -> Result<(), Problem> {
    let head_as_get = allowed == Method::GET && method == Method::HEAD;
    if method == allowed || head_as_get {
        return Ok(());
    }
    Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"))
}

fn unknown() -> Problem {
    Problem::not_found("there is nothing at this path")
}

/// A response with a body of some type.
pub(crate) fn respond(
    status: StatusCode,
    content_type: &'static str,
    cache: &'static str,
    body: Bytes,
) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

/// A JSON response that nobody caches.
pub(crate) fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    let body = serde_json::to_vec(value).unwrap_or_default();
    respond(status, "application/json", "no-store", body.into())
}
