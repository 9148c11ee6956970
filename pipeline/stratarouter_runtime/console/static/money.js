// Money: what was paid and saved over time and by whom, and whether the journal agrees.
import { api, attempt, button, choice, code, empty, field, form, go, h, hint, pill, query, section, submit, sum, table, text, tile, tiles } from "./ui.js";

const PARTS = [["paid", "paid_nano", "fa"], ["saved: exact", "exact_nano", "fb"], ["saved: semantic", "semantic_nano", "fc"], ["saved: coalesced", "coalesced_nano", "fd"]];
const WINDOWS = [["minute", "a minute"], ["hour", "an hour"], ["day", "a day"]], SINCE = [["1h", "an hour ago"], ["6h", "6 hours ago"], ["1d", "a day ago"], ["7d", "7 days ago"], ["30d", "30 days ago"]];
const BY = [["tenant", "tenant"], ["route", "route"], ["model", "model"], ["tenant,model", "tenant and model"]];
const saved = (row) => sum(PARTS.slice(1), ([, name]) => row[name]);

/** The next larger of 1, 2, 2.5, 5 times a power of ten. */
function nice(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 2.5, 5, 10].find((one) => one * power >= most) * power;
}

function chart({ windows, window_s: length, since, until }) {
  const wide = 920, high = 250, left = 64, right = 12, bottom = 30, top = 14;
  const top_nano = nice(Math.max(1, ...windows.map((row) => sum(PARTS, ([, name]) => row[name]))));
  const first = Math.max(since, windows[0].start - 2 * length), count = Math.max(12, Math.ceil((until - first) / length)), step = (wide - left - right) / count;
  const x = (start) => left + ((start - first) / length) * step, y = (nano) => high - bottom - (nano / top_nano) * (high - bottom - top);
  const bars = windows.flatMap((row) => {
    let at = 0;
    return PARTS.map(([name, key, colour]) => {
      const value = row[key] || 0, from = at;
      at += value;
      return value > 0 && h("rect", { x: x(row.start) + step * 0.1, y: y(at), width: Math.max(1, step * 0.8), height: Math.max(0.5, y(from) - y(at)), class: colour }, hint(`${text.time(row.start)} UTC, ${name}: ${text.nano(value)}`));
    });
  });
  const marks = [0, 0.25, 0.5, 0.75, 1].map((share) => h("g", {}, h("line", { x1: left, x2: wide - right, y1: y(top_nano * share), y2: y(top_nano * share), class: "axis" }), h("text", { x: left - 8, y: y(top_nano * share) + 4, class: "mark end" }, text.nano(top_nano * share))));
  const every = Math.ceil(count / 6);
  const times = Array.from({ length: Math.ceil(count / every) }, (_, at) => first + at * every * length).map((start) => h("text", { x: x(start), y: high - 9, class: "mark" }, length < 86400 ? text.time(start).slice(11, 16) : text.time(start).slice(5, 10)));
  return [h("div", { class: "scroll chart", tabindex: 0, role: "region", "aria-label": "Money by window" }, h("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": "Money paid and saved by window" }, marks, bars, times)),
    h("ul", { class: "legend" }, PARTS.map(([name, , colour]) => h("li", {}, h("svg", { viewBox: "0 0 10 10", "aria-hidden": "true" }, h("rect", { width: 10, height: 10, rx: 2, class: colour })), name)))];
}

const number = (title, key, minor = false) => ({ title, of: (row) => text.number(row[key]), number: true, minor });

function ledger() {
  const out = h("div", {});
  const hold = () => attempt(async () => {
    out.replaceChildren(h("p", { class: "quiet" }, "adding up ..."));
    const lines = await api("/api/ledger?since=1d"), off = lines.filter((line) => line.differences.length);
    out.replaceChildren(
      lines.length > 0 && h("p", { class: "lead" }, off.length ? pill(`${off.length} tenants differ`, "bad") : pill("reconciled to zero", "good"), h("span", { class: "quiet" }, "windows, deltas and the journal, response by response and nano-dollar by nano-dollar")),
      table("Ledger", [{ title: "tenant", of: (line) => line.tenant }, { title: "calls without the runtime", of: (line) => text.number(line.calls_without), number: true },
        ...["paid", "exact", "semantic", "coalesced", "replayed", "late"].map((kind) => ({ title: kind, of: (line) => text.number(line.calls[kind]), number: true, minor: true })),
        { title: "money without", of: (line) => text.nano(line.nano_without), number: true }, { title: "paid", of: (line) => text.nano(line.nano_usd.paid + line.nano_usd.late), number: true, minor: true },
        { title: "reconciled", of: (line) => (line.differences.length ? h("span", { class: "bad" }, line.differences.join("; ")) : pill("to zero", "good")) }], lines, { none: empty("Nothing was answered in the last day.") }));
  });
  return section("Ledger", h("p", {}, button("Hold the last day against the journal", hold)), out);
}

export const money = {
  title: "Money",
  async show(place, asked) {
    const values = Object.fromEntries(asked), given = { window: values.window || "hour", since: values.since || "1d", by: values.by || "tenant" };
    const search = form((wanted) => go(`money?${query(wanted)}`), field("Windows of", choice("window", given.window, WINDOWS)), field("Since", choice("since", given.since, SINCE)), field("By", choice("by", given.by, BY)), submit("Show"));
    place.fill(search, h("p", { class: "quiet" }, "reading ..."));
    const found = await api(`/api/money?${query(given)}`), names = given.by.split(",");
    const paid = sum(found.windows, (row) => row.paid_nano), kept = sum(found.windows, saved);
    if (!found.windows.length) {
      place.fill(search, empty("Nothing was counted in this time.", "Does a usage processor run? ", code("stratarouter-runtime worker --processors usage"), " counts what the lanes have published."), ledger());
      return;
    }
    place.fill(search, tiles(tile(text.number(sum(found.windows, (row) => row.requests)), "requests"), tile(text.nano(paid), "paid"), tile(text.nano(kept), "saved", { state: "good" }), tile(paid + kept ? text.share(kept / (paid + kept)) : "-", "of the money not spent")),
      chart(found),
      section(`By ${names.join(" and ")}`, table(`By ${names.join(" and ")}`, [...names.map((name) => ({ title: name, of: (row) => row[name] || "-" })), number("requests", "requests"), number("paid calls", "paid", true), number("exact", "exact", true), number("semantic", "semantic", true),
        number("coalesced", "coalesced", true), number("errors", "errors", true), { title: "paid", of: (row) => text.nano(row.paid_nano), number: true }, { title: "saved", of: (row) => text.nano(saved(row)), number: true }], found.groups),
        found.more && h("p", { class: "quiet" }, `The ${found.groups.length} that paid the most; there are more.`)),
      ledger());
  },
};
