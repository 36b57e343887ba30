// The page: search, decode, verify, show. All text of others goes through textContent and nothing else.

import { digestOf } from "./artifact.js";
import { decimal, equal, fromBase64, toBase64, toHex } from "./bytes.js";
import { decodeEntry } from "./entry.js";
import { checkEvent } from "./event.js";
import { leafHash, rootOfProof } from "./merkle.js";
import { checkSignatures, parseCheckpoint, verifierKey } from "./note.js";

const HINTS = {
  digest: "Hexadecimal. Signing log: what was signed, for an envelope its pre-authentication encoding. Issuance log: SHA-256 of a certificate. Event log: of a statement's subject.",
  identity: "The e-mail address or URI in the certificate, exactly.",
  publisher: "The organisation in the certificate's subject, exactly.",
  serial: "The certificate's serial number in hexadecimal.",
  type: "The predicate type of an event, such as https://mentat.internal/revocation/v1.",
  index: "The entry's place in the log, from 0.",
};

const byId = (id) => document.getElementById(id);
const [form, logs, by, value, hint, keys, state, status, results, more] =
  ["search", "log", "by", "value", "hint", "keys", "state", "status", "results", "more"].map(byId);
let known = [];
let turn = 0;

/** An element with text or other elements inside; never markup. */
function node(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, text] of Object.entries(attributes)) made.setAttribute(name, text);
  made.append(...inside.map((part) => (part instanceof Node ? part : String(part))));
  return made;
}

function list(facts) {
  return node("dl", {}, ...facts.flatMap(([label, text]) => [node("dt", {}, label), node("dd", {}, text)]));
}

function steps(lines) {
  const word = { good: "verified", bad: "failed", unsure: "not checked" };
  return node("ul", { class: "steps" }, ...lines.map(({ state: how, text }) => node("li", { class: how }, node("span", { class: "unseen" }, `${word[how]}: `), text)));
}

function say(text) {
  status.textContent = text;
}

