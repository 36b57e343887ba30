// The imports of the module `mentat`, version 1 (docs/formats/agent-abi.md). Pointers and lengths are `usize`.

// @ts-ignore: decorator
@external("mentat", "input_len")
export declare function input_len(): i64;
// @ts-ignore: decorator
@external("mentat", "read_input")
export declare function read_input(ptr: usize, cap: i32, offset: i32): i32;
// @ts-ignore: decorator
@external("mentat", "write_output")
export declare function write_output(ptr: usize, len: i32): i32;
// @ts-ignore: decorator
@external("mentat", "log")
export declare function log_line(level: i32, ptr: usize, len: i32): void;
// @ts-ignore: decorator
@external("mentat", "record_metric")
export declare function record_metric(name: usize, name_len: i32, value: f64): i32;
// @ts-ignore: decorator
@external("mentat", "buffer_len")
export declare function buffer_len(buffer: i32): i64;
// @ts-ignore: decorator
@external("mentat", "buffer_read")
export declare function buffer_read(buffer: i32, ptr: usize, cap: i32, offset: i64): i32;
// @ts-ignore: decorator
@external("mentat", "close")
export declare function close(handle: i32): i32;
// @ts-ignore: decorator
@external("mentat", "request_capability")
export declare function request_capability(ptr: usize, len: i32): i32;
// @ts-ignore: decorator
@external("mentat", "invoke_capability")
export declare function invoke_capability(handle: i32, op: usize, op_len: i32, args: usize, args_len: i32): i32;
// @ts-ignore: decorator
@external("mentat", "download_media")
export declare function download_media(reference: usize, reference_len: i32): i32;
// @ts-ignore: decorator
@external("mentat", "upload_media")
export declare function upload_media(kind: usize, kind_len: i32, ptr: usize, len: i32): i32;
// @ts-ignore: decorator
@external("mentat", "start_stream")
export declare function start_stream(id: usize, id_len: i32): i32;
// @ts-ignore: decorator
@external("mentat", "write_stream")
export declare function write_stream(handle: i32, ptr: usize, len: i32): i32;
// @ts-ignore: decorator
@external("mentat", "end_stream")
export declare function end_stream(handle: i32): i32;

/** The largest transfer in one call of the interface, bytes. */
export const MAX_TRANSFER: i32 = 8 << 20;

/** The address of a buffer's bytes. */
// @ts-ignore: decorator
@inline
export function at(bytes: ArrayBuffer): usize {
  return changetype<usize>(bytes);
}

/** Text as the interface wants it. */
// @ts-ignore: decorator
@inline
export function utf8(text: string): ArrayBuffer {
  return String.UTF8.encode(text);
}
