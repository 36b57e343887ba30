//! One request: counted, limited, handed to whoever answers it, and answered as a problem document when nobody may.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, Entry, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tower_service::Service;

use crate::body::{BodyFailure, BoxError, Leftover, RequestBody};
use crate::budget::Budget;
use crate::clock::monotonic;
use crate::config::Limits;
use crate::grpc::{self, Grpc};
use crate::holder::{self, Holders};
use crate::linger;
use crate::metrics::{self, Metrics, RequestMetrics};
use crate::peer::{ListenerKind, Peer};
use crate::problem::Problem;
use crate::rate_limit::{ClientKey, RateLimiter};
use crate::ready::{Readiness, ReadinessCheck};
use crate::response::{Ended, ResponseBody, Source, Underway};
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

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) answers: Arc<Budget>,
    pub(crate) bodies: Arc<Budget>,
    /// Of parts of answers that wait until `answers` has room for them.
    pub(crate) waiting: Arc<Budget>,
    pub(crate) metrics: Metrics,
    pub(crate) requests: Arc<RequestMetrics>,
    pub(crate) readiness: ReadinessCheck,
    pub(crate) methods: fn(&str) -> &'static str,
    pub(crate) draining: AtomicBool,
    pub(crate) rate: Option<RateLimiter>,
    pub(crate) grpc: Option<Grpc>,
    pub(crate) holders: Option<Arc<dyn Holders>>,
}

