//! The host functions themselves.

use wasmtime::{Caller, Linker};

use super::handles::{HandleTable, Resource};
use super::sinks::Level;
use super::{ErrorCode, MAX_MEDIA_TYPE_BYTES, MAX_NAME_BYTES, MODULE, range};
use crate::runtime::{GuestState, KillCause};

type Answer<T> = Result<T, ErrorCode>;

/// Functions every guest has.
pub(super) fn link_always(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker
        .func_wrap(MODULE, "input_len", |caller: Caller<'_, GuestState>| caller.data().input.len() as i64)?;
    linker.func_wrap(
        MODULE,
        "read_input",
        |mut caller: Caller<'_, GuestState>, ptr: i32, cap: i32, offset: i32| {
            with_memory(&mut caller, |memory, state| {
                range::copy_out(memory, ptr, cap, &state.input, u64::from(offset.cast_unsigned()))
            })
        },
    )?;
    linker.func_wrap(MODULE, "write_output", |mut caller: Caller<'_, GuestState>, ptr: i32, len: i32| {
        with_memory(&mut caller, |memory, state| {
            let bytes = range::read(memory, ptr, len)?;
            if state.output.len().saturating_add(bytes.len()) > state.limits().output {
                return Err(ErrorCode::Limit);
            }
            state.output.extend_from_slice(bytes);
            Ok(len)
        })
    })?;
    linker.func_wrap(
        MODULE,
        "log",
        |mut caller: Caller<'_, GuestState>, level: i32, ptr: i32, len: i32| {
            let _ = with_memory(&mut caller, |memory, state| {
                // A line longer than the whole allowance cannot be kept; refusing it early saves the copy.
                let (most, bytes) = (state.limits().log_bytes, len.cast_unsigned() as usize);
                state.log_line(Level::from_code(level), bytes, || range::text(memory, ptr, len, most));
                Ok(0)
            });
        },
    )?;
    linker.func_wrap(
        MODULE,
        "record_metric",
        |mut caller: Caller<'_, GuestState>, name_ptr: i32, name_len: i32, value: f64| {
            with_memory(&mut caller, |memory, state| {
                let name = range::text(memory, name_ptr, name_len, MAX_NAME_BYTES)?;
                state.record_metric(name, value).map(|()| 0)
            })
        },
    )?;
    linker.func_wrap(MODULE, "buffer_len", |caller: Caller<'_, GuestState>, buffer: i32| {
        match handles(caller.data()).and_then(|handles| handles.buffer(buffer)) {
            Ok(bytes) => bytes.len() as i64,
            Err(code) => i64::from(code as i32),
        }
    })?;
    linker.func_wrap(
        MODULE,
        "buffer_read",
        |mut caller: Caller<'_, GuestState>, buffer: i32, ptr: i32, cap: i32, offset: i64| {
            with_memory(&mut caller, |memory, state| {
                let offset = u64::try_from(offset).map_err(|_| ErrorCode::InvalidArgument)?;
                range::copy_out(memory, ptr, cap, handles(state)?.buffer(buffer)?, offset)
            })
        },
    )?;
    linker.func_wrap(MODULE, "close", |mut caller: Caller<'_, GuestState>, handle: i32| {
        code(caller.data_mut().extras().handles.close(handle).map(|()| 0))
    })?;
    Ok(())
}

