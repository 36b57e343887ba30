//! The listener of `up` itself, on loopback alone: the development issuer and the trust files. One thread, one request for
//! each connection, everything bounded.

use std::convert::Infallible;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, LOCATION,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;

use crate::exit::{Exit, OrFail as _, Outcome};

/// Connections at the same time; the next one waits.
const MAX_CONNECTIONS: usize = 64;
/// Largest request body in bytes: a form.
const MAX_BODY: usize = 16 * 1024;
/// How long a connection may live, from its first byte to its last.
const MAX_LIFE: Duration = Duration::from_secs(15);
/// How long request headers may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages hold forms and nothing that runs; they lead back here, or to a client that waits on loopback.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; \
                              form-action 'self' http://127.0.0.1:* http://localhost:*";

/// A request, read whole.
#[derive(Debug)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// The parameters of its query.
    pub query: Fields,
    /// The parameters of its body, where that is a form.
    pub form: Fields,
    /// Its `Authorization` header.
    pub authorization: Option<String>,
}

/// Named parameters.
#[derive(Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// From a form or a query string.
    pub fn parse(encoded: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// The parameter of this name; none when it stands there twice (RFC 6749 section 3.1).
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(key, _)| key == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }
}

/// What a request is answered with.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Media type of the body.
    pub content_type: &'static str,
    /// Where to go instead.
    pub location: Option<String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// JSON.
    pub fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            location: None,
            body: value.to_string().into_bytes(),
        }
    }

    /// A page.
    pub fn page(status: StatusCode, html: String) -> Self {
        Self { status, content_type: "text/html; charset=utf-8", location: None, body: html.into_bytes() }
    }

    /// A redirect after a form.
    pub fn see_other(location: String) -> Self {
        let plain = "text/plain; charset=utf-8";
        Self {
            status: StatusCode::SEE_OTHER,
            content_type: plain,
            location: Some(location),
            body: Vec::new(),
        }
    }

    /// A line of text.
    pub fn text(status: StatusCode, text: &str) -> Self {
        let body = format!("{text}\n").into_bytes();
        Self { status, content_type: "text/plain; charset=utf-8", location: None, body }
    }
}

/// What answers.
pub type Handler = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// The running listener. Dropping it stops it.
#[derive(Debug)]
pub struct Listener {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Binds 127.0.0.1, never anything else, and begins to answer, over TLS where there is an acceptor.
    ///
    /// # Errors
    /// Exit code 78 when the port cannot be bound.
    pub fn start(port: u16, tls: Option<TlsAcceptor>, handler: Handler) -> Outcome<Self> {
        let what = || format!("port {port} of 127.0.0.1");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).or_fail(Exit::Refused, what())?;
        listener.set_nonblocking(true).or_fail(Exit::Refused, what())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .or_fail(Exit::Failure, "starting the asynchronous runtime")?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, port, tls, handler) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, port: u16, tls: Option<TlsAcceptor>, handler: Handler) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: the next attempt may find some.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (handler, tls) = (Arc::clone(&handler), tls.clone());
        tokio::spawn(async move {
            let connection = async {
                match tls {
                    None => serve(stream, port, handler).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve(stream, port, handler).await;
                        }
                    }
                }
            };
            let _ = tokio::time::timeout(MAX_LIFE, connection).await;
            drop(slot);
        });
    }
}

/// Answers the one request of a connection.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, port: u16, handler: Handler) {
    let service = service_fn(move |request| answer(request, port, Arc::clone(&handler)));
    // What goes wrong is the client's to notice: nobody else waits for it.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: hyper::Request<Incoming>,
    port: u16,
    handler: Handler,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let answer = match read(request, port).await {
        Ok(request) => handler(&request),
        Err(refusal) => refusal,
    };
    let mut response = hyper::Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
    if let Some(location) = answer.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        headers.insert(LOCATION, location);
    }
    Ok(response)
}

async fn read(request: hyper::Request<Incoming>, port: u16) -> Result<Request, Answer> {
    let (parts, body) = request.into_parts();
    let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    // A foreign name that leads to loopback is a page elsewhere that wants to read what is here.
    let own = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    if !text(HOST).is_some_and(|host| own.iter().any(|name| name == host)) {
        return Err(Answer::text(StatusCode::MISDIRECTED_REQUEST, "this is not the host that was asked for"));
    }
    let is_form =
        text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|_| Answer::text(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large"))?
        .to_bytes();
    Ok(Request {
        path: parts.uri.path().to_owned(),
        query: Fields::parse(parts.uri.query().unwrap_or_default().as_bytes()),
        form: if is_form { Fields::parse(&body) } else { Fields::default() },
        authorization: text(AUTHORIZATION).map(str::to_owned),
        method: parts.method,
    })
}
