//! Standard streams of a guest, one of which may be read along: whole lines are shown when they are written.
//!
//! Everything is kept as well, and becomes the log when the guest has ended; what was shown is not shown again.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::abi::sinks::{Level, LogRecord, escape};
use crate::runtime::{CallLimits, ReadAlong};

/// What a line of standard error says, in the form that the SDKs write (docs/formats/agent-abi.md).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Line<'a> {
    /// `metric: NAME VALUE`
    Metric(&'a str, f64),
    /// `LEVEL: TEXT`, or any other text. A level is the guest's own word here as it is in the other interfaces. Every other line is
    /// kept whole: libraries write there as they like, and most of it is no error.
    Text(Level, &'a str),
}

impl<'a> Line<'a> {
    pub(super) fn read(line: &'a str) -> Self {
        let whole = Self::Text(Level::Info, line);
        match line.split_once(": ") {
            Some(("metric", measured)) => measured
                .split_once(' ')
                .and_then(|(name, value)| Some(Self::Metric(name, value.parse().ok()?)))
                .unwrap_or(whole),
            Some((word, text)) => Level::from_word(word).map_or(whole, |level| Self::Text(level, text)),
            None => whole,
        }
    }
}

/// The lines of a text, as [`str::lines`] has them.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').map(|line| match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    })
}

/// A standard stream whose bytes are kept.
#[derive(Clone)]
pub(super) struct Kept {
    most: usize,
    written: Arc<Mutex<Vec<u8>>>,
    shown: Option<Arc<Mutex<Shown>>>,
}

/// What was shown of a stream.
struct Shown {
    to: ReadAlong,
    /// Of standard error each line says what it is; a line of standard output is a line.
    plain: bool,
    /// The beginning of a line that is not whole yet, as long as it may be shown.
    begun: Vec<u8>,
    /// Whether the line that has begun is too long to be shown.
    is_too_long: bool,
    /// Bytes of the longest line that is shown: a longer one has no room in any log.
    longest: usize,
    /// Lines that may still be shown.
    left: usize,
    /// Lines that were not shown since the last one that was.
    missed: u64,
}

impl Kept {
    /// At most so many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        Self { most: bytes, written: Arc::default(), shown: None }
    }

    /// The same, whose lines are shown as far as a log under these limits has room; `plain` where a line is nothing but a line.
    pub(super) fn shown(self, to: Option<ReadAlong>, plain: bool, limits: &CallLimits) -> Self {
        let shown = |to| {
            let (longest, left) = (limits.log_bytes, limits.log_lines);
            let (begun, is_too_long, missed) = (Vec::new(), false, 0);
            Arc::new(Mutex::new(Shown { to, plain, begun, is_too_long, longest, left, missed }))
        };
        Self { shown: to.map(shown), ..self }
    }

    /// Whether its lines were shown.
    pub(super) fn was_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// Takes everything that was written, of which the last line need not be whole.
    pub(super) fn take(&self) -> Vec<u8> {
        if let Some(shown) = &self.shown {
            shown.lock().end();
        }
        std::mem::take(&mut self.written.lock())
    }

    /// Keeps these bytes, for which there is room, and shows them.
    fn keep(&self, written: &mut Vec<u8>, bytes: &[u8]) {
        written.extend_from_slice(bytes);
        if let Some(shown) = &self.shown {
            shown.lock().take(bytes);
        }
    }
}

impl Shown {
    fn take(&mut self, bytes: &[u8]) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let mut piece = pieces.next();
        for next in pieces {
            self.go_on(piece.unwrap_or_default());
            self.say();
            piece = Some(next);
        }
        self.go_on(piece.unwrap_or_default());
    }

    /// Goes on with the line that has begun. What a guest writes may be as long as its output: nothing is collected for a line that has
    /// no room.
    fn go_on(&mut self, piece: &[u8]) {
        if self.begun.len().saturating_add(piece.len()) > self.longest {
            self.is_too_long = true;
            self.begun = Vec::new();
        } else if !self.is_too_long {
            self.begun.extend_from_slice(piece);
        }
    }

    fn end(&mut self) {
        if self.is_too_long || !self.begun.is_empty() {
            self.say();
        }
        self.say_missed();
    }

    /// Shows the line that has begun.
    fn say(&mut self) {
        let bytes = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.is_too_long) {
            self.missed = self.missed.saturating_add(1);
            return;
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_suffix('\r').unwrap_or(&text);
        let line = if self.plain { Line::Text(Level::Info, text) } else { Line::read(text) };
        let Line::Text(level, text) = line else { return };
        // Twice, as where lines are kept: escaping makes it longer.
        let has_room = |text: &str| self.left > 0 && text.len() <= self.longest;
        let Some(text) = Some(text).filter(|text| has_room(text)).map(escape).filter(|text| has_room(text))
        else {
            self.missed = self.missed.saturating_add(1);
            return;
        };
        self.say_missed();
        self.left -= 1;
        self.to.show(&LogRecord { level, text });
    }

    /// Says where lines are missing.
    fn say_missed(&mut self) {
        let lines = std::mem::take(&mut self.missed);
        if lines > 0 {
            self.to.miss(lines);
        }
    }
}

