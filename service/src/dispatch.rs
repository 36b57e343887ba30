//! One request: counted, limited, handed to whoever answers it, and answered as a problem document when nobody may.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, Entry, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tower_service::Service;

use crate::body::{BodyFailure, BoxError, Ended, Outcome, RequestBody, ResponseBody, Source};
use crate::clock::monotonic;
use crate::config::Limits;
use crate::metrics::{self, Metrics, RequestMetrics};
use crate::peer::{ListenerKind, Peer};
use crate::problem::Problem;
use crate::rate_limit::{ClientKey, RateLimiter};
use crate::ready::{Readiness, ReadinessCheck};
use crate::watch::Activity;

/// Whoever answers the requests of a listener: a `warp` filter made a service, or any other `tower` service that is
/// always ready and never fails. Implemented for all of them.
pub trait App: Clone + Send + Sync + 'static {
    /// Body of its responses.
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
    /// Its work on one request.
    type Future: Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static;

    /// Starts to answer one request.
    fn answer(&mut self, request: Request<RequestBody>) -> Self::Future;
}

impl<S, B> App for S
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Body = B;
    type Future = S::Future;

    fn answer(&mut self, request: Request<RequestBody>) -> S::Future {
        self.call(request)
    }
}

type GrpcBody = UnsyncBoxBody<Bytes, BoxError>;
type GrpcFuture = Pin<Box<dyn Future<Output = Response<GrpcBody>> + Send>>;
/// gRPC is not the hot path: boxed, so that it does not show in every type.
pub(crate) type Grpc = Box<dyn Fn(Request<RequestBody>) -> GrpcFuture + Send + Sync>;

/// Boxes a gRPC service.
pub(crate) fn grpc<A: App>(app: A) -> Grpc {
    Box::new(move |request| {
        let answer = app.clone().answer(request);
        Box::pin(async move {
            let Ok(response) = answer.await;
            response.map(|body| body.map_err(Into::into).boxed_unsync())
        })
    })
}

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) requests: Arc<RequestMetrics>,
    pub(crate) readiness: ReadinessCheck,
    pub(crate) methods: fn(&str) -> &'static str,
    pub(crate) draining: AtomicBool,
    pub(crate) rate: Option<RateLimiter>,
    pub(crate) grpc: Option<Grpc>,
}

/// One connection's view: the routes are cloned once per connection, not once per request.
pub(crate) struct Dispatcher<A> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) app: Mutex<A>,
    pub(crate) peer: Peer,
    pub(crate) activity: Arc<Activity>,
}

type Reply<A> = Response<Source<<A as App>::Body>>;

