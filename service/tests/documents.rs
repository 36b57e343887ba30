//! What a client is told, and the operational paths.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{problem, quick, routes, start, url};
use service::metrics::Metrics;
use service::{Readiness, Server, ServerConfig};

#[tokio::test]
async fn refusals_are_problem_documents_and_internal_text_stays_inside() {
    let running = start(&quick()).await;
    let get = |path: &str| reqwest::get(url(running.addr(), path));
    assert_eq!(problem(get("/nowhere").await.unwrap()).await.code, "not_found");
    assert_eq!(problem(get("/echo").await.unwrap()).await.code, "method_not_allowed");
    let refused = get("/problem").await.unwrap();
    assert_eq!(refused.status(), 403);
    let text = refused.text().await.unwrap();
    assert!(text.contains("\"code\":\"not_for_you\"") && text.contains("ask the operator"));
    assert!(!text.contains("secret"), "{text}");
    let client = reqwest::Client::new();
    let bad = client.post(url(running.addr(), "/json")).body("{not json").send().await.unwrap();
    let document = problem(bad).await;
    assert_eq!((document.status, document.code.as_str()), (400, "malformed"));
}

#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let ready = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&ready);
    let metrics = Metrics::new(&["/hello"]);
    let running = Server::new(&quick())
        .unwrap()
        .route(routes(Arc::default()))
        .metrics(metrics)
        .readiness(move || match asked.load(Ordering::Relaxed) {
            true => Readiness::Ready,
            false => Readiness::NotReady("the store is opening".to_owned()),
        })
        .start()
        .await
        .unwrap();
    let get = |path: &str| reqwest::get(url(running.addr(), path));
    assert_eq!(get("/healthz").await.unwrap().text().await.unwrap(), r#"{"status":"SERVING"}"#);
    let not_ready = problem(get("/readyz").await.unwrap()).await;
    assert_eq!((not_ready.status, not_ready.detail.as_deref()), (503, Some("the store is opening")));
    ready.store(true, Ordering::Relaxed);
    assert_eq!(get("/readyz").await.unwrap().status(), 200);
    get("/hello").await.unwrap();
    get("/nowhere").await.unwrap();
    let exposition = get("/metrics").await.unwrap();
    assert!(
        exposition.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text")
    );
    let text = exposition.text().await.unwrap();
    assert!(text.contains("http_requests_total{route=\"/hello\",status=\"2xx\"} 1"), "{text}");
    assert!(text.contains("http_requests_total{route=\"other\",status=\"4xx\"} 1"), "{text}");
    let post = reqwest::Client::new().post(url(running.addr(), "/healthz")).send().await.unwrap();
    assert_eq!(post.status(), 405);
}

/// Who reads lists and answers is not sent away because something else is not done.
#[tokio::test]
async fn a_server_that_does_part_of_its_work_stays_ready_for_readers() {
    let config = ServerConfig { read_only_listen: Some("127.0.0.1:0".to_owned()), ..quick() };
    let limited = || Readiness::Limited("nothing is issued".to_owned());
    let running = Server::new(&config).unwrap().readiness(limited).start().await.unwrap();
    let main = problem(reqwest::get(url(running.addr(), "/readyz")).await.unwrap()).await;
    assert_eq!((main.status, main.detail.as_deref()), (503, Some("nothing is issued")));
    let readers = reqwest::get(url(running.read_only_addr().unwrap(), "/readyz")).await.unwrap();
    assert_eq!(readers.status(), 200);
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let running = Server::new(&quick()).unwrap().route(routes(Arc::default())).start().await.unwrap();
    for path in ["/hello", "/healthz", "/metrics", "/nowhere"] {
        let got = reqwest::get(url(running.addr(), path)).await.unwrap();
        let head = reqwest::Client::new().head(url(running.addr(), path)).send().await.unwrap();
        assert_eq!(head.status(), got.status(), "{path}");
        assert_eq!(head.headers()["content-type"], got.headers()["content-type"], "{path}");
        let length: usize = head.headers()["content-length"].to_str().unwrap().parse().unwrap();
        assert!(head.bytes().await.unwrap().is_empty(), "{path}");
        let body = got.bytes().await.unwrap();
        // What is counted grows between the two requests.
        assert!(length == body.len() || path == "/metrics", "{path}: {length} of {}", body.len());
    }
}

#[tokio::test]
async fn the_read_only_listener_serves_its_routes_and_no_metrics() {
    let config = ServerConfig { read_only_listen: Some("127.0.0.1:0".to_owned()), ..quick() };
    let running = start(&config).await;
    let address = running.read_only_addr().unwrap();
    assert_ne!(address.port(), running.addr().port());
    let peer: serde_json::Value = reqwest::get(url(address, "/peer")).await.unwrap().json().await.unwrap();
    assert_eq!(
        peer,
        serde_json::json!({"ip": "127.0.0.1", "subject": null, "listener": "ReadOnly", "held": null})
    );
    assert_eq!(problem(reqwest::get(url(address, "/metrics")).await.unwrap()).await.code, "not_found");
    assert_eq!(reqwest::get(url(address, "/healthz")).await.unwrap().status(), 200);
    let line: serde_json::Value = serde_json::from_str(&service::ready::line(&running)).unwrap();
    assert_eq!(
        line,
        serde_json::json!({
            "ready": true, "listen": running.addr().to_string(), "read_only_listen": address.to_string()
        })
    );
}

#[tokio::test]
async fn http2_without_tls_works_on_the_same_port() {
    let running = start(&quick()).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let requests = (0..20).map(|_| client.get(url(running.addr(), "/hello")).send());
    for response in futures_util::future::join_all(requests).await {
        let response = response.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(response.text().await.unwrap(), "hello");
    }
    let refused = client.post(url(running.addr(), "/echo")).body(vec![0; 2000]).send().await.unwrap();
    assert_eq!(problem(refused).await.code, "too_large");
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_line() {
    let running = start(&quick()).await;
    let config = ServerConfig { listen: running.addr().to_string(), ..quick() };
    let refusal = Server::new(&config).unwrap().start().await.err().unwrap().to_string();
    assert!(refusal.contains("is in use by another process") && refusal.contains("choose another port"));
    assert!(!refusal.contains('\n'));
}

#[tokio::test]
async fn a_server_without_routes_answers_404() {
    let running = Server::new(&quick()).unwrap().start().await.unwrap();
    assert_eq!(problem(reqwest::get(url(running.addr(), "/")).await.unwrap()).await.code, "not_found");
}

#[test]
fn plain_http_on_all_addresses_is_refused() {
    let config = ServerConfig { listen: "0.0.0.0:0".to_owned(), ..ServerConfig::default() };
    let refusal = Server::new(&config).err().unwrap();
    assert_eq!(service::Failure::from(refusal).code(), 78);
}
