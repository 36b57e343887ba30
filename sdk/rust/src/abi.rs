//! The imports of the module `mentat`, version 1 (docs/formats/agent-abi.md), and the only unsafe lines of an agent.
#![allow(
    unsafe_code,
    reason = "imported functions are foreign; each call below passes the range of a slice that it borrows"
)]

mod import {
    #[link(wasm_import_module = "mentat")]
    unsafe extern "C" {
        pub(super) fn input_len() -> i64;
        pub(super) fn read_input(ptr: *mut u8, cap: usize, offset: usize) -> i32;
        pub(super) fn write_output(ptr: *const u8, len: usize) -> i32;
        pub(super) fn log(level: i32, ptr: *const u8, len: usize);
        pub(super) fn record_metric(name: *const u8, name_len: usize, value: f64) -> i32;
        pub(super) fn buffer_len(buffer: i32) -> i64;
        pub(super) fn buffer_read(buffer: i32, ptr: *mut u8, cap: usize, offset: i64) -> i32;
        pub(super) fn close(handle: i32) -> i32;
        pub(super) fn request_capability(ptr: *const u8, len: usize) -> i32;
        pub(super) fn invoke_capability(
            handle: i32,
            operation: *const u8,
            operation_len: usize,
            arguments: *const u8,
            arguments_len: usize,
        ) -> i32;
        pub(super) fn download_media(reference: *const u8, reference_len: usize) -> i32;
        pub(super) fn upload_media(kind: *const u8, kind_len: usize, ptr: *const u8, len: usize) -> i32;
        pub(super) fn start_stream(id: *const u8, id_len: usize) -> i32;
        pub(super) fn write_stream(handle: i32, ptr: *const u8, len: usize) -> i32;
        pub(super) fn end_stream(handle: i32) -> i32;
    }
}

pub(crate) fn input_len() -> i64 {
    // SAFETY: no memory is passed.
    unsafe { import::input_len() }
}

pub(crate) fn read_input(into: &mut [u8], offset: usize) -> i32 {
    // SAFETY: the host writes at most `into.len()` bytes, into a slice that nothing else sees meanwhile.
    unsafe { import::read_input(into.as_mut_ptr(), into.len(), offset) }
}

pub(crate) fn write_output(bytes: &[u8]) -> i32 {
    // SAFETY: the host reads the slice.
    unsafe { import::write_output(bytes.as_ptr(), bytes.len()) }
}

pub(crate) fn log(level: i32, text: &str) {
    // SAFETY: the host reads the text.
    unsafe { import::log(level, text.as_ptr(), text.len()) }
}

pub(crate) fn record_metric(name: &str, value: f64) -> i32 {
    // SAFETY: the host reads the name.
    unsafe { import::record_metric(name.as_ptr(), name.len(), value) }
}

pub(crate) fn buffer_len(buffer: i32) -> i64 {
    // SAFETY: no memory is passed.
    unsafe { import::buffer_len(buffer) }
}

pub(crate) fn buffer_read(buffer: i32, into: &mut [u8], offset: i64) -> i32 {
    // SAFETY: as `read_input`.
    unsafe { import::buffer_read(buffer, into.as_mut_ptr(), into.len(), offset) }
}

pub(crate) fn close(handle: i32) -> i32 {
    // SAFETY: no memory is passed.
    unsafe { import::close(handle) }
}

pub(crate) fn request_capability(text: &str) -> i32 {
    // SAFETY: the host reads the text.
    unsafe { import::request_capability(text.as_ptr(), text.len()) }
}

pub(crate) fn invoke_capability(handle: i32, operation: &str, arguments: &[u8]) -> i32 {
    let (name, bytes) = (operation.as_bytes(), arguments);
    // SAFETY: the host reads both slices.
    unsafe { import::invoke_capability(handle, name.as_ptr(), name.len(), bytes.as_ptr(), bytes.len()) }
}

pub(crate) fn download_media(reference: &str) -> i32 {
    // SAFETY: the host reads the text.
    unsafe { import::download_media(reference.as_ptr(), reference.len()) }
}

pub(crate) fn upload_media(media_type: &str, bytes: &[u8]) -> i32 {
    // SAFETY: the host reads both slices.
    unsafe { import::upload_media(media_type.as_ptr(), media_type.len(), bytes.as_ptr(), bytes.len()) }
}

pub(crate) fn start_stream(id: &str) -> i32 {
    // SAFETY: the host reads the text.
    unsafe { import::start_stream(id.as_ptr(), id.len()) }
}

pub(crate) fn write_stream(handle: i32, bytes: &[u8]) -> i32 {
    // SAFETY: the host reads the slice.
    unsafe { import::write_stream(handle, bytes.as_ptr(), bytes.len()) }
}

pub(crate) fn end_stream(handle: i32) -> i32 {
    // SAFETY: no memory is passed.
    unsafe { import::end_stream(handle) }
}
