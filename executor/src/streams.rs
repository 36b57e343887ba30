//! Output in pieces, while a guest runs.
//!
//! A call with a reader has a [`Pipe`]. The guest writes into it from its own thread and waits there while the reader is
//! slow; the reader takes events out as they come. Sequence numbers have no gaps, and a stream's end names its total.
//!
//! What a guest logs goes the same way while it runs, and never makes it wait: for lines there is less room than for pieces,
//! and what finds none is counted in its place. The result of the call has every line once more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use executor_engine::limits::{EPOCH_TICK_MILLIS, MAX_TRANSFER_BYTES};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::abi::ErrorCode;
use crate::abi::sinks::LogRecord;
use crate::clock;

/// Bytes that may wait for a slow reader.
const ROOM: usize = 1 << 20;

/// Longest piece on the wire: what waits for room in the answers of a peer is small.
const PIECE: usize = 128 << 10;

/// Events that may wait for a slow reader.
const MAX_WAITING: usize = 256;

/// Lines of a guest's log, and their bytes, that may wait among them: the rest is for pieces.
const MAX_LINES: usize = 64;
const LINES_ROOM: usize = 64 << 10;

/// How long a guest waits for a reader that takes nothing at all. A call holds its place while it waits, so this is less than
/// the time that a connection has to take its next bytes.
const PATIENCE: Duration = Duration::from_secs(5);

/// Streams of one call.
const MAX_STREAMS: usize = 16;

/// Longest name of a stream, bytes.
const MAX_ID: usize = 256;

/// Something that a guest streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// A piece.
    Data {
        /// Name of the stream.
        stream: Arc<str>,
        /// From 0 up, without gaps.
        sequence: u64,
        /// The piece.
        bytes: Bytes,
    },
    /// No further pieces of this stream.
    End {
        /// Name of the stream.
        stream: Arc<str>,
        /// How many there were.
        total_chunks: u64,
    },
    /// A line of the guest's log.
    Log(LogRecord),
    /// Lines of the guest's log that would stand here, and for which there was no room.
    Missed {
        /// How many.
        log_lines: u64,
    },
}

impl StreamEvent {
    /// What it takes of the room.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Data { bytes, .. } => bytes.len(),
            Self::Log(line) => line.text.len(),
            Self::End { .. } | Self::Missed { .. } => 0,
        }
    }
}

/// Between a guest and the reader of its streams.
#[derive(Debug)]
pub(crate) struct Pipe {
    state: Mutex<State>,
    room: Condvar,
    news: Notify,
    patience: Duration,
}

impl Default for Pipe {
    fn default() -> Self {
        Self::patient(PATIENCE)
    }
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<StreamEvent>,
    bytes: usize,
    /// Lines among them, and their bytes.
    lines: usize,
    line_bytes: usize,
    /// Lines since the last one that found room.
    missed: u64,
    /// Events that the reader took.
    taken: u64,
    ended: bool,
}

impl State {
    /// Says where lines are missing.
    fn say_missed(&mut self) {
        let log_lines = std::mem::take(&mut self.missed);
        if log_lines > 0 {
            self.waiting.push_back(StreamEvent::Missed { log_lines });
        }
    }
}

impl Pipe {
    /// A pipe whose guest waits this long for a reader that takes nothing.
    pub(crate) fn patient(patience: Duration) -> Self {
        Self { state: Mutex::default(), room: Condvar::new(), news: Notify::new(), patience }
    }

