// The digest by which the signing log knows a file.

import { concat, encode, fromBase64, sha256, toHex, utf8 } from "./bytes.js";

const LARGEST = 256 << 20;

/**
 * For a Sigstore bundle or a DSSE envelope, the digest of the envelope's pre-authentication encoding, which is what was
 * signed; for any other file SHA-256 of its bytes. Hexadecimal.
 */
export async function digestOf(file) {
  if (file.size > LARGEST) throw new Error("the file is larger than 256 MiB");
  const bytes = new Uint8Array(await file.arrayBuffer());
  const envelope = envelopeIn(bytes);
  return toHex(await sha256(envelope ? preAuthentication(envelope) : bytes));
}

function envelopeIn(bytes) {
  let document;
  try {
    document = JSON.parse(utf8(bytes));
  } catch {
    return null;
  }
  const envelope = document?.dsseEnvelope ?? document;
  return typeof envelope?.payload === "string" && typeof envelope.payloadType === "string" ? envelope : null;
}

/** DSSE version 1: `DSSEv1 SP length SP type SP length SP payload`. */
function preAuthentication(envelope) {
  const payload = fromBase64(envelope.payload);
  const type = encode(envelope.payloadType);
  return concat(encode(`DSSEv1 ${type.length} `), type, encode(` ${payload.length} `), payload);
}
