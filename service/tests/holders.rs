//! Certificates that the application issued for something else: what their holders reach, and how they must show them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::harness;

use std::net::SocketAddr;
use std::sync::Arc;

use harness::{Authority, Identity, client, problem, quick, routes, with_tls};
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use service::holder::Holders;
use service::{Running, Server, ServerConfig};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// An application that issued exactly these.
#[derive(Debug)]
struct Issued(Vec<CertificateDer<'static>>);

impl Holders for Issued {
    fn authorities(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn issued(&self, certificate: &[u8]) -> bool {
        self.0.iter().any(|issued| issued.as_ref() == certificate)
    }

    fn reach(&self, path: &str) -> bool {
        path == "/peer"
    }
}

fn certificate(identity: &Identity) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&identity.certificate).unwrap()
}

async fn serve(config: &ServerConfig, holder: &Identity) -> Running {
    let holders = Arc::new(Issued(vec![certificate(holder)]));
    Server::with_holders(config, holders).unwrap().route(routes(Arc::default())).start().await.unwrap()
}

fn https(running: &Running, path: &str) -> String {
    format!("https://localhost:{}{path}", running.addr().port())
}

#[tokio::test]
async fn a_holder_reaches_what_is_for_holders_and_is_nobody_anywhere_else() {
    let (servers, application) = (Authority::new("Servers"), Authority::new("Application"));
    let (holder, stranger) = (application.client("holder"), application.client("stranger"));
    let running = serve(&with_tls(quick(), &servers.server(), None), &holder).await;
    let holding = client(&servers, Some(&holder));
    let peer: serde_json::Value =
        holding.get(https(&running, "/peer")).send().await.unwrap().json().await.unwrap();
    assert_eq!(peer["subject"], serde_json::Value::Null);
    assert_eq!(peer["held"], certificate(&holder).len());
    for path in ["/hello", "/healthz", "/readyz", "/metrics", "/peer/", "/nothing"] {
        let refused = holding.get(https(&running, path)).bearer_auth("token").send().await.unwrap();
        assert_eq!(refused.status(), 403, "{path}");
        assert_eq!(problem(refused).await.code, "certificate_not_for_this", "{path}");
    }
    let call = holding.post(https(&running, "/peer.Service/Call")).header("content-type", "application/grpc");
    assert_eq!(problem(call.body("").send().await.unwrap()).await.code, "certificate_not_for_this");
    // Whoever shows none is as free as before; another certificate of the same authority is nobody's here.
    let anonymous = client(&servers, None).get(https(&running, "/hello")).send().await.unwrap();
    assert_eq!(anonymous.text().await.unwrap(), "hello");
    assert!(client(&servers, Some(&stranger)).get(https(&running, "/peer")).send().await.is_err());
}

#[tokio::test]
async fn listed_clients_are_known_as_before_and_nobody_else_comes_in() {
    let (servers, application) = (Authority::new("Servers"), Authority::new("Application"));
    let holder = application.client("holder");
    let running = serve(&with_tls(quick(), &servers.server(), Some(&servers.file())), &holder).await;
    let listed = client(&servers, Some(&servers.client("executor-1")));
    let peer: serde_json::Value =
        listed.get(https(&running, "/peer")).send().await.unwrap().json().await.unwrap();
    assert!(peer["subject"].as_str().unwrap().contains("CN=executor-1"), "{peer}");
    assert_eq!(peer["held"], serde_json::Value::Null);
    assert_eq!(listed.get(https(&running, "/hello")).send().await.unwrap().status(), 200);
    let held = client(&servers, Some(&holder)).get(https(&running, "/hello")).send().await.unwrap();
    assert_eq!(problem(held).await.code, "certificate_not_for_this");
    assert!(client(&servers, None).get(https(&running, "/hello")).send().await.is_err());
    let foreign = Authority::new("Other").client("executor-1");
    assert!(client(&servers, Some(&foreign)).get(https(&running, "/hello")).send().await.is_err());
}

#[test]
fn without_tls_nobody_can_show_a_certificate() {
    let Err(refusal) = Server::with_holders(&quick(), Arc::new(Issued(Vec::new()))) else {
        panic!("accepted")
    };
    assert!(refusal.to_string().contains("[server.tls]"), "{refusal}");
}

/// A client that shows a certificate with whatever key it is given.
fn showing(
    servers: &Authority,
    shown: &Identity,
    key: &Identity,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(servers.file()).unwrap()).unwrap();
    let key =
        provider.key_provider.load_private_key(PrivateKeyDer::from_pem_file(&key.key).unwrap()).unwrap();
    let certified = CertifiedKey::new(vec![certificate(shown)], key);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

/// What a request is answered over a connection of its own; empty where there is none.
async fn asked(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    path: &str,
) -> (String, Option<HandshakeKind>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let Ok(mut stream) = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, stream).await
    else {
        return (String::new(), None);
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    // Over TLS 1.3 a refusal comes after what the client takes for the end of the handshake.
    if stream.write_all(request.as_bytes()).await.is_err() {
        return (String::new(), None);
    }
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
    (String::from_utf8_lossy(&answer).into_owned(), stream.get_ref().1.handshake_kind())
}

#[tokio::test]
async fn the_key_must_be_the_certificates_and_the_handshake_one_of_tls_1_3() {
    let (servers, application) = (Authority::new("Servers"), Authority::new("Application"));
    let (holder, other) = (application.client("holder"), application.client("other"));
    let listed = servers.client("executor-1");
    let mut config = with_tls(quick(), &servers.server(), Some(&servers.file()));
    config.tls.as_mut().unwrap().client_certificates = service::config::ClientCertificates::Optional;
    let running = serve(&config, &holder).await;
    let (new, old) = (&[&rustls::version::TLS13][..], &[&rustls::version::TLS12][..]);
    let ask = async |shown, key, versions| {
        asked(&showing(&servers, shown, key, versions), running.addr(), "/peer").await.0
    };
    assert!(ask(&holder, &holder, new).await.starts_with("HTTP/1.1 200"));
    assert_eq!(ask(&holder, &other, new).await, "", "another key");
    assert_eq!(ask(&holder, &holder, old).await, "", "TLS 1.2");
    assert!(ask(&listed, &listed, old).await.contains("executor-1"), "listed clients as before");
}

#[tokio::test]
async fn a_resumed_session_is_a_holders_still() {
    let (servers, application) = (Authority::new("Servers"), Authority::new("Application"));
    let holder = application.client("holder");
    let running = serve(&with_tls(quick(), &servers.server(), None), &holder).await;
    let config = showing(&servers, &holder, &holder, &[&rustls::version::TLS13]);
    let (answer, first) = asked(&config, running.addr(), "/hello").await;
    assert!(answer.contains("certificate_not_for_this"), "{answer}");
    let (answer, second) = asked(&config, running.addr(), "/hello").await;
    assert_eq!((first, second), (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)));
    assert!(answer.contains("certificate_not_for_this"), "{answer}");
}
