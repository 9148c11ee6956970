// The frame of the console: which page is shown, keys, theme, token, and how data is fetched. Pages are in pages.js.
import { pages } from "./pages.js";

const main = document.getElementById("main");
const notice = document.getElementById("notice");
const dialog = document.getElementById("dialog");
let leave = () => {};
let shown = 0;
let searching = false;

/** An element from a tag, its attributes and its children; text is text and never HTML. */
export function h(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "path", "text", "line", "defs", "marker", "title"].includes(tag) && attributes?.ns !== false;
  const made = svg && tag !== "title" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false || name === "ns") continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(3)) if (child !== null && child !== undefined && child !== false) made.append(child);
  return made;
}

/** A table with a header; rows that can be opened are reached by Tab, j and k, and opened by Enter. */
export function table(columns, rows, open = null) {
  const head = columns.map((one) => h("th", { scope: "col", class: one.number && "number" }, one.title));
  const body = rows.map((row) => h("tr", open && { tabindex: 0, onclick: () => open(row), onkeydown: (key) => { if (key.key === "Enter") open(row); } },
    columns.map((one) => h("td", { class: [one.number && "number", one.wrap && "wrap", one.mono && "mono"].filter(Boolean).join(" ") || null }, one.of(row) ?? "-"))));
  if (!rows.length) body.push(h("tr", {}, h("td", { colspan: columns.length, class: "quiet" }, "nothing")));
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

export const text = {
  number: (value) => value === null || value === undefined ? "-" : new Intl.NumberFormat("en").format(value),
  rate: (value) => value === null || value === undefined ? "-" : `${value < 10 ? value.toFixed(1) : Math.round(value)}/s`,
  usd: (value) => value === null || value === undefined ? "-" : `$${value >= 100 ? value.toFixed(2) : value.toFixed(value === 0 ? 2 : 6)}`,
  time: (value) => value === null || value === undefined ? "-" : new Date(typeof value === "number" ? value * 1000 : value).toISOString().replace("T", " ").slice(0, 19),
  ms: (value) => value === null || value === undefined ? "-" : `${value >= 100 ? Math.round(value) : value.toFixed(1)} ms`,
};

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

export function say(message, bad = false) { notice.textContent = message; notice.className = bad ? "bad" : ""; }

export function go(path) { location.hash = `#/${path}`; }

function show() {
  const [name, query] = (location.hash.slice(2) || "pipeline").split("?");
  const page = pages[name] || pages.pipeline;
  leave(); leave = () => {};
  say("");
  const mine = ++shown;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.getAttribute("href") === `#/${name in pages ? pages[name].under || name : "pipeline"}`;
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  main.replaceChildren(h("h1", {}, page.title), h("p", { class: "quiet" }, "reading ..."));
  document.title = `${page.title} - StrataRouter Runtime`;
  const place = {
    fill: (...children) => { if (mine === shown) main.replaceChildren(h("h1", {}, page.title), ...children.flat(3).filter(Boolean)); },
    current: () => mine === shown,
    every: (seconds, work) => { const timer = setInterval(work, seconds * 1000); leave = () => clearInterval(timer); },
  };
  Promise.resolve(page.show(place, new URLSearchParams(query))).catch((problem) => {
    if (mine !== shown) return;
    place.fill(h("p", { class: "bad" }, problem.message));
  }).then(() => {
    // A page fills itself twice, so the field is taken once it stands.
    if (mine !== shown || !searching) return;
    searching = false;
    main.querySelector("input[data-search]")?.focus();
  });
}

function theme(next) {
  if (next) { document.documentElement.dataset.theme = next; localStorage.setItem("theme", next); }
}

function ask(title, ...content) {
  dialog.replaceChildren(h("h2", {}, title), ...content);
  dialog.showModal();
}

function askToken() {
  const field = h("input", { type: "password", autocomplete: "off", "aria-label": "Token", value: token() });
  const keep = (given) => { if (given) sessionStorage.setItem("token", given); else sessionStorage.removeItem("token"); dialog.close(); show(); };
  ask("Token", h("p", {}, "Changes and texts need the token (STRATAROUTER_CONSOLE_TOKEN). It is kept until this tab is closed."),
    h("form", { class: "row", onsubmit: (sent) => { sent.preventDefault(); keep(field.value); } }, field,
      h("button", { class: "primary" }, "Keep"), h("button", { type: "button", onclick: () => keep("") }, "Forget")));
  field.focus();
}

function keys() {
  const known = [["/", "search"], ["g p", "pipeline"], ["g r", "requests"], ["g d", "dead letters"], ["g c", "cache"], ["g m", "money"],
    ["j, k", "next, previous row"], ["Enter", "open a row"], ["t", "light or dark"], ["Esc", "close"]];
  ask("Keys", h("dl", { class: "facts" }, known.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])));
}

function step(by) {
  const rows = [...main.querySelectorAll("tbody tr[tabindex]")];
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement);
  rows[Math.max(0, Math.min(rows.length - 1, at + by))].focus();
}

let waiting = false;
document.addEventListener("keydown", (key) => {
  if (key.ctrlKey || key.metaKey || key.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(key.target.tagName) || dialog.open) return;
  const link = waiting && document.querySelector(`nav a[data-key="${CSS.escape(key.key)}"]`);
  if (link) { link.click(); key.preventDefault(); } else if (key.key === "/") {
    key.preventDefault();
    const field = main.querySelector("input[data-search]");
    if (field) field.focus(); else { searching = true; go("requests"); }
  } else if (key.key === "j") step(1);
  else if (key.key === "k") step(-1);
  else if (key.key === "t") toggle();
  else if (key.key === "?") keys();
  waiting = key.key === "g";
});

function toggle() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  theme(dark ? "light" : "dark");
}

theme(localStorage.getItem("theme"));
document.getElementById("theme").addEventListener("click", toggle);
document.getElementById("token").addEventListener("click", askToken);
document.getElementById("help").addEventListener("click", keys);
dialog.addEventListener("click", (at) => { if (at.target === dialog) dialog.close(); });
window.addEventListener("hashchange", show);
show();
