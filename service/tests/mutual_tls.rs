//! TLS, client certificates and administrators.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::harness;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use harness::{Authority, client, quick, raw, start, with_tls};
use service::admin::{AdminAuth, AdminConfig, AdminIdentity};
use service::config::ClientCertificates;
use service::{ClientTls, Server, ServerConfig};
use warp::Filter;

fn https(running: &service::Running, path: &str) -> String {
    format!("https://localhost:{}{path}", running.addr().port())
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let authority = Authority::new("Test Authority");
    let config = with_tls(quick(), &authority.server(), Some(&authority.file()));
    let running = start(&config).await;
    let identity = authority.client("executor-1");
    let response = client(&authority, Some(&identity)).get(https(&running, "/peer")).send().await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let peer: serde_json::Value = response.json().await.unwrap();
    let subject = peer["subject"].as_str().unwrap();
    assert!(subject.contains("CN=executor-1") && subject.contains("O=Example"), "{subject}");
}

#[tokio::test]
async fn missing_and_foreign_client_certificates_are_refused() {
    let authority = Authority::new("Test Authority");
    let config = with_tls(quick(), &authority.server(), Some(&authority.file()));
    let running = start(&config).await;
    assert!(client(&authority, None).get(https(&running, "/hello")).send().await.is_err());
    let foreign = Authority::new("Other Authority").client("executor-1");
    assert!(client(&authority, Some(&foreign)).get(https(&running, "/hello")).send().await.is_err());
    // A server's certificate is not a client's.
    let server = authority.server_named("another-server");
    assert!(client(&authority, Some(&server)).get(https(&running, "/hello")).send().await.is_err());
    let metrics = client(&authority, Some(&authority.client("prometheus")));
    let text = metrics.get(https(&running, "/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("tls_handshakes_failed_total"), "{text}");
    assert!(!text.contains("tls_handshakes_failed_total 0"), "{text}");
}

/// What a server asks another with: its own certificate, and a failure that says what the other side refused.
#[tokio::test]
async fn a_server_shows_its_certificate_to_another_and_says_why_it_was_refused() {
    let authority = Authority::new("Test Authority");
    let config = with_tls(quick(), &authority.server(), Some(&authority.file()));
    let running = start(&config).await;
    let identity = authority.client("authority");
    let within = Duration::from_secs(10);
    let (certificate, key) = (Some(identity.certificate.clone()), Some(identity.key.clone()));
    let shown = ClientTls::new("event_log", Some(authority.file()), certificate, key).unwrap();
    let client = shown.client(within).unwrap();
    let peer: serde_json::Value =
        client.get(https(&running, "/peer")).send().await.unwrap().json().await.unwrap();
    assert!(peer["subject"].as_str().unwrap().contains("CN=authority"), "{peer}");

    let nobody = ClientTls::new("event_log", Some(authority.file()), None, None).unwrap();
    let error = nobody.client(within).unwrap().get(https(&running, "/peer")).send().await.unwrap_err();
    let text = service::exit::one_line(&error);
    assert!(!error.to_string().contains("ertificateRequired"), "the sources were needed: {error}");
    assert!(text.contains("ertificateRequired") && !text.contains('\n'), "{text}");
    // Only the authority that is named is believed, not those of the system beside it.
    let other = Authority::new("Other Authority");
    let foreign = ClientTls::new("event_log", Some(other.file()), None, None).unwrap();
    let error = foreign.client(within).unwrap().get(https(&running, "/peer")).send().await.unwrap_err();
    assert!(service::exit::one_line(&error).contains("UnknownIssuer"), "{error:?}");
}

#[tokio::test]
async fn optional_certificates_let_the_anonymous_in_as_anonymous() {
    let authority = Authority::new("Test Authority");
    let mut config = with_tls(quick(), &authority.server(), Some(&authority.file()));
    config.tls.as_mut().unwrap().client_certificates = ClientCertificates::Optional;
    let running = start(&config).await;
    let response = client(&authority, None).get(https(&running, "/peer")).send().await.unwrap();
    let peer: serde_json::Value = response.json().await.unwrap();
    assert_eq!(peer["subject"], serde_json::Value::Null);
}

#[tokio::test]
async fn plain_bytes_and_silence_on_a_tls_port_are_closed() {
    let authority = Authority::new("Test Authority");
    let running = start(&with_tls(quick(), &authority.server(), None)).await;
    for bytes in [&b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"", b"\x16\x03\x01"] {
        assert!(!raw(running.addr(), bytes).await.contains("hello"));
    }
    let hello = client(&authority, None).get(https(&running, "/hello")).send().await.unwrap();
    assert_eq!(hello.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn administrators_come_by_token_or_listed_subject() {
    let authority = Authority::new("Test Authority");
    let operator = authority.client("operator");
    let token = "0123456789abcdef0123456789abcdef";
    let token_file = authority.folder.path().join("admin.token");
    service::secret::write_new(&token_file, token.as_bytes()).unwrap();
    let subject = {
        let der = rustls_pki_types::pem::PemObject::from_pem_file(&operator.certificate).unwrap();
        service::ClientCertificate::new(der).unwrap().subject().to_owned()
    };
    let admin =
        AdminAuth::new(&AdminConfig { token_file: Some(token_file), subjects: vec![subject] }).unwrap();
    let route =
        warp::path!("admin").and(admin.filter()).map(|identity: AdminIdentity| identity.name().to_owned());
    let config = with_tls(quick(), &authority.server(), Some(&authority.file()));
    let running = Server::new(&config).unwrap().route(route).start().await.unwrap();
    let get = |identity, token: Option<&str>| {
        let request = client(&authority, Some(identity)).get(https(&running, "/admin"));
        let request = token.map_or(request.try_clone().unwrap(), |token| request.bearer_auth(token));
        request.send()
    };
    let by_certificate = get(&operator, None).await.unwrap().text().await.unwrap();
    assert!(by_certificate.contains("CN=operator"), "{by_certificate}");
    let other = authority.client("someone");
    assert_eq!(get(&other, Some(token)).await.unwrap().text().await.unwrap(), "token");
    for wrong in [None, Some("wrong"), Some("0123456789abcdef0123456789abcdeX")] {
        let refused = get(&other, wrong).await.unwrap();
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        assert_eq!(harness::problem(refused).await.code, "unauthorized");
    }
}

#[test]
fn unusable_tls_files_are_refused_with_their_name() {
    let authority = Authority::new("Test Authority");
    let server = authority.server();
    let refusal = |config: &ServerConfig| config.validate().unwrap_err().to_string();
    let open = with_tls(quick(), &server, None);
    std::fs::set_permissions(&server.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refusal(&open).contains("chmod 600"));
    std::fs::set_permissions(&server.key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(open.validate().is_ok());
    let other = authority.client("other");
    let mut mixed = with_tls(quick(), &server, None);
    mixed.tls.as_mut().unwrap().key_file = other.key;
    assert!(refusal(&mixed).contains("belong together"));
    let mut missing = with_tls(quick(), &server, None);
    missing.tls.as_mut().unwrap().certificate_file = "/nonexistent.pem".into();
    assert!(refusal(&missing).contains("/nonexistent.pem cannot be read"));
    let empty = authority.folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    assert!(refusal(&with_tls(quick(), &server, Some(&empty))).contains("holds no certificate"));
}
