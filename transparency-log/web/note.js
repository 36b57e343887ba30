// Signed notes, checkpoints and verifier keys (C2SP signed-note, tlog-checkpoint; type 0x05 of static-ct-api).

import { bigEndian, concat, decimal, encode, equal, fromBase64, fromHex, sha256, toHex } from "./bytes.js";
import { element, rawSignature } from "./der.js";

const ED25519 = 0x01;
const TREE_HEAD = 0x05;
const ML_DSA_44 = 0x06;
const MOST_LINES = 64;

/** A verifier key from its text `name+hash+base64`; the hash must be that of name and key. */
export async function verifierKey(text, spki) {
  const parts = /^([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text);
  if (!parts) throw new Error("not a verifier key");
  const [, name, id, encoded] = parts;
  const bytes = fromBase64(encoded);
  const computed = (await sha256(encode(name), Uint8Array.of(0x0a), bytes)).subarray(0, 4);
  if (!equal(computed, fromHex(id))) throw new Error(`the verifier key of ${name} does not have the hash that it names`);
  const key = { name, id, type: bytes[0], bytes: bytes.subarray(1) };
  if (key.type === TREE_HEAD) {
    // Its text holds only the hash of the key.
    if (!spki || !equal(await sha256(spki), key.bytes)) throw new Error(`the key of ${name} is not the one that it names`);
    key.spki = spki;
  }
  return key;
}

/** Takes a signed note apart: text, and signature lines. */
export function parseNote(note) {
  const split = note.lastIndexOf("\n\n");
  if (split < 0 || !note.endsWith("\n") || /[\u0000-\u0009\u000b-\u001f]/.test(note)) throw new Error("not a signed note");
  const lines = note.slice(split + 2, -1).split("\n");
  if (lines.length > MOST_LINES) throw new Error("too many signature lines");
  const signatures = lines.map((line) => {
    const parts = /^\u2014 ([^\s+]+) (\S+)$/.exec(line);
    if (!parts) throw new Error("a line below the checkpoint is no signature");
    const bytes = fromBase64(parts[2]);
    if (bytes.length < 5) throw new Error("a signature line is too short");
    return { name: parts[1], id: toHex(bytes.subarray(0, 4)), signature: bytes.subarray(4) };
  });
  return { text: note.slice(0, split + 1), signatures };
}

/** Reads a checkpoint: origin, size, root, and the signatures over it. */
export function parseCheckpoint(envelope) {
  const { text, signatures } = parseNote(envelope);
  const [origin, size, root, ...rest] = text.split("\n");
  if (!origin || rest.at(-1) !== "" || rest.slice(0, -1).some((line) => line === "")) throw new Error("not a checkpoint");
  const hash = fromBase64(root ?? "");
  if (hash.length !== 32) throw new Error("the checkpoint's root has not 32 bytes");
  return { text, origin, size: decimal(size ?? ""), root: hash, signatures };
}

/**
 * Checks a checkpoint's signatures with the log's keys. Result: `state` is `good` (at least one line of a known key
 * verifies, none fails), `bad`, or `unsure` (this browser cannot check any of them), with a line of text for each.
 */
export async function checkSignatures(checkpoint, keys) {
  const own = [];
  for (const line of checkpoint.signatures) {
    const key = keys.find((known) => known.name === line.name && known.id === line.id);
    if (key) own.push(await checkLine(checkpoint, key, line.signature));
  }
  const others = checkpoint.signatures.length - own.length;
  const rest = others === 0 ? [] : [{ state: "unsure", text: `Signature lines of other keys, such as witnesses': ${others}, not checked here` }];
  if (own.length === 0) return { state: "bad", lines: [{ state: "bad", text: "No signature is by a key of this log" }, ...rest] };
  const has = (state) => own.some((line) => line.state === state);
  return { state: has("bad") ? "bad" : has("good") ? "good" : "unsure", lines: [...own, ...rest] };
}

async function checkLine(checkpoint, key, signature) {
  const name = { [ED25519]: "Ed25519", [TREE_HEAD]: "ECDSA P-256", [ML_DSA_44]: "ML-DSA-44" }[key.type] ?? "unknown type";
  const said = (state, text) => ({ state, text: `${name} signature of ${key.name} (key ${key.id}): ${text}` });
  if (key.type !== ED25519 && key.type !== TREE_HEAD) return said("unsure", "not checked, browsers cannot verify this type");
  let verified;
  try {
    verified = await (key.type === ED25519 ? ed25519(checkpoint, key, signature) : treeHead(checkpoint, key, signature));
  } catch (error) {
    if (error instanceof Unsupported) return said("unsure", "the signature was not checked in the page: this browser has no Ed25519");
    return said("bad", `does not verify (${error.message})`);
  }
  return verified ? said("good", "verified") : said("bad", "does not verify");
}

class Unsupported extends Error {}

async function ed25519(checkpoint, key, signature) {
  if (key.bytes.length !== 32 || signature.length !== 64) throw new Error("of a wrong length");
  let imported;
  try {
    imported = await crypto.subtle.importKey("raw", key.bytes, { name: "Ed25519" }, false, ["verify"]);
  } catch (error) {
    if (error.name === "NotSupportedError") throw new Unsupported();
    throw error;
  }
  return crypto.subtle.verify({ name: "Ed25519" }, imported, signature, encode(checkpoint.text));
}

/** RFC 6962 section 3.5: the signature is over version, type, time, size and root. */
async function treeHead(checkpoint, key, body) {
  if (body.length < 12) throw new Error("of a wrong length");
  const time = body.subarray(0, 8);
  const length = body[10] * 256 + body[11];
  if (body[8] !== 4 || body[9] !== 3 || length !== body.length - 12) throw new Error("of another algorithm");
  const imported = await crypto.subtle.importKey("spki", key.spki, { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]);
  const signed = concat(Uint8Array.of(0, 1), time, bigEndian(checkpoint.size, 8), checkpoint.root);
  const raw = rawSignature(element(body.subarray(12)), 32);
  return crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, imported, raw, signed);
}
