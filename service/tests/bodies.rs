//! Request bodies that come slowly: how many bytes they hold.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::harness;

use std::time::Duration;

use harness::frames::{DATA, HEADERS, Heard, Http2};
use harness::{quick, start, start_gated, url};
use service::{Running, ServerConfig};

const LONG: Duration = Duration::from_secs(20);
const PIECE: [u8; 16_000] = [b'x'; 16_000];

fn config() -> ServerConfig {
    let mut config = quick();
    config.limits.stall_timeout_ms = 60_000;
    config.limits.body_bytes = 1 << 20;
    config.limits.request_bytes = 8 << 20;
    config.limits.request_bytes_per_peer = 2 << 20;
    config
}

/// Sends all of a body but its end; gives whether the server answered.
async fn stall(client: &mut Http2, bytes: usize) -> bool {
    let stream = client.post("/echo", None).await;
    for _ in 0..bytes / PIECE.len() {
        client.send(DATA, 0, stream, &PIECE).await;
        // As far as the window goes.
        tokio::task::yield_now().await;
    }
    matches!(client.hear(Duration::from_millis(200)).await, Heard::Frame(frame) if frame.kind == HEADERS)
}

async fn metric(running: &Running, name: &str) -> u64 {
    let text = reqwest::get(url(running.addr(), "/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

#[tokio::test]
async fn bodies_of_one_address_hold_no_more_than_its_share() {
    let running = start(&config()).await;
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..16 {
        // Below the window of a stream.
        let mut client = Http2::connect(running.addr(), 65_535).await;
        assert!(matches!(client.hear(Duration::from_millis(20)).await, Heard::Nothing));
        refused += usize::from(stall(&mut client, 240_000).await);
        held.push(client);
    }
    // Of each body the first 64 KiB are the connection's own.
    assert!((2..8).contains(&refused), "{refused} of 16 refused");
    assert_eq!(metric(&running, "http_bodies_refused_total").await, refused as u64);
    let mut client = Http2::connect(running.addr(), 65_535).await;
    assert!(matches!(client.hear(Duration::from_millis(20)).await, Heard::Nothing));
    assert!(stall(&mut client, 240_000).await);
    let Heard::Frame(frame) = client.hear(LONG).await else { panic!("no document") };
    let document: service::problem::ProblemDocument = serde_json::from_slice(&frame.payload).unwrap();
    assert_eq!((document.status, document.code.as_str()), (503, "overloaded"));
    // What is small is every connection's own.
    let client = reqwest::Client::new();
    let post = |bytes: usize| client.post(url(running.addr(), "/echo")).body(vec![b'x'; bytes]).send();
    assert_eq!(post(60_000).await.unwrap().status(), 200);
    drop(held);
    for attempt in 0.. {
        // A refusal in the middle of a body may be lost over HTTP/1.1.
        if post(1_000_000).await.is_ok_and(|answer| answer.status() == 200) {
            break;
        }
        assert!(attempt < 500, "the bytes were not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Addresses that hold what they may, together all there is, do not keep another from sending.
#[tokio::test]
async fn who_holds_most_gives_way_to_who_holds_less() {
    let mut config = config();
    // Eleven bodies of each address fit into its share, and nearly nothing beside four times as many.
    config.limits.request_bytes = 4 * 11 * 176_000 + 100_000;
    let running = start(&config).await;
    let mut slow = Vec::new();
    for host in 2..6 {
        for _ in 0..12 {
            let mut client = Http2::connect_from(host, running.addr(), 65_535).await;
            assert!(matches!(client.hear(Duration::from_millis(5)).await, Heard::Nothing));
            stall(&mut client, 240_000).await;
            slow.push(client);
        }
    }
    let mut client = Http2::connect_from(6, running.addr(), 1 << 20).await;
    assert!(matches!(client.hear(Duration::from_millis(50)).await, Heard::Nothing));
    let stream = client.post("/echo", Some(240_000)).await;
    for piece in 1..=15 {
        client.send(DATA, u8::from(piece == 15), stream, &PIECE).await;
    }
    let Heard::Frame(frame) = client.hear(LONG).await else { panic!("no answer") };
    assert_eq!((frame.kind, frame.payload[0]), (HEADERS, 0x88));
    assert!(metric(&running, "http_connections_displaced_total").await > 0);
}

/// What comes with a GET is not kept while its answer is made.
#[tokio::test]
async fn a_body_that_nobody_asked_for_does_not_lie_in_the_window() {
    let (running, gate) = start_gated(&config()).await;
    let mut client = Http2::connect(running.addr(), 65_535).await;
    assert!(matches!(client.hear(Duration::from_millis(50)).await, Heard::Nothing));
    let whole = client.window + 65_535;
    assert!(whole >= 960_000, "{whole}");
    for _ in 0..4 {
        let stream = client.get_with_body("/slow").await;
        for _ in 0..15 {
            client.send(DATA, 0, stream, &PIECE).await;
        }
    }
    // 960 000 bytes came; none of them is kept, and no request is answered.
    for _ in 0..100 {
        assert!(matches!(client.hear(Duration::from_millis(50)).await, Heard::Nothing), "it was answered");
        if client.window + 65_535 > whole + 200_000 {
            break;
        }
    }
    assert!(client.window + 65_535 > whole + 200_000, "{} of {whole}", client.window);
    gate.release.notify_waiters();
    let mut answered = 0;
    while answered < 4 {
        let Heard::Frame(frame) = client.hear(LONG).await else { panic!("{answered} answers") };
        if frame.kind == HEADERS {
            assert_eq!(frame.payload[0], 0x88);
            answered += 1;
        }
    }
}
