//! The functions of the interface, with the numbers of the interface.

use super::{CALL, Call, Resource};
use crate::context::Level;
use crate::error::HostError;

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;

/// The first handle: an executor starts at a random one.
const FIRST_HANDLE: i32 = 7_001;
const MAX_TRANSFER: usize = 8 << 20;
const MAX_NAME: usize = 256;

type Answer<T> = Result<T, HostError>;

/// Answers from the call that is going on; outside of one there is nothing to answer from.
fn answer(bytes: usize, f: impl FnOnce(&mut Call) -> Answer<i32>) -> i32 {
    let answered = CALL.with_borrow_mut(|call| match call {
        Some(call) if bytes <= MAX_TRANSFER => f(call),
        Some(_) => Err(HostError::InvalidArgument),
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
    i32::try_from(length).map_err(|_| HostError::InvalidArgument)
}

fn insert(call: &mut Call, resource: Resource) -> Answer<i32> {
    let handle = FIRST_HANDLE + call.given;
    call.given += 1;
    call.handles.insert(handle, resource);
    Ok(handle)
}

pub(crate) fn input_len() -> i64 {
    CALL.with_borrow(|call| call.as_ref().map_or(0, |call| call.host.input.len() as i64))
}

pub(crate) fn read_input(into: &mut [u8], offset: usize) -> i32 {
    answer(into.len(), |call| copy(&call.host.input, into, offset))
}

pub(crate) fn write_output(bytes: &[u8]) -> i32 {
    answer(bytes.len(), |call| {
        call.done.output.extend_from_slice(bytes);
        Ok(bytes.len() as i32)
    })
}

pub(crate) fn log(level: i32, text: &str) {
    let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
    let level = usize::try_from(level).ok().and_then(|level| levels.get(level).copied());
    answer(text.len(), |call| {
        call.done.log.extend(level.map(|level| (level, text.to_string())));
        Ok(0)
    });
}

pub(crate) fn record_metric(name: &str, value: f64) -> i32 {
    answer(name.len(), |call| {
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
    answer(into.len(), |call| match call.handles.get(&buffer) {
        Some(Resource::Buffer(bytes)) => {
            copy(bytes, into, usize::try_from(offset).map_err(|_| HostError::InvalidArgument)?)
        }
        _ => Err(HostError::BadHandle),
    })
}

pub(crate) fn close(handle: i32) -> i32 {
    answer(0, |call| call.handles.remove(&handle).map(|_| 0).ok_or(HostError::BadHandle))
}

pub(crate) fn request_capability(text: &str) -> i32 {
    answer(text.len(), |call| {
        if text.len() > MAX_NAME || !text.contains(':') {
            return Err(HostError::InvalidArgument);
        }
        if !call.host.capabilities.contains_key(text) {
            return Err(HostError::NotInManifest);
        }
        insert(call, Resource::Capability(text.to_string()))
    })
}

pub(crate) fn invoke_capability(handle: i32, operation: &str, arguments: &[u8]) -> i32 {
    answer(arguments.len(), |call| {
        let Some(Resource::Capability(text)) = call.handles.get(&handle) else {
            return Err(HostError::BadHandle);
        };
        let granted = call.host.capabilities.get_mut(text).ok_or(HostError::PolicyDenied)?;
        let result = granted(operation, arguments)?;
        insert(call, Resource::Buffer(result))
    })
}

/// `sha256:` and 64 hexadecimal digits in lower case.
fn is_reference(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

pub(crate) fn download_media(reference: &str) -> i32 {
    answer(reference.len(), |call| {
        let store = call.host.media.as_ref().ok_or(HostError::NotInManifest)?;
        if !is_reference(reference) {
            return Err(HostError::InvalidArgument);
        }
        let bytes = store.get(reference).ok_or(HostError::Io)?.clone();
        insert(call, Resource::Buffer(bytes))
    })
}

pub(crate) fn upload_media(media_type: &str, bytes: &[u8]) -> i32 {
    answer(bytes.len(), |call| {
        let store = call.host.media.as_mut().ok_or(HostError::NotInManifest)?;
        if !media_type.contains('/') || media_type.len() > 128 {
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
    answer(id.len(), |call| {
        if !call.host.streams {
            return Err(HostError::NotSupported);
        }
        let streams = &mut call.done.streams;
        let grammar = (1..=MAX_NAME).contains(&id.len()) && !id.chars().any(char::is_control);
        if !grammar || streams.iter().any(|(known, _)| known == id) {
            return Err(HostError::InvalidArgument);
        }
        streams.push((id.to_string(), Vec::new()));
        let place = streams.len() - 1;
        insert(call, Resource::Stream(place))
    })
}

pub(crate) fn write_stream(handle: i32, bytes: &[u8]) -> i32 {
    answer(bytes.len(), |call| {
        let Some(Resource::Stream(place)) = call.handles.get(&handle) else {
            return Err(HostError::BadHandle);
        };
        let (_, pieces) = call.done.streams.get_mut(*place).ok_or(HostError::BadHandle)?;
        pieces.push(bytes.to_vec());
        Ok(bytes.len() as i32)
    })
}

pub(crate) fn end_stream(handle: i32) -> i32 {
    answer(0, |call| {
        let Some(Resource::Stream(place)) = call.handles.get(&handle) else {
            return Err(HostError::BadHandle);
        };
        let place = *place;
        call.handles.remove(&handle);
        let (_, pieces) = call.done.streams.get(place).ok_or(HostError::BadHandle)?;
        i32::try_from(pieces.len()).map_err(|_| HostError::Limit)
    })
}
