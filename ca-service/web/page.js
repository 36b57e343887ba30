// The page: asks for the overview, shows it. All text of others goes through textContent and nothing else.

const DAY = 86400;
const byId = (id) => document.getElementById(id);
const [signIn, token, status, overview, standing, days, ending, revoked, authorities, search, identity, searchStatus, found] =
  ["sign-in", "token", "status", "overview", "standing", "days", "ending", "revoked", "authorities", "search", "identity", "search-status", "found"].map(byId);
let bearer = "";
let turn = 0;

/** What the server refused. */
class Refused extends Error {
  constructor(code, text) {
    super(text);
    this.code = code;
  }
}

/** An element with text or other elements inside; never markup. */
function node(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, text] of Object.entries(attributes)) made.setAttribute(name, text);
  made.append(...inside.map((part) => (part instanceof Node ? part : String(part))));
  return made;
}

async function ask(path) {
  const headers = { accept: "application/json" };
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  const response = await fetch(path, { headers, cache: "no-store", redirect: "error", referrerPolicy: "no-referrer" });
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(`the authority answered status ${response.status} and no JSON`);
  }
  if (!response.ok) throw new Refused(answer.code ?? "", answer.detail ?? answer.title ?? `status ${response.status}`);
  return answer;
}

const time = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ");
const date = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);
const named = (name) => (name ? name.email ?? name.uri ?? JSON.stringify(name) : "the authority's own");
const many = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;

/** A table; cells are texts, elements, or [class, text]. */
function table(caption, heads, rows) {
  const cell = (tag, part, scope = {}) => (Array.isArray(part) ? node(tag, { class: part[0], ...scope }, part[1]) : node(tag, scope, part));
  const head = node("thead", {}, node("tr", {}, ...heads.map((part) => cell("th", part, { scope: "col" }))));
  const body = node("tbody", {}, ...rows.map((row) => node("tr", {}, ...row.map((part) => cell("td", part)))));
  return node("div", { class: "table" }, node("table", {}, node("caption", {}, caption), head, body));
}

function none(text) {
  return node("p", { class: "hint" }, text);
}

function line(how, text) {
  const word = { good: "in order", bad: "wrong", unsure: "look at this" };
  return node("li", { class: how }, node("span", { class: "unseen" }, `${word[how]}: `), text);
}

function standingLines(seen) {
  const lines = [];
  if (seen.issuing) lines.push(line("good", `Certificates are issued by ${seen.issuing}.`));
  else lines.push(line("bad", `No certificates are issued: ${seen.not_issuing}.`));
  for (const one of seen.authorities) {
    if (one.revoked) lines.push(line("bad", `${one.name} was revoked, itself or a CA above it.`));
    else if (one.not_after !== undefined && one.not_after < seen.at) lines.push(line("bad", `${one.name} ended on ${date(one.not_after)}.`));
    else if (one.not_after !== undefined && one.not_after < seen.at + 30 * DAY) lines.push(line("unsure", `${one.name} ends on ${date(one.not_after)}.`));
    if (one.list && one.list.next_update < seen.at) lines.push(line("bad", `The revocation list of ${one.name} is overdue since ${time(one.list.next_update)}.`));
  }
  const maybe = seen.days.reduce((sum, day) => sum + day.maybe_issued, 0);
  if (maybe > 0) lines.push(line("unsure", `${many(maybe, "signature")} may exist without a record: look at each and revoke it.`));
  if (seen.waiting_requests > 0) lines.push(line("unsure", `${many(seen.waiting_requests, "request")} ${seen.waiting_requests === 1 ? "waits" : "wait"} for approval.`));
  const waiting = seen.revocations.filter((one) => one.event_log_index === undefined && one.recorded_at < seen.at - 600).length;
  if (waiting > 0) lines.push(line("unsure", `${many(waiting, "revocation")} of more than ten minutes ago ${waiting === 1 ? "is" : "are"} not in the event log.`));
  if (lines.length === 1 && seen.issuing) lines.push(line("good", "Nothing needs attention."));
  return lines;
}

