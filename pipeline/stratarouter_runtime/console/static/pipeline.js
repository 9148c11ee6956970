// The pipeline, drawn with what flows through it now. Rates are differences between two looks.
import { api, code, empty, h, hint, moment, pill, query, say, section, sparkline, sum, table, text, tile, tiles } from "./ui.js";

const EVERY_S = 2;
const KEPT = 90; // looks: three minutes
const OVER_S = 10; // a rate is taken over so long
const SILENT_S = 15;
const past = []; // of this tab, also while another page is shown

const kinds = ["exact", "semantic", "coalesced", "paid", "replayed", "errors"];
const counted = (look, names) => (look.counts ? sum(names, (name) => look.counts[name]) : null);
const lanesOf = (look, processor) => look.lanes.filter((lane) => lane.processor === processor);

function remember(look) {
  past.push(look);
  while (past.length > KEPT) past.shift();
}

/** What grew per second between the look OVER_S ago and `at`; null where that cannot be told. */
function rate(of, at = past.length - 1) {
  const now = past[at];
  const before = past.slice(0, at).find((look) => now.at - look.at <= OVER_S + 1);
  if (!before || now.at <= before.at) return null;
  const [later, earlier] = [of(now), of(before)];
  return later === null || earlier === null || later < earlier ? null : (later - earlier) / (now.at - before.at);
}

const history = (of) => past.map((_, at) => rate(of, at));
const total = (processor, name) => (look) => (look.lanes.length ? sum(lanesOf(look, processor), (lane) => lane[name]) : null);

const flow = {
  requests: total("enrich", "end"),
  enriched: total("enrich", "committed"),
  responses: (look) => counted(look, ["requests"]),
  hits: (look) => counted(look, ["exact", "semantic"]),
  executed: (look) => counted(look, ["coalesced", "paid", "replayed", "errors"]),
  calls: (look) => counted(look, ["paid"]),
  letters: (look) => (look.broker === "ok" ? look.dead_letters : null),
};

// -- the drawing ------------------------------------------------------------------------------------------------------

const WIDE = {
  view: "0 0 960 262", wide: 150, high: 58,
  at: { requests: [12, 74], enrich: [208, 74], executions: [404, 74], execute: [600, 74], responses: [798, 74], dead: [404, 188], deltas: [600, 188], usage: [798, 188] },
  flows: [
    ["requests", "M162 103H205", 183, 94], ["misses", "M358 103H401", 379, 94], ["misses", "M554 103H597", 575, 94], ["executed", "M750 103H795", 772, 94],
    ["hits", "M283 74V30H873V71", 578, 22], ["letters", "M283 132V217H401", 342, 210], ["letters", "M635 132V160H479V185"],
    ["deltas", "M690 132V185"], ["deltas", "M750 217H795"],
  ],
};
const NARROW = {
  view: "0 0 360 420", wide: 150, high: 58,
  at: { requests: [8, 10], enrich: [8, 102], executions: [8, 194], execute: [8, 286], responses: [202, 194], dead: [202, 102], deltas: [202, 286], usage: [202, 356] },
  flows: [
    ["requests", "M83 68V99", 104, 88], ["misses", "M83 160V191", 104, 180], ["misses", "M83 252V283", 104, 272],
    ["hits", "M158 146H180V212H199", 180, 184], ["executed", "M158 300H180V234H199", 180, 266], ["letters", "M158 124H199"],
    ["deltas", "M158 320H199"], ["deltas", "M277 344V353"],
  ],
};
WIDE.name = "wide";
NARROW.name = "narrow";