    /// Hands over events, all or none; waits for room as long as `go_on` allows it and the reader takes something now and then.
    fn push(
        &self,
        events: Vec<StreamEvent>,
        go_on: impl Fn() -> Result<(), ErrorCode>,
    ) -> Result<(), ErrorCode> {
        let size = events.iter().map(StreamEvent::size).sum();
        let mut state = self.state.lock();
        let mut progress = None;
        while !state.waiting.is_empty()
            && (state.bytes.saturating_add(size) > ROOM
                || state.waiting.len().saturating_add(events.len()) > MAX_WAITING)
        {
            go_on()?;
            let now = clock::monotonic();
            match progress {
                Some((taken, since)) if taken == state.taken => {
                    if now.saturating_duration_since(since) >= self.patience {
                        return Err(ErrorCode::TimedOut);
                    }
                }
                _ => progress = Some((state.taken, now)),
            }
            self.room.wait_for(&mut state, Duration::from_millis(EPOCH_TICK_MILLIS));
        }
        state.bytes = state.bytes.saturating_add(size);
        state.say_missed();
        state.waiting.extend(events);
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// Hands over a line of the guest's log if there is room for it, and counts it otherwise.
    pub(crate) fn offer(&self, line: &LogRecord) {
        let mut state = self.state.lock();
        if state.lines >= MAX_LINES || state.line_bytes.saturating_add(line.text.len()) > LINES_ROOM {
            state.missed = state.missed.saturating_add(1);
            return;
        }
        state.say_missed();
        state.lines += 1;
        state.line_bytes += line.text.len();
        state.bytes = state.bytes.saturating_add(line.text.len());
        state.waiting.push_back(StreamEvent::Log(line.clone()));
        drop(state);
        self.news.notify_one();
    }

    /// Counts lines of the guest's log that nobody is shown.
    pub(crate) fn miss(&self, lines: u64) {
        let mut state = self.state.lock();
        state.missed = state.missed.saturating_add(lines);
    }

    /// The next event; nothing once the guest ended and everything was read.
    pub(crate) async fn next(&self) -> Option<StreamEvent> {
        loop {
            let news = self.news.notified();
            {
                let mut state = self.state.lock();
                if let Some(event) = state.waiting.pop_front() {
                    state.bytes = state.bytes.saturating_sub(event.size());
                    if let StreamEvent::Log(line) = &event {
                        state.lines = state.lines.saturating_sub(1);
                        state.line_bytes = state.line_bytes.saturating_sub(line.text.len());
                    }
                    state.taken += 1;
                    self.room.notify_one();
                    return Some(event);
                }
                if state.ended {
                    return None;
                }
            }
            news.await;
        }
    }

    /// No further events: the guest ended.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        state.say_missed();
        state.ended = true;
        drop(state);
        self.news.notify_one();
    }
}

/// Which stream of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamIndex(usize);

impl StreamIndex {
    /// By its number; one that stands for no stream is a bad handle where it is used.
    pub(crate) fn numbered(number: u64) -> Self {
        Self(usize::try_from(number).unwrap_or(usize::MAX))
    }

    /// Its number.
    pub(crate) fn number(self) -> u64 {
        self.0 as u64
    }
}

/// The guest's side: its open streams and what they carried.
pub(crate) struct GuestStreams {
    pipe: Arc<Pipe>,
    streams: Vec<Stream>,
    sent: u64,
    digest: Context,
}

struct Stream {
    id: Arc<str>,
    chunks: u64,
    ended: bool,
}

impl GuestStreams {
    pub(crate) fn new(pipe: Arc<Pipe>) -> Self {
        Self { pipe, streams: Vec::new(), sent: 0, digest: Context::new(&SHA256) }
    }

