//! The two directions of a connection, counted against what the call may still send and receive.

use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};
use wasmtime_wasi_io::async_trait;

use crate::egress::Connections;

/// What comes in over a connection, counted.
pub(super) struct Receiving {
    pub(super) stream: DynInputStream,
    pub(super) connections: Arc<Connections>,
}

#[async_trait]
impl Pollable for Receiving {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[async_trait]
impl InputStream for Receiving {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let left = self.connections.left_to_receive();
        if left == 0 && size > 0 {
            return Err(used_up(&self.connections));
        }
        let bytes = self.stream.read(size.min(left))?;
        self.connections.received(bytes.len());
        Ok(bytes)
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}

/// What goes out over a connection, counted.
pub(super) struct Sending {
    pub(super) stream: DynOutputStream,
    pub(super) connections: Arc<Connections>,
}

#[async_trait]
impl Pollable for Sending {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[async_trait]
impl OutputStream for Sending {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > self.connections.left_to_send() {
            return Err(used_up(&self.connections));
        }
        let length = bytes.len();
        self.stream.write(bytes)?;
        self.connections.sent(length);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let room = self.stream.check_write()?;
        // Whoever has sent it all may still wait for it to be gone; more is refused when it comes.
        Ok(match self.connections.left_to_send() {
            0 => room,
            left => room.min(left),
        })
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}

/// The share of the call is used up: `access-denied`, for a guest that asks.
fn used_up(connections: &Connections) -> StreamError {
    connections.run_out();
    StreamError::LastOperationFailed(std::io::Error::from(Errno::ACCESS).into())
}
