// The executor's page: reads in the role of whoever looks, and shows it as text. Nothing that a guest, a signer or a log wrote
// ever becomes markup.

const PAUSE = 5000;
const MOST = 200;

const at = (id) => document.getElementById(id);
let bearer = "";

/** Somebody must say who he is. */
class Unknown extends Error {}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind !== undefined) made.className = kind;
  return made;
}

function facts(rows) {
  const list = document.createElement("dl");
  for (const [term, value, kind] of rows) {
    if (value === undefined || value === null || value === "") continue;
    list.append(element("dt", term), element("dd", String(value), kind));
  }
  return list;
}

function article(title, verdict, word, rows) {
  const made = document.createElement("article");
  made.dataset.verdict = verdict;
  const head = document.createElement("header");
  head.append(element("h3", title), element("span", word, `badge ${verdict}`));
  made.append(head, facts(rows));
  return made;
}

function show(id, articles, nothing) {
  at(id).replaceChildren(...(articles.length > 0 ? articles.slice(0, MOST) : [element("p", nothing, "empty")]));
  if (articles.length > MOST) at(id).append(element("p", `and ${articles.length - MOST} more`, "empty"));
}

function ago(seconds) {
  if (seconds === undefined || seconds === null) return "never";
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}

function agent(one) {
  const may = one.denied === undefined;
  return article(`${one.agent_id} ${one.version}`, may ? "good" : "bad", may ? "may run" : one.denied.reason, [
    ["Why not", may ? "" : `step ${one.denied.step}: ${one.denied.message}`],
    ["Signed by", one.signer],
    ["Vouched for by", one.issuer],
    ["Trust level", one.trust_level],
    ["Module", one.digest, "mono"],
    ["Kind", one.kind],
    ["Log index", one.log_index],
    ["Granted", one.granted.join(", ") || "nothing"],
  ]);
}

function instance(one) {
  return article(one.agent_id, "good", "running", [
    ["Instance", one.instance_id, "mono"],
    ["Signed by", one.signer],
    ["Module", one.digest, "mono"],
  ]);
}

function source(one) {
  return article(one.url, one.ok ? "good" : "bad", one.ok ? "fresh" : "failing", [
    ["What", one.name],
    ["Last fetched", ago(one.age_s)],
    ["Said", one.detail],
  ]);
}

async function read(path) {
  const headers = bearer ? { authorization: `Bearer ${bearer}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" });
  if (answer.status === 401) throw new Unknown();
  if (!answer.ok) throw new Error(`${path}: HTTP ${answer.status}`);
  return answer.json();
}

async function look() {
  const [status, agents, instances, receipts] = await Promise.all(
    ["api/v1/status", "api/v1/agents", "api/v1/instances", "api/v1/receipts"].map(read),
  );
  show("agent-list", agents.map(agent), "No agent is loaded.");
  show("instance-list", instances.map(instance), "Nothing runs at this moment.");
  show("evidence-list", status.sources.map(source), "No source of evidence is configured or named yet.");
  at("receipt-log").replaceChildren(
    facts([
      ["Entries", receipts.size],
      ["Log", receipts.origin, "mono"],
      ["Keys", receipts.vkeys.join("\n"), "mono"],
    ]),
  );
  at("about").replaceChildren(
    facts([
      ["Release", `${status.version}, wasmtime ${status.wasmtime}, profile ${status.profile}`],
      ["Policy", status.policy, "mono"],
      ["Policy file", status.policy_problem],
      ["Confined by", status.confinement.join(", ")],
      ["Does not run", (status.tiers || []).filter((one) => one.missing).map((one) => `${one.level}: ${one.missing}`).join("; ")],
      ["Not confined by", status.unconfined.join("; ")],
      ["Instance slots", `${status.live_instances} of ${status.pool_slots} in use`],
      ["Audit records", status.audit_sequence],
    ]),
  );
  const refused = agents.filter((one) => one.denied !== undefined).length;
  const evidence = status.evidence_age_s === undefined || status.evidence_age_s === null
    ? "evidence was never complete" : `evidence complete ${ago(status.evidence_age_s)}`;
  at("state").textContent = `${agents.length} agents, ${refused} refused, ${instances.length} running; ${evidence}.`;
}

/** Asks who looks. A token that was refused is forgotten. */
function ask() {
  at("state").textContent = bearer ? "The executor does not know this token." : "";
  bearer = "";
  at("sign-in").hidden = false;
  at("shown").hidden = true;
}

async function keepLooking() {
  for (;;) {
    try {
      await look();
      at("sign-in").hidden = true;
      at("shown").hidden = false;
    } catch (problem) {
      if (problem instanceof Unknown) return ask();
      at("state").textContent = `The executor cannot be read: ${problem.message}`;
    }
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

at("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  bearer = at("token").value.trim();
  at("token").value = "";
  keepLooking();
});

keepLooking();
