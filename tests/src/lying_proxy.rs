//! A server in front of a log that changes what it says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// Changes the body of an answer, given the path that was asked for.
pub type Lie = dyn Fn(&str, Vec<u8>) -> Vec<u8> + Send + Sync;

/// Serves what `upstream` (`http://127.0.0.1:PORT`) answers to GET, changed by `lie`, until the test's process ends.
/// Returns its own address.
///
/// # Panics
///
/// When `upstream` is another address, or no port is free.
pub fn start(upstream: &str, lie: Arc<Lie>) -> String {
    let upstream = upstream.strip_prefix("http://").expect("plain HTTP on loopback").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (upstream, lie) = (upstream.clone(), Arc::clone(&lie));
            // A browser that goes away is no failure.
            std::thread::spawn(move || answer(stream, &upstream, &*lie).ok());
        }
    });
    address
}

fn answer(mut stream: TcpStream, upstream: &str, lie: &Lie) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    // Who asks is nothing that it lies about.
    let mut who = String::new();
    while let Some(line) = lines.next().transpose()?.filter(|line| !line.is_empty()) {
        if line.to_ascii_lowercase().starts_with("authorization:") {
            who = format!("{line}\r\n");
        }
    }
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut asked = TcpStream::connect(upstream)?;
    write!(asked, "GET {path} HTTP/1.1\r\nHost: {upstream}\r\n{who}Connection: close\r\n\r\n")?;
    let mut whole = Vec::new();
    asked.read_to_end(&mut whole)?;
    let end = whole.windows(4).position(|four| four == b"\r\n\r\n").map_or(whole.len(), |at| at + 4);
    let body = lie(&path, whole.split_off(end));
    let head = String::from_utf8_lossy(&whole).into_owned();
    let kept = head.trim_end().lines().filter(|line| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !matches!(name.as_str(), "content-length" | "connection")
    });
    for line in kept {
        write!(stream, "{line}\r\n")?;
    }
    write!(stream, "Content-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(&body)
}