function drawing(look, plan) {
  const speed = {
    requests: rate(flow.requests), hits: rate(flow.hits), executed: rate(flow.executed), letters: rate(flow.letters),
    responses: rate(flow.responses), enriched: rate(flow.enriched),
  };
  speed.misses = speed.executed;
  const most = Math.max(...Object.values(speed).map((value) => value || 0), 1);
  const troubled = new Set((look.live?.lanes || []).filter((lane) => lane.state === "halted" || lane.state === "fenced").map((lane) => lane.processor));
  const box = (key, kind, title, under) => {
    const [x, y] = plan.at[key], middle = x + plan.wide / 2;
    return h("g", {}, h("rect", { x, y, width: plan.wide, height: plan.high, rx: kind === "topic" ? 28 : 8, class: `${kind} ${troubled.has(key) ? "trouble" : ""}` }),
      h("text", { x: middle, y: y + 25, class: "name" }, title), h("text", { x: middle, y: y + 43, class: "under" }, under));
  };
  const arrow = ([name, d, x, y]) => {
    const moved = speed[name] || 0, width = 1.5 + 3.5 * Math.sqrt(moved / most);
    return h("g", {}, h("path", { d, class: `flow ${name}`, "stroke-width": name === "deltas" ? 1.5 : width.toFixed(1), "marker-end": `url(#head-${plan.name})` }),
      moved > 0 && h("path", { d, class: `moving ${moved > most / 2 ? "fast" : ""}`, "stroke-width": 1.5 }),
      x !== undefined && (name === "hits" || name === "letters" || plan.name === "wide") && h("text", { x, y, class: `rate ${name}` }, name === "hits" ? `hits ${text.rate(speed.hits)}` : text.rate(speed[name])));
  };
  const behind = (name) => `${text.number(look.lag[name] ?? null)} behind`;
  const head = h("marker", { id: `head-${plan.name}`, viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 9, markerHeight: 9, markerUnits: "userSpaceOnUse", orient: "auto" }, h("path", { d: "M0 0L8 4L0 8z", class: "head" }));
  return h("svg", { class: `pipeline ${plan.name}`, viewBox: plan.view, role: "img", "aria-label": `Requests ${text.rate(speed.requests)} go through enrich: ${text.rate(speed.hits)} are hits and answered at once, ${text.rate(speed.misses)} go on to execute; responses ${text.rate(speed.responses)}` },
    h("defs", {}, head), plan.flows.map(arrow),
    box("requests", "topic", "requests", `${text.rate(speed.requests)} in`), box("enrich", "box", "enrich", behind("enrich")),
    box("executions", "topic", "executions", "misses"), box("execute", "box", "execute", behind("execute")),
    box("responses", "topic", "responses", `${text.rate(speed.responses)} out`), box("dead", "topic", "dead-letter", `${text.number(look.dead_letters)} held`),
    box("deltas", "topic", "usage-deltas", "one a commit"), box("usage", "box", "usage", behind("usage")));
}

// -- the page ---------------------------------------------------------------------------------------------------------

function overview(look) {
  const live = look.live, workers = look.workers, silent = (workers || []).filter((worker) => worker.silent_s > SILENT_S).length;
  const halted = (live?.lanes || []).filter((lane) => lane.state === "halted").length, open = (live?.breakers || []).filter((one) => one.state === "open").length;
  const behind = (at) => sum(Object.values(at.lag || {}), (lag) => lag), answered = rate(flow.responses), hits = rate(flow.hits);
  return tiles(
    tile(text.rate(answered), "responses", { spark: sparkline(history(flow.responses), "responses a second over three minutes"), note: look.counts ? null : "needs the usage processor" }),
    tile(answered ? text.share(hits / answered) : "-", "answered by the cache", { spark: sparkline(history(flow.hits), "hits a second over three minutes") }),
    tile(text.rate(rate(flow.calls)), "paid calls", { spark: sparkline(history(flow.calls), "paid calls a second over three minutes") }),
    tile(text.number(behind(look)), "records behind", { spark: sparkline(past.map(behind), "records behind over three minutes"), note: `${text.number(sum(look.lanes, (lane) => lane.unfinished))} unfinished beside finished ones` }),
    live && tile(live.ready ? "ready" : "not ready", "this worker", { state: live.ready ? "good" : "bad", note: `${text.number(sum(Object.values(live.in_flight), (count) => count))} calls in flight` }),
    workers && tile(text.number(workers.length), "workers", { state: silent ? "warn" : null, note: silent ? `${silent} silent` : null }),
    halted > 0 && tile(text.number(halted), "lanes halted here", { state: "bad" }),
    open > 0 && tile(text.number(open), "breakers open here", { state: "bad" }));
}