async function ask(url) {
  const response = await fetch(url, { headers: { accept: "application/json" }, cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" });
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(`the log answered status ${response.status} and no JSON`);
  }
  if (!response.ok) throw new Error(answer.detail ?? answer.title ?? `the log answered status ${response.status}`);
  return answer;
}

/** The path of a log on this server: requests never leave it, whatever address the list names. */
function base(log) {
  return new URL(log.url, location.href).pathname.replace(/\/$/, "");
}

async function trustedKeys(log) {
  const spki = fromBase64(log.public_key);
  const given = keys.value.split("\n").map((line) => line.trim()).filter(Boolean);
  const ofThisLog = given.filter((text) => text.startsWith(`${log.origin}+`));
  const texts = given.length > 0 ? ofThisLog : log.vkeys;
  return { own: given.length > 0, keys: await Promise.all(texts.map((text) => verifierKey(text, spki))) };
}

/** Everything that can be checked of one entry: an array of steps, and the verdict. */
async function verify(log, trusted, entry, decoded, wanted) {
  const lines = [];
  let worst = "good";
  const add = (how, text) => {
    lines.push({ state: how, text });
    if (how === "bad" || (how === "unsure" && worst === "good")) worst = how;
  };
  try {
    const proof = entry.inclusionProof;
    const checkpoint = parseCheckpoint(proof.checkpoint.envelope);
    if (checkpoint.origin !== log.origin) throw new Error(`the checkpoint is of another log, ${checkpoint.origin}`);
    const index = decimal(String(entry.logIndex));
    const hash = await leafHash(decoded.leaf);
    const path = (proof.hashes ?? []).map((text) => fromBase64(text));
    const root = await rootOfProof(hash, index, checkpoint.size, path);
    if (!equal(root, checkpoint.root)) throw new Error("the inclusion proof leads to another root than the checkpoint's");
    add("good", `Inclusion: entry ${index} with leaf hash ${toHex(hash)} is in the tree of ${checkpoint.size} entries with root ${toBase64(checkpoint.root)} (proof of ${path.length} ${path.length === 1 ? "hash" : "hashes"}, RFC 6962)`);
    const signed = await checkSignatures(checkpoint, trusted.keys);
    if (signed.state === "bad") worst = "bad";
    if (signed.state === "unsure" && worst === "good") worst = "unsure";
    lines.push(...signed.lines);
    if (decoded.event) {
      const said = await checkEvent(decoded.event, log.events);
      add(said.state, said.text);
    }
    if (trusted.own) lines.push({ state: "good", text: "With the keys that you gave" });
    else lines.push({ state: "unsure", text: "With keys from this server: compare them with your trust files" });
  } catch (error) {
    add("bad", `Refused: ${error.message}`);
  }
  if (wanted && !holds(decoded, wanted)) add("bad", `The entry does not hold the ${wanted.by} that was searched for`);
  return { verdict: worst, lines };
}

function holds(decoded, { by: kind, value: text }) {
  if (kind === "index") return true;
  const plain = kind === "digest" || kind === "serial" ? text.replace(/^sha256:/, "").replaceAll(":", "").toLowerCase().replace(/^0+/, "") : text;
  return decoded.terms[kind].some((term) => (kind === "digest" || kind === "serial" ? term.toLowerCase().replace(/^0+/, "") : term) === plain);
}

const VERDICTS = { good: "Proof verified", bad: "NOT verified", unsure: "Proof verified, signature not checked" };

async function show(log, trusted, entry, wanted) {
  const body = fromBase64(entry.canonicalizedBody);
  let decoded;
  try {
    decoded = await decodeEntry(log.kind, body);
  } catch (error) {
    decoded = { leaf: body, title: "An entry that cannot be read", facts: [["Reading it failed", error.message]], terms: { digest: [], identity: [], publisher: [], serial: [], type: [] }, text: "" };
  }
  const { verdict, lines } = await verify(log, trusted, entry, decoded, wanted);
  const article = node("article", { "data-index": entry.logIndex, "data-verdict": verdict });
  const link = node("a", { href: `#${fragment(log.name, "index", entry.logIndex)}` }, `Entry ${entry.logIndex}`);
  article.append(node("header", {}, node("h3", {}, link, " · ", decoded.title), node("span", { class: `badge ${verdict}` }, VERDICTS[verdict])));
  article.append(list(decoded.facts));
  if (decoded.certificate) article.append(node("h3", {}, "Certificate"), list(decoded.certificate.facts));
  article.append(node("h3", {}, "Proof"), steps(lines));
  article.append(node("details", {}, node("summary", {}, "The entry itself"), node("pre", { tabindex: "0" }, decoded.text)));
  results.append(article);
  return verdict;
}

async function showState(log) {
  const trusted = await trustedKeys(log);
  const response = await fetch(`${base(log)}/checkpoint`, { cache: "no-store", redirect: "error" });
  if (!response.ok) throw new Error(`the log has no checkpoint (status ${response.status})`);
  const checkpoint = parseCheckpoint(await response.text());
  const signed = checkpoint.origin === log.origin ? await checkSignatures(checkpoint, trusted.keys) : { state: "bad", lines: [{ state: "bad", text: "the checkpoint is of another log" }] };
  const word = { good: "Checkpoint verified", bad: "Checkpoint NOT verified", unsure: "Checkpoint's signature not checked" }[signed.state];
  byId("state-title").hidden = false;
  state.replaceChildren(node("div", { class: "card", "data-verdict": signed.state },
    node("span", { class: `badge ${signed.state}` }, word),
    list([["Origin", checkpoint.origin], ["Entries", checkpoint.size.toString()], ["Root", toBase64(checkpoint.root)]]),
    node("details", {}, node("summary", {}, "Signatures and keys"), steps(signed.lines), node("pre", { tabindex: "0" }, log.vkeys.join("\n")))));
}

function fragment(...parts) {
  return parts.map((part) => encodeURIComponent(part)).join("/");
}

async function search(from = 0) {
  const mine = ++turn;
  const log = known[logs.selectedIndex];
  const wanted = { by: by.value, value: value.value.trim() };
  if (!log || !wanted.value) return;
  if (from === 0) results.replaceChildren();
  more.hidden = true;
  byId("results-title").hidden = false;
  say("Searching …");
  try {
    const trusted = await trustedKeys(log);
    let answer;
    if (wanted.by === "index") {
      const entry = await ask(`${base(log)}/api/v1/entry?index=${decimal(wanted.value)}`);
      if (String(entry.logIndex) !== wanted.value) throw new Error("the log answered with another entry");
      answer = { entries: [entry], next: null };
    } else {
      answer = await ask(`${base(log)}/api/v1/lookup?${wanted.by}=${encodeURIComponent(wanted.value)}&from=${from}`);
    }
    const verdicts = [];
    for (const entry of answer.entries) {
      if (mine !== turn) return;
      verdicts.push(await show(log, trusted, entry, wanted));
    }
    const failed = verdicts.filter((verdict) => verdict === "bad").length;
    const count = results.childElementCount;
    const covered = answer.covered_size === undefined ? "" : `, in the first ${answer.covered_size} of ${answer.tree_size} entries`;
    say(`${count === 0 ? "Nothing found" : `${count} ${count === 1 ? "entry" : "entries"}`}${covered}.${failed > 0 ? ` ${failed} did not verify: do not rely on them.` : ""}`);
    if (Number.isSafeInteger(answer.next)) {
      more.hidden = false;
      more.onclick = () => search(answer.next);
    }
  } catch (error) {
    if (mine === turn) say(`Not found: ${error.message}`);
  }
}

async function select() {
  const log = known[logs.selectedIndex];
  results.replaceChildren();
  say("");
  more.hidden = true;
  try {
    if (log) await showState(log);
  } catch (error) {
    state.replaceChildren(node("p", { class: "note" }, `This log's checkpoint cannot be shown: ${error.message}`));
  }
}

/** The address after `#` says what is shown: `LOG/BY/VALUE`. */
async function follow() {
  const [name, kind, text] = location.hash.slice(1).split("/").map((part) => decodeURIComponent(part));
  const at = known.findIndex((log) => log.name === name);
  if (at < 0) return select();
  logs.selectedIndex = at;
  await select();
  if (!text || !(kind in HINTS)) return undefined;
  by.value = kind;
  value.value = text;
  showHint();
  return search();
}

async function searchFile(file) {
  if (!file) return;
  try {
    const target = `#${fragment(logs.value, "digest", await digestOf(file))}`;
    if (location.hash === target) await search();
    else location.hash = target;
  } catch (error) {
    say(`The file's digest cannot be computed: ${error.message}`);
  }
}

function showHint() {
  hint.textContent = HINTS[by.value];
}

/** Logs that people look for come first. */
function rank(log) {
  const at = ["signing", "issuance", "event"].indexOf(log.kind);
  return at < 0 ? 3 : at;
}

async function start() {
  if (!globalThis.crypto?.subtle) {
    status.className = "note";
    say("This browser offers no cryptography on a page that came over plain HTTP from another machine, so nothing can be checked here. Open the page over HTTPS, or use mentatctl log proof.");
    return;
  }
  try {
    known = await ask("api/v1/logs");
    known.sort((one, other) => rank(one) - rank(other));
  } catch (error) {
    say(`The list of logs cannot be read: ${error.message}`);
    return;
  }
  logs.append(...known.map((log) => node("option", { value: log.name }, log.name)));
  form.hidden = false;
  showHint();
  by.addEventListener("change", showHint);
  logs.addEventListener("change", () => { location.hash = fragment(logs.value); });
  keys.addEventListener("change", () => follow());
  byId("file").addEventListener("change", (chosen) => searchFile(chosen.target.files[0]));
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    const target = `#${fragment(logs.value, by.value, value.value.trim())}`;
    if (location.hash === target) search();
    else location.hash = target;
  });
  addEventListener("hashchange", () => follow());
  await follow();
}

start();
