// Events: statements in DSSE envelopes, each type believed from its own keys only.

import { concat, encode, fromBase64, toHex } from "./bytes.js";
import { element, rawSignature } from "./der.js";

/** What a SubjectPublicKeyInfo begins with, in hexadecimal, and how its key signs. */
const KEYS = [
  { begins: "3059301306072a8648ce3d020106082a8648ce3d030107", name: { name: "ECDSA", namedCurve: "P-256" }, by: { name: "ECDSA", hash: "SHA-256" }, length: 32 },
  { begins: "3076301006072a8648ce3d020106052b81040022", name: { name: "ECDSA", namedCurve: "P-384" }, by: { name: "ECDSA", hash: "SHA-384" }, length: 48 },
  { begins: "302a300506032b6570", name: { name: "Ed25519" }, by: { name: "Ed25519" } },
];

/**
 * Checks an event's signature with the rules of its log: `good`, `bad`, or `unsure` where nobody is named who may say such a
 * thing, or this browser cannot check the kind of key.
 */
export async function checkEvent({ envelope, statement }, rules) {
  if (!rules || rules.length === 0) return { state: "unsure", text: "Event: not checked, this server does not say whose events are believed" };
  const type = encode(envelope.payloadType);
  const payload = fromBase64(envelope.payload);
  const message = concat(encode(`DSSEv1 ${type.length} `), type, encode(` ${payload.length} `), payload);
  if (envelope.payloadType !== "application/vnd.in-toto+json" || envelope.signatures.length !== 1) return { state: "bad", text: "Event: not a statement with one signature" };
  const signature = fromBase64(envelope.signatures[0].sig);
  const issuer = statement.predicate?.issuer;
  const ofType = rules.filter((rule) => rule.predicateType === statement.predicateType);
  if (ofType.length === 0) return { state: "bad", text: "Event: nobody is known who may report an event of this type" };
  let unknown = 0;
  for (const rule of ofType.filter((known) => known.issuer === undefined || known.issuer === issuer)) {
    for (const spki of rule.keys.map((text) => fromBase64(text))) {
      const verified = await verifies(spki, message, signature);
      if (verified) return { state: "good", text: `Event: signed by the key ${await fingerprint(spki)} that is believed for this type` };
      if (verified === undefined) unknown += 1;
    }
  }
  if (unknown > 0) return { state: "unsure", text: "Event: not checked, this browser cannot verify this kind of key" };
  return { state: "bad", text: "Event: not signed by a key that is believed for its type and issuer: a forgery" };
}

/** Whether the signature verifies; `undefined` for a kind of key that this browser does not know. */
async function verifies(spki, message, signature) {
  const kind = KEYS.find((known) => toHex(spki).startsWith(known.begins));
  if (!kind) return undefined;
  let key;
  try {
    key = await crypto.subtle.importKey("spki", spki, kind.name, false, ["verify"]);
  } catch (error) {
    if (error.name === "NotSupportedError") return undefined;
    return false;
  }
  try {
    const raw = kind.length ? rawSignature(element(signature), kind.length) : signature;
    return await crypto.subtle.verify(kind.by, key, raw, message);
  } catch {
    return false;
  }
}

async function fingerprint(spki) {
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", spki))).slice(0, 16);
}