impl<A: App> Dispatcher<A> {
    pub(crate) async fn handle(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<ResponseBody<A::Body>>, Infallible> {
        let ended = Ended::begin(&self.activity);
        let began = monotonic();
        let route = self.shared.requests.route_of(request.uri().path());
        let access = tracing::enabled!(target: "access", tracing::Level::DEBUG)
            .then(|| (request.method().clone(), request.uri().path().to_owned()));
        // HEAD is GET without the body (RFC 9110 section 9.3.2), whatever the routes think of it.
        let head = request.method() == Method::HEAD;
        if head {
            *request.method_mut() = Method::GET;
        }
        let mut response = self.answer(request).await;
        if head {
            response = without_body(response);
        }
        let took = monotonic().saturating_sub(began);
        self.shared.requests.observe(route, response.status(), took);
        if let Some((method, path)) = access {
            let status = response.status().as_u16();
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let peer = self.peer.address();
            let subject = self.peer.certificate().map(|c| c.subject());
            tracing::debug!(target: "access", %method, path, status, micros, %peer, subject, "request");
        }
        Ok(response.map(|source| ResponseBody::new(source, ended)))
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply<A> {
        let version = request.version();
        // Whoever answers without reading leaves the body behind; see `closing`.
        let unread = !request.body().is_end_stream();
        if let Some(response) = self.operational(&request) {
            return closing(response, version, unread);
        }
        if let Some(rate) = &self.shared.rate
            && let Err(exceeded) = rate.take(ClientKey::of(&self.peer), monotonic())
        {
            self.shared.requests.rate_limited.fetch_add(1, Ordering::Relaxed);
            return closing(
                problem(&Problem::too_many_requests(exceeded.retry_after_seconds)),
                version,
                unread,
            );
        }
        let limits = &self.shared.limits;
        if let Some(grpc) = &self.shared.grpc
            && self.peer.listener() == ListenerKind::Primary
            && is_grpc(request.headers())
        {
            let mut request = request.map(RequestBody::unbounded);
            request.extensions_mut().insert(self.peer.clone());
            return grpc(request).await.map(Source::Grpc);
        }
        if declared_length(request.headers()).is_some_and(|length| length > limits.body_bytes) {
            return closing(problem(&Problem::too_large(limits.body_bytes)), version, unread);
        }
        let mut request = request
            .map(|body| RequestBody::new(body, limits.body_bytes, limits.stall_timeout, limits.body_timeout));
        let outcome = request.body().outcome();
        let methods = (self.shared.methods)(request.uri().path());
        request.extensions_mut().insert(self.peer.clone());
        let answer = self.app.lock().unwrap_or_else(PoisonError::into_inner).answer(request);
        let Ok(mut response) = answer.await;
        if response.status() == StatusCode::METHOD_NOT_ALLOWED
            && let Entry::Vacant(allow) = response.headers_mut().entry(ALLOW)
        {
            allow.insert(HeaderValue::from_static(methods));
        }
        let unread = outcome.as_deref().is_some_and(Outcome::left_unread);
        let response = match outcome.and_then(|outcome| outcome.failure()) {
            None => response.map(Source::App),
            Some(BodyFailure::TooLarge) => problem(&Problem::too_large(limits.body_bytes)),
            Some(BodyFailure::Stalled) => problem(
                &Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout")
                    .with_detail("the request body stopped coming"),
            ),
        };
        closing(response, version, unread)
    }

    /// Health on both listeners; readiness and metrics on the main one.
    fn operational(&self, request: &Request<Incoming>) -> Option<Reply<A>> {
        let path = request.uri().path();
        let primary = self.peer.listener() == ListenerKind::Primary;
        if !matches!(path, "/healthz" | "/readyz" | "/metrics") || (path == "/metrics" && !primary) {
            return None;
        }
        if *request.method() != Method::GET {
            return Some(problem(&Problem::method_not_allowed("GET, HEAD")));
        }
        Some(match path {
            // The form that clients of Rekor and of gRPC gateways read.
            "/healthz" => text("application/json", r#"{"status":"SERVING"}"#),
            "/readyz" if self.shared.draining.load(Ordering::Relaxed) => {
                problem(&Problem::unavailable("draining", 1).with_detail("the server is stopping"))
            }
            "/readyz" => match (self.shared.readiness)() {
                Readiness::Ready => text("text/plain; charset=utf-8", "ready\n"),
                Readiness::NotReady(why) => problem(&Problem::unavailable("not_ready", 1).with_detail(why)),
            },
            _ => match self.shared.metrics.encode() {
                Ok(exposition) => text(metrics::CONTENT_TYPE, exposition),
                Err(error) => problem(&Problem::internal(error)),
            },
        })
    }
}

/// The same answer with the length of the body that a GET would have brought, and no body.
fn without_body<B>(mut response: Response<Source<B>>) -> Response<Source<B>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    if let Some(length) = response.body().exact_length()
        && let Entry::Vacant(header) = response.headers_mut().entry(CONTENT_LENGTH)
    {
        header.insert(HeaderValue::from(length));
    }
    response.map(|_| Source::Own(None))
}

/// An answer that came before the whole body ends its connection (RFC 9112 §9.6). Saying so keeps the client from sending
/// its next request into a connection that is about to close. HTTP/2 resets the stream alone.
fn closing<B>(mut response: Response<Source<B>>, version: Version, unread: bool) -> Response<Source<B>> {
    if unread && version <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn problem<B>(problem: &Problem) -> Response<Source<B>> {
    problem.to_response().map(|bytes| Source::Own(Some(bytes)))
}

fn text<B>(media_type: &'static str, text: impl Into<Bytes>) -> Response<Source<B>> {
    let mut response = Response::new(Source::Own(Some(text.into())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
