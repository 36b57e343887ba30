//! An HTTP/2 client that says what it likes, frame by frame (RFC 9113).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// Of SETTINGS and PING.
const ACK: u8 = 1;
/// Of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What was heard within a time.
#[derive(Debug)]
pub enum Heard {
    Frame(Frame),
    Nothing,
    Closed,
}

pub struct Http2 {
    stream: TcpStream,
    unread: Vec<u8>,
    next: u32,
    /// Bytes by which the server opened the connection's window.
    pub window: u64,
}

impl Http2 {
    /// Connects with this window for each stream.
    pub async fn connect(address: SocketAddr, window: u32) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), window).await
    }

    /// The same from another address of this machine: another peer.
    pub async fn connect_from(host: u8, address: SocketAddr, window: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, host], 0).into()).unwrap();
        Self::over(socket.connect(address).await.unwrap(), window).await
    }

    async fn over(stream: TcpStream, window: u32) -> Self {
        let mut client = Self { stream, unread: Vec::new(), next: 1, window: 0 };
        client.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut setting = vec![0, 4];
        setting.extend(window.to_be_bytes());
        client.send(SETTINGS, 0, 0, &setting).await;
        client
    }

    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // The server may have closed already.
        let _ = self.stream.write_all(&frame).await;
    }

    /// Asks for a path; gives the stream.
    pub async fn get(&mut self, path: &str) -> u32 {
        self.headers(0x82, path, None, END_STREAM).await
    }

    /// Begins a POST whose body comes by `send`.
    pub async fn post(&mut self, path: &str, length: Option<usize>) -> u32 {
        self.headers(0x83, path, length, 0).await
    }

    /// Begins a GET that brings a body.
    pub async fn get_with_body(&mut self, path: &str) -> u32 {
        self.headers(0x82, path, None, 0).await
    }

    /// HPACK (RFC 7541) with names of the static table and values as they are.
    async fn headers(&mut self, method: u8, path: &str, length: Option<usize>, flags: u8) -> u32 {
        let literal = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let mut block = vec![method, 0x86, 0x04];
        block.extend(literal(path));
        block.push(0x01);
        block.extend(literal("x"));
        if let Some(length) = length {
            block.extend([0x0f, 0x0d]);
            block.extend(literal(&length.to_string()));
        }
        let stream = self.next;
        self.next += 2;
        self.send(HEADERS, END_HEADERS | flags, stream, &block).await;
        stream
    }

    /// Opens the windows of a stream and of the connection further.
    pub async fn open(&mut self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()).await;
        self.send(WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes()).await;
    }

    /// The next frame of a request. Settings and pings are answered, as by a client that is well.
    pub async fn hear(&mut self, within: Duration) -> Heard {
        let until = tokio::time::Instant::now() + within;
        loop {
            if let Some(frame) = self.parse() {
                match (frame.kind, frame.flags & ACK) {
                    (SETTINGS | PING, 0) => {
                        let answer = if frame.kind == PING { frame.payload } else { Vec::new() };
                        self.send(frame.kind, ACK, 0, &answer).await;
                    }
                    (WINDOW_UPDATE, _) if frame.stream == 0 => {
                        self.window += frame.payload.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                    }
                    (DATA | HEADERS | RST_STREAM, _) => return Heard::Frame(frame),
                    _ => {}
                }
                continue;
            }
            let mut piece = [0; 16_384];
            match tokio::time::timeout_at(until, self.stream.read(&mut piece)).await {
                Err(_) => return Heard::Nothing,
                Ok(Ok(0) | Err(_)) => return Heard::Closed,
                Ok(Ok(read)) => self.unread.extend(&piece[..read]),
            }
        }
    }

    fn parse(&mut self) -> Option<Frame> {
        let head = self.unread.first_chunk::<9>()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if self.unread.len() < 9 + length {
            return None;
        }
        let payload = self.unread[9..9 + length].to_vec();
        self.unread.drain(..9 + length);
        Some(Frame { kind, flags, stream, payload })
    }
}
