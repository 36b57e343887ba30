// RFC 6962 hashing and inclusion proofs (RFC 9162 section 2.1.3.2).

import { sha256 } from "./bytes.js";

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);

/** Hash of a leaf's bytes. */
export function leafHash(bytes) {
  return sha256(LEAF, bytes);
}

/** The root that an inclusion proof leads to. Throws unless the proof has exactly the length that index and size demand. */
export async function rootOfProof(leaf, index, size, path) {
  if (index < 0n || index >= size) throw new Error("the index is outside the tree");
  let position = index;
  let last = size - 1n;
  let hash = leaf;
  for (const sibling of path) {
    if (sibling.length !== 32) throw new Error("a hash in the proof has not 32 bytes");
    if (last === 0n) throw new Error("the proof is too long");
    if ((position & 1n) === 1n || position === last) {
      hash = await sha256(NODE, sibling, hash);
      while ((position & 1n) === 0n && position !== 0n) {
        position >>= 1n;
        last >>= 1n;
      }
    } else {
      hash = await sha256(NODE, hash, sibling);
    }
    position >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) throw new Error("the proof is too short");
  return hash;
}
