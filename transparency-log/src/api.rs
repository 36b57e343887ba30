//! HTTP in and out. Routes are matched here; status codes of failures are decided in `problem`.

mod batch;
mod entry;
mod event;
mod issuance;
mod problem;
mod raw;
mod reads;
mod room;
mod signing;
mod turns;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use log_store::{Ack, LogKind, WriterId};
use service::body::RequestBody;
use service::peer::ListenerKind;
use service::{ClientCertificate, Peer, Problem};

use crate::logs::{ServedLog, describe};
use crate::page;

pub(crate) use batch::turns as batch_turns;
pub(crate) use entry::evidence;
pub(crate) use problem::Oversize;
pub(crate) use reads::{BundleBytes, parameter, published};
pub(crate) use room::{BatchRoom, Sharing};
pub(crate) use turns::{OF_ONE, Turns};

/// Least growth of a buffer for a body that comes in pieces, bytes.
const GROWTH: usize = 8 << 10;

/// A response with its whole body.
pub(crate) type Answer = Response<Full<Bytes>>;
/// What a handler returns.
pub(crate) type Handled = Result<Answer, Problem>;

/// A failure to read the log.
pub(crate) fn of_store(error: log_store::Error) -> Problem {
    problem::of_store(error, Oversize::BadRequest)
}

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
    if let Some(file) = page::file(path) {
        only(request.method(), &Method::GET)?;
        return Ok(file);
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
        (LogKind::Issuance, "api/v1/batch") => Some(Write::Chains),
        (LogKind::Issuance, "ct/v1/add-chain") => Some(Write::Chain),
        (LogKind::Issuance, "ct/v1/add-pre-chain") => Some(Write::Precertificate),
        _ => None,
    };
    if let Some(write) = post {
        only(request.method(), &Method::POST)?;
        may_write(log, request.extensions().get::<Peer>())?;
        return write.handle(log, request).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Problem::method_not_allowed("GET, HEAD"));
    }
    let rest = match log.kind {
        LogKind::Signing => rest.strip_prefix("api/v2/").unwrap_or(rest),
        _ => rest,
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    let peer = request.extensions().get::<Peer>().cloned();
    reads::read(log, rest, &query, peer.as_ref()).await
}

/// How a submission is queued and when it is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submission {
    pub(crate) writer: WriterId,
    pub(crate) ack: Ack,
    pub(crate) version: Version,
}

enum Write {
    Raw,
    Signing,
    Event,
    Batch,
    Chain,
    Chains,
    Precertificate,
}

impl Write {
    async fn handle(self, log: &Arc<ServedLog>, request: Request<RequestBody>) -> Handled {
        let submission = Submission {
            writer: writer(&request),
            ack: self.level(request.uri().query())?,
            version: request.version(),
        };
        let entry = |limit| move |request| body(request, limit, Oversize::BadRequest);
        match self {
            Self::Raw => raw::add(log, submission, request).await,
            Self::Signing => signing::create(log, submission, entry(signing::MAX_BODY)(request).await?).await,
            Self::Event => event::create(log, submission, entry(event::MAX_BODY)(request).await?).await,
            Self::Batch | Self::Chains => batch::create(log, submission, request).await,
            Self::Chain | Self::Precertificate => {
                let body = entry(issuance::MAX_BODY)(request).await?;
                let form = match self {
                    Self::Chain => issuance::Form::Final,
                    _ => issuance::Form::Precertificate,
                };
                issuance::add(log, submission, body, form).await
            }
        }
    }

    /// The level that `?ack=` asks for. Answers with a proof need at least `published`.
    fn level(&self, query: Option<&str>) -> Result<Ack, Problem> {
        let Some(level) = query.map(|query| parameter(query, "ack")).transpose()?.flatten() else {
            return Ok(if matches!(self, Self::Raw) { Ack::Sequenced } else { Ack::Published });
        };
        let index_is_enough = matches!(self, Self::Raw | Self::Chain | Self::Chains | Self::Precertificate);
        match level.as_str() {
            "sequenced" if index_is_enough => Ok(Ack::Sequenced),
            "published" => Ok(Ack::Published),
            "witnessed" => Ok(Ack::Witnessed),
            _ => Err(Problem::bad_request(
                "malformed",
                "ack is published or witnessed, and for raw and certificate logs also sequenced",
            )),
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
    let described: Vec<_> = state
        .logs
        .iter()
        .map(|log| describe(&log.settings, &log.keys, log.admission.events(), &url))
        .collect();
    json(StatusCode::OK, &described)
}

/// The whole body, bounded before it is read to its end.
pub(crate) async fn body(
    request: Request<RequestBody>,
    limit: usize,
    oversize: Oversize,
) -> Result<Bytes, Problem> {
    body_within(request, limit, oversize, |_| Ok(())).await
}

/// As [`body`]; `room` is asked with the length so far before a piece is kept.
pub(crate) async fn body_within(
    request: Request<RequestBody>,
    limit: usize,
    oversize: Oversize,
    mut room: impl FnMut(usize) -> Result<(), Problem>,
) -> Result<Bytes, Problem> {
    let mut body = request.into_body();
    // Nearly always the whole body is in the first frame, and is not copied.
    let (mut whole, mut pieces) = (Bytes::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::bad_request("body_incomplete", "the request's body did not arrive whole")
                .with_internal(error)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let length = whole.len() + pieces.len() + data.len();
        if length > limit {
            return Err(oversize.problem(limit));
        }
        room(length)?;
        if whole.is_empty() && pieces.is_empty() {
            whole = data;
        } else {
            if pieces.capacity() < length {
                // By a quarter: what is held must not be twice what was counted.
                pieces.reserve_exact(length - pieces.len() + (length / 4).max(GROWTH));
            }
            pieces.extend_from_slice(&std::mem::take(&mut whole));
            pieces.extend_from_slice(&data);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(if pieces.is_empty() { whole } else { pieces.into() })
}

/// Where writers are named, only they submit: by the certificate with which the connection was made.
fn may_write(log: &ServedLog, peer: Option<&Peer>) -> Result<(), Problem> {
    let Some(writers) = &log.settings.raw.writers else { return Ok(()) };
    let subject = peer.and_then(Peer::certificate).map(ClientCertificate::subject);
    if subject.is_some_and(|subject| writers.iter().any(|writer| writer == subject)) {
        return Ok(());
    }
    Err(Problem::forbidden(
        "not_allowed",
        "this log takes entries from its writers only, by client certificate",
    )
    .with_internal(format!("log {:?}, client certificate {subject:?}", log.settings.name)))
}

/// Names the connection for batching.
fn writer(request: &Request<RequestBody>) -> WriterId {
    let address = request.extensions().get::<Peer>().map(Peer::address);
    WriterId(address.map_or(0, |address| match address.ip() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()) << 16 | u64::from(address.port()),
        // The halves of an address that several connections share differ in nothing; their ports do.
        IpAddr::V6(ip) => {
            let [high, low] = [ip.to_bits() >> 64, ip.to_bits()].map(|half| half as u64);
            high ^ low.rotate_left(24) ^ u64::from(address.port()) << 48
        }
    }))
}

fn only(method: &Method, allowed: &Method) -> Result<(), Problem> {
    let head_as_get = allowed == Method::GET && method == Method::HEAD;
    if method == allowed || head_as_get {
        return Ok(());
    }
    Err(Problem::method_not_allowed(if allowed == Method::GET { "GET, HEAD" } else { "POST" }))
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
