//! The interface with results instead of numbers: over the imports in a module, over the fake host natively. Plain
//! functions and no trait object, so that only what an agent uses is imported.

use alloc::vec;
use alloc::vec::Vec;

use crate::context::Level;
use crate::error::{Error, HostError, Result};

#[cfg(target_arch = "wasm32")]
use crate::abi as raw;
#[cfg(not(target_arch = "wasm32"))]
use crate::fake::raw;

/// Largest transfer in one call of the interface, bytes.
const MAX_TRANSFER: usize = 8 << 20;

/// A number of the interface as a result.
fn number(result: i32) -> Result<i32> {
    if result < 0 { Err(HostError::from_code(result).into()) } else { Ok(result) }
}

fn length(result: i64) -> Result<usize> {
    match usize::try_from(result) {
        Ok(length) => Ok(length),
        Err(_) => Err(HostError::from_code(i32::try_from(result).unwrap_or(i32::MIN)).into()),
    }
}

/// Fills a vector piece by piece.
fn fill(length: usize, mut read: impl FnMut(&mut [u8], usize) -> i32) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        let cap = rest.len().min(MAX_TRANSFER);
        let piece = rest.get_mut(..cap).unwrap_or_default();
        match usize::try_from(number(read(piece, at))?) {
            Ok(got) if got > 0 => at += got,
            _ => return Err(Error::Host(HostError::Io)),
        }
    }
    Ok(bytes)
}

pub(crate) fn input() -> Result<Vec<u8>> {
    fill(length(raw::input_len())?, raw::read_input)
}

pub(crate) fn write_output(bytes: &[u8]) -> Result<()> {
    for piece in bytes.chunks(MAX_TRANSFER) {
        number(raw::write_output(piece))?;
    }
    Ok(())
}

pub(crate) fn log(level: Level, text: &str) {
    raw::log(level as i32, text);
}

pub(crate) fn record_metric(name: &str, value: f64) -> Result<()> {
    number(raw::record_metric(name, value)).map(|_| ())
}

/// The bytes of a result; its buffer is closed, whatever came of reading it.
fn take(buffer: i32) -> Result<Vec<u8>> {
    let buffer = number(buffer)?;
    let bytes = length(raw::buffer_len(buffer))
        .and_then(|length| fill(length, |piece, at| raw::buffer_read(buffer, piece, at as i64)));
    let _ = raw::close(buffer);
    bytes
}

pub(crate) fn request_capability(text: &str) -> Result<i32> {
    number(raw::request_capability(text))
}

pub(crate) fn invoke_capability(handle: i32, operation: &str, arguments: &[u8]) -> Result<Vec<u8>> {
    take(raw::invoke_capability(handle, operation, arguments))
}

pub(crate) fn close(handle: i32) {
    let _ = raw::close(handle);
}

pub(crate) fn download_media(reference: &str) -> Result<Vec<u8>> {
    take(raw::download_media(reference))
}

pub(crate) fn upload_media(media_type: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    take(raw::upload_media(media_type, bytes))
}

pub(crate) fn start_stream(id: &str) -> Result<i32> {
    number(raw::start_stream(id))
}

pub(crate) fn write_stream(handle: i32, bytes: &[u8]) -> Result<usize> {
    number(raw::write_stream(handle, bytes)).map(|taken| usize::try_from(taken).unwrap_or(0))
}

pub(crate) fn end_stream(handle: i32) -> Result<u32> {
    number(raw::end_stream(handle)).map(i32::unsigned_abs)
}
