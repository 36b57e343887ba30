//! What a peer may send and hold open.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::harness;

use std::num::NonZeroU32;
use std::time::Duration;

use harness::{problem, quick, raw, read_to_end, start, start_gated, url};
use service::Server;
use service::config::RateLimitConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_body_over_the_limit_is_413_by_its_declared_length() {
    let running = start(&quick()).await;
    let client = reqwest::Client::new();
    let post = |length: usize| client.post(url(running.addr(), "/echo")).body(vec![7; length]).send();
    assert_eq!(post(1000).await.unwrap().bytes().await.unwrap().len(), 1000);
    let refused = problem(post(1001).await.unwrap()).await;
    assert_eq!((refused.status, refused.code.as_str()), (413, "too_large"));
    assert!(refused.detail.unwrap().contains("1000 bytes"));
}

/// Otherwise the client sends its next request into a connection that is closing, and cannot know whether it was done.
#[tokio::test]
async fn an_answer_before_the_whole_body_says_that_its_connection_ends() {
    let mut config = quick();
    let burst = NonZeroU32::new(12).unwrap();
    config.rate_limit = Some(RateLimitConfig { per_second: NonZeroU32::MIN, burst });
    let running = start(&config).await;
    let client = reqwest::Client::new();
    let post =
        |path: &str, length: usize| client.post(url(running.addr(), path)).body(vec![7; length]).send();
    for _ in 0..5 {
        let read = post("/echo", 1000).await.unwrap();
        assert_eq!((read.status().as_u16(), read.headers().get("connection")), (200, None));
        drop(read.bytes().await.unwrap());
        let refused = post("/echo", 1001).await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), refused.headers()["connection"].to_str().unwrap()),
            (413, "close")
        );
    }
    assert_eq!(post("/healthz", 1).await.unwrap().headers()["connection"], "close");
    while post("/echo", 1).await.unwrap().status() == 200 {}
    let limited = post("/echo", 1).await.unwrap();
    assert_eq!(
        (limited.status().as_u16(), limited.headers()["connection"].to_str().unwrap()),
        (429, "close")
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_without_a_declared_length() {
    let running = start(&quick()).await;
    for path in ["/echo", "/json"] {
        let chunk = "f0\r\n".to_owned() + &" ".repeat(240) + "\r\n";
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{}",
            chunk.repeat(6)
        );
        let answer = raw(running.addr(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("\"code\":\"too_large\""), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_is_408() {
    let running = start(&quick()).await;
    let request = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this";
    let answer = raw(running.addr(), request).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"code\":\"body_timeout\""), "{answer}");
}

#[tokio::test]
async fn a_body_that_drips_is_408_when_its_time_is_up() {
    let mut config = quick();
    config.limits.body_timeout_ms = 600;
    let running = start(&config).await;
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n").await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let mut answer = [0; 1024];
    let drip = async {
        // Never a pause that the stall timeout would end.
        for _ in 0..900 {
            if writing.write_all(b"a").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    let read = tokio::select! {
        read = reading.read(&mut answer) => read.unwrap(),
        () = drip => 0,
    };
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"code\":\"body_timeout\""), "{answer}");
}

#[tokio::test]
async fn half_sent_headers_time_out() {
    let running = start(&quick()).await;
    for start in [&b"GET /hello HTTP/1.1\r\nHost: x\r\n"[..], b"PRI * HT", b"", b"G"] {
        let answer = raw(running.addr(), start).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    // Still serving others.
    assert_eq!(reqwest::get(url(running.addr(), "/hello")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn headers_that_drip_do_not_extend_the_timeout() {
    let running = start(&quick()).await;
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    let mut dripped = 0;
    for byte in b"GET /hello HTTP/1.1\r\nHost: x\r\nX-Slow: ".iter().chain(&[b'a'; 400]) {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        dripped += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(dripped < 300, "the server listened to the end");
}

#[tokio::test]
async fn the_second_request_of_a_connection_is_timed_like_the_first() {
    let running = start(&quick()).await;
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    stream.write_all(b"GET /hel").await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_request_that_takes_long_is_not_cut_by_the_header_timeout() {
    let (running, gate) = start_gated(&quick()).await;
    let request = tokio::spawn(reqwest::get(url(running.addr(), "/slow")));
    gate.entered.notified().await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    gate.release.notify_one();
    assert_eq!(request.await.unwrap().unwrap().text().await.unwrap(), "done");
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let mut config = quick();
    config.limits.idle_seconds = 1;
    let running = start(&config).await;
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_over_the_limit_get_503_and_a_place_is_given_back() {
    let mut config = quick();
    config.limits.connections = 2;
    config.limits.header_timeout_ms = 60_000;
    let running = start(&config).await;
    let first = TcpStream::connect(running.addr()).await.unwrap();
    let _second = TcpStream::connect(running.addr()).await.unwrap();
    // The accept loop takes them in order, so the third finds the places taken.
    let answer = raw(running.addr(), b"").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("Retry-After: 1") && answer.contains("\"code\":\"overloaded\""));
    drop(first);
    for attempt in 0.. {
        if let Ok(response) = reqwest::get(url(running.addr(), "/hello")).await
            && response.status() == 200
        {
            break;
        }
        assert!(attempt < 100, "the place was not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn one_peer_cannot_take_every_place() {
    let mut config = quick();
    config.limits.connections_per_peer = 1;
    let running = start(&config).await;
    let _first = TcpStream::connect(running.addr()).await.unwrap();
    assert!(raw(running.addr(), b"").await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn large_headers_are_refused() {
    let running = start(&quick()).await;
    let request = format!("GET /hello HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n", "a".repeat(100_000));
    let answer = raw(running.addr(), request.as_bytes()).await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn a_client_over_its_rate_gets_429_with_a_time_to_wait() {
    let mut config = quick();
    let (per_second, burst) = (NonZeroU32::new(1).unwrap(), NonZeroU32::new(2).unwrap());
    config.rate_limit = Some(RateLimitConfig { per_second, burst });
    let running = start(&config).await;
    let get = |path: &str| reqwest::get(url(running.addr(), path));
    assert_eq!(get("/hello").await.unwrap().status(), 200);
    assert_eq!(get("/hello").await.unwrap().status(), 200);
    let refused = get("/hello").await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(problem(refused).await.code, "too_many_requests");
    // Probes are not counted.
    assert_eq!(get("/healthz").await.unwrap().status(), 200);
    let metrics = get("/metrics").await.unwrap().text().await.unwrap();
    assert!(metrics.contains("http_requests_rate_limited_total 1"), "{metrics}");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_off() {
    let mut config = quick();
    config.limits.body_bytes = 64 * 1024 * 1024;
    let running = start(&config).await;
    let mut stream = TcpStream::connect(running.addr()).await.unwrap();
    let body = vec![b'a'; 32 * 1024 * 1024];
    let head = format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    // The echo fills the socket buffers and then waits for this side, which reads nothing.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let answer = read_to_end(&mut stream).await;
    assert!(answer.len() < body.len(), "the whole echo came through");
}

#[tokio::test]
async fn a_deadline_ends_work_that_nothing_would_wake_over_http_1_and_http_2() {
    use service::deadline::within;
    let answer = tower::service_fn(|request: http::Request<service::body::RequestBody>| async move {
        let limit = Duration::from_millis(50);
        let ended = within(limit, request.version(), std::future::pending::<()>()).await.is_none();
        Ok::<_, std::convert::Infallible>(http::Response::new(format!("{ended}")))
    });
    let running = Server::new(&quick()).unwrap().service(answer).start().await.unwrap();
    for client in [reqwest::Client::builder(), reqwest::Client::builder().http2_prior_knowledge()] {
        let client = client.timeout(Duration::from_secs(10)).build().unwrap();
        let answer = client.get(url(running.addr(), "/")).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "true");
    }
}