/// Asking for and using what policy granted.
pub(super) fn link_capability(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "request_capability",
        |mut caller: Caller<'_, GuestState>, ptr: i32, len: i32| {
            with_memory(&mut caller, |memory, state| {
                revoked(state)?;
                let text = range::text(memory, ptr, len, MAX_NAME_BYTES)?;
                let capability = state.request(text)?;
                insert(state, Resource::Capability(capability))
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "invoke_capability",
        |mut caller: Caller<'_, GuestState>,
         handle: i32,
         op_ptr: i32,
         op_len: i32,
         args_ptr: i32,
         args_len: i32| {
            with_memory(&mut caller, |memory, state| {
                revoked(state)?;
                let operation = range::text(memory, op_ptr, op_len, MAX_NAME_BYTES)?;
                let arguments = range::read(memory, args_ptr, args_len)?;
                let Resource::Capability(capability) = handles(state)?.get(handle)? else {
                    return Err(ErrorCode::BadHandle);
                };
                let capability = capability.clone();
                let result = state.invoke(&capability, operation, arguments)?;
                buffer(state, result)
            })
        },
    )?;
    Ok(())
}

/// Content-addressed media.
pub(super) fn link_media(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "download_media",
        |mut caller: Caller<'_, GuestState>, ptr: i32, len: i32| {
            with_memory(&mut caller, |memory, state| {
                revoked(state)?;
                let reference = range::text(memory, ptr, len, MAX_NAME_BYTES)?;
                let bytes = state.download(reference)?;
                buffer(state, bytes)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "upload_media",
        |mut caller: Caller<'_, GuestState>, type_ptr: i32, type_len: i32, ptr: i32, len: i32| {
            with_memory(&mut caller, |memory, state| {
                revoked(state)?;
                let media_type = range::text(memory, type_ptr, type_len, MAX_MEDIA_TYPE_BYTES)?;
                let bytes = range::read(memory, ptr, len)?;
                let reference = state.upload(media_type, bytes)?;
                buffer(state, reference.into_bytes())
            })
        },
    )?;
    Ok(())
}

/// Streams exist only in calls that have a reader; a call with one answer says so.
pub(super) fn link_stream(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.func_wrap(MODULE, "start_stream", |mut caller: Caller<'_, GuestState>, ptr: i32, len: i32| {
        with_memory(&mut caller, |memory, state| {
            revoked(state)?;
            let stream = state.open_stream(range::text(memory, ptr, len, MAX_NAME_BYTES)?)?;
            insert(state, Resource::Stream(stream))
        })
    })?;
    linker.func_wrap(
        MODULE,
        "write_stream",
        |mut caller: Caller<'_, GuestState>, handle: i32, ptr: i32, len: i32| {
            with_memory(&mut caller, |memory, state| {
                revoked(state)?;
                let bytes = range::read(memory, ptr, len)?;
                let stream = handles(state)?.stream(handle)?;
                let taken = state.write_stream(stream, bytes)?;
                i32::try_from(taken).map_err(|_| ErrorCode::Limit)
            })
        },
    )?;
    linker.func_wrap(MODULE, "end_stream", |mut caller: Caller<'_, GuestState>, handle: i32| {
        let state = caller.data_mut();
        let stream = handles(state).and_then(|handles| handles.stream(handle));
        let ended = stream.and_then(|stream| state.end_stream(stream));
        code(ended.and_then(|chunks| {
            state.extras().handles.close(handle)?;
            i32::try_from(chunks).map_err(|_| ErrorCode::Limit)
        }))
    })?;
    Ok(())
}

/// Runs `f` with the guest's memory and the call's state, and turns its answer into the ABI's number.
fn with_memory(
    caller: &mut Caller<'_, GuestState>,
    f: impl FnOnce(&mut [u8], &mut GuestState) -> Answer<i32>,
) -> i32 {
    // Before the instance is complete (a start function that calls the host) the export is looked up by name.
    let memory = match caller.data().memory {
        Some(memory) => Some(memory),
        None => caller.get_export("memory").and_then(wasmtime::Extern::into_memory),
    };
    code(match memory {
        Some(memory) => {
            let (bytes, state) = memory.data_and_store_mut(caller);
            f(bytes, state)
        }
        None => Err(ErrorCode::OutOfRange),
    })
}

fn code(answer: Answer<i32>) -> i32 {
    match answer {
        Ok(value) => value,
        Err(code) => code as i32,
    }
}

fn revoked(state: &GuestState) -> Answer<()> {
    match state.killed() {
        Some(KillCause::Revoked) => Err(ErrorCode::Revoked),
        Some(_) => Err(ErrorCode::Limit),
        None => Ok(()),
    }
}

fn buffer(state: &mut GuestState, bytes: Vec<u8>) -> Answer<i32> {
    let (extras, calls) = state.extras_and_calls();
    if extras.held_bytes().saturating_add(bytes.len()) > calls.limits.hostcall_bytes {
        return Err(ErrorCode::Limit);
    }
    insert(state, Resource::Buffer(bytes))
}

/// The handles that the guest has, if it has any.
fn handles(state: &GuestState) -> Answer<&HandleTable> {
    state.extras_if_any().map(|extras| &extras.handles).ok_or(ErrorCode::BadHandle)
}

fn insert(state: &mut GuestState, resource: Resource) -> Answer<i32> {
    let (extras, calls) = state.extras_and_calls();
    extras.handles.insert(resource, calls.limits.handles)
}
