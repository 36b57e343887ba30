// What a log's entry holds, and the bytes that the tree hashes of it.

import { concat, Cursor, fromBase64, toHex, utf8 } from "./bytes.js";
import { decodeCertificate } from "./certificate.js";

/**
 * Takes an entry apart: `leaf` (the hashed bytes), `title`, `facts` (pairs of label and text), `certificate` (facts of
 * the one inside, if any), `terms` (what it can be found by), `text` (for reading).
 */
export async function decodeEntry(kind, body) {
  if (kind === "issuance") return issuance(body);
  try {
    if (kind === "signing") return await signing(body);
    if (kind === "event") return event(body);
  } catch (error) {
    return { ...plain(body), facts: [["Reading it failed", error.message]] };
  }
  return plain(body);
}

function plain(body) {
  return { leaf: body, title: `${body.length} bytes`, facts: [["Size", `${body.length} bytes`]], terms: noTerms(), text: readable(body) };
}

function noTerms() {
  return { digest: [], identity: [], publisher: [], serial: [], type: [] };
}

async function signing(body) {
  const record = JSON.parse(utf8(body)).spec.hashedRekordV002;
  const digest = toHex(fromBase64(record.data.digest));
  const { verifier } = record.signature;
  const facts = [
    ["What", "a signature"],
    ["Digest signed", `${record.data.algorithm} ${digest}`],
    ["Key type", verifier.keyDetails],
    ["Signature", record.signature.content],
  ];
  const terms = { ...noTerms(), digest: [digest] };
  let certificate;
  if (verifier.x509Certificate) {
    certificate = await certificateOf(fromBase64(verifier.x509Certificate.rawBytes), terms);
  } else {
    facts.push(["Key", verifier.publicKey.rawBytes]);
  }
  const who = terms.identity[0] ?? (certificate ? "a certificate without a name" : "a bare key");
  return { leaf: body, title: `Signed by ${who}`, facts, certificate, terms, text: JSON.stringify(JSON.parse(utf8(body)), null, 2) };
}

/** A record of a static-ct-api data tile; the tree hashes the RFC 6962 MerkleTreeLeaf in it. */
async function issuance(body) {
  const cursor = new Cursor(body);
  cursor.take(2); // a time beyond 48 bits of milliseconds is no date
  const time = cursor.number(6);
  const precertificate = cursor.number(2) === 1;
  if (precertificate) cursor.take(32);
  const signed = cursor.vector(3);
  cursor.vector(2);
  const leaf = concat(Uint8Array.of(0, 0), body.subarray(0, cursor.at));
  const der = precertificate ? cursor.vector(3) : signed;
  const chain = cursor.vector(2);
  if (!cursor.done) throw new Error("something follows the entry");
  const terms = noTerms();
  const certificate = await certificateOf(der, terms);
  terms.digest.push(...(certificate.fingerprint ? [certificate.fingerprint] : []));
  const issuers = [];
  for (let at = 0; at < chain.length; at += 32) issuers.push(toHex(chain.subarray(at, at + 32)));
  const facts = [
    ["What", precertificate ? "a precertificate: the promise to issue a certificate" : "an issued certificate"],
    ["Logged at", Number.isNaN(new Date(time).valueOf()) ? "no date" : new Date(time).toISOString()],
    ["Issuers (SHA-256)", issuers.join("\n")],
  ];
  const title = `${precertificate ? "Precertificate" : "Certificate"} for ${terms.identity[0] ?? "no name"}`;
  return { leaf, title, facts, certificate, terms, text: toHex(der) };
}

function event(body) {
  const envelope = JSON.parse(utf8(body));
  const statement = JSON.parse(utf8(fromBase64(envelope.payload)));
  const predicate = statement.predicate ?? {};
  const subjects = statement.subject.map((subject) => [subject.name, ...Object.entries(subject.digest).map(([name, value]) => `${name} ${value}`)].filter(Boolean).join("\n"));
  const terms = noTerms();
  terms.type.push(statement.predicateType);
  for (const subject of statement.subject) terms.digest.push(...Object.values(subject.digest));
  for (const member of ["identity", "publisher", "serial"]) if (typeof predicate[member] === "string") terms[member].push(predicate[member]);
  const facts = [
    ["What", statement.predicateType],
    ...subjects.map((subject) => ["About", subject]),
    ...Object.entries(predicate).slice(0, 32).map(([name, value]) => [name, shown(name, value)]),
  ];
  const short = String(statement.predicateType).split("/").slice(-2).join(" ");
  return { leaf: body, title: `Event: ${short}`, facts, terms, event: { envelope, statement }, text: JSON.stringify(statement, null, 2) };
}

/** A member of a predicate as text; times in seconds also as dates. */
function shown(name, value) {
  if (typeof value === "string") return value;
  const date = new Date(value * 1000);
  if (name.endsWith("At") && Number.isInteger(value) && !Number.isNaN(date.valueOf())) return `${date.toISOString()} (${value})`;
  return JSON.stringify(value);
}

async function certificateOf(der, terms) {
  try {
    const certificate = await decodeCertificate(der);
    terms.identity.push(...certificate.identities);
    terms.publisher.push(...certificate.publishers);
    terms.serial.push(certificate.serial);
    return certificate;
  } catch (error) {
    return { facts: [["Reading it failed", error.message]] };
  }
}

function readable(body) {
  try {
    return utf8(body);
  } catch {
    return toHex(body);
  }
}