impl IsTerminal for Kept {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Kept {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Kept {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut written = self.written.lock();
        let room = self.most.saturating_sub(written.len());
        let fitting = bytes.get(..room).unwrap_or(bytes);
        self.keep(&mut written, fitting);
        Poll::Ready(Ok(fitting.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl OutputStream for Kept {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut written = self.written.lock();
        if bytes.len() > self.most.saturating_sub(written.len()) {
            return Err(StreamError::Trap(wasmtime::Error::msg("written beyond what check-write allowed")));
        }
        self.keep(&mut written, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self.most.saturating_sub(self.written.lock().len()) {
            0 => Err(StreamError::Closed),
            room => Ok(room),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Kept {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::{Pipe, StreamEvent};

    /// A stream of at most so many bytes, whose lines are read along under these limits.
    fn read_along(bytes: usize, plain: bool, log_lines: usize, log_bytes: usize) -> (Kept, Arc<Pipe>) {
        let pipe = Arc::new(Pipe::default());
        let limits = CallLimits { log_lines, log_bytes, ..CallLimits::default() };
        (Kept::of(bytes).shown(Some(ReadAlong::Here(Arc::clone(&pipe))), plain, &limits), pipe)
    }

    /// What was shown; of missing lines their number.
    async fn shown(pipe: &Pipe) -> Vec<Result<(Level, String), u64>> {
        pipe.finish();
        let mut shown = Vec::new();
        while let Some(event) = pipe.next().await {
            shown.push(match event {
                StreamEvent::Log(line) => Ok((line.level, line.text)),
                StreamEvent::Missed { log_lines } => Err(log_lines),
                StreamEvent::Data { .. } | StreamEvent::End { .. } => panic!("{event:?}"),
            });
        }
        shown
    }

    #[test]
    fn a_line_says_what_it_is() {
        for (line, said) in [
            ("warn: careful", Line::Text(Level::Warn, "careful")),
            ("metric: words 2.5", Line::Metric("words", 2.5)),
            ("metric: words many", Line::Text(Level::Info, "metric: words many")),
            ("panicked at: x", Line::Text(Level::Info, "panicked at: x")),
            ("", Line::Text(Level::Info, "")),
        ] {
            assert_eq!(Line::read(line), said, "{line}");
        }
    }

    #[test]
    fn lines_of_bytes_are_those_of_text() {
        for text in ["", "\n", "a", "a\n", "a\r\nb", "\n\na\r\n\r\n", "a\r", "\r\n\r"] {
            let bytes: Vec<_> = lines(text.as_bytes()).collect();
            assert_eq!(bytes, text.lines().map(str::as_bytes).collect::<Vec<_>>(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn lines_are_shown_when_they_are_whole_and_kept_as_they_were_written() {
        let (mut error, pipe) = read_along(64, false, 3, 64);
        for piece in ["half", " way\nmetric: n 1\n", "warn: b\r\nno", "\n", "beyond the three\n", "end"] {
            error.write(Bytes::from_static(piece.as_bytes())).unwrap();
        }
        let whole = "half way\nmetric: n 1\nwarn: b\r\nno\nbeyond the three\nend";
        assert_eq!(error.take(), whole.as_bytes());
        let line = |level, text: &str| Ok((level, text.to_owned()));
        let expected =
            [line(Level::Info, "half way"), line(Level::Warn, "b"), line(Level::Info, "no"), Err(2)];
        assert_eq!(shown(&pipe).await, expected);
        // What has no room is refused as a whole, and not shown.
        let (mut full, pipe) = read_along(4, true, 3, 64);
        assert!(full.write(Bytes::from_static(b"12345\n")).is_err());
        assert_eq!(full.take(), b"");
        assert!(shown(&pipe).await.is_empty());
    }

    #[tokio::test]
    async fn a_line_that_no_log_has_room_for_is_missed_and_not_collected() {
        const LONGEST: usize = 100;
        let (mut output, pipe) = read_along(1 << 20, true, 10, LONGEST);
        let collected = |output: &Kept| output.shown.as_ref().unwrap().lock().begun.capacity();
        output.write(Bytes::from_static(b"before\n")).unwrap();
        for _ in 0..100 {
            output.write(Bytes::from(vec![1; 4096])).unwrap();
            assert!(collected(&output) <= 2 * LONGEST, "{}", collected(&output));
        }
        output.write(Bytes::from_static(b"\nbetween\n")).unwrap();
        // Short enough as it was written, and too long once it is escaped, or made of characters.
        for bytes in [vec![1; LONGEST], vec![0xff; LONGEST]] {
            output.write(bytes.into()).unwrap();
            output.write(Bytes::from_static(b"\n")).unwrap();
        }
        output.write(Bytes::from(vec![b'x'; LONGEST])).unwrap();
        output.write(Bytes::from_static(b"\nafter")).unwrap();
        output.write(Bytes::from(vec![b'y'; LONGEST])).unwrap();
        assert_eq!(output.take().len(), 7 + 100 * 4096 + 9 + 2 * 101 + LONGEST + 6 + LONGEST);
        let line = |text: &str| Ok((Level::Info, text.to_owned()));
        let expected = [line("before"), Err(1), line("between"), Err(2), line(&"x".repeat(LONGEST)), Err(1)];
        assert_eq!(shown(&pipe).await, expected);
    }
}