    /// Opens a stream under a name that the call has not used before.
    pub(crate) fn open(&mut self, id: &str) -> Result<StreamIndex, ErrorCode> {
        if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
            return Err(ErrorCode::InvalidArgument);
        }
        if self.streams.iter().any(|stream| &*stream.id == id) {
            return Err(ErrorCode::InvalidArgument);
        }
        if self.streams.len() >= MAX_STREAMS {
            return Err(ErrorCode::Limit);
        }
        self.streams.push(Stream { id: id.into(), chunks: 0, ended: false });
        Ok(StreamIndex(self.streams.len() - 1))
    }

    /// Sends a piece; waits while the reader is slow. On the wire a long one is several, which go together or not at all: guests
    /// were signed for that.
    pub(crate) fn write(
        &mut self,
        index: StreamIndex,
        bytes: &[u8],
        limit: u64,
        go_on: impl Fn() -> Result<(), ErrorCode>,
    ) -> Result<u32, ErrorCode> {
        let stream =
            self.streams.get_mut(index.0).filter(|stream| !stream.ended).ok_or(ErrorCode::BadHandle)?;
        let sent = self.sent.saturating_add(bytes.len() as u64);
        if bytes.len() > MAX_TRANSFER_BYTES || sent > limit {
            return Err(ErrorCode::Limit);
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let whole = Bytes::copy_from_slice(bytes);
        let numbered = (stream.chunks..).zip(whole.chunks(PIECE));
        let events: Vec<StreamEvent> = numbered
            .map(|(sequence, piece)| {
                let (stream, bytes) = (Arc::clone(&stream.id), whole.slice_ref(piece));
                StreamEvent::Data { stream, sequence, bytes }
            })
            .collect();
        let pieces = events.len() as u64;
        self.pipe.push(events, go_on)?;
        stream.chunks += pieces;
        self.sent = sent;
        self.digest.update(bytes);
        u32::try_from(bytes.len()).map_err(|_| ErrorCode::Limit)
    }

    /// Ends a stream; gives the number of its pieces.
    pub(crate) fn end(
        &mut self,
        index: StreamIndex,
        go_on: impl Fn() -> Result<(), ErrorCode>,
    ) -> Result<u64, ErrorCode> {
        let stream =
            self.streams.get_mut(index.0).filter(|stream| !stream.ended).ok_or(ErrorCode::BadHandle)?;
        let event = StreamEvent::End { stream: Arc::clone(&stream.id), total_chunks: stream.chunks };
        self.pipe.push(vec![event], go_on)?;
        stream.ended = true;
        Ok(stream.chunks)
    }

    /// SHA-256 over every piece in the order in which they were sent, to be continued with the output.
    pub(crate) fn into_digest(self) -> Context {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::sinks::Level;

    fn streams() -> (GuestStreams, Arc<Pipe>) {
        let pipe = Arc::new(Pipe::default());
        (GuestStreams::new(Arc::clone(&pipe)), pipe)
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_and_an_end_has_the_total() {
        let (mut guest, pipe) = streams();
        let (a, b) = (guest.open("a").unwrap(), guest.open("b").unwrap());
        let go = || Ok(());
        assert_eq!(guest.write(a, b"1", 100, go), Ok(1));
        assert_eq!(guest.write(b, b"22", 100, go), Ok(2));
        assert_eq!(guest.write(a, b"", 100, go), Ok(0));
        assert_eq!(guest.write(a, b"3", 100, go), Ok(1));
        assert_eq!(guest.end(a, go), Ok(2));
        assert_eq!(guest.write(a, b"4", 100, go), Err(ErrorCode::BadHandle));
        assert_eq!(guest.end(a, go), Err(ErrorCode::BadHandle));
        pipe.finish();
        let mut seen = Vec::new();
        while let Some(event) = pipe.next().await {
            seen.push(match event {
                StreamEvent::Data { stream, sequence, bytes } => (stream.to_string(), sequence, bytes.len()),
                StreamEvent::End { stream, total_chunks } => (format!("{stream} ended"), total_chunks, 0),
                StreamEvent::Log(_) | StreamEvent::Missed { .. } => panic!("{event:?}"),
            });
        }
        let expected = [("a", 0, 1), ("b", 0, 2), ("a", 1, 1), ("a ended", 2, 0)];
        assert_eq!(seen, expected.map(|(id, number, size)| (id.to_owned(), number, size)));
        let whole = aws_lc_rs::digest::digest(&SHA256, b"1223");
        assert_eq!(guest.into_digest().finish().as_ref(), whole.as_ref());
    }

    #[test]
    fn floods_end_at_limits() {
        let (mut guest, _pipe) = streams();
        for id in ["", "a\nb", &"x".repeat(MAX_ID + 1)] {
            assert_eq!(guest.open(id), Err(ErrorCode::InvalidArgument), "{id}");
        }
        let first = guest.open("0").unwrap();
        assert_eq!(guest.open("0"), Err(ErrorCode::InvalidArgument), "a name is used once");
        for n in 1..MAX_STREAMS {
            guest.open(&n.to_string()).unwrap();
        }
        assert_eq!(guest.open("more"), Err(ErrorCode::Limit));
        assert_eq!(guest.write(first, &[0; 11], 10, || Ok(())), Err(ErrorCode::Limit));
        // Nobody reads: what does not fit waits until the call may not wait any longer.
        let waited = std::cell::Cell::new(0);
        let wait = || {
            waited.set(waited.get() + 1);
            if waited.get() < 3 { Ok(()) } else { Err(ErrorCode::TimedOut) }
        };
        let piece = vec![0; ROOM];
        assert_eq!(guest.write(first, &piece, u64::MAX, wait), Ok(ROOM as u32));
        assert_eq!(guest.write(first, &piece, u64::MAX, wait), Err(ErrorCode::TimedOut));
        assert_eq!(waited.get(), 3);
    }

    #[tokio::test]
    async fn lines_never_wait_and_what_finds_no_room_is_counted_in_its_place() {
        let (mut guest, pipe) = streams();
        let line = |text: String| LogRecord { level: Level::Info, text };
        for n in 0..MAX_LINES + 3 {
            pipe.offer(&line(n.to_string()));
        }
        let stream = guest.open("s").unwrap();
        assert_eq!(guest.write(stream, b"p", 100, || Ok(())), Ok(1), "pieces have room of their own");
        for n in 0..MAX_LINES {
            assert_eq!(pipe.next().await, Some(StreamEvent::Log(line(n.to_string()))));
        }
        assert_eq!(pipe.next().await, Some(StreamEvent::Missed { log_lines: 3 }));
        assert!(matches!(pipe.next().await, Some(StreamEvent::Data { sequence: 0, .. })));
        pipe.offer(&line("x".repeat(LINES_ROOM)));
        pipe.offer(&line("one too many".into()));
        assert!(matches!(pipe.next().await, Some(StreamEvent::Log(line)) if line.text.len() == LINES_ROOM));
        pipe.finish();
        assert_eq!(pipe.next().await, Some(StreamEvent::Missed { log_lines: 1 }), "also at the end");
        assert_eq!(pipe.next().await, None);
        let state = pipe.state.lock();
        assert_eq!((state.bytes, state.lines, state.line_bytes), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_does_not_hold_a_call_for_its_whole_time() {
        let pipe = Arc::new(Pipe::patient(Duration::from_millis(30)));
        let mut guest = GuestStreams::new(Arc::clone(&pipe));
        let stream = guest.open("s").unwrap();
        let piece = vec![0; ROOM];
        assert_eq!(guest.write(stream, &piece, u64::MAX, || Ok(())), Ok(ROOM as u32));
        assert_eq!(guest.write(stream, &piece, u64::MAX, || Ok(())), Err(ErrorCode::TimedOut));
        // What did not go was not sent: the numbers have no gap, and there is room again once the reader reads.
        assert!(matches!(pipe.next().await, Some(StreamEvent::Data { sequence: 0, .. })));
        assert_eq!(guest.write(stream, b"later", u64::MAX, || Ok(())), Ok(5));
        assert!(matches!(pipe.next().await, Some(StreamEvent::Data { sequence: 1, .. })));
    }

    #[tokio::test]
    async fn a_long_piece_is_several_on_the_wire_and_goes_whole_or_not_at_all() {
        let pipe = Arc::new(Pipe::patient(Duration::from_millis(30)));
        let mut guest = GuestStreams::new(Arc::clone(&pipe));
        let stream = guest.open("s").unwrap();
        let long: Vec<u8> = (0..ROOM + PIECE).map(|n| (n % 251) as u8).collect();
        // Alone it may be longer than the room, as ever.
        assert_eq!(guest.write(stream, &long, u64::MAX, || Ok(())), Ok(long.len() as u32));
        let again = guest.write(stream, &long, u64::MAX, || Ok(()));
        assert_eq!(again, Err(ErrorCode::TimedOut), "nothing went, or all of it");
        let mut came = Vec::new();
        while came.len() < long.len() {
            let Some(StreamEvent::Data { sequence, bytes, .. }) = pipe.next().await else {
                panic!("a piece")
            };
            assert_eq!((sequence as usize, bytes.len()), (came.len() / PIECE, PIECE));
            came.extend_from_slice(&bytes);
        }
        assert_eq!(guest.end(stream, || Ok(())), Ok((long.len() / PIECE) as u64));
        assert!(came == long);
        let whole = aws_lc_rs::digest::digest(&SHA256, &long);
        assert_eq!(guest.into_digest().finish().as_ref(), whole.as_ref());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_slow_reader_holds_the_guest_back_and_loses_nothing() {
        let (mut guest, pipe) = streams();
        let writer = std::thread::spawn({
            let pipe = Arc::clone(&pipe);
            move || {
                let stream = guest.open("s").unwrap();
                for n in 0..2000_u32 {
                    guest.write(stream, &n.to_le_bytes(), u64::MAX, || Ok(())).unwrap();
                }
                guest.end(stream, || Ok(())).unwrap();
                pipe.finish();
            }
        });
        let mut next = 0_u64;
        while let Some(event) = pipe.next().await {
            match event {
                StreamEvent::Data { sequence, bytes, .. } => {
                    assert_eq!((sequence, bytes.as_ref()), (next, &(next as u32).to_le_bytes()[..]));
                    next += 1;
                    assert!(pipe.state.lock().waiting.len() <= MAX_WAITING);
                }
                StreamEvent::End { total_chunks, .. } => assert_eq!(total_chunks, 2000),
                StreamEvent::Log(_) | StreamEvent::Missed { .. } => panic!("{event:?}"),
            }
        }
        assert_eq!(next, 2000);
        writer.join().unwrap();
    }
}
