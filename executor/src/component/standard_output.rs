//! Standard streams of a guest, one of which may be read along: whole lines are shown when they are written.
//!
//! Everything is kept as well, and becomes the log when the guest has ended; what was shown is not shown again.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::abi::sinks::{Level, LogRecord, escape};
use crate::runtime::ReadAlong;

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

/// A standard stream whose bytes are kept.
#[derive(Clone)]
pub(super) struct Kept {
    pipe: MemoryOutputPipe,
    shown: Option<Arc<Mutex<Shown>>>,
}

/// What was shown of a stream.
struct Shown {
    to: ReadAlong,
    /// Of standard error each line says what it is; a line of standard output is a line.
    plain: bool,
    /// The beginning of a line that is not whole yet. It is no longer than what is kept.
    begun: Vec<u8>,
    /// Lines that may still be shown.
    left: usize,
}

impl Kept {
    /// At most so many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        Self { pipe: MemoryOutputPipe::new(bytes), shown: None }
    }

    /// The same, of which so many lines are shown; `plain` where a line is nothing but a line.
    pub(super) fn shown(self, to: Option<ReadAlong>, plain: bool, left: usize) -> Self {
        let shown = |to| Arc::new(Mutex::new(Shown { to, plain, begun: Vec::new(), left }));
        Self { shown: to.map(shown), ..self }
    }

    /// Whether its lines were shown.
    pub(super) fn was_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// Everything that was written, of which the last line need not be whole.
    pub(super) fn contents(&self) -> Bytes {
        if let Some(shown) = &self.shown {
            shown.lock().end();
        }
        self.pipe.contents()
    }
}

impl Shown {
    fn take(&mut self, bytes: &[u8]) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let mut piece = pieces.next();
        for next in pieces {
            self.begun.extend_from_slice(piece.unwrap_or_default());
            self.say();
            piece = Some(next);
        }
        self.begun.extend_from_slice(piece.unwrap_or_default());
    }

    fn end(&mut self) {
        if !self.begun.is_empty() {
            self.say();
        }
    }

    /// Shows the line that has begun.
    fn say(&mut self) {
        let bytes = std::mem::take(&mut self.begun);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_suffix('\r').unwrap_or(&text);
        let line = if self.plain { Line::Text(Level::Info, text) } else { Line::read(text) };
        if let Line::Text(level, text) = line
            && self.left > 0
        {
            self.left -= 1;
            self.to.show(&LogRecord { level, text: escape(text) });
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
        Box::new(self.pipe.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Kept {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.pipe.write(bytes.clone())?;
        if let Some(shown) = &self.shown {
            shown.lock().take(&bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.pipe.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.pipe.check_write()
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

    #[tokio::test]
    async fn lines_are_shown_when_they_are_whole_and_kept_as_they_were_written() {
        let pipe = Arc::new(Pipe::default());
        let mut error = Kept::of(64).shown(Some(ReadAlong::Here(Arc::clone(&pipe))), false, 3);
        for piece in ["half", " way\nmetric: n 1\n", "warn: b\r\nno", "\n", "beyond the three\n", "end"] {
            error.write(Bytes::from_static(piece.as_bytes())).unwrap();
        }
        let whole = "half way\nmetric: n 1\nwarn: b\r\nno\nbeyond the three\nend";
        assert_eq!(error.contents(), whole);
        pipe.finish();
        let mut shown = Vec::new();
        while let Some(StreamEvent::Log(line)) = pipe.next().await {
            shown.push((line.level, line.text));
        }
        let expected = [(Level::Info, "half way"), (Level::Warn, "b"), (Level::Info, "no")];
        assert_eq!(shown, expected.map(|(level, text)| (level, text.to_owned())));
        // What has no room is refused as a whole, and not shown.
        let mut full = Kept::of(4).shown(Some(ReadAlong::Here(pipe)), true, 3);
        assert!(full.write(Bytes::from_static(b"12345\n")).is_err());
        assert_eq!(full.contents(), "");
    }
}
