//! Answers that are not read: how many bytes they may hold, and for how long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::harness;

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use harness::frames::{DATA, END_STREAM, HEADERS, Heard, Http2, RST_STREAM};
use harness::{problem, quick, start, url};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use service::body::RequestBody;
use service::{Running, Server, ServerConfig};
use tokio::time::Instant;

const MIB: u64 = 1024 * 1024;
const LONG: Duration = Duration::from_secs(20);
static SHARED: [u8; 1024 * 1024] = [b's'; 1024 * 1024];

/// `/N`: N bytes made for this answer. `/shared`: a mebibyte that the program has anyway. `/pausing`: two parts, a second
/// apart. `/parts`: a dozen of 100,000 bytes. `/line`: 1,500,000 bytes at once, of a body whose length nobody says.
async fn answer(
    request: Request<RequestBody>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let body = match request.uri().path() {
        "/shared" => Full::new(Bytes::from_static(&SHARED)).boxed_unsync(),
        "/pausing" => {
            let parts = futures_util::stream::iter(0..2).then(|part| async move {
                tokio::time::sleep(Duration::from_secs(part)).await;
                Ok(http_body::Frame::data(Bytes::from(vec![b'p'; 100_000])))
            });
            StreamBody::new(parts).boxed_unsync()
        }
        "/parts" => {
            let part = |n: u8| Ok(http_body::Frame::data(Bytes::from(vec![b'a' + n; 100_000])));
            StreamBody::new(futures_util::stream::iter((0..12).map(part))).boxed_unsync()
        }
        "/line" => {
            let line = Ok(http_body::Frame::data(Bytes::from(vec![b'l'; 1_500_000])));
            StreamBody::new(futures_util::stream::iter([line])).boxed_unsync()
        }
        path => Full::from(vec![b'a'; path[1..].parse().unwrap()]).boxed_unsync(),
    };
    Ok(Response::new(body))
}

async fn serve(config: &ServerConfig) -> Running {
    Server::new(config).unwrap().service(tower::service_fn(answer)).start().await.unwrap()
}

