//! A cheap HTTP/1.1 load generator over kept connections, for the benches of the authority and of a whole stack.

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

    /// The whole of the last answer, as it came.
    pub(crate) fn last_answer(&self) -> &[u8] {
        &self.buffer
    }

    /// Sends one request and reads its answer: status and body.
    pub(crate) async fn call(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.unwrap();
        self.buffer.clear();
        let mut end = None;
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            if end.is_none()
                && let Some(head) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")
            {
                end = Some((head + 4, head + 4 + content_length(&self.buffer[..head])));
            }
            if let Some((body, end)) = end
                && self.buffer.len() >= end
            {
                let status = std::str::from_utf8(&self.buffer[9..12]).unwrap().parse().unwrap();
                return (status, &self.buffer[body..end]);
            }
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let name = b"content-length: ";
    let at = head.windows(name.len()).position(|window| window.eq_ignore_ascii_case(name)).unwrap();
    let digits = head[at + name.len()..].iter().take_while(|octet| octet.is_ascii_digit());
    digits.fold(0, |length, octet| length * 10 + usize::from(octet - b'0'))
}

/// A POST as bytes.
pub(crate) fn post(path: &str, content_type: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\n{more}content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A GET as bytes.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

/// What a closed loop saw in its measured time.
pub(crate) struct Seen {
    pub(crate) answers: usize,
    pub(crate) took: Duration,
    pub(crate) latencies: Vec<Duration>,
}

impl Seen {
    pub(crate) fn per_s(&self) -> f64 {
        self.answers as f64 / self.took.as_secs_f64()
    }

    /// The latency below which `percent` of the answers lie, in milliseconds.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1000.0
    }
}

/// Whether requests are sent once or over and over.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Use {
    Once,
    Repeatedly,
}

/// Closed loop: each connection sends its next request when the last was answered. `begun` is called when the measured time
/// begins, after a warm-up.
pub(crate) async fn closed_loop(
    address: &str,
    connections: usize,
    lasting: Duration,
    expected: u16,
    requests: Arc<Vec<Vec<u8>>>,
    usage: Use,
    begun: impl FnOnce(),
) -> Seen {
    let (next, stop, measuring) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (address, requests) = (address.to_owned(), requests.clone());
            let (next, stop, measuring) = (next.clone(), stop.clone(), measuring.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(&address).await;
                let mut latencies = Vec::with_capacity(4096);
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let request = match usage {
                        Use::Once => requests.get(number).expect("too few requests were prepared"),
                        Use::Repeatedly => &requests[number % requests.len()],
                    };
                    let began = Instant::now();
                    let (status, body) = connection.call(request).await;
                    assert_eq!(status, expected, "{}", String::from_utf8_lossy(body));
                    if measuring.load(Ordering::Relaxed) {
                        latencies.push(began.elapsed());
                    }
                }
                latencies
            })
        })
        .collect();
    tokio::time::sleep(lasting / 4).await;
    begun();
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
    Seen { answers: latencies.len(), took, latencies }
}
