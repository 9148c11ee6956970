// The pages. Each is {title, show(place, parameters)}; place.fill replaces what is shown.
import { api, go, h, say, table, text, token } from "./console.js";

const sum = (rows, of) => rows.reduce((total, row) => total + (of(row) || 0), 0);
const tile = (value, name, state = null) => h("div", { class: "tile" }, h("b", { class: state }, value), h("span", {}, name));
const facts = (pairs) => h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
  .map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
const field = (name, control, wide = false) => h("label", { class: wide && "wide" }, name, control);
const input = (name, value, more = {}) => h("input", { name, value: value || "", autocomplete: "off", spellcheck: "false", ...more });
const choice = (name, value, options) => h("select", { name }, options.map(([key, shown]) => h("option", { value: key, selected: key === (value || "") }, shown)));
const form = (submit, ...children) => h("form", { class: "row", onsubmit: (sent) => { sent.preventDefault(); submit(Object.fromEntries(new FormData(sent.target))); } }, ...children);
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value)).toString();

// -- pipeline ---------------------------------------------------------------------------------------------------------

const PROCESSORS = ["enrich", "execute", "usage"];

function rates(before, now) {
  const seconds = before ? now.at - before.at : 0;
  if (!seconds || !now.lanes.length || !before.lanes.length) return {};
  const per = (of) => { const delta = of(now) - of(before); return delta < 0 ? null : delta / seconds; };
  const found = {};
  for (const name of PROCESSORS) {
    const lanes = (look) => look.lanes.filter((lane) => lane.processor === name);
    found[`in ${name}`] = per((look) => sum(lanes(look), (lane) => lane.end));
    found[`out ${name}`] = per((look) => sum(lanes(look), (lane) => lane.committed));
  }
  found.responses = per((look) => look.responses);
  found["dead letters"] = per((look) => look.dead_letters);
  return found;
}

