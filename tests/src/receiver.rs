//! A receiver of webhooks: answers each POST with the next status of a list, and keeps what came.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A POST that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request line and headers, lower case.
    pub head: String,
    /// The body as JSON.
    pub body: Value,
}

/// The receiver. It serves until the test's process ends.
pub struct Receiver {
    /// Its address.
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// Starts one; after the list of statuses it answers 200.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/alerts", listener.local_addr().expect("an address"));
        let received = Arc::new(Mutex::new(Vec::new()));
        let statuses = statuses.to_vec();
        let (kept, mut statuses) = (Arc::clone(&received), statuses.into_iter());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let status = statuses.next().unwrap_or(200);
                let keep = |one| kept.lock().expect("not poisoned").push(one);
                // A sender that goes away is no reason to end.
                let _ = take(stream, status, keep);
            }
        });
        Self { url, received }
    }

    /// What came so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("not poisoned").clone()
    }
}

/// Keeps what comes before it answers: whoever has the answer finds it there.
fn take(mut stream: TcpStream, status: u16, keep: impl FnOnce(Received)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        head.push_str(&line.to_ascii_lowercase());
    }
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    keep(Received { head, body: serde_json::from_slice(&body).unwrap_or(Value::Null) });
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
