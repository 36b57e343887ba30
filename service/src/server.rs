//! Putting a server together, running it and stopping it.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use warp::{Filter, Rejection, Reply};

use crate::body::RequestBody;
use crate::both::Routes;
use crate::budget::Budget;
use crate::config::{Listen, ServerConfig, Settings};
use crate::connection::Phase;
use crate::dispatch::{App, Shared};
use crate::exit::StartRefusal;
use crate::grpc::{self, Grpc};
use crate::holder::Holders;
use crate::listener::{Acceptor, Connections, bind};
use crate::metrics::Metrics;
use crate::peer::ListenerKind;
use crate::problem::Problem;
use crate::rate_limit::RateLimiter;
use crate::ready::{Readiness, ReadinessCheck};
use crate::rejection::recover;
use crate::response::WAITING_ROOM;

/// A server that is being put together. `A` answers on the main listener, `R` on the read-only one.
pub struct Server<A = NothingServed, R = NothingServed> {
    settings: Settings,
    app: A,
    read_only: R,
    grpc: Option<Grpc>,
    metrics: Metrics,
    readiness: ReadinessCheck,
    methods: fn(&str) -> &'static str,
}

impl Server {
    /// A server without routes.
    ///
    /// # Errors
    /// [`StartRefusal`] as [`ServerConfig::validate`].
    pub fn new(config: &ServerConfig) -> Result<Self, StartRefusal> {
        Ok(Self::with_settings(config.validate()?))
    }

    /// A server without routes to which holders of certificates of the application's own connect as well.
    ///
    /// # Errors
    /// As [`Self::new`], and where the section has no TLS.
    pub fn with_holders(config: &ServerConfig, holders: Arc<dyn Holders>) -> Result<Self, StartRefusal> {
        Ok(Self::with_settings(config.validate_for(Some(holders))?))
    }

    /// A server without routes, of settings validated before.
    #[must_use]
    pub fn with_settings(settings: Settings) -> Self {
        Self {
            settings,
            app: NothingServed,
            read_only: NothingServed,
            grpc: None,
            metrics: Metrics::new(&[]),
            readiness: Arc::new(|| Readiness::Ready),
            methods: |_| "GET, HEAD",
        }
    }
}

impl<A: App, R: App> Server<A, R> {
    /// Answers the main listener with a warp filter. Its rejections become problem documents.
    #[must_use]
    pub fn route<F>(self, filter: F) -> Server<impl App, R>
    where
        F: Filter<Error = Rejection> + Clone + Send + Sync + 'static,
        F::Extract: Reply + Send,
        F::Future: Send,
    {
        self.service(warp::service(filter.recover(recover)))
    }

    /// Answers the main listener with a tower service that is always ready.
    #[must_use]
    pub fn service<N: App>(self, app: N) -> Server<N, R> {
        let Self { settings, app: _, read_only, grpc, metrics, readiness, methods } = self;
        Server { settings, app, read_only, grpc, metrics, readiness, methods }
    }

    /// Answers the read-only listener with a warp filter. Serve nothing there that changes state or is secret.
    #[must_use]
    pub fn read_only_route<F>(self, filter: F) -> Server<A, impl App>
    where
        F: Filter<Error = Rejection> + Clone + Send + Sync + 'static,
        F::Extract: Reply + Send,
        F::Future: Send,
    {
        self.read_only_service(warp::service(filter.recover(recover)))
    }

    /// Answers the read-only listener with a tower service that is always ready.
    #[must_use]
    pub fn read_only_service<N: App>(self, read_only: N) -> Server<A, N> {
        let Self { settings, app, read_only: _, grpc, metrics, readiness, methods } = self;
        Server { settings, app, read_only, grpc, metrics, readiness, methods }
    }

    /// Answers requests whose content type is `application/grpc` on the main listener: tonic's `Routes`.
    #[must_use]
    pub fn grpc<G: App>(mut self, routes: G) -> Self {
        self.grpc = Some(grpc::boxed(routes));
        self
    }

    /// Counts requests in this registry and serves it at `/metrics`.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Says which methods a path takes, for the `Allow` of a 405 that a warp filter gave: warp does not know. Without this
    /// it says `GET, HEAD`.
    #[must_use]
    pub fn methods(mut self, methods: fn(path: &str) -> &'static str) -> Self {
        self.methods = methods;
        self
    }

    /// Asks this at `/readyz`. Must not block.
    #[must_use]
    pub fn readiness(mut self, check: impl Fn() -> Readiness + Send + Sync + 'static) -> Self {
        self.readiness = Arc::new(check);
        self
    }