function drawing(look, speed, narrow) {
  const lag = look.lag, troubled = new Set((look.live?.lanes || []).filter((lane) => lane.state === "halted" || lane.state === "fenced").map((lane) => lane.processor));
  const places = narrow
    ? { requests: [10, 14], enrich: [10, 94], executions: [10, 174], execute: [10, 254], responses: [190, 174], dead: [190, 94], deltas: [190, 254], usage: [190, 334] }
    : { requests: [20, 60], enrich: [200, 60], executions: [380, 60], execute: [560, 60], responses: [760, 60], dead: [380, 170], deltas: [560, 170], usage: [760, 170] };
  const wide = 150, high = 52;
  const box = (key, kind, title, under) => {
    const [x, y] = places[key];
    return h("g", {}, h("rect", { x, y, width: wide, height: high, rx: kind === "topic" ? 14 : 4, class: `${kind === "topic" ? "topic" : "box"} ${troubled.has(key) ? "trouble" : ""}` }),
      h("text", { x: x + wide / 2, y: y + 22, "text-anchor": "middle" }, title), h("text", { x: x + wide / 2, y: y + 40, "text-anchor": "middle", class: "small" }, under));
  };
  const flow = (d) => h("path", { d, class: "flow", "marker-end": `url(#head-${narrow ? "narrow" : "wide"})` });
  const flows = narrow
    ? ["M85 66V92", "M85 146V172", "M85 226V252", "M160 120H188", "M160 112C175 112 175 190 188 196", "M160 280C175 280 175 210 188 204", "M160 284H188", "M265 306V332"]
    : ["M170 86H198", "M350 86H378", "M530 86H558", "M710 86H758", "M275 60V30H835V58", "M275 112V196H378", "M635 112V168", "M710 196H758", "M600 112V140H455V168"];
  const state = (name) => `${text.number(lag[name] ?? null)} behind, ${text.rate(speed[`out ${name}`])}`;
  return h("svg", { class: `pipeline ${narrow ? "only-phone" : "wide"}`, viewBox: narrow ? "0 0 350 400" : "0 0 930 250", role: "img", "aria-label": "Requests go through enrich and execute to responses; hits go from enrich to responses at once" },
    h("defs", {}, h("marker", { id: narrow ? "head-narrow" : "head-wide", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" }, h("path", { d: "M0 0L8 4L0 8z", class: "head" }))),
    flows.map(flow), narrow ? null : h("text", { x: 555, y: 24, "text-anchor": "middle", class: "small" }, "hits"),
    box("requests", "topic", "requests", `${text.rate(speed["in enrich"])} in`), box("enrich", "box", "enrich", state("enrich")),
    box("executions", "topic", "executions", `${text.rate(speed["in execute"])} in`), box("execute", "box", "execute", state("execute")),
    box("responses", "topic", "responses", text.rate(speed.responses)), box("dead", "topic", "dead-letter", `${text.rate(speed["dead letters"])}, ${text.number(look.dead_letters)} held`),
    box("deltas", "topic", "usage-deltas", `${text.rate(speed["in usage"])} in`), box("usage", "box", "usage", state("usage")));
}

function pipelineView(look, speed) {
  const live = look.live, state = new Map((live?.lanes || []).map((lane) => [`${lane.processor}-${lane.partition}`, lane.state]));
  const halted = (live?.lanes || []).filter((lane) => lane.state === "halted").length;
  const stopped = (live?.breakers || []).filter((one) => one.state === "open");
  const silent = (look.workers || []).filter((worker) => worker.silent_s > 15).length;
  return [
    look.broker === "ok" ? null : h("p", { class: "bad" }, `The broker: ${look.broker}`),
    h("div", { class: "tiles" }, tile(text.rate(speed.responses), "responses"), tile(text.number(sum(Object.values(look.lag || {}), (lag) => lag)), "behind, all lanes"),
      tile(text.number(sum(look.lanes, (lane) => lane.unfinished)), "waiting among finished ones"),
      live && tile(text.number(sum(Object.values(live.in_flight), (count) => count)), "in flight here"),
      live && tile(live.ready ? "ready" : "not ready", "this worker", live.ready ? "good" : "bad"),
      live && halted > 0 && tile(text.number(halted), "lanes halted here", "bad"),
      look.workers && tile(text.number(look.workers.length), silent ? `workers, ${silent} silent` : "workers", silent ? "warn" : null),
      stopped.length > 0 && tile(text.number(stopped.length), "breakers open here", "bad")),
    look.lanes.length ? [drawing(look, speed, false), drawing(look, speed, true)] : null,
    live && !live.ready && h("p", { class: "bad" }, Object.entries(live.reasons).map(([name, reason]) => `${name}: ${typeof reason === "string" ? reason : JSON.stringify(reason)}`).join("; ")),
    h("h2", {}, "Lanes"),
    table([
      { title: "processor", of: (lane) => lane.processor }, { title: "topic", of: (lane) => lane.topic, mono: true },
      { title: "partition", of: (lane) => lane.partition, number: true }, { title: "committed", of: (lane) => text.number(lane.committed), number: true },
      { title: "end", of: (lane) => text.number(lane.end), number: true }, { title: "behind", of: (lane) => text.number(lane.lag), number: true },
      { title: "unfinished", of: (lane) => text.number(lane.unfinished), number: true },
      { title: "here", of: (lane) => { const known = state.get(`${lane.processor}-${lane.partition}`); return known && h("span", { class: known === "running" ? "good" : known === "opening" ? "warn" : "bad" }, known); } },
      { title: "problem", of: (lane) => lane.problem || "", wrap: true },
    ], look.lanes),
    (live?.breakers || []).length > 0 && [h("h2", {}, "Breakers of this worker"),
      table([{ title: "target", of: (one) => one.target, mono: true }, { title: "state", of: (one) => h("span", { class: one.state === "closed" ? "good" : one.state === "open" ? "bad" : "warn" }, one.state) }], live.breakers)],
    look.workers && [h("h2", {}, "Workers"), table([{ title: "host", of: (one) => one.host }, { title: "pid", of: (one) => one.pid, number: true },
      { title: "since (UTC)", of: (one) => text.time(one.started_at) }, { title: "last heard of", of: (one) => h("span", { class: one.silent_s > 15 ? "warn" : null }, `${one.silent_s.toFixed(1)} s ago`), number: true }], look.workers)],
    look.journal && look.journal !== "ok" && h("p", { class: "warn" }, `The journal: ${look.journal}`),
  ];
}

const pipeline = {
  title: "Pipeline",
  async show(place) {
    let before = null;
    const look = async () => {
      const focused = document.activeElement?.closest("tbody tr");
      try {
        const now = await api("/api/pipeline");
        if (!place.current() || focused) return;
        place.fill(pipelineView(now, rates(before, now)));
        before = now;
        say("");
      } catch (problem) { if (place.current()) say(problem.message, true); }
    };
    await look();
    place.every(2, look);
  },
};

// -- requests ---------------------------------------------------------------------------------------------------------

const stateOf = (row) => h("span", { class: { succeeded: "good", failed: "bad", started: "warn", following: "warn" }[row.state] }, row.state);

const requests = {
  title: "Requests",
  async show(place, asked) {
    const values = Object.fromEntries(asked);
    const search = form((given) => go(`requests?${query(given)}`),
      field("Request id begins with", input("id", values.id, { "data-search": true, type: "search" }), true), field("Tenant", input("tenant", values.tenant)),
      field("Route", input("route", values.route)), field("State", choice("state", values.state, [["", "finished"], ["succeeded", "succeeded"], ["failed", "failed"], ["started", "started"], ["following", "following"]])),
      h("button", { class: "primary" }, "Search"));
    place.fill(search, h("p", { class: "quiet" }, "reading ..."));
    const found = await api(`/api/search?${query(values)}`);
    const open = (row) => go(`execution?${query({ id: row.request_id, tenant: row.tenant })}`);
    place.fill(search, table([
      { title: "finished (UTC)", of: (row) => text.time(row.finished_at) }, { title: "request", of: (row) => row.request_id, mono: true },
      { title: "tenant", of: (row) => row.tenant }, { title: "route", of: (row) => row.route_id }, { title: "state", of: stateOf },
      { title: "calls begun", of: (row) => row.starts, number: true }, { title: "follows", of: (row) => row.leader_request_id || "", mono: true }, { title: "from", of: (row) => row.source || "in-process", mono: true },
    ], found.rows, open),
    h("p", { class: "quiet" }, "Answers out of the cache are in no journal: open them by their whole id."),
    values.id && !found.rows.length && h("p", {}, h("a", { href: `#/execution?${query({ id: values.id, tenant: values.tenant })}` }, `Open ${values.id} as a whole id`)),
    found.next && h("p", {}, h("a", { href: `#/requests?${query({ ...values, before: found.next })}` }, "Older ones")));
  },
};

function verdict(response) {
  const cache = response.cache, batch = response.batch, steps = [];
  const near = cache.similarity === null || cache.similarity === undefined ? "" : ` at similarity ${cache.similarity}`;
  if (cache.kind === "exact" || cache.kind === "semantic") steps.push(["Cache", `${cache.kind} hit${near}, from entry ${cache.entry_id}${cache.reason ? ` (${cache.reason})` : ""}`]);
  else steps.push(["Cache", cache.kind === "miss" ? (cache.reason ? `miss: the nearest entry${near} was refused, ${cache.reason}` : "miss: nothing like it was kept") : `not asked${cache.reason ? `: ${cache.reason}` : ""}`]);
  if (batch.role === "follower") steps.push(["Batch", ["followed ", h("a", { href: `#/execution?${query({ id: batch.leader_id, tenant: response.tenant })}` }, batch.leader_id), ` at similarity ${batch.similarity}: one call for both`]]);
  else if (batch.role === "leader") steps.push(["Batch", "led: others could join its call"]);
  return steps;
}

const execution = {
  title: "One request", under: "requests",
  async show(place, asked) {
    const id = asked.get("id") || "", tenant = asked.get("tenant") || "";
    const found = await api(`/api/execution?${query({ id, tenant })}`);
    const { journal, response } = found, answer = response || journal?.answer || {}, attempts = response?.attempts?.length ? response.attempts : journal?.attempts || [];
    const error = response?.error || journal?.error, words = h("div", {});
    const reveal = async () => {
      try { const said = await api(`/api/execution/text?${query({ id, tenant })}`); words.replaceChildren(h("pre", {}, said.text ?? JSON.stringify(said.tool_calls))); } catch (problem) { say(problem.message, true); }
    };
    place.fill(h("p", {}, h("code", {}, id), " of ", response?.tenant || journal?.tenant || tenant, journal && [", ", stateOf(journal)], response && [", responded ", h("span", { class: response.status === "ok" ? "good" : "bad" }, response.status)]),
      found.problems.map((problem) => h("p", { class: "warn" }, problem)),
      facts([["Route", response?.route_id || journal?.route_id], ["Answered by", answer.provider && `${answer.provider} / ${answer.model}`],
        ["Cost", response && text.usd(response.cost_usd)], ["Saved", response?.saved_usd ? text.usd(response.saved_usd) : null],
        ["Tokens", answer.usage && `${answer.usage.input_tokens} in, ${answer.usage.output_tokens} out`],
        ["Record", response?.source ? `${response.source.topic}-${response.source.partition}@${response.source.offset}` : journal?.source], ["Out of the journal", response?.from_journal ? "yes: recorded by an earlier run, no call was made" : null],
        ["Replay", response?.replay_id], ["Trace", found.trace_id && h("code", {}, found.trace_id)], ["Begun (UTC)", journal && text.time(journal.created_at)], ["Finished (UTC)", journal?.finished_at && text.time(journal.finished_at)],
        ["Calls begun", journal?.starts], ["Owner", journal && !journal.finished_at ? journal.owner : null]]),
      h("h2", {}, "Story"),
      h("ol", { class: "story" }, response && verdict(response).map(([name, what]) => h("li", {}, h("b", {}, `${name}: `), what)),
        attempts.map((one, number) => h("li", {}, h("b", {}, `Call ${number + 1}: `), `${one.provider} / ${one.model}: `, h("span", { class: one.outcome === "ok" ? "good" : "bad" }, one.outcome), ` ${one.status ?? ""} after ${text.ms(one.duration_ms)}${one.waited_ms ? `, having waited ${text.ms(one.waited_ms)}` : ""}`)),
        error && h("li", {}, h("b", {}, "Error: "), h("span", { class: "bad" }, error.code), ` ${error.message}`, error.remedy && ` - ${error.remedy}`)),
      response && Object.keys(response.timings_ms).length > 0 && [h("h2", {}, "Times"), table([{ title: "step", of: ([name]) => name }, { title: "took", of: ([, took]) => text.ms(took), number: true }], Object.entries(response.timings_ms))],
      found.followers.length > 0 && [h("h2", {}, "Waiting for this one's answer"), table([{ title: "request", of: (row) => row.request_id, mono: true }], found.followers, (row) => go(`execution?${query({ id: row.request_id, tenant: row.tenant })}`))],
      h("h2", {}, "Answer"), h("p", {}, h("button", { type: "button", onclick: reveal }, "Show the text"), !token() && h("span", { class: "quiet" }, " needs the token")), words);
  },
};

// -- dead letters -----------------------------------------------------------------------------------------------------

const deadLetters = {
  title: "Dead letters",
  async show(place, asked) {
    const values = Object.fromEntries(asked);
    const search = form((given) => go(`dead-letters?${query(given)}`), field("Code", input("code", values.code, { "data-search": true })), field("Request id", input("id", values.id)),
      field("Of the last", choice("hours", values.hours, [["", "24 hours"], ["168", "7 days"], ["720", "30 days"]])), h("button", { class: "primary" }, "Search"));
    place.fill(search, h("p", { class: "quiet" }, "reading ..."));
    const found = await api(`/api/dead-letters?${query(values)}`);
    place.fill(search, table([
      { title: "letter", of: (row) => row.letter, mono: true }, { title: "at (UTC)", of: (row) => text.time(row.at) }, { title: "code", of: (row) => row.code },
      { title: "request", of: (row) => row.request_id, mono: true }, { title: "reason", of: (row) => row.reason, wrap: true }, { title: "sent again", of: (row) => row.resent ? "yes" : "" },
    ], found.letters, (row) => go(`dead-letter?${query({ letter: row.letter })}`)),
    h("p", { class: "quiet" }, `${found.letters.length} of ${found.matched}`));
  },
};

const deadLetter = {
  title: "A dead letter", under: "dead-letters",
  async show(place, asked) {
    const letter = asked.get("letter") || "", found = await api(`/api/dead-letters/record?${query({ letter })}`);
    const send = async ({ path, value, force }) => {
      let mended = value;
      try { mended = JSON.parse(value); } catch { /* text stays text */ }
      try {
        const said = await api("/api/dead-letters/resend", { letter, set: path ? { [path]: mended } : {}, force: force === "on" });
        say(said.state === "sent" ? "sent again" : `${said.state}: ${said.reason}`, said.state !== "sent");
      } catch (problem) { say(problem.message, true); }
    };
    place.fill(facts([["Letter", letter], ["Code", found.code], ["Reason", found.reason], ["What to do", found.remedy], ["Request", found.request_id], ["Refused by", found.processor],
      ["Record", found.source], ["At (UTC)", text.time(found.at)], ["Sent again", found.resent ? "yes" : "no"]]),
    h("h2", {}, "Record"), h("pre", {}, found.value ?? "(no value)"),
    h("h2", {}, "Send again"), form(send, field("Set field", input("path", "", { placeholder: "decision.route_id" })), field("to", input("value", "")),
      h("label", {}, "Also if it was sent before", h("input", { type: "checkbox", name: "force" })), h("button", { class: "primary" }, "Send again")));
  },
};

// -- cache ------------------------------------------------------------------------------------------------------------

const cache = {
  title: "Cache",
  async show(place) {
    const found = await api("/api/cache"), out = h("div", { "aria-live": "polite" }), entries = h("div", {});
    const explain = async (given) => {
      out.replaceChildren(h("p", { class: "quiet" }, "judging ..."));
      try {
        const said = await api("/api/cache/explain", given);
        out.replaceChildren(facts([["Would be", h("b", { class: said.would === "miss" || said.would === "bypass" ? "warn" : "good" }, said.would)], ["Because", said.reason], ["Similarity", `${said.cosine} (threshold ${said.threshold})`],
          ["Guard", said.guard || "lets it through"], ["Same scope", said.same_scope ? "yes" : "no"], ["Same words", said.same_words ? "yes" : "no"], ["Marked wrong before", said.counter_example === null ? said.topic : said.counter_example ? "yes" : "no"],
          ["Key of the question", h("code", {}, said.asked_key)], ["Key of the entry", h("code", {}, said.stored_key)]]));
      } catch (problem) { out.replaceChildren(h("p", { class: "bad" }, problem.message)); }
    };
    const find = async (given) => {
      try {
        const rows = (await api(`/api/cache/find?${query(given)}`)).entries;
        entries.replaceChildren(table([{ title: "key", of: (row) => row.key, mono: true }, { title: "tenant", of: (row) => row.tenant }, { title: "route", of: (row) => row.route_id }, { title: "tags", of: (row) => row.tags.join(", ") },
          { title: "seconds left", of: (row) => text.number(row.ttl_s), number: true }, { title: "question", of: (row) => row.text, wrap: true }], rows));
      } catch (problem) { entries.replaceChildren(h("p", { class: "bad" }, problem.message)); }
    };
    const invalidate = async ({ kind, name, reason }) => {
      try {
        const said = await api("/api/cache/invalidate", { ...(kind === "everything" ? { everything: true } : { [kind]: name }), reason });
        say(`taken back by every worker: offset ${said.offset} of the cache-control topic`);
      } catch (problem) { say(problem.message, true); }
    };
    const settings = found.settings, kept = found.kept;
    place.fill(h("div", { class: "tiles" }, tile(settings.enabled ? settings.backend : "off", "backend"), tile(settings.threshold, "threshold"), tile(settings.guard, "guard"), tile(`${text.number(settings.ttl_s)} s`, "kept for"),
      kept && [tile(text.number(kept.entries), "entries"), tile(text.number(kept.aliases), "of them other wordings")], !kept && found.live?.entries != null && tile(text.number(found.live.entries), "entries in this worker")),
    kept && [h("h2", {}, "By tenant"), table([{ title: "tenant", of: ([name]) => name }, { title: "entries", of: ([, count]) => text.number(count), number: true }], Object.entries(kept.tenants).slice(0, 50))],
    h("h2", {}, "What would happen?"),
    form(explain, field("A question", input("asked", "", { required: true, "data-search": true }), true), field("An answered question", input("stored", "", { required: true }), true), field("Route", input("route", "")), field("Tenant", input("tenant", "")), h("button", { class: "primary" }, "Explain")), out,
    settings.backend === "redis" && [h("h2", {}, "Find entries"), form(find, field("Words of the question", input("words", ""), true), field("Tenant", input("tenant", "")), h("button", {}, "Find")), entries],
    h("h2", {}, "Take answers back"),
    form(invalidate, field("What", choice("kind", "key", [["key", "an entry, by its key"], ["request_id", "what a request left"], ["tag", "a tag"], ["route_id", "a route"], ["tenant", "a tenant"], ["everything", "everything"]])),
      field("Which", input("name", ""), true), field("Why", input("reason", "", { required: true }), true), h("button", {}, "Take back")));
  },
};

// -- money ------------------------------------------------------------------------------------------------------------

const PARTS = [["paid", (row) => row.paid_nano, "fa"], ["saved: exact", (row) => row.exact_nano, "fb"], ["saved: semantic", (row) => row.semantic_nano, "fc"], ["saved: coalesced", (row) => row.coalesced_nano, "fd"]];
const usd = (nano) => text.usd(nano / 1e9);

function chart(windows, length) {
  const wide = 900, high = 240, left = 70, bottom = 28, top = 12, most = Math.max(1, ...windows.map((row) => sum(PARTS, ([, of]) => of(row))));
  const first = windows[0].start, count = Math.max(1, Math.round((windows.at(-1).start - first) / length) + 1), step = (wide - left - 10) / count;
  const y = (nano) => high - bottom - (nano / most) * (high - bottom - top);
  const bars = windows.flatMap((row) => {
    let at = 0;
    return PARTS.map(([name, of, colour]) => {
      const value = of(row) || 0, from = at; at += value;
      return value > 0 && h("rect", { x: left + ((row.start - first) / length) * step + step * 0.1, y: y(at), width: Math.max(1, Math.min(step * 0.8, 60)), height: Math.max(0.5, y(from) - y(at)), class: colour },
        h("title", { ns: false }, `${text.time(row.start)} ${name} ${usd(value)}`));
    });
  });
  const marks = [0, 0.5, 1].map((share) => h("g", {}, h("line", { x1: left, x2: wide - 10, y1: y(most * share), y2: y(most * share), class: "axis" }), h("text", { x: left - 8, y: y(most * share) + 4, "text-anchor": "end", class: "small" }, usd(most * share))));
  const ends = [h("text", { x: left, y: high - 8, class: "small" }, text.time(first).slice(0, 16)), count > 1 && h("text", { x: wide - 10, y: high - 8, "text-anchor": "end", class: "small" }, text.time(windows.at(-1).start).slice(0, 16))];
  return [h("div", { class: "scroll" }, h("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": "Money paid and saved by window" }, marks, bars, ends)),
    h("ul", { class: "legend" }, PARTS.map(([name, , colour]) => h("li", {}, h("i", { class: colour }), name)))];
}

const money = {
  title: "Money",
  async show(place, asked) {
    const values = Object.fromEntries(asked), given = { window: values.window || "hour", since: values.since || "1d", by: values.by || "tenant" };
    const search = form((wanted) => go(`money?${query(wanted)}`), field("Windows of", choice("window", given.window, [["minute", "a minute"], ["hour", "an hour"], ["day", "a day"]])), field("Since", choice("since", given.since, [["1h", "an hour ago"], ["6h", "6 hours ago"], ["1d", "a day ago"], ["7d", "7 days ago"], ["30d", "30 days ago"]])),
      field("By", choice("by", given.by, [["tenant", "tenant"], ["route", "route"], ["model", "model"], ["tenant,model", "tenant and model"]])), h("button", { class: "primary" }, "Show"));
    place.fill(search, h("p", { class: "quiet" }, "reading ..."));
    const found = await api(`/api/money?${query(given)}`), total = (of) => sum(found.windows, of), paid = total((row) => row.paid_nano);
    const saved = sum(PARTS.slice(1), ([, of]) => total(of)), names = given.by.split(","), totals = new Map();
    for (const row of found.groups) {
      const key = names.map((name) => row[name]).join("\u0000"), known = totals.get(key) || { ...row };
      if (totals.has(key)) for (const [name, value] of Object.entries(row)) if (typeof value === "number" && name !== "start") known[name] += value;
      totals.set(key, known);
    }
    const ledger = h("div", {}, h("p", {}, h("button", { type: "button", onclick: async () => {
      try {
        const lines = await api("/api/ledger?since=1d");
        ledger.replaceChildren(table([{ title: "tenant", of: (line) => line.tenant }, { title: "calls without the runtime", of: (line) => text.number(line.calls_without), number: true }, { title: "paid", of: (line) => text.number(line.calls.paid), number: true },
          { title: "exact", of: (line) => text.number(line.calls.exact), number: true }, { title: "semantic", of: (line) => text.number(line.calls.semantic), number: true }, { title: "coalesced", of: (line) => text.number(line.calls.coalesced), number: true },
          { title: "money without", of: (line) => usd(line.nano_without), number: true }, { title: "reconciled", of: (line) => line.differences.length ? h("span", { class: "bad" }, line.differences.join("; ")) : h("span", { class: "good" }, "to zero") }], lines));
      } catch (problem) { ledger.replaceChildren(h("p", { class: "bad" }, problem.message)); }
    } }, "Hold the last day against the journal")));
    place.fill(search, h("div", { class: "tiles" }, tile(text.number(total((row) => row.requests)), "requests"), tile(usd(paid), "paid"), tile(usd(saved), "saved"), tile(paid + saved ? `${((100 * saved) / (paid + saved)).toFixed(1)} %` : "-", "of the money not spent")),
      found.windows.length ? chart(found.windows, found.window_s) : h("p", { class: "quiet" }, "Nothing was counted in this time. Does a usage processor run?"),
      h("h2", {}, `By ${names.join(" and ")}`), table([...names.map((name) => ({ title: name, of: (row) => row[name] || "-" })), { title: "requests", of: (row) => text.number(row.requests), number: true }, { title: "paid calls", of: (row) => text.number(row.paid), number: true },
        { title: "exact", of: (row) => text.number(row.exact), number: true }, { title: "semantic", of: (row) => text.number(row.semantic), number: true }, { title: "coalesced", of: (row) => text.number(row.coalesced), number: true },
        { title: "paid", of: (row) => usd(row.paid_nano), number: true }, { title: "saved", of: (row) => usd(sum(PARTS.slice(1), ([, of]) => of(row))), number: true }], [...totals.values()].sort((a, b) => b.paid_nano - a.paid_nano)),
      h("h2", {}, "Ledger"), ledger);
  },
};

export const pages = { pipeline, requests, execution, "dead-letters": deadLetters, "dead-letter": deadLetter, cache, money };
