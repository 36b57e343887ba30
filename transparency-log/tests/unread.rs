//! A reader that asks for whole bundles and takes none of them, and writers who never end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use crate::server;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use server::Stack;

const ENTRY_BYTES: usize = 65_000;
const STREAMS: u32 = 64;
/// What the streams would hold together is a gigabyte.
const MOST_MEBIBYTES: u64 = 400;

/// An HTTP/2 frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The most memory that a process had, in mebibytes.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundles_that_are_not_read_hold_little_memory_and_not_for_long() {
    let stack = Stack::new();
    let text = std::fs::read_to_string(stack.config()).unwrap();
    let listen = "listen = \"127.0.0.1:0\"\n";
    let limits =
        format!("{listen}[server.limits]\nstall_timeout_ms = 2000\nanswer_bytes_per_peer = 33554432\n");
    std::fs::write(stack.config(), text.replace(listen, &limits)).unwrap();
    let server = stack.serve();
    let client = reqwest::Client::new();
    for first in (0..256_u32).step_by(32) {
        let adds = (first..first + 32).map(|number| {
            let mut entry = vec![b'x'; ENTRY_BYTES];
            entry[..4].copy_from_slice(&number.to_be_bytes());
            client.post(format!("{}/raw/add", server.url)).body(entry).send()
        });
        for answer in futures_util::future::join_all(adds).await {
            assert_eq!(answer.unwrap().status(), 200);
        }
    }
    // Whole once a checkpoint covers it.
    let whole = async || {
        for _ in 0..200 {
            let answer = client.get(format!("{}/raw/tile/entries/000", server.url)).send().await.unwrap();
            if answer.status() == 200 {
                return answer.bytes().await.unwrap().len() == 256 * (ENTRY_BYTES + 2);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    };
    assert!(whole().await);
    let before = peak(server.id());

    let mut reader = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    reader.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    // No window for any stream.
    reader.write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    let path = "/raw/tile/entries/000";
    let head =
        [&[0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()], path.as_bytes(), &[1, 1, b'x']].concat();
    for stream in 0..STREAMS {
        reader.write_all(&frame(1, 5, 1 + 2 * stream, &head)).unwrap();
    }
    reader.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (mut waits, mut unread, mut closed) = (0, Vec::new(), false);
    let mut piece = [0; 65_536];
    // A minute of waiting.
    while !closed && waits < 600 {
        match reader.read(&mut piece) {
            Ok(0) => closed = true,
            Ok(read) => unread.extend(&piece[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => waits += 1,
            Err(_) => closed = true,
        }
        while unread.len() >= 9 {
            let length = usize::from(unread[1]) << 8 | usize::from(unread[2]);
            if unread.len() < 9 + length {
                break;
            }
            let (kind, flags) = (unread[3], unread[4]);
            let payload = unread[9..9 + length].to_vec();
            unread.drain(..9 + length);
            // A client that is well: it acknowledges settings and answers pings.
            if matches!(kind, 4 | 6) && flags & 1 == 0 {
                let answer = if kind == 6 { payload } else { Vec::new() };
                let _ = reader.write_all(&frame(kind, 1, 0, &answer));
            }
        }
    }
    assert!(closed, "the connection is still open");
    let most = peak(server.id());
    assert!(most < MOST_MEBIBYTES, "{before} MiB before, {most} MiB at most");
    let metrics = client.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("http_answers_unread_total 1\n"), "{metrics}");
    assert!(!metrics.contains("http_answers_refused_total 0\n"), "{metrics}");
    // Others are served as before.
    assert!(whole().await);
    assert_eq!(server.stop(), Some(0));
}

/// Anybody may send a signature, of up to 4 MiB, and need not come to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submissions_that_never_end_hold_little_memory() {
    let stack = Stack::new();
    let text = std::fs::read_to_string(stack.config()).unwrap();
    let listen = "listen = \"127.0.0.1:0\"\n";
    let limits = format!("{listen}[server.limits]\nrequest_bytes_per_peer = 16777216\n");
    std::fs::write(stack.config(), text.replace(listen, &limits)).unwrap();
    let server = stack.serve();
    let before = peak(server.id());
    let piece = vec![b' '; 1 << 16];
    let mut writers = Vec::new();
    for _ in 0..STREAMS {
        let mut writer = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
        writer.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let head = "POST /api/v2/log/entries HTTP/1.1\r\nhost: x\r\ncontent-length: 4194304\r\n\r\n";
        writer.write_all(head.as_bytes()).unwrap();
        // One byte short; until the server wants no more of it.
        let _ =
            (0..63).try_for_each(|_| writer.write_all(&piece)).and_then(|()| writer.write_all(&piece[1..]));
        writers.push(writer);
    }
    let most = peak(server.id());
    assert!(most < before + 150, "{before} MiB before, {most} MiB at most");
    // Others submit as before.
    let request = stack.authority.leaf("dev@example.test").request(b"artifact");
    let url = format!("{}/api/v2/log/entries", server.url);
    let answer = reqwest::Client::new().post(url).body(request.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    drop(writers);
    assert_eq!(server.stop(), Some(0));
}