/// One connection's view: the routes are cloned once per connection, not once per request.
pub(crate) struct Dispatcher<A> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) app: Mutex<A>,
    pub(crate) peer: Peer,
    pub(crate) activity: Arc<Activity>,
    /// A stop waits for requests, too: one of HTTP/2 is a task of its own, which ends after its connection.
    pub(crate) _alive: mpsc::Sender<()>,
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
        let response = self.within_budget(response, ended);
        let took = monotonic().saturating_sub(began);
        self.shared.requests.observe(route, response.status(), took);
        if let Some((method, path)) = access {
            let status = response.status().as_u16();
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let peer = self.peer.address();
            let subject = self.peer.certificate().map(|c| c.subject());
            tracing::debug!(target: "access", %method, path, status, micros, %peer, subject, "request");
        }
        Ok(response)
    }

    /// The answer, if there is room for its bytes until its peer has read them.
    fn within_budget(&self, response: Reply<A>, ended: Ended) -> Response<ResponseBody<A::Body>> {
        let Some(length) = response.body().exact_length() else {
            return response.map(|source| ResponseBody::parts(source, ended));
        };
        match Underway::begin(ended, length) {
            Ok(underway) => response.map(|source| ResponseBody::whole(source, underway)),
            Err(ended) => {
                let response = match shared_bytes(response, length) {
                    Ok(free) => {
                        let underway = Underway::uncounted(ended, length);
                        return free.map(|source| ResponseBody::whole(source, underway));
                    }
                    Err(response) => response,
                };
                self.shared.requests.answers_refused.fetch_add(1, Ordering::Relaxed);
                let mut refusal =
                    problem::<A::Body>(&Problem::unavailable("overloaded", 1).with_detail(
                        "too many bytes of answers are under way; read them, then repeat the call",
                    ));
                if let Some(close) = response.headers().get(CONNECTION) {
                    refusal.headers_mut().insert(CONNECTION, close.clone());
                }
                let length = refusal.body().exact_length().unwrap_or_default();
                let underway = Underway::uncounted(ended, length);
                refusal.map(|source| ResponseBody::whole(source, underway))
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply<A> {
        let version = request.version();
        if let Some(refusal) = holder::refused(self.shared.holders.as_ref(), &self.peer, request.uri().path())
        {
            return self.unread(problem(&refusal), version, Some(request.into_body())).await;
        }
        if let Some(response) = self.operational(&request) {
            return self.unread(response, version, Some(request.into_body())).await;
        }
        if let Some(rate) = &self.shared.rate
            && let Err(exceeded) = rate.take(ClientKey::of(&self.peer), monotonic())
        {
            self.shared.requests.rate_limited.fetch_add(1, Ordering::Relaxed);
            let refusal = problem(&Problem::too_many_requests(exceeded.retry_after_seconds));
            return self.unread(refusal, version, Some(request.into_body())).await;
        }
        let limits = &self.shared.limits;
        if let Some(grpc) = &self.shared.grpc
            && self.peer.listener() == ListenerKind::Primary
            && grpc::is_meant(request.headers())
        {
            return self.answer_grpc(grpc, request).await;
        }
        if declared_length(request.headers()).is_some_and(|length| length > limits.body_bytes) {
            let refusal = problem(&Problem::too_large(limits.body_bytes));
            return self.unread(refusal, version, Some(request.into_body())).await;
        }
        if version > Version::HTTP_11 && *request.method() == Method::GET && !request.body().is_end_stream() {
            return Box::pin(self.answer_without_body(request)).await;
        }
        let leftover = if version > Version::HTTP_11 { Leftover::Kept } else { Leftover::Dropped };
        let mut request =
            request.map(|body| RequestBody::new(body, limits, leftover, self.activity.bodies()));
        let outcome = request.body().outcome();
        let methods = (self.shared.methods)(request.uri().path());
        request.extensions_mut().insert(self.peer.clone());
        let answer = self.app.lock().unwrap_or_else(PoisonError::into_inner).answer(request);
        let Ok(response) = answer.await;
        let response = with_allow(response, methods);
        let Some(outcome) = outcome.filter(|outcome| outcome.left_unread()) else {
            return response.map(Source::App);
        };
        let response = match outcome.failure() {
            None => response.map(Source::App),
            Some(BodyFailure::NoRoom) => {
                self.shared.requests.bodies_refused.fetch_add(1, Ordering::Relaxed);
                problem(
                    &Problem::unavailable("overloaded", 1)
                        .with_detail("too many bytes of request bodies are under way; repeat the call later"),
                )
            }
            Some(BodyFailure::TooLarge) => problem(&Problem::too_large(limits.body_bytes)),
            Some(BodyFailure::Stalled) => problem(
                &Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout")
                    .with_detail("the request body stopped coming"),
            ),
        };
        self.unread(response, version, outcome.take_rest()).await
    }

    /// Messages are limited one by one, by who reads them; their bytes and their time are limited here, as those of any body.
    async fn answer_grpc(&self, grpc: &Grpc, request: Request<Incoming>) -> Reply<A> {
        let limits = &self.shared.limits;
        let mut request = request.map(|body| RequestBody::messages(body, limits, self.activity.bodies()));
        let outcome = request.body().outcome();
        request.extensions_mut().insert(self.peer.clone());
        let response = grpc(request).await;
        match outcome.and_then(|outcome| outcome.failure()) {
            None => response.map(Source::Grpc),
            Some(failure) => {
                if failure == BodyFailure::NoRoom {
                    self.shared.requests.bodies_refused.fetch_add(1, Ordering::Relaxed);
                }
                grpc::refusal(failure).map(|bytes| Source::Own(Some(bytes)))
            }
        }
    }

    /// A GET over HTTP/2 that brings a body, which means nothing (RFC 9110 section 9.3.1). Nobody reads it: it would lie in the
    /// connection's windows, uncounted, for as long as the answer takes. So it is thrown away first: an answer that is made before waits for
    /// the end of a body that its sender draws out.
    async fn answer_without_body(&self, request: Request<Incoming>) -> Reply<A> {
        let (head, body) = request.into_parts();
        Box::pin(linger::read_out(body, self.shared.limits.stall_timeout)).await;
        let mut request = Request::from_parts(head, RequestBody::none());
        request.extensions_mut().insert(self.peer.clone());
        let methods = (self.shared.methods)(request.uri().path());
        let answer = self.app.lock().unwrap_or_else(PoisonError::into_inner).answer(request);
        let Ok(response) = answer.await;
        with_allow(response, methods).map(Source::App)
    }

    /// An answer that came before the whole body was read. Over HTTP/1.1 it ends its connection (RFC 9112 section 9.6);
    /// saying so keeps the client from sending its next request into a connection that is about to close. Over HTTP/2 it is
    /// given after the rest of the body, where that is small.
    async fn unread(&self, mut response: Reply<A>, version: Version, rest: Option<Incoming>) -> Reply<A> {
        if rest.as_ref().is_some_and(Body::is_end_stream) {
            return response;
        }
        if version <= Version::HTTP_11 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        } else if let Some(rest) = rest {
            Box::pin(linger::read_out(rest, self.shared.limits.stall_timeout)).await;
        }
        response
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
                Readiness::Limited(_) if !primary => text("text/plain; charset=utf-8", "ready\n"),
                Readiness::Limited(why) | Readiness::NotReady(why) => {
                    problem(&Problem::unavailable("not_ready", 1).with_detail(why))
                }
            },
            _ => match self.shared.metrics.encode() {
                Ok(exposition) => text(metrics::CONTENT_TYPE, exposition),
                Err(error) => problem(&Problem::internal(error)),
            },
        })
    }
}

/// The answer, if its body is one piece that somebody else holds as well (a cache, the program itself): it costs nothing.
/// The answer without its body, if not.
fn shared_bytes<B>(response: Response<Source<B>>, length: u64) -> Result<Response<Source<B>>, Response<()>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (head, mut source) = response.into_parts();
    match source.first_piece() {
        Some(bytes) if bytes.len() as u64 == length && !bytes.is_unique() => {
            Ok(Response::from_parts(head, Source::Own(Some(bytes))))
        }
        _ => Err(Response::from_parts(head, ())),
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

/// What a refusal of a method must name (RFC 9110 section 15.5.6), where the application left it out.
fn with_allow<B>(mut response: Response<B>, methods: &'static str) -> Response<B> {
    if response.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Entry::Vacant(allow) = response.headers_mut().entry(ALLOW)
    {
        allow.insert(HeaderValue::from_static(methods));
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

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
