// Bytes and their texts. Everything is strict: what is not canonical is refused.

const HEX = /^(?:[0-9a-f]{2})*$/;
const DECIMAL = /^(?:0|[1-9][0-9]{0,18})$/;
const LARGEST = 2n ** 63n - 1n;

/** Bytes of base64 in the standard alphabet, with padding and nothing else. */
export function fromBase64(text) {
  let binary;
  try {
    binary = atob(text);
  } catch {
    throw new Error("not base64");
  }
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  if (toBase64(bytes) !== text) throw new Error("base64 that is not canonical");
  return bytes;
}

/** Base64 in the standard alphabet, with padding. */
export function toBase64(bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** Bytes of lower-case hexadecimal. */
export function fromHex(text) {
  if (!HEX.test(text)) throw new Error("not hexadecimal");
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** Lower-case hexadecimal. */
export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A size or index: a decimal number below 2^63, as BigInt. */
export function decimal(text) {
  const value = DECIMAL.test(text) ? BigInt(text) : -1n;
  if (value < 0n || value > LARGEST) throw new Error("not a decimal number");
  return value;
}

/** Bytes as UTF-8 text; throws on anything else. */
export function utf8(bytes) {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
}

/** UTF-8 bytes of a text. */
export function encode(text) {
  return new TextEncoder().encode(text);
}

/** Several byte arrays as one. */
export function concat(...parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** Whether two byte arrays are equal. */
export function equal(one, other) {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

/** An unsigned number as big-endian bytes. */
export function bigEndian(value, length) {
  const bytes = new Uint8Array(length);
  let rest = BigInt(value);
  for (let at = length - 1; at >= 0; at -= 1) {
    bytes[at] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  if (rest !== 0n) throw new Error("a number that does not fit");
  return bytes;
}

/** SHA-256 of the parts, one after the other. */
export async function sha256(...parts) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", concat(...parts)));
}

/** Reads from the front of bytes and never past their end. */
export class Cursor {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  /** The next `length` bytes. */
  take(length) {
    if (length > this.bytes.length - this.at) throw new Error("ends too early");
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  /** A big-endian number of up to six bytes. */
  number(length) {
    return this.take(length).reduce((value, byte) => value * 256 + byte, 0);
  }

  /** A vector behind its length. */
  vector(lengthBytes) {
    return this.take(this.number(lengthBytes));
  }

  get done() {
    return this.at === this.bytes.length;
  }
}
