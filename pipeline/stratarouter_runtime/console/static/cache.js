// The cache: what is kept, what would happen to a question and why, and taking answers back.
import { api, attempt, button, choice, code, empty, facts, field, form, h, input, pill, query, say, section, submit, table, text, tile, tiles, token } from "./ui.js";

const TAKES = [["key", "an entry, by its key"], ["request_id", "what a request left"], ["tag", "a tag"], ["route_id", "a route"], ["tenant", "a tenant"], ["everything", "everything"]];

const verdict = (said) => [
  h("p", { class: "lead" }, pill(said.would, said.would === "miss" || said.would === "bypass" ? "warn" : "good"), said.reason && h("span", {}, "because ", code(said.reason))),
  facts([["Similarity", `${said.cosine} (threshold ${said.threshold})`], ["Guard", said.guard ? code(said.guard) : "lets it through"], ["Same scope", said.same_scope ? "yes" : "no"], ["Same words", said.same_words ? "yes" : "no"],
    ["Marked wrong before", said.counter_example === null ? said.topic : said.counter_example ? "yes" : "no"], ["Key of the question", code(said.asked_key)], ["Key of the entry", code(said.stored_key)]]),
];

export const cache = {
  title: "Cache",
  async show(place) {
    const found = await api("/api/cache"), { settings, kept, live } = found;
    const out = h("div", { "aria-live": "polite" }), entries = h("div", {});
    const explaining = form((given) => attempt(async () => {
      out.replaceChildren(h("p", { class: "quiet" }, "judging ..."));
      try { out.replaceChildren(...verdict(await api("/api/cache/explain", given))); } catch (problem) { out.replaceChildren(h("p", { class: "bad" }, problem.message)); }
    }), field("A question", input("asked", "", { required: true, "data-search": true }), true), field("An answered question", input("stored", "", { required: true }), true), field("Route", input("route", "")), field("Tenant", input("tenant", "")), submit("Explain"));
    const taking = form(({ kind, name, reason }) => attempt(async () => {
      if (kind === "everything" && !confirm("Take every answer back, on every worker?")) return;
      const said = await api("/api/cache/invalidate", { ...(kind === "everything" ? { everything: true } : { [kind]: name }), reason });
      say(`taken back by every worker: offset ${said.offset} of the cache-control topic`, "good");
    }), field("What", choice("kind", "key", TAKES)), field("Which", input("name", ""), true), field("Why", input("reason", "", { required: true }), true), submit("Take back"));
    const fill = (inside, values, focus) => {
      for (const [name, value] of Object.entries(values)) inside.elements[name].value = value;
      inside.scrollIntoView({ block: "center" });
      inside.elements[focus].focus();
    };
    const find = (given) => attempt(async () => {
      const rows = (await api(`/api/cache/find?${query(given)}`)).entries;
      entries.replaceChildren(table("Entries", [
        { title: "question", of: (row) => row.text, wrap: true }, { title: "tenant", of: (row) => row.tenant }, { title: "route", of: (row) => row.route_id, minor: true }, { title: "tags", of: (row) => row.tags.join(", "), minor: true },
        { title: "left", of: (row) => text.seconds(row.ttl_s), number: true, minor: true }, { title: "key", of: (row) => row.key, mono: true, minor: true },
        { title: "", of: (row) => [button("Explain", () => fill(explaining, { stored: row.text, route: row.route_id, tenant: row.tenant }, "asked"), "small"), " ", button("Take back", () => fill(taking, { kind: "key", name: row.key }, "reason"), "small")] },
      ], rows, { none: empty("No entry's question holds these words.") }));
    });
    place.fill(
      tiles(tile(settings.enabled ? settings.backend : "off", "backend"), tile(settings.threshold, "similarity threshold"), tile(settings.guard, "guard"), tile(text.seconds(settings.ttl_s), "time to live"),
        kept && [tile(text.number(kept.entries), "entries"), tile(text.number(kept.aliases), "of them other wordings")], !kept && live?.entries != null && tile(text.number(live.entries), "entries in this worker")),
      !settings.enabled && empty("The cache is off.", "Set ", code("cache_enabled = true"), " to pay for similar questions once."),
      section("What would happen?", explaining, out),
      settings.backend === "redis" && section("Find entries", form(find, field("Words of the question", input("words", ""), true), field("Tenant", input("tenant", "")), submit("Find"), !token() && h("span", { class: "quiet" }, "needs the token")), entries),
      section("Take answers back", taking),
      kept && kept.entries > 0 && h("div", { class: "side" }, ["tenants", "routes"].map((name) => section(`Entries by ${name.slice(0, -1)}`,
        table(`Entries by ${name}`, [{ title: name.slice(0, -1), of: ([one]) => one }, { title: "entries", of: ([, count]) => text.number(count), number: true }], Object.entries(kept[name]).slice(0, 20))))));
  },
};
