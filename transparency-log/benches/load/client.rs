//! A cheap HTTP/1.1 client on one thread and one epoll instance: about 4 µs a request, so that what is measured beside
//! it on two cores is the server.
//!
//! Closed loop: each connection sends its next request when the last was answered. Open loop: requests are due at a fixed
//! rate whatever the answers do, and are timed from the moment they were due.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// Nothing that is measured here takes as long.
const STUCK: Duration = Duration::from_secs(30);

/// Some connections to one server.
pub(crate) struct Client {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    expected: u16,
}

struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    filled: usize,
}

/// What happens to the measured time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Start,
    End,
}

/// How long a closed loop runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loop {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// One answer of an open loop.
pub(crate) struct Timed {
    pub(crate) due: Instant,
    pub(crate) took: Duration,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// Opens all connections. Each answer must have the status `expected`.
    pub(crate) fn connect(address: &str, connections: usize, expected: u16) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let poll = Poll::new().unwrap();
        let connections = (0..connections)
            .map(|number| {
                let stream = std::net::TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_nonblocking(true).unwrap();
                let mut stream = TcpStream::from_std(stream);
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, Token(number), interest).unwrap();
                Connection { stream, out: Vec::new(), sent: 0, input: vec![0; 16 * 1024], filled: 0 }
            })
            .collect();
        Self { poll, events: Events::with_capacity(1024), connections, expected }
    }

    /// Keeps every connection busy; `request` writes the next request of a connection, named by its place. Returns the
    /// answers of the measured time and its length; `at` is called when it begins and when it ends.
    pub(crate) fn closed_loop(
        &mut self,
        timing: &Loop,
        mut request: impl FnMut(usize, &mut Vec<u8>),
        mut at: impl FnMut(Moment),
    ) -> (u64, Duration) {
        for (place, connection) in self.connections.iter_mut().enumerate() {
            connection.send(|out| request(place, out));
        }
        let begin = Instant::now();
        let (mut count, mut started, mut ended) = (0, None, None);
        let mut waiting = self.connections.len();
        let mut last_answer = begin;
        while waiting > 0 {
            self.poll.poll(&mut self.events, Some(Duration::from_millis(20))).unwrap();
            let now = Instant::now();
            if started.is_none() && now - begin >= timing.warm_up {
                at(Moment::Start);
                started = Some(Instant::now());
                count = 0;
            }
            if let Some(start) = started
                && ended.is_none()
                && now - start >= timing.measured
            {
                ended = Some((count, now - start));
                at(Moment::End);
            }
            for event in &self.events {
                let place = event.token().0;
                let connection = &mut self.connections[place];
                if connection.ready().is_some_and(|answer| answer.expect(self.expected)) {
                    last_answer = now;
                    count += 1;
                    if ended.is_some() {
                        waiting -= 1;
                    } else {
                        connection.send(|out| request(place, out));
                    }
                }
            }
            assert!(now - last_answer < STUCK, "no answer for {STUCK:?}");
        }
        ended.unwrap()
    }

    /// Sends `total` requests at a fixed rate over whichever connections are free.
    pub(crate) fn open_loop(
        &mut self,
        per_second: u64,
        total: u64,
        mut request: impl FnMut(&mut Vec<u8>),
    ) -> Vec<Timed> {
        let mut answers = Vec::with_capacity(usize::try_from(total).unwrap());
        // Each connection in its turn: many clients that send now and then, not one that sends all.
        let mut free: VecDeque<usize> = (0..self.connections.len()).collect();
        let mut sent_for: Vec<Option<Instant>> = vec![None; self.connections.len()];
        let start = Instant::now() + Duration::from_millis(100);
        let due = |number: u64| start + Duration::from_nanos(1_000_000_000 / per_second * number);
        let mut next = 0;
        while (answers.len() as u64) < total {
            let now = Instant::now();
            while next < total && due(next) <= now {
                let Some(place) = free.pop_front() else { break };
                self.connections[place].send(&mut request);
                sent_for[place] = Some(due(next));
                next += 1;
            }
            let until =
                if next < total { due(next).saturating_duration_since(Instant::now()) } else { STUCK };
            self.poll.poll(&mut self.events, Some(until.min(STUCK))).unwrap();
            for event in &self.events {
                let place = event.token().0;
                let connection = &mut self.connections[place];
                let Some(answer) = connection.ready() else { continue };
                let body = answer.body.to_vec();
                if answer.expect(self.expected) {
                    let due = sent_for[place].take().unwrap();
                    answers.push(Timed { due, took: due.elapsed(), body });
                    free.push_back(place);
                }
            }
            assert!(Instant::now() < due(total) + STUCK, "no answer for {STUCK:?}");
        }
        answers
    }

    /// One request over the first connection.
    pub(crate) fn call(&mut self, request: &[u8]) -> Vec<u8> {
        self.connections[0].send(|out| out.extend_from_slice(request));
        loop {
            self.poll.poll(&mut self.events, Some(STUCK)).unwrap();
            assert!(!self.events.is_empty(), "no answer for {STUCK:?}");
            for event in &self.events {
                if let Some(answer) = self.connections[event.token().0].ready() {
                    let body = answer.body.to_vec();
                    answer.expect(self.expected);
                    return body;
                }
            }
        }
    }
}

/// A whole answer.
struct Answer<'a> {
    status: u16,
    body: &'a [u8],
}

impl Answer<'_> {
    fn expect(&self, status: u16) -> bool {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(self.body));
        true
    }
}

impl Connection {
    fn send(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.out.clear();
        fill(&mut self.out);
        (self.sent, self.filled) = (0, 0);
        self.write();
    }

    fn write(&mut self) {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("cannot send: {error}"),
            }
        }
    }

    /// Goes on where the socket allows; the answer once it is whole. A whole answer is the last thing the server sends,
    /// so that reading on to an empty socket is spared: the next one makes a new event.
    fn ready(&mut self) -> Option<Answer<'_>> {
        self.write();
        loop {
            if self.filled == self.input.len() {
                self.input.resize(self.input.len() * 2, 0);
            }
            match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => panic!("the server closed the connection"),
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("cannot read: {error}"),
            }
            if let Some((status, body)) = whole(&self.input[..self.filled]) {
                return Some(Answer { status, body: &self.input[body] });
            }
        }
    }
}

/// Status and place of the body, once all of it is there.
fn whole(bytes: &[u8]) -> Option<(u16, std::ops::Range<usize>)> {
    let (mut length, mut at) = (None, 0);
    loop {
        let line = at + bytes.get(at..)?.iter().position(|byte| *byte == b'\n')?;
        let text = bytes[at..line].trim_ascii_end();
        if text.is_empty() && at > 0 {
            let end = line + 1 + length.expect("an answer without content-length");
            return (bytes.len() >= end).then(|| (status(bytes), line + 1..end));
        }
        const NAME: &[u8] = b"content-length:";
        if text.len() > NAME.len() && text[..NAME.len()].eq_ignore_ascii_case(NAME) {
            length = std::str::from_utf8(&text[NAME.len()..]).unwrap().trim().parse::<usize>().ok();
        }
        at = line + 1;
    }
}

fn status(bytes: &[u8]) -> u16 {
    std::str::from_utf8(&bytes[9..12]).unwrap().parse().unwrap()
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

/// The value below which `percent` of the durations lie, in milliseconds.
pub(crate) fn percentile_ms(mut times: Vec<Duration>, percent: usize) -> f64 {
    times.sort_unstable();
    let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