    /// Binds the listeners and begins to answer.
    ///
    /// # Errors
    /// [`StartRefusal`] when an address cannot be bound.
    pub async fn start(self) -> Result<Running, StartRefusal> {
        let Self { settings, app, read_only, grpc, metrics, readiness, methods } = self;
        let refuse = |error: std::io::Error| {
            StartRefusal::new("a bound address cannot be read back", "check the system's limits")
                .because(error)
        };
        let primary = bind("server.listen", settings.primary.address())?;
        let addr = primary.local_addr().map_err(refuse)?;
        let second =
            settings.read_only.map(|address| bind("server.read_only_listen", address)).transpose()?;
        let read_only_addr = second.as_ref().map(|l| l.local_addr().map_err(refuse)).transpose()?;

        let requests = metrics.requests();
        let limits = settings.limits;
        // A body is counted while it comes: whatever else is said, the largest one must fit beside another.
        let bodies_of_peer = limits.request_bytes_per_peer.max(limits.body_bytes.saturating_mul(2));
        let connections =
            Connections::new(limits.connections, limits.connections_per_peer, Arc::clone(&requests));
        let shared = Arc::new(Shared {
            limits,
            answers: Arc::new(Budget::new(limits.answer_bytes, limits.answer_bytes_per_peer)),
            bodies: Arc::new(Budget::new(limits.request_bytes.max(bodies_of_peer), bodies_of_peer)),
            waiting: Arc::new(Budget::new(
                limits.answer_bytes / WAITING_ROOM,
                limits.answer_bytes_per_peer / WAITING_ROOM,
            )),
            metrics,
            requests,
            readiness,
            methods,
            draining: AtomicBool::new(false),
            rate: settings.rate.map(RateLimiter::new),
            grpc,
            holders: settings.holders,
        });
        let (phase, stop) = watch::channel(Phase::Serving);
        let (alive, ended) = mpsc::channel(1);
        let tls = match settings.primary {
            Listen::Plain(_) => None,
            Listen::Tls(_, config) => Some(TlsAcceptor::from(config)),
        };
        if let Some(listener) = second {
            let acceptor = Acceptor {
                listener,
                kind: ListenerKind::ReadOnly,
                tls: None,
                app: Routes::<A, R>::ReadOnly(read_only),
                shared: Arc::clone(&shared),
                connections: Arc::clone(&connections),
                stop: stop.clone(),
                alive: alive.clone(),
            };
            tokio::spawn(acceptor.run());
        }
        let acceptor = Acceptor {
            listener: primary,
            kind: ListenerKind::Primary,
            tls,
            app: Routes::<A, R>::Primary(app),
            shared: Arc::clone(&shared),
            connections,
            stop,
            alive,
        };
        tokio::spawn(acceptor.run());
        tracing::info!(listen = %addr, read_only_listen = ?read_only_addr, "serving");
        Ok(Running { addr, read_only_addr, shared, phase, ended, drain: settings.drain })
    }
}

/// A server that answers. Dropping it cuts every connection off; [`Running::stop`] lets requests finish.
pub struct Running {
    addr: SocketAddr,
    read_only_addr: Option<SocketAddr>,
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    ended: mpsc::Receiver<()>,
    drain: Duration,
}

/// How a stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request under way was answered.
    Complete,
    /// The deadline passed; what was left was cut off.
    CutOff,
}

impl Running {
    /// The address of the main listener, with the port the system chose.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address of the read-only listener.
    #[must_use]
    pub const fn read_only_addr(&self) -> Option<SocketAddr> {
        self.read_only_addr
    }

    /// Serves until `until` is ready, then stops; gives what `until` gave.
    pub async fn run_until<F: Future>(self, until: F) -> F::Output {
        let outcome = until.await;
        self.stop().await;
        outcome
    }

    /// Stops: no new connections or requests, `/readyz` says so, requests under way get the drain time to finish.
    pub async fn stop(mut self) -> Drained {
        self.shared.draining.store(true, Ordering::Relaxed);
        self.phase.send_replace(Phase::Draining);
        // Gives nothing but its end: the senders are held by acceptors and connections only.
        let drained = if tokio::time::timeout(self.drain, self.ended.recv()).await.is_ok() {
            Drained::Complete
        } else {
            self.phase.send_replace(Phase::Aborted);
            self.ended.recv().await;
            Drained::CutOff
        };
        tracing::info!(?drained, "stopped");
        drained
    }
}

/// Answers everything with a 404 problem.
#[derive(Clone, Copy, Debug)]
pub struct NothingServed;

impl tower_service::Service<Request<RequestBody>> for NothingServed {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<RequestBody>) -> Self::Future {
        ready(Ok(Problem::not_found("nothing is served at this path").to_response().map(Full::new)))
    }
}
