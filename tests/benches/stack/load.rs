//! A cheap HTTP/1.1 load generator over kept connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection that sends prepared bytes.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::with_capacity(32 * 1024) }
    }

    /// Sends one request and reads its answer: status and body.
    pub(crate) async fn call(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.unwrap();
        self.buffer.clear();
        let mut answer = None;
        loop {
            assert!(
                self.stream.read_buf(&mut self.buffer).await.unwrap() > 0,
                "the server closed the connection"
            );
            if answer.is_none()
                && let Some(head) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")
            {
                answer = Some((head + 4, head + 4 + content_length(&self.buffer[..head])));
            }
            if let Some((begin, end)) = answer
                && self.buffer.len() >= end
            {
                let status = std::str::from_utf8(&self.buffer[9..12]).unwrap().parse().unwrap();
                return (status, &self.buffer[begin..end]);
            }
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = std::str::from_utf8(head).unwrap().to_ascii_lowercase();
    let line = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    line.expect("an answer says how long it is").trim().parse().unwrap()
}

/// Host and port of a plain URL.
pub(crate) fn address(url: &str) -> String {
    url.strip_prefix("http://").expect("plain HTTP").to_owned()
}

/// A POST of JSON as bytes.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// What a closed loop saw in its measured time.
pub(crate) struct Seen {
    took: Duration,
    latencies: Vec<Duration>,
}

impl Seen {
    pub(crate) fn per_s(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency below which `percent` of the answers lie, in milliseconds.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1000.0
    }
}

/// Closed loop: each connection sends its next request when the last was answered with 200. The first quarter warms up.
pub(crate) async fn closed_loop(
    address: &str,
    connections: usize,
    lasting: Duration,
    requests: Vec<Vec<u8>>,
) -> Seen {
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let (stop, measuring) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (address, requests, next) = (address.to_owned(), requests.clone(), next.clone());
            let (stop, measuring) = (stop.clone(), measuring.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(&address).await;
                let mut latencies = Vec::with_capacity(4096);
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let began = Instant::now();
                    let (status, body) = connection.call(&requests[number % requests.len()]).await;
                    assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
                    if measuring.load(Ordering::Relaxed) {
                        latencies.push(began.elapsed());
                    }
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(lasting / 4).await;
    measuring.store(true, Ordering::Relaxed);
    let began = Instant::now();
    tokio::time::sleep(lasting).await;
    measuring.store(false, Ordering::Relaxed);
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    Seen { took, latencies }
}