async fn metric(running: &Running, name: &str) -> u64 {
    let text = reqwest::get(url(running.addr(), "/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.parse().unwrap()
}

/// Hears the server out until it closes the connection.
async fn closed(client: &mut Http2) -> bool {
    let began = Instant::now();
    while began.elapsed() < LONG {
        if matches!(client.hear(Duration::from_millis(200)).await, Heard::Closed) {
            return true;
        }
    }
    false
}

/// Pings are answered and settings acknowledged: nothing but the answers shows that nobody reads.
#[tokio::test]
async fn a_connection_whose_answers_are_not_taken_is_closed() {
    let mut config = quick();
    config.limits.body_timeout_ms = 800;
    let running = serve(&config).await;
    for (window, length) in [(0, MIB), (1, MIB), (0, 60_000), (1, 60_000), (0, 1)] {
        let before = metric(&running, "http_answers_unread_total").await;
        let mut client = Http2::connect(running.addr(), window).await;
        for _ in 0..4 {
            client.get(&format!("/{length}")).await;
        }
        assert!(closed(&mut client).await, "window {window}, {length} bytes: still open");
        assert_eq!(metric(&running, "http_answers_unread_total").await, before + 1, "{window} {length}");
    }
}

/// One that asks for something all the time does not keep an answer that it does not take.
#[tokio::test]
async fn other_requests_do_not_keep_an_answer_that_is_not_taken() {
    let mut config = quick();
    config.limits.body_timeout_ms = 800;
    let running = serve(&config).await;
    for length in [60_000, MIB] {
        let mut client = Http2::connect(running.addr(), 1).await;
        client.get(&format!("/{length}")).await;
        let began = Instant::now();
        let mut open = true;
        while open && began.elapsed() < LONG {
            client.get("/1").await;
            open = !matches!(client.hear(Duration::from_millis(20)).await, Heard::Closed);
        }
        assert!(!open, "{length} bytes: still open");
    }
}

#[tokio::test]
async fn an_answer_that_drips_is_cut_off_and_one_that_flows_slowly_is_not() {
    let mut config = quick();
    config.limits.body_timeout_ms = 500;
    let running = serve(&config).await;
    for (step, whole) in [(100_u32, false), (8_000, true)] {
        let mut client = Http2::connect(running.addr(), 0).await;
        let length = 200_000;
        let stream = client.get(&format!("/{length}")).await;
        let mut came = 0;
        let began = Instant::now();
        let closed = loop {
            assert!(began.elapsed() < LONG, "{came} bytes by steps of {step}");
            client.open(stream, step).await;
            match client.hear(Duration::from_millis(50)).await {
                Heard::Frame(frame) if frame.kind == DATA => came += frame.payload.len(),
                Heard::Closed => break true,
                _ => {}
            }
            if came == length {
                break false;
            }
        };
        assert_eq!((came == length, closed), (whole, !whole), "steps of {step}: {came} bytes");
    }
}

#[tokio::test]
async fn a_pause_of_the_server_is_not_held_against_the_peer() {
    let mut config = quick();
    config.limits.body_timeout_ms = 300;
    let running = serve(&config).await;
    for client in [reqwest::Client::builder(), reqwest::Client::builder().http2_prior_knowledge()] {
        let answer = client.build().unwrap().get(url(running.addr(), "/pausing")).send().await.unwrap();
        assert_eq!(answer.bytes().await.unwrap().len(), 200_000);
    }
    assert_eq!(metric(&running, "http_answers_unread_total").await, 0);
}

#[tokio::test]
async fn more_bytes_than_a_peer_may_leave_unread_are_503_until_they_are_taken() {
    let mut config = quick();
    config.limits.stall_timeout_ms = 60_000;
    config.limits.answer_bytes_per_peer = 4 * MIB;
    let running = serve(&config).await;
    let mut idle = Http2::connect(running.addr(), 0).await;
    for _ in 0..10 {
        idle.get("/1000000").await;
    }
    let mut answers = 0;
    while answers < 10 {
        let Heard::Frame(frame) = idle.hear(LONG).await else { panic!("after {answers} answers") };
        answers += usize::from(frame.kind == HEADERS);
    }
    assert_eq!(metric(&running, "http_answers_refused_total").await, 6);
    let refused = reqwest::get(url(running.addr(), "/1000000")).await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    let document = problem(refused).await;
    assert_eq!((document.status, document.code.as_str()), (503, "overloaded"));
    // What is small is every connection's own.
    assert_eq!(reqwest::get(url(running.addr(), "/60000")).await.unwrap().status(), 200);
    drop(idle);
    for attempt in 0.. {
        if reqwest::get(url(running.addr(), "/1000000")).await.unwrap().status() == 200 {
            break;
        }
        assert!(attempt < 500, "the bytes were not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn all_parts() -> Vec<u8> {
    (0..12).flat_map(|n| vec![b'a' + n; 100_000]).collect()
}

/// A stream that began is not broken because its peer leaves other answers unread: it flows by what its own connection has.
#[tokio::test]
async fn a_stream_flows_whatever_others_of_its_address_leave_unread() {
    let mut config = quick();
    config.limits.stall_timeout_ms = 60_000;
    config.limits.answer_bytes_per_peer = MIB;
    let running = serve(&config).await;
    let mut idle = Http2::connect(running.addr(), 0).await;
    idle.get("/1000000").await;
    let Heard::Frame(_) = idle.hear(LONG).await else { panic!("no answer") };
    for builder in [reqwest::Client::builder(), reqwest::Client::builder().http2_prior_knowledge()] {
        let answer = builder.build().unwrap().get(url(running.addr(), "/parts")).send().await.unwrap();
        let whole = tokio::time::timeout(LONG, answer.bytes()).await.unwrap().unwrap();
        assert!(whole == all_parts(), "{} bytes", whole.len());
    }
    assert_eq!(metric(&running, "http_answers_refused_total").await, 0);
}

/// Streams that the server broke off, of those asked for on a connection whose windows are closed.
async fn broken(client: &mut Http2) -> Vec<u32> {
    let mut broken = Vec::new();
    while let Heard::Frame(frame) = client.hear(Duration::from_millis(500)).await {
        match frame.kind {
            RST_STREAM => broken.push(frame.stream),
            HEADERS => assert_eq!(frame.payload[0], 0x88),
            kind => panic!("frame {kind}"),
        }
    }
    broken
}

/// What is held is counted, however long a frame is and although nobody takes the beginning of it.
#[tokio::test]
async fn frames_behind_a_closed_window_are_counted_whole() {
    let mut config = quick();
    config.limits.stall_timeout_ms = 60_000;
    config.limits.answer_bytes_per_peer = 4 * MIB;
    let running = serve(&config).await;
    let mut client = Http2::connect(running.addr(), 0).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(client.get("/line").await);
    }
    assert_eq!(broken(&mut client).await.len(), 6, "two have room");
}

#[tokio::test]
async fn what_waits_for_room_is_little_and_goes_on_when_it_is_taken() {
    let mut config = quick();
    config.limits.stall_timeout_ms = 60_000;
    config.limits.answer_bytes_per_peer = MIB;
    let running = serve(&config).await;
    let mut idle = Http2::connect(running.addr(), 0).await;
    idle.get("/1000000").await;
    let Heard::Frame(_) = idle.hear(LONG).await else { panic!("no answer") };
    let mut client = Http2::connect(running.addr(), 0).await;
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(client.get("/parts").await);
    }
    let broken = broken(&mut client).await;
    assert_eq!(broken.len(), 5, "an eighth of the address's room may be waited in");
    let waits = streams.into_iter().find(|stream| !broken.contains(stream)).unwrap();
    client.open(waits, 2_000_000).await;
    let mut came = Vec::new();
    while came.len() < all_parts().len() {
        let Heard::Frame(frame) = client.hear(LONG).await else { panic!("after {} bytes", came.len()) };
        assert_eq!((frame.kind, frame.stream), (DATA, waits));
        came.extend_from_slice(&frame.payload);
    }
    assert!(came == all_parts());
}

#[tokio::test]
async fn bytes_that_the_program_has_anyway_are_not_counted() {
    let mut config = quick();
    config.limits.stall_timeout_ms = 60_000;
    config.limits.answer_bytes_per_peer = 2 * MIB;
    let running = serve(&config).await;
    let mut idle = Http2::connect(running.addr(), 0).await;
    for _ in 0..10 {
        let stream = idle.get("/shared").await;
        let Heard::Frame(frame) = idle.hear(LONG).await else { panic!("no answer") };
        assert_eq!((frame.kind, frame.stream, frame.payload[0]), (HEADERS, stream, 0x88));
        // The body is looked at right after the head.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Nor refused when nothing more may be left unread.
    idle.get("/2000000").await;
    let Heard::Frame(_) = idle.hear(LONG).await else { panic!("no answer") };
    assert_eq!(reqwest::get(url(running.addr(), "/shared")).await.unwrap().status(), 200);
    assert_eq!(metric(&running, "http_answers_refused_total").await, 0);
    assert_eq!(reqwest::get(url(running.addr(), "/1000000")).await.unwrap().status(), 503);
}

/// Some addresses that read at a snail's pace do not keep all others from their answers.
#[tokio::test]
async fn who_holds_most_and_reads_least_gives_way_to_who_holds_less() {
    let mut config = quick();
    config.limits.stall_timeout_ms = 60_000;
    config.limits.answer_bytes = 4 * MIB;
    config.limits.answer_bytes_per_peer = MIB;
    let running = serve(&config).await;
    let mut slow = Vec::new();
    for host in 2..6 {
        let mut client = Http2::connect_from(host, running.addr(), 0).await;
        for _ in 0..2 {
            client.get("/524288").await;
            let Heard::Frame(frame) = client.hear(LONG).await else { panic!("no answer") };
            assert_eq!((frame.kind, frame.payload[0]), (HEADERS, 0x88));
        }
        slow.push(client);
    }
    // One of them reads.
    slow[0].open(1, 200_000).await;
    while let Heard::Frame(_) = slow[0].hear(Duration::from_millis(300)).await {}
    for host in 6..9 {
        let mut client = Http2::connect_from(host, running.addr(), 1 << 20).await;
        let stream = client.get("/524288").await;
        client.open(stream, 1 << 20).await;
        let mut came = 0;
        while came < 524_288 {
            let Heard::Frame(frame) = client.hear(LONG).await else {
                panic!("host {host}: {came} bytes came")
            };
            assert!(frame.kind == DATA || frame.payload[0] == 0x88, "host {host} was refused");
            came += if frame.kind == DATA { frame.payload.len() } else { 0 };
        }
    }
    assert_eq!(metric(&running, "http_connections_displaced_total").await, 1);
    assert_eq!(metric(&running, "http_answers_refused_total").await, 0);
    assert!(matches!(slow[0].hear(Duration::from_millis(100)).await, Heard::Nothing), "the one that reads");
    let mut closed = 0;
    for client in &mut slow[1..] {
        closed += usize::from(matches!(client.hear(Duration::from_millis(100)).await, Heard::Closed));
    }
    assert_eq!(closed, 1);
}

/// Frames of a stream, until nothing more comes.
async fn frames(client: &mut Http2, stream: u32) -> Vec<(u8, u8)> {
    let mut frames = Vec::new();
    let mut wait = LONG;
    while let Heard::Frame(frame) = client.hear(wait).await {
        assert_eq!(frame.stream, stream);
        frames.push((frame.kind, frame.flags & END_STREAM));
        if frame.flags & END_STREAM != 0 && frame.kind != RST_STREAM {
            wait = Duration::from_millis(300);
        }
    }
    frames
}

const ANSWERED: [(u8, u8); 2] = [(HEADERS, 0), (DATA, END_STREAM)];

/// Clients that are in use lose an answer that is followed by RST_STREAM.
#[tokio::test]
async fn over_http_2_a_small_body_that_nobody_wants_is_read_before_the_refusal() {
    let mut config = quick();
    config.limits.stall_timeout_ms = 5000;
    let running = start(&config).await;
    // Nothing is served at /nothing; the method is wrong at /hello; /echo takes 1000 bytes.
    for (path, declared, length) in [
        ("/nothing", Some(2), 2),
        ("/nothing", None, 2),
        ("/hello", Some(900), 900),
        ("/echo", Some(60_000), 60_000),
        ("/healthz", None, 1),
    ] {
        let mut client = Http2::connect(running.addr(), 65_535).await;
        let stream = client.post(path, declared).await;
        assert!(matches!(client.hear(Duration::from_millis(100)).await, Heard::Nothing), "{path}: too early");
        let body = vec![b'x'; length];
        let mut pieces = body.chunks(16_384).peekable();
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() { END_STREAM } else { 0 };
            client.send(DATA, end, stream, piece).await;
        }
        assert_eq!(frames(&mut client, stream).await, ANSWERED, "{path} with {length} bytes");
    }
}

#[tokio::test]
async fn over_http_2_a_long_body_is_not_read_and_a_small_one_not_waited_for_beyond_its_time() {
    let running = start(&quick()).await;
    // Long by its declared length, and long without one.
    let mut client = Http2::connect(running.addr(), 65_535).await;
    let stream = client.post("/nothing", Some(100_000)).await;
    let heard = frames(&mut client, stream).await;
    assert_eq!(heard, [ANSWERED[0], ANSWERED[1], (RST_STREAM, 0)]);
    let mut client = Http2::connect(running.addr(), 65_535).await;
    let stream = client.post("/nothing", None).await;
    // The server's larger window counts once its settings are acknowledged.
    assert!(matches!(client.hear(Duration::from_millis(100)).await, Heard::Nothing), "too early");
    for _ in 0..5 {
        client.send(DATA, 0, stream, &[b'x'; 16_000]).await;
    }
    assert_eq!(frames(&mut client, stream).await[..2], ANSWERED);
    // One that never comes.
    let mut client = Http2::connect(running.addr(), 65_535).await;
    let stream = client.post("/nothing", Some(2)).await;
    assert_eq!(frames(&mut client, stream).await[..2], ANSWERED);
}
