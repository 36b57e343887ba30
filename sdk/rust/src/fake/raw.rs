//! The functions of the interface, with the numbers of the interface: those of `cases.json`, as the executor gives them.

use super::{CALL, Call, Resource};
use crate::context::Level;
use crate::error::HostError;

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

/// The first handle: an executor starts at a random one.
const FIRST_HANDLE: i32 = 7_001;
const MAX_TRANSFER: usize = 8 << 20;
const MAX_NAME: usize = 4096;
const MAX_STREAM_ID: usize = 256;
const MAX_MEDIA_TYPE: usize = 128;
/// Live handles.
const MAX_HANDLES: usize = 64;
const MAX_STREAMS: usize = 16;
/// What is longer reaches the reader of a stream as several pieces.
const PIECE: usize = 128 << 10;

type Answer<T> = Result<T, HostError>;

/// Answers from the call that is going on; outside of one there is nothing to answer from. Each length that was passed has
/// its limit.
fn answer(lengths: &[(usize, usize)], f: impl FnOnce(&mut Call) -> Answer<i32>) -> i32 {
    let answered = CALL.with_borrow_mut(|call| match call {
        Some(call) if lengths.iter().all(|(length, limit)| length <= limit) => f(call),
        Some(_) => Err(HostError::Limit),
        None => Err(HostError::NotSupported),
    });
    answered.unwrap_or_else(HostError::code)
}

/// Copies what fits.
fn copy(from: &[u8], into: &mut [u8], offset: usize) -> Answer<i32> {
    let rest = from.get(offset..).unwrap_or_default();
    let length = rest.len().min(into.len());
    for (to, byte) in into.iter_mut().zip(rest) {
        *to = *byte;
    }
    i32::try_from(length).map_err(|_| HostError::Limit)
}

fn insert(call: &mut Call, resource: Resource) -> Answer<i32> {
    let size = |resource: &Resource| match resource {
        Resource::Buffer(bytes) => bytes.len(),
        Resource::Capability(_) | Resource::Stream(_) => 0,
    };
    let held: usize = call.handles.values().map(size).sum();
    if call.handles.len() >= MAX_HANDLES || held + size(&resource) > MAX_TRANSFER {
        return Err(HostError::Limit);
    }
    let handle = FIRST_HANDLE + call.given;
    call.given += 1;
    call.handles.insert(handle, resource);
    Ok(handle)
}

pub(crate) fn input_len() -> i64 {
    CALL.with_borrow(|call| call.as_ref().map_or(0, |call| call.host.input.len() as i64))
}

pub(crate) fn read_input(into: &mut [u8], offset: usize) -> i32 {
    answer(&[(into.len(), MAX_TRANSFER)], |call| copy(&call.host.input, into, offset))
}

pub(crate) fn write_output(bytes: &[u8]) -> i32 {
    answer(&[(bytes.len(), MAX_TRANSFER)], |call| {
        call.done.output.extend_from_slice(bytes);
        Ok(bytes.len() as i32)
    })
}

pub(crate) fn log(level: i32, text: &str) {
    let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
    let level = usize::try_from(level).ok().and_then(|level| levels.get(level).copied());
    answer(&[(text.len(), MAX_TRANSFER)], |call| {
        call.done.log.extend(level.map(|level| (level, text.to_string())));
        Ok(0)
    });
}

pub(crate) fn record_metric(name: &str, value: f64) -> i32 {
    answer(&[(name.len(), MAX_NAME)], |call| {
        let mut bytes = name.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
        let plain = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !starts || !plain || name.len() > 64 || !value.is_finite() {
            return Err(HostError::InvalidArgument);
        }
        call.done.metrics.push((name.to_string(), value));
        Ok(0)
    })
}

pub(crate) fn buffer_len(buffer: i32) -> i64 {
    CALL.with_borrow(|call| match call.as_ref().and_then(|call| call.handles.get(&buffer)) {
        Some(Resource::Buffer(bytes)) => bytes.len() as i64,
        _ => HostError::BadHandle.code().into(),
    })
}

pub(crate) fn buffer_read(buffer: i32, into: &mut [u8], offset: i64) -> i32 {
    answer(&[(into.len(), MAX_TRANSFER)], |call| match call.handles.get(&buffer) {
        Some(Resource::Buffer(bytes)) => {
            copy(bytes, into, usize::try_from(offset).map_err(|_| HostError::InvalidArgument)?)
        }
        _ => Err(HostError::BadHandle),
    })
}

pub(crate) fn close(handle: i32) -> i32 {
    answer(&[], |call| call.handles.remove(&handle).map(|_| 0).ok_or(HostError::BadHandle))
}