function lanes(look) {
  const known = new Map((look.live?.lanes || []).map((lane) => [`${lane.processor}-${lane.partition}`, lane.state]));
  const most = Math.max(1, ...look.lanes.map((lane) => lane.lag));
  const done = (lane) => rate((at) => at.lanes.find((one) => one.processor === lane.processor && one.partition === lane.partition)?.committed ?? null);
  const bar = (lane) => h("svg", { class: "bar", viewBox: "0 0 60 8", preserveAspectRatio: "none", "aria-hidden": "true" }, h("rect", { width: (60 * lane.lag) / most, height: 8 }));
  return section("Lanes", table("Lanes", [
    { title: "lane", of: (lane) => h("span", {}, lane.processor, " ", h("span", { class: "quiet mono" }, `${lane.topic}-${lane.partition}`)) },
    { title: "offsets/s", of: (lane) => text.rate(done(lane)), number: true, minor: true },
    { title: "committed", of: (lane) => text.number(lane.committed), number: true, minor: true },
    { title: "end", of: (lane) => text.number(lane.end), number: true, minor: true },
    { title: "behind", of: (lane) => [bar(lane), text.number(lane.lag)], number: true },
    { title: "unfinished", of: (lane) => text.number(lane.unfinished), number: true, minor: true },
    { title: "here", of: (lane) => pill(known.get(`${lane.processor}-${lane.partition}`)) || "" },
    look.lanes.some((lane) => lane.problem) && { title: "problem", of: (lane) => lane.problem || "", wrap: true },
  ].filter(Boolean), look.lanes), h("p", { class: "quiet" }, "Offsets count the markers of transactions too; the rates above count responses."));
}

function view(look) {
  const live = look.live;
  if (look.broker !== "ok") {
    return [live && overview(look), empty(`The broker does not answer: ${look.broker}`, "Is it running? ", code("stratarouter-runtime doctor"), " says what to do.")];
  }
  return [
    overview(look), drawing(look, WIDE), drawing(look, NARROW),
    live && !live.ready && h("p", { class: "bad" }, "Not ready: ", Object.entries(live.reasons).map(([name, reason]) => `${name}: ${typeof reason === "string" ? reason : JSON.stringify(reason)}`).join("; ")),
    look.journal && look.journal !== "ok" && h("p", { class: "warn" }, `The journal: ${look.journal}`),
    look.lanes.length ? lanes(look) : empty("No lane has committed anything yet.", "Start a worker: ", code("stratarouter-runtime worker")),
    h("div", { class: "side" },
      (live?.breakers || []).length > 0 && section("Breakers of this worker", table("Breakers", [{ title: "target", of: (one) => one.target, mono: true }, { title: "state", of: (one) => pill(one.state) }], live.breakers)),
      look.workers && section("Workers", table("Workers", [
        { title: "process", of: (one) => `${one.host} ${one.pid}`, mono: true }, { title: "since (UTC)", of: (one) => moment(one.started_at) },
        { title: "heard of", of: (one) => h("span", { class: one.silent_s > SILENT_S ? "warn" : null }, `${text.seconds(Math.max(0, one.silent_s))} ago`), number: true },
      ], look.workers, { none: empty("No worker is registered.", "Start one: ", code("stratarouter-runtime worker")) }))),
  ];
}

export const pipeline = {
  title: "Pipeline",
  async show(place) {
    const look = async () => {
      try {
        const now = await api("/api/pipeline");
        if (!past.length || now.at > past.at(-1).at) remember(now);
        if (!place.current()) return;
        place.fill(view(now));
        say("");
      } catch (problem) { if (place.current()) say(problem.message, "bad"); }
    };
    await look();
    place.every(EVERY_S, look);
  },
};
