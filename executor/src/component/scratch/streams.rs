//! Scratch files as streams. Nothing here waits.

use bytes::Bytes;
use rustix::io::Errno;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi_io::async_trait;

use super::descriptors::Opened;

/// Most bytes of one write.
const PIECE: usize = 64 << 10;

/// Reads a file from a place on.
pub(super) struct Reading {
    file: Opened,
    at: u64,
}

impl Reading {
    pub(super) fn new(file: Opened, at: u64) -> Self {
        Self { file, at }
    }
}

#[async_trait]
impl Pollable for Reading {
    async fn ready(&mut self) {}
}

impl InputStream for Reading {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let (bytes, _) = self.file.read(self.at, size as u64).map_err(failed)?;
        if bytes.is_empty() && size > 0 {
            return Err(StreamError::Closed);
        }
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(bytes.into())
    }
}

/// Writes a file from a place on, or at its end.
pub(super) struct Writing {
    file: Opened,
    /// Absent: at the end.
    at: Option<u64>,
}

impl Writing {
    pub(super) fn new(file: Opened, at: Option<u64>) -> Self {
        Self { file, at }
    }
}

#[async_trait]
impl Pollable for Writing {
    async fn ready(&mut self) {}
}

impl OutputStream for Writing {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match &mut self.at {
            Some(at) => {
                self.file.write(*at, &bytes).map_err(failed)?;
                *at = at.saturating_add(bytes.len() as u64);
            }
            None => self.file.append(&bytes).map_err(failed)?,
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PIECE)
    }
}

/// As streams over files of the host fail, so that a guest asks for the code in the same way.
fn failed(code: ErrorCode) -> StreamError {
    let errno = match code {
        ErrorCode::InsufficientSpace => Errno::NOSPC,
        ErrorCode::FileTooLarge => Errno::FBIG,
        ErrorCode::NotPermitted => Errno::PERM,
        ErrorCode::IsDirectory => Errno::ISDIR,
        _ => Errno::IO,
    };
    StreamError::LastOperationFailed(std::io::Error::from(errno).into())
}
