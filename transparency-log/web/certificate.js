// What an X.509 certificate says (RFC 5280), for reading. Nothing here decides anything.

import { sha256, toHex } from "./bytes.js";
import { children, element, oid, string, time } from "./der.js";

const NAMES = {
  "2.5.4.3": "CN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU",
  "2.5.4.97": "organizationIdentifier", "1.2.840.113549.1.9.1": "emailAddress",
};
const KEYS = { "1.2.840.10045.2.1": "EC", "1.2.840.113549.1.1.1": "RSA", "1.3.101.112": "Ed25519", "2.16.840.1.101.3.4.3.17": "ML-DSA-44" };
const CURVES = { "1.2.840.10045.3.1.7": "P-256", "1.3.132.0.34": "P-384", "1.3.132.0.35": "P-521" };
const PURPOSES = {
  "1.3.6.1.5.5.7.3.3": "code signing", "1.3.6.1.5.5.7.3.8": "time stamping", "1.3.6.1.5.5.7.3.9": "OCSP signing",
  "1.3.6.1.5.5.7.3.1": "TLS server", "1.3.6.1.5.5.7.3.2": "TLS client", "1.3.6.1.5.5.7.3.4": "e-mail protection", "2.5.29.37.0": "any",
};
const USAGES = ["digital signature", "content commitment", "key encipherment", "data encipherment", "key agreement", "certificate signing", "CRL signing", "encipher only", "decipher only"];

/** Facts of a certificate as pairs of label and text, and what it can be found by. */
export async function decodeCertificate(der) {
  const [tbs] = children(element(der));
  const fields = children(tbs);
  let at = fields[0].tag === 0xa0 ? 1 : 0;
  const serial = fields[at++];
  at += 1; // the signature algorithm, repeated outside
  const [issuer, validity, subject, spki] = fields.slice(at, at + 4);
  const [from, to] = children(validity);
  const wrapper = fields.slice(at + 4).find((field) => field.tag === 0xa3);
  const extensions = new Map();
  if (wrapper) {
    for (const extension of children(children(wrapper)[0])) {
      const parts = children(extension);
      extensions.set(oid(parts[0]), parts.at(-1).content);
    }
  }
  const names = alternativeNames(extensions.get("2.5.29.17"));
  const facts = [["Subject", distinguishedName(subject) || "(empty)"]];
  for (const [kind, name] of names) facts.push([kind, name]);
  const oidcIssuer = extensions.get("1.3.6.1.4.1.57264.1.8");
  if (oidcIssuer) facts.push(["Vouched for by", string(element(oidcIssuer))]);
  const serialBytes = serial.content[0] === 0 && serial.content.length > 1 ? serial.content.subarray(1) : serial.content;
  facts.push(
    ["Issuer", distinguishedName(issuer)],
    ["Serial number", toHex(serialBytes)],
    ["Valid from", time(from)],
    ["Valid to", time(to)],
    ["Key", keyName(spki)],
  );
  if (extensions.has("2.5.29.15")) facts.push(["Key usage", usages(element(extensions.get("2.5.29.15")).content)]);
  if (extensions.has("2.5.29.37")) {
    const purposes = children(element(extensions.get("2.5.29.37"))).map(oid);
    facts.push(["Purpose", purposes.map((id) => PURPOSES[id] ?? id).join(", ")]);
  }
  if (extensions.has("2.5.29.19")) {
    const [ca] = children(element(extensions.get("2.5.29.19")));
    if (ca?.tag === 0x01 && ca.content[0] !== 0) facts.push(["Authority", "may issue certificates"]);
  }
  if (extensions.has("1.3.6.1.4.1.11129.2.4.3")) facts.push(["Form", "precertificate: issued under this serial, cannot be used itself"]);
  const fingerprint = toHex(await sha256(der));
  facts.push(["SHA-256", fingerprint]);
  return { facts, fingerprint, serial: toHex(serialBytes), identities: names.map(([, name]) => name), publishers: organisations(subject) };
}

function attributes(name) {
  return children(name).flatMap((set) => children(set)).map((pair) => {
    const [kind, value] = children(pair);
    return [oid(kind), string(value)];
  });
}

function distinguishedName(name) {
  return attributes(name).reverse().map(([kind, value]) => `${NAMES[kind] ?? kind}=${value}`).join(", ");
}

function organisations(name) {
  return attributes(name).filter(([kind]) => kind === "2.5.4.10").map(([, value]) => value);
}

function alternativeNames(extension) {
  if (!extension) return [];
  const kinds = { 0x81: "E-mail", 0x82: "DNS name", 0x86: "URI" };
  return children(element(extension)).map((name) => [kinds[name.tag] ?? "Other name", kinds[name.tag] ? string(name) : `#${toHex(name.content)}`]);
}

function keyName(spki) {
  const [algorithm, bits] = children(spki);
  const [id, parameters] = children(algorithm);
  const name = KEYS[oid(id)] ?? oid(id);
  if (name === "EC" && parameters?.tag === 0x06) return `EC ${CURVES[oid(parameters)] ?? oid(parameters)}`;
  if (name !== "RSA") return name;
  const [modulus] = children(element(bits.content.subarray(1)));
  return `RSA ${(modulus.content.length - (modulus.content[0] === 0 ? 1 : 0)) * 8}`;
}

function usages(bits) {
  return USAGES.filter((_, index) => (bits[1 + (index >> 3)] ?? 0) & (0x80 >> (index & 7))).join(", ");
}
