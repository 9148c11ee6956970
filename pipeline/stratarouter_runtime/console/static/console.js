// The frame of the console: which page is shown, keys, theme and token.
import { cache } from "./cache.js";
import { deadLetter, deadLetters } from "./letters.js";
import { money } from "./money.js";
import { pipeline } from "./pipeline.js";
import { execution, requests } from "./requests.js";
import { api, button, facts, form, go, h, say, submit, token } from "./ui.js";

const pages = { pipeline, requests, execution, "dead-letters": deadLetters, "dead-letter": deadLetter, cache, money };
const main = document.getElementById("main"), dialog = document.getElementById("dialog"), locked = document.getElementById("token");
const FOCUSABLE = "a[href], button, input, select, textarea, [tabindex]";
let leave = () => {};
let shown = 0;
let searching = false;

// -- pages ------------------------------------------------------------------------------------------------------------

/** Replace what is shown and leave the focus and every scrolled table where they were. */
function refill(title, children) {
  if (main.contains(document.activeElement) && String(getSelection())) return; // somebody is copying
  const at = [...main.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement), lefts = [...main.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  main.replaceChildren(h("h1", {}, title), ...children.flat(4).filter(Boolean));
  main.querySelectorAll(".scroll").forEach((one, index) => { one.scrollLeft = lefts[index] || 0; });
  if (at >= 0) main.querySelectorAll(FOCUSABLE)[at]?.focus({ preventScroll: true });
}

function show() {
  const [asked, query] = (location.hash.slice(2) || "pipeline").split("?"), name = asked in pages ? asked : "pipeline", page = pages[name];
  leave();
  leave = () => {};
  say("");
  const mine = ++shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#/${page.under || name}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  main.replaceChildren(h("h1", {}, page.title), h("p", { class: "quiet" }, "reading ..."));
  document.title = `${page.title} - StrataRouter Runtime`;
  scrollTo(0, 0);
  const place = {
    fill: (...children) => { if (mine === shown) refill(page.title, children); },
    current: () => mine === shown,
    every: (seconds, work) => { const timer = setInterval(work, seconds * 1000); leave = () => clearInterval(timer); },
  };
  Promise.resolve(page.show(place, new URLSearchParams(query))).catch((problem) => {
    place.fill(h("p", { class: "bad" }, problem.message));
  }).then(() => {
    // A page fills itself twice, so the field is taken once it stands.
    if (mine !== shown || !searching) return;
    searching = false;
    main.querySelector("input[data-search]")?.focus();
  });
}

// -- dialogs ----------------------------------------------------------------------------------------------------------

function ask(title, ...content) {
  dialog.replaceChildren(h("h2", { id: "asked" }, title), ...content);
  dialog.showModal();
}

/** Whether this tab may read texts and change things, as the server sees it. */
async function lock() {
  let may = false;
  try { may = (await api("/api/session")).may.change; } catch { /* said where it matters */ }
  locked.textContent = may ? "Unlocked" : "Locked";
  locked.classList.toggle("good", may);
}

function askToken() {
  const given = h("input", { type: "password", autocomplete: "off", "aria-label": "Token", value: token() });
  const keep = (value) => {
    if (value) sessionStorage.setItem("token", value); else sessionStorage.removeItem("token");
    dialog.close();
    lock();
    show();
  };
  ask("Token", h("p", {}, "Changes and texts need the token (STRATAROUTER_CONSOLE_TOKEN). It is kept until this tab is closed."),
    form(() => keep(given.value), given, submit("Keep"), button("Forget", () => keep(""))));
  given.focus();
}

const KEYS = [["/", "search"], ["g p", "pipeline"], ["g r", "requests"], ["g d", "dead letters"], ["g c", "cache"], ["g m", "money"], ["j, k", "next, previous row"], ["Enter", "open a row"], ["u", "unlock with the token"], ["t", "light or dark"], ["?", "these keys"], ["Esc", "close"]];
const keys = () => ask("Keys", facts(KEYS.map(([key, what]) => [h("kbd", {}, key), what])), form(() => dialog.close(), submit("Close")));

// -- keys and theme ---------------------------------------------------------------------------------------------------

function step(by) {
  const rows = [...main.querySelectorAll("tbody a.row")];
  if (!rows.length) return;
  rows[Math.max(0, Math.min(rows.length - 1, rows.indexOf(document.activeElement) + by))].focus();
}

function search() {
  const found = main.querySelector("input[data-search]");
  if (found) found.focus(); else { searching = true; go("requests"); }
}

function theme(next) {
  if (next) { document.documentElement.dataset.theme = next; localStorage.setItem("theme", next); }
}

function toggle() {
  const now = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  theme(now === "dark" ? "light" : "dark");
}

const BOUND = { "/": search, j: () => step(1), k: () => step(-1), t: toggle, u: askToken, "?": keys };
let waiting = false;
document.addEventListener("keydown", (key) => {
  if (key.key === "Escape" && /^(INPUT|SELECT)$/.test(key.target.tagName) && !dialog.open) { key.target.blur(); return; }
  if (key.ctrlKey || key.metaKey || key.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(key.target.tagName) || dialog.open) return;
  const link = waiting && document.querySelector(`nav a[data-key="${CSS.escape(key.key)}"]`);
  const work = link ? () => link.click() : BOUND[key.key];
  if (work) { key.preventDefault(); work(); }
  waiting = key.key === "g";
});

for (const link of document.querySelectorAll("nav a")) link.title = `${link.textContent} (g ${link.dataset.key})`;
theme(localStorage.getItem("theme"));
document.getElementById("theme").addEventListener("click", toggle);
locked.addEventListener("click", askToken);
document.getElementById("help").addEventListener("click", keys);
dialog.addEventListener("click", (at) => { if (at.target === dialog) dialog.close(); });
window.addEventListener("hashchange", show);
lock();
show();