function issuance(seen) {
  if (seen.days.length === 0) return none("Nothing was issued yet.");
  const most = Math.max(...seen.days.map((day) => day.issued), 1);
  const bar = (day) => node("meter", { min: 0, max: most, value: day.issued, "aria-label": `${day.issued} of ${most}` }, day.issued);
  const number = (value) => ["number", value.toLocaleString("en")];
  const rows = seen.days.slice(0, 31).map((day) => [["time", date(day.day)], number(day.issued), bar(day), number(day.revoked), number(day.open), number(day.maybe_issued), number(day.abandoned)]);
  const counted = seen.days.reduce((sum, day) => sum + day.issued + day.open + day.maybe_issued + day.abandoned, 0);
  const whole = counted < seen.days_count_at_most ? "" : `, of the newest ${seen.days_count_at_most.toLocaleString("en")}: the last line is not a whole day`;
  return table(`Certificates by day${whole}. ${many(seen.recorded, "issuance")} recorded in all, the authority's own among them.`,
    ["Day", ["number", "Issued"], "", ["number", "Revoked since"], ["number", "Under way"], ["number", "Maybe issued"], ["number", "Given up"]], rows);
}

function ends(seen) {
  const counts = seen.ending.map((one) => `${one.certificates >= one.at_most ? "at least " : ""}${one.certificates.toLocaleString("en")} within ${one.days} days`);
  const said = `Of the certificates that live for more than a week, ${counts.join(", ")}.`;
  if (seen.ending_next.length === 0) return none(said);
  return table(`${said} The next ones:`, ["Ends", "Identity", "Profile", "Serial number"],
    seen.ending_next.map((one) => [["time", time(one.not_after)], named(one.identity), one.profile, ["mono", one.serial]]));
}

function revocations(seen) {
  const said = `${seen.revoked_within_30_days >= 10000 ? "at least " : ""}${many(seen.revoked_within_30_days, "revocation")} within 30 days.`;
  if (seen.revocations.length === 0) return none(said);
  return table(`${said} The newest:`, ["Recorded", "Revoked from", "Reason", "Identity", "Profile", "Serial number", "Event log"],
    seen.revocations.map((one) => [["time", time(one.recorded_at)], ["time", time(one.revoked_at)], one.reason, named(one.identity), one.profile, ["mono", one.serial], one.event_log_index ?? "not there"]));
}

function own(seen) {
  return table("From what they sign nothing is issued once they have ended or were revoked.", ["Name", "Role", "Ends", ["number", "List"], "List is good until"],
    seen.authorities.map((one) => [one.name, one.role, ["time", one.not_after === undefined ? "a bare key" : time(one.not_after)], ["number", one.list?.number ?? ""], ["time", one.list ? time(one.list.next_update) : ""]]));
}

async function show() {
  const mine = ++turn;
  try {
    const seen = await ask("api/v1/overview");
    if (mine !== turn) return;
    standing.replaceChildren(...standingLines(seen));
    days.replaceChildren(issuance(seen));
    ending.replaceChildren(ends(seen));
    revoked.replaceChildren(revocations(seen));
    authorities.replaceChildren(own(seen));
    signIn.hidden = true;
    overview.hidden = false;
    status.textContent = `As of ${time(seen.at)}.`;
  } catch (error) {
    if (mine !== turn) return;
    overview.hidden = true;
    signIn.hidden = false;
    const first = bearer === "" && error instanceof Refused && error.code === "unauthorized";
    status.textContent = first ? "" : `Refused: ${error.message}${error.code ? ` (${error.code})` : ""}`;
    bearer = "";
  }
}

signIn.addEventListener("submit", (event) => {
  event.preventDefault();
  bearer = token.value.trim();
  token.value = "";
  show();
});

search.addEventListener("submit", async (event) => {
  event.preventDefault();
  const mine = ++turn;
  const wanted = identity.value.trim();
  found.replaceChildren();
  searchStatus.textContent = "Searching …";
  try {
    const listed = await ask(`api/v1/certificates?limit=100&identity=${encodeURIComponent(wanted)}`);
    if (mine !== turn) return;
    searchStatus.textContent = `${listed.next === undefined ? "" : "The newest "}${many(listed.certificates.length, "certificate")} of ${wanted}.`;
    if (listed.certificates.length === 0) return;
    found.replaceChildren(table("The newest first.", ["Issued", "Ends", "State", "Reason", "Profile", "Serial number"],
      listed.certificates.map((one) => [["time", time(one.created_at)], ["time", time(one.not_after)], one.state, one.revocation?.reason ?? "", one.profile, ["mono", one.serial]])));
  } catch (error) {
    if (mine === turn) searchStatus.textContent = `Refused: ${error.message}`;
  }
});

show();
