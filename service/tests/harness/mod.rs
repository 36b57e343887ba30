//! What the tests of this crate share: a small server, raw sockets, and a private certificate authority.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod frames;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use service::problem::ProblemDocument;
use service::{Problem, Running, Server, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use warp::Filter;

/// A route that waits until it is let through.
#[derive(Default)]
pub struct Gate {
    pub entered: Notify,
    pub release: Notify,
}

pub fn quick() -> ServerConfig {
    let mut config = ServerConfig::default();
    config.limits.body_bytes = 1000;
    config.limits.header_timeout_ms = 200;
    config.limits.stall_timeout_ms = 300;
    config.limits.tls_timeout_ms = 300;
    config.drain_seconds = 5;
    config
}

/// Routes: GET /hello, POST /echo (bytes), POST /json, GET /slow (gated), GET /problem, GET /peer, GET /panic-free.
pub fn routes(
    gate: Arc<Gate>,
) -> impl Filter<Extract = (warp::reply::Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static
{
    use warp::Reply;
    let hello = warp::path!("hello").and(warp::get()).map(|| "hello".into_response());
    let echo = warp::path!("echo")
        .and(warp::post())
        .and(warp::body::bytes())
        .map(|body: bytes::Bytes| warp::reply::Response::new(body.into()));
    let json = warp::path!("json")
        .and(warp::post())
        .and(warp::body::json())
        .map(|value: serde_json::Value| warp::reply::json(&value).into_response());
    let slow = warp::path!("slow").and(warp::get()).then(move || {
        let gate = Arc::clone(&gate);
        async move {
            gate.entered.notify_one();
            gate.release.notified().await;
            "done".into_response()
        }
    });
    let problem = warp::path!("problem").and_then(|| async {
        Err::<warp::reply::Response, _>(warp::reject::custom(
            Problem::forbidden("not_for_you", "ask the operator").with_internal("secret detail"),
        ))
    });
    let peer = warp::path!("peer").and(service::peer::peer()).map(|peer: service::Peer| {
        let subject = peer.certificate().map(|c| c.subject().to_owned());
        let listener = format!("{:?}", peer.listener());
        warp::reply::json(&serde_json::json!({
            "ip": peer.address().ip().to_string(), "subject": subject, "listener": listener,
            "held": peer.held_certificate().map(<[u8]>::len),
        }))
        .into_response()
    });
    hello.or(echo).unify().or(json).unify().or(slow).unify().or(problem).unify().or(peer).unify()
}

pub async fn start(config: &ServerConfig) -> Running {
    let routes = routes(Arc::default());
    Server::new(config).unwrap().route(routes.clone()).read_only_route(routes).start().await.unwrap()
}

pub async fn start_gated(config: &ServerConfig) -> (Running, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let running = Server::new(config).unwrap().route(routes(Arc::clone(&gate))).start().await.unwrap();
    (running, gate)
}

pub fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}

/// Asserts the shape of a problem response and gives its document.
pub async fn problem(response: reqwest::Response) -> ProblemDocument {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let status = response.status().as_u16();
    let document: ProblemDocument = response.json().await.unwrap();
    assert_eq!(document.status, status);
    assert_eq!(document.kind, format!("urn:mentat:problem:{}", document.code));
    document
}

/// Sends raw bytes and reads until the server closes; fails if it does not within ten seconds.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    // A reset after the answer ends it as well as an orderly close.
    let _ = read.expect("the server did not close the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A certificate authority in a temporary folder.
pub struct Authority {
    pub folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn server(&self) -> Identity {
        self.server_named("server")
    }

    pub fn server_named(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        self.issue(params, name)
    }

    pub fn client(&self, name: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        self.issue(params, name)
    }

    fn issue(&self, params: CertificateParams, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |suffix: &str| self.folder.path().join(format!("{name}.{suffix}"));
        std::fs::write(path("pem"), certificate.pem()).unwrap();
        service::secret::write_new(&path("key"), key.serialize_pem().as_bytes()).unwrap();
        let pem = format!("{}{}", certificate.pem(), key.serialize_pem());
        Identity { certificate: path("pem"), key: path("key"), pem }
    }
}

pub fn with_tls(mut config: ServerConfig, server: &Identity, client_ca: Option<&Path>) -> ServerConfig {
    config.tls = Some(service::config::TlsConfig {
        certificate_file: server.certificate.clone(),
        key_file: server.key.clone(),
        client_ca_file: client_ca.map(Path::to_owned),
        client_certificates: service::config::ClientCertificates::Required,
    });
    config
}

/// A client that trusts `authority` and shows `identity`.
pub fn client(authority: &Authority, identity: Option<&Identity>) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let mut builder = reqwest::Client::builder().tls_certs_only([root]);
    if let Some(identity) = identity {
        builder = builder.identity(reqwest::Identity::from_pem(identity.pem.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}