pub(crate) fn request_capability(text: &str) -> i32 {
    answer(&[(text.len(), MAX_NAME)], |call| {
        if !is_capability(text) {
            return Err(HostError::InvalidArgument);
        }
        if !call.host.capabilities.contains_key(text) {
            return Err(HostError::NotInManifest);
        }
        insert(call, Resource::Capability(text.to_string()))
    })
}

pub(crate) fn invoke_capability(handle: i32, operation: &str, arguments: &[u8]) -> i32 {
    answer(&[(operation.len(), MAX_NAME), (arguments.len(), MAX_TRANSFER)], |call| {
        let Some(Resource::Capability(text)) = call.handles.get(&handle) else {
            return Err(HostError::BadHandle);
        };
        let granted = call.host.capabilities.get_mut(text).ok_or(HostError::PolicyDenied)?;
        let result = granted(operation, arguments)?;
        insert(call, Resource::Buffer(result))
    })
}

/// A text of one of the five kinds. The grammar of what follows is the executor's, but for names of variables.
fn is_capability(text: &str) -> bool {
    let Some((kind, rest)) = text.split_once(':') else { return false };
    match kind {
        "env" => {
            let starts = rest.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            starts && rest.len() <= 128 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        }
        "compute" | "extension" | "filesystem" | "network" => !rest.is_empty(),
        _ => false,
    }
}

/// A type and a subtype.
fn is_media_type(text: &str) -> bool {
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    text.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

/// `sha256:` and 64 hexadecimal digits in lower case.
fn is_reference(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

pub(crate) fn download_media(reference: &str) -> i32 {
    answer(&[(reference.len(), MAX_NAME)], |call| {
        let store = call.host.media.as_ref().ok_or(HostError::NotInManifest)?;
        if !is_reference(reference) {
            return Err(HostError::InvalidArgument);
        }
        let bytes = store.get(reference).ok_or(HostError::Io)?.clone();
        insert(call, Resource::Buffer(bytes))
    })
}

pub(crate) fn upload_media(media_type: &str, bytes: &[u8]) -> i32 {
    answer(&[(media_type.len(), MAX_MEDIA_TYPE), (bytes.len(), MAX_TRANSFER)], |call| {
        let store = call.host.media.as_mut().ok_or(HostError::NotInManifest)?;
        if !is_media_type(media_type) {
            return Err(HostError::InvalidArgument);
        }
        // Of the right form and of its own for every object; the digest is the executor's work.
        let reference = format!("sha256:{:064x}", store.len() + 1);
        store.insert(reference.clone(), bytes.to_vec());
        call.done.stored.push((reference.clone(), media_type.to_string(), bytes.to_vec()));
        insert(call, Resource::Buffer(reference.into_bytes()))
    })
}

pub(crate) fn start_stream(id: &str) -> i32 {
    answer(&[(id.len(), MAX_NAME)], |call| {
        if !call.host.streams {
            return Err(HostError::NotSupported);
        }
        let streams = &mut call.done.streams;
        let grammar = (1..=MAX_STREAM_ID).contains(&id.len()) && !id.chars().any(char::is_control);
        if !grammar || streams.iter().any(|(known, _)| known == id) {
            return Err(HostError::InvalidArgument);
        }
        if streams.len() >= MAX_STREAMS {
            return Err(HostError::Limit);
        }
        streams.push((id.to_string(), Vec::new()));
        let place = streams.len() - 1;
        insert(call, Resource::Stream(place))
    })
}

pub(crate) fn write_stream(handle: i32, bytes: &[u8]) -> i32 {
    answer(&[(bytes.len(), MAX_TRANSFER)], |call| {
        let Some(Resource::Stream(place)) = call.handles.get(&handle) else {
            return Err(HostError::BadHandle);
        };
        let (_, pieces) = call.done.streams.get_mut(*place).ok_or(HostError::BadHandle)?;
        pieces.extend(bytes.chunks(PIECE).map(<[u8]>::to_vec));
        Ok(bytes.len() as i32)
    })
}

pub(crate) fn end_stream(handle: i32) -> i32 {
    answer(&[], |call| {
        let Some(Resource::Stream(place)) = call.handles.get(&handle) else {
            return Err(HostError::BadHandle);
        };
        let place = *place;
        call.handles.remove(&handle);
        let (_, pieces) = call.done.streams.get(place).ok_or(HostError::BadHandle)?;
        i32::try_from(pieces.len()).map_err(|_| HostError::Limit)
    })
}

#[cfg(test)]
#[path = "../../tests/raw/cases.rs"]
mod cases;
