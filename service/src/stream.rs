//! The byte stream under a connection: bytes already read, bytes counted, writes that must make progress.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::watch::Activity;

/// What an HTTP/2 client says first (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Reads until it is clear which protocol the client speaks. The caller bounds the time: a client that sends nothing,
/// or half a preface, would wait here for ever.
pub(crate) async fn detect<I: AsyncRead + Unpin>(io: &mut I) -> io::Result<(Protocol, Prefix)> {
    let mut prefix = Prefix { bytes: [0; 24], len: 0, taken: 0 };
    while prefix.len < PREFACE.len() {
        let Some(room) = prefix.bytes.get_mut(prefix.len..) else { break };
        let read = io.read(room).await?;
        prefix.len += read;
        let seen = prefix.bytes.get(..prefix.len).unwrap_or_default();
        if read == 0 || !PREFACE.starts_with(seen) {
            return Ok((Protocol::Http1, prefix));
        }
    }
    Ok((Protocol::Http2, prefix))
}

/// The bytes [`detect`] read, to be read again.
pub(crate) struct Prefix {
    bytes: [u8; 24],
    len: usize,
    taken: usize,
}

/// A stream with the prefix in front. Tells the watcher of bytes read, and fails a write that is stuck for longer than
/// the stall timeout.
pub(crate) struct Stream<I> {
    io: I,
    prefix: Prefix,
    activity: Arc<Activity>,
    stall: Duration,
    /// Armed only while a write is stuck; a peer that reads costs no timer.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<I> Stream<I> {
    pub(crate) fn new(io: I, prefix: Prefix, activity: Arc<Activity>, stall: Duration) -> Self {
        if prefix.len > 0 {
            activity.bytes_read();
        }
        Self { io, prefix, activity, stall, stuck: None }
    }

    fn watch_write<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.stall)));
        stuck.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Stream<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.prefix.taken < this.prefix.len {
            let rest = this.prefix.bytes.get(this.prefix.taken..this.prefix.len).unwrap_or_default();
            let part = rest.get(..buffer.remaining().min(rest.len())).unwrap_or_default();
            buffer.put_slice(part);
            this.prefix.taken += part.len();
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.activity.bytes_read();
        }
        outcome
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Stream<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch_write(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.watch_write(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(context);
        self.watch_write(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(context);
        self.watch_write(context, outcome)
    }
}
