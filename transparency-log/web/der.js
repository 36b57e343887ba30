// DER (X.690), as far as certificates and signatures need it. Nothing is read past the end of what was given.

import { Cursor, toHex, utf8 } from "./bytes.js";

const DEEPEST = 32;

/** The only element of `bytes`. */
export function element(bytes) {
  const cursor = new Cursor(bytes);
  const only = next(cursor);
  if (!cursor.done) throw new Error("something follows the element");
  return only;
}

/** The elements inside a constructed one. */
export function children(parent, depth = 0) {
  if (depth > DEEPEST) throw new Error("nested too deeply");
  const cursor = new Cursor(parent.content);
  const found = [];
  while (!cursor.done) found.push(next(cursor));
  return found;
}

function next(cursor) {
  const start = cursor.at;
  const tag = cursor.number(1);
  if ((tag & 0x1f) === 0x1f) throw new Error("a tag of several bytes");
  let length = cursor.number(1);
  if (length >= 0x80) {
    const count = length & 0x7f;
    if (count === 0 || count > 4) throw new Error("a length that DER does not allow");
    length = cursor.number(count);
  }
  const content = cursor.take(length);
  return { tag, content, whole: cursor.bytes.subarray(start, cursor.at) };
}

/** Dotted decimal of an object identifier. */
export function oid(node) {
  const arcs = [];
  let arc = 0n;
  for (const byte of node.content) {
    arc = (arc << 7n) | BigInt(byte & 0x7f);
    if (byte < 0x80) {
      arcs.push(arc);
      arc = 0n;
    }
    if (arcs.length > 40) throw new Error("an object identifier that is too long");
  }
  const first = arcs.shift() ?? 0n;
  const top = first < 80n ? first / 40n : 2n;
  return [top, first - top * 40n, ...arcs].join(".");
}

/** Text of a string type; bytes that are no text are shown as hexadecimal. */
export function string(node) {
  try {
    if (node.tag === 0x1e) return new TextDecoder("utf-16be", { fatal: true }).decode(node.content);
    return utf8(node.content);
  } catch {
    return `#${toHex(node.content)}`;
  }
}

/** A UTCTime or GeneralizedTime as `2030-01-01 00:00:00 UTC`. */
export function time(node) {
  const text = string(node);
  const parts = /^((?:\d\d)?\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text);
  if (!parts) return text;
  const [, short, month, day, hour, minute, second] = parts;
  const year = short.length === 4 ? short : `${Number(short) >= 50 ? 19 : 20}${short}`;
  return `${year}-${month}-${day} ${hour}:${minute}:${second} UTC`;
}

/** An ECDSA signature (two INTEGERs) as the two numbers at fixed length, which WebCrypto wants. */
export function rawSignature(sequence, length) {
  const raw = new Uint8Array(2 * length);
  const numbers = children(sequence);
  if (sequence.tag !== 0x30 || numbers.length !== 2) throw new Error("not an ECDSA signature");
  numbers.forEach((number, at) => {
    const digits = number.content[0] === 0 ? number.content.subarray(1) : number.content;
    if (number.tag !== 0x02 || digits.length > length) throw new Error("not an ECDSA signature");
    raw.set(digits, (at + 1) * length - digits.length);
  });
  return raw;
}
