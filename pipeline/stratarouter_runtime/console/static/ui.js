// What every page is made of: elements, tables, forms, numbers as text, and how data is asked for.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "rect", "path", "text", "tspan", "line", "circle", "defs", "marker", "polyline"]);

/** An element from a tag, its attributes and its children; text is text and never HTML. */
export function h(tag, attributes = {}, ...children) {
  const made = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat(4).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** What a pointer that rests on an SVG shape is told. */
export function hint(words) {
  const made = document.createElementNS(SVG, "title");
  made.textContent = words;
  return made;
}

// -- text -------------------------------------------------------------------------------------------------------------

const known = (value, shown) => (value === null || value === undefined || Number.isNaN(value) ? "-" : shown(value));
const dollars = (value) => {
  if (value === 0) return "$0";
  if (Math.abs(value) >= 100) return `$${new Intl.NumberFormat("en", { maximumFractionDigits: 0 }).format(value)}`;
  if (Math.abs(value) >= 1) return `$${value.toFixed(2)}`;
  const decimals = Math.min(9, Math.max(2, 2 - Math.floor(Math.log10(Math.abs(value))))); // three digits that say something
  return `$${value.toFixed(decimals)}`;
};
const utc = (value) => new Date(typeof value === "number" ? value * 1000 : value).toISOString();

export const text = {
  number: (value) => known(value, (number) => new Intl.NumberFormat("en").format(number)),
  rate: (value) => known(value, (rate) => `${rate < 9.95 ? rate.toFixed(1) : new Intl.NumberFormat("en").format(Math.round(rate))}/s`),
  share: (value) => known(value, (share) => `${(100 * share).toFixed(1)} %`),
  usd: (value) => known(value, dollars),
  nano: (value) => known(value, (nano) => dollars(nano / 1e9)),
  time: (value) => known(value, (at) => utc(at).replace("T", " ").slice(0, 19)),
  ms: (value) => known(value, (ms) => (ms >= 10000 ? `${(ms / 1000).toFixed(1)} s` : ms >= 100 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`)),
  seconds: (value) => known(value, (s) => (s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`)),
};

/** A moment: of today as its time alone, with the date for a pointer. UTC. */
export function moment(value) {
  if (value === null || value === undefined) return "-";
  const whole = utc(value), today = new Date().toISOString().slice(0, 10);
  return h("time", { datetime: whole, title: `${text.time(value)} UTC` }, whole.startsWith(today) ? whole.slice(11, 19) : text.time(value).slice(5, 16));
}

// -- pieces -----------------------------------------------------------------------------------------------------------

const GOOD = new Set(["succeeded", "ok", "closed", "running", "ready", "exact", "semantic", "sent"]);
const WARN = new Set(["started", "following", "half_open", "opening", "coalesced"]);

/** A state as a word with a mark, so that colour is not all that tells it. */
export function pill(state, kind = null) {
  if (!state) return null;
  const tone = kind || (GOOD.has(state) ? "good" : WARN.has(state) ? "warn" : "bad");
  return h("span", { class: `pill ${tone}` }, state);
}

export function tile(value, name, { state = null, spark = null, note = null } = {}) {
  return h("div", { class: "tile" }, h("span", { class: "name" }, name), h("b", { class: state }, value), note && h("small", {}, note), spark);
}

export const tiles = (...children) => h("div", { class: "tiles" }, ...children);

/** A line of the last values; null where there are too few of them. */
export function sparkline(values, label) {
  const seen = values.filter((value) => value !== null && value !== undefined);
  if (seen.length < 3) return null;
  const most = Math.max(...seen, 1e-9), wide = 120, high = 26, step = wide / (values.length - 1);
  const points = values.map((value, at) => [at * step, high - 2 - ((value || 0) / most) * (high - 4)].map((n) => n.toFixed(1)).join(","));
  return h("svg", { class: "spark", viewBox: `0 0 ${wide} ${high}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    h("polyline", { points: points.join(" "), class: "line", "vector-effect": "non-scaling-stroke" }));
}

export const facts = (pairs) => h("dl", { class: "facts" }, pairs
  .filter((pair) => pair && pair[1] !== null && pair[1] !== undefined && pair[1] !== "")
  .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));

/** What stands where there is nothing: what it means and what to do. */
export const empty = (what, ...todo) => h("div", { class: "empty" }, h("p", {}, what), todo.length > 0 && h("p", { class: "quiet" }, ...todo));

export const code = (words) => h("code", {}, words);
export const section = (title, ...children) => h("section", {}, h("h2", {}, title), ...children);

/**
 * A table. A column is {title, of(row), number, wrap, mono, minor}; minor ones give way on a phone. `link(row)` is the
 * address that a row opens: its `main` column (by default the first) is a link, reached by Tab, j and k.
 */
export function table(label, columns, rows, { link = null, none = null } = {}) {
  if (!rows.length && none) return none;
  const kind = (one) => [one.number && "number", one.wrap && "wrap", one.mono && "mono", one.minor && "minor"].filter(Boolean).join(" ") || null;
  const first = Math.max(0, columns.findIndex((one) => one.main));
  const cell = (one, at, row) => {
    const shown = one.of(row) ?? "-";
    return h("td", { class: kind(one) }, link && at === first ? h("a", { href: `#/${link(row)}`, class: "row" }, shown) : shown);
  };
  const open = (row) => (clicked) => { if (!clicked.target.closest("a, button, input")) go(link(row)); };
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, h("table", {},
    h("thead", {}, h("tr", {}, columns.map((one) => h("th", { scope: "col", class: kind(one) }, one.title)))),
    h("tbody", {}, rows.length ? rows.map((row) => h("tr", link && { class: "opens", onclick: open(row) }, columns.map((one, at) => cell(one, at, row))))
      : h("tr", {}, h("td", { colspan: columns.length, class: "quiet" }, "nothing")))));
}

// -- forms ------------------------------------------------------------------------------------------------------------

export const field = (name, control, wide = false) => h("label", { class: wide && "wide" }, name, control);
export const input = (name, value, more = {}) => h("input", { name, value: value || "", autocomplete: "off", spellcheck: "false", ...more });
export const choice = (name, value, options) => h("select", { name }, options.map(([key, shown]) => h("option", { value: key, selected: key === (value || "") }, shown)));
export const button = (words, onclick, kind = null) => h("button", { type: "button", class: kind, onclick }, words);
export const submit = (words) => h("button", { class: "primary" }, words);
export const form = (sent, ...children) => h("form", {
  class: "row",
  onsubmit: (event) => { event.preventDefault(); sent(Object.fromEntries(new FormData(event.target)), event.target); },
}, ...children);

export const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value)).toString();
export const sum = (rows, of) => rows.reduce((total, row) => total + (of(row) || 0), 0);

// -- the server -------------------------------------------------------------------------------------------------------

export function token() { return sessionStorage.getItem("token") || ""; }

/** Ask the API. Errors say what was wrong and what to do. */
export async function api(path, body = null) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const asked = body === null ? { headers } : { method: "POST", headers, body: JSON.stringify(body) };
  let reply;
  try { reply = await fetch(path, asked); } catch { throw new Error("the console's server does not answer; is the worker running?"); }
  const found = await reply.json();
  if (!reply.ok) throw new Error([found.error, found.remedy].filter(Boolean).join(" - "));
  return found;
}

/** Run what a button or a form starts; what goes wrong is said. */
export async function attempt(work) {
  try { await work(); } catch (problem) { say(problem.message, "bad"); }
}

export function say(message, kind = "") {
  const notice = document.getElementById("notice");
  notice.textContent = message;
  notice.className = kind;
}

export function go(path) { location.hash = `#/${path}`; }
