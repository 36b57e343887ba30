//! A cheap HTTP/1.1 client: prepared requests over kept connections, answers read just far enough to count them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
        Self { stream, buffer: Vec::with_capacity(16 * 1024) }
    }

    /// Sends one request and reads its answer: status and body.
    pub(crate) async fn call(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.unwrap();
        self.buffer.clear();
        let (head, length) = loop {
            assert!(
                self.stream.read_buf(&mut self.buffer).await.unwrap() > 0,
                "the server closed the connection"
            );
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.buffer[..end]).unwrap().to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
                break (end + 4, length.unwrap().trim().parse::<usize>().unwrap());
            }
        };
        while self.buffer.len() < head + length {
            assert!(
                self.stream.read_buf(&mut self.buffer).await.unwrap() > 0,
                "the server closed the connection"
            );
        }
        let status = std::str::from_utf8(&self.buffer[9..12]).unwrap().parse().unwrap();
        (status, &self.buffer[head..head + length])
    }
}

/// A POST as bytes.
pub(crate) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    request
}

/// A GET as bytes.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

/// Closed loop: each connection sends its next request when the last was answered. Returns answers in the measured time,
/// which begins after `warm_up`.
pub(crate) async fn closed_loop(
    address: &str,
    connections: usize,
    warm_up: Duration,
    measured: Duration,
    expected: u16,
    request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
    at_start: impl FnOnce(),
) -> (u64, Duration) {
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (next, request) = (Arc::new(AtomicU64::new(0)), Arc::new(request));
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (address, count, stop) = (address.to_owned(), count.clone(), stop.clone());
            let (next, request) = (next.clone(), request.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(&address).await;
                while !stop.load(Ordering::Relaxed) {
                    let request = request(next.fetch_add(1, Ordering::Relaxed));
                    let (status, body) = connection.call(&request).await;
                    assert_eq!(status, expected, "{}", String::from_utf8_lossy(body));
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(warm_up).await;
    at_start();
    let (before, start) = (count.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(measured).await;
    let (after, took) = (count.load(Ordering::Relaxed), start.elapsed());
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    (after - before, took)
}

/// Open loop: requests are due at a fixed rate, whatever the answers do. Returns for each the time from when it was due
/// to its answer, and the index that was answered.
pub(crate) async fn open_loop(
    address: &str,
    connections: usize,
    per_second: u64,
    lasting: Duration,
    request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> Vec<(Instant, Duration, u64)> {
    let total = per_second * lasting.as_secs();
    let (start, request) = (Instant::now() + Duration::from_millis(100), Arc::new(request));
    let tasks: Vec<_> = (0..connections as u64)
        .map(|place| {
            let (address, request) = (address.to_owned(), request.clone());
            tokio::spawn(async move {
                let mut connection = Connection::open(&address).await;
                let mut times = Vec::new();
                for number in (place..total).step_by(connections) {
                    let due = start
                        + Duration::from_secs(1) * u32::try_from(number).unwrap()
                            / u32::try_from(per_second).unwrap();
                    tokio::time::sleep_until(due.into()).await;
                    let (status, body) = connection.call(&request(number)).await;
                    assert_eq!(status, 200);
                    let index = std::str::from_utf8(body).unwrap().trim().parse().unwrap();
                    times.push((due, due.elapsed(), index));
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times
}

/// The value below which `percent` of the durations lie, in milliseconds.
pub(crate) fn percentile_ms(mut times: Vec<Duration>, percent: usize) -> f64 {
    times.sort_unstable();
    let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
