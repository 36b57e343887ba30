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

/** Text as the interface wants it: half of a character, which a text of this language can hold, becomes the replacement character. */
export function utf8(text: string): ArrayBuffer {
  return String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE);
}

/**
 * The text of bytes; null when they are no UTF-8 (RFC 3629). The standard library decodes whatever comes, over-long forms
 * included, and then this agent would read another text than everything that looked at the bytes before it.
 */
export function text(bytes: ArrayBuffer): string | null {
  return isUtf8(bytes) ? String.UTF8.decode(bytes) : null;
}

function isUtf8(bytes: ArrayBuffer): bool {
  const from = at(bytes);
  const length = bytes.byteLength;
  for (let place = 0; place < length;) {
    const first = load<u8>(from + place++);
    if (first < 0x80) continue;
    let more = 1;
    // The range of the second byte keeps out over-long forms, halves of pairs, and what is past the last character.
    let low: u8 = 0x80;
    let high: u8 = 0xbf;
    if (first >= 0xc2 && first <= 0xdf) {
      more = 1;
    } else if (first >= 0xe0 && first <= 0xef) {
      more = 2;
      if (first == 0xe0) low = 0xa0;
      if (first == 0xed) high = 0x9f;
    } else if (first >= 0xf0 && first <= 0xf4) {
      more = 3;
      if (first == 0xf0) low = 0x90;
      if (first == 0xf4) high = 0x8f;
    } else {
      return false;
    }
    if (place + more > length) return false;
    const second = load<u8>(from + place);
    if (second < low || second > high) return false;
    for (let next = 1; next < more; next++) {
      if ((load<u8>(from + place + next) & 0xc0) != 0x80) return false;
    }
    place += more;
  }
  return true;
}
