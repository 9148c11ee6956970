// Requests: the journal and the answers out of the cache, and one request's whole story.
import { api, attempt, button, choice, code, empty, facts, field, form, go, h, hint, input, moment, pill, query, section, submit, table, text, tile, tiles, token } from "./ui.js";

const STATES = [["", "finished"], ["succeeded", "succeeded"], ["failed", "failed"], ["started", "under way"], ["following", "following"], ["hit", "hits of the cache"]];
const address = (row) => `execution?${query({ id: row.request_id, tenant: row.tenant })}`;
const took = (row) => (row.finished_at ? text.ms(new Date(row.finished_at) - new Date(row.created_at)) : "-");

const columns = [
  { title: "at (UTC)", of: (row) => moment(row.finished_at || row.created_at) },
  { title: "request", of: (row) => row.request_id, mono: true, main: true },
  { title: "tenant", of: (row) => row.tenant, minor: true }, { title: "route", of: (row) => row.route_id, minor: true }, { title: "state", of: (row) => pill(row.state) },
  { title: "answered by", of: (row) => row.model || "", mono: true, minor: true },
  { title: "cost", of: (row) => (row.leader_request_id ? "shared" : text.usd(row.cost_usd)), number: true, minor: true },
  { title: "took", of: took, number: true, minor: true }, { title: "calls begun", of: (row) => row.starts ?? "", number: true, minor: true },
  { title: "record", of: (row) => row.source || "in-process", mono: true, minor: true },
];

export const requests = {
  title: "Requests",
  async show(place, asked) {
    const values = Object.fromEntries(asked);
    const search = form((given) => go(`requests?${query(given)}`),
      field("Request id begins with", input("id", values.id, { "data-search": true, type: "search" }), true), field("Tenant", input("tenant", values.tenant)),
      field("Route", input("route", values.route)), field("State", choice("state", values.state, STATES)), submit("Search"));
    place.fill(search, h("p", { class: "quiet" }, "reading ..."));
    const found = await api(`/api/search?${query(values)}`);
    const filtered = values.id || values.tenant || values.route || values.state;
    const none = filtered
      ? empty("Nothing fits.", values.id ? ["Answers out of the cache are in no journal: ", h("a", { href: `#/execution?${query({ id: values.id, tenant: values.tenant })}` }, `open ${values.id} as a whole id`), "."] : "Fewer filters find more; hits of the cache are a state of their own.")
      : empty("Nothing has been answered yet.", "Send a request: ", code('stratarouter-runtime request "Where is my invoice?" --route billing'));
    place.fill(search, table("Requests", columns, found.rows, { link: address, none }),
      found.rows.length > 0 && h("p", { class: "quiet" }, values.state === "hit" ? `Among the last ${text.number(found.searched)} responses.` : ["Answers out of the cache are in no journal: ", h("a", { href: `#/requests?${query({ ...values, state: "hit" })}` }, "look at the hits"), "."]),
      found.next && h("p", {}, h("a", { href: `#/requests?${query({ ...values, before: found.next })}` }, "Older ones")));
  },
};

// -- one request ------------------------------------------------------------------------------------------------------

function verdict(response) {
  const { cache, batch } = response, steps = [];
  const near = cache.similarity === null || cache.similarity === undefined ? "" : ` at similarity ${cache.similarity}`;
  if (cache.kind === "exact" || cache.kind === "semantic") steps.push(["Cache", pill(cache.kind), ` hit${near}, from entry `, code(cache.entry_id), cache.reason && ` (${cache.reason})`]);
  else if (cache.kind === "miss") steps.push(["Cache", pill("miss", "plain"), cache.reason ? [`the nearest entry${near} was refused: `, code(cache.reason)] : "nothing like it was kept"]);
  else steps.push(["Cache", pill("not asked", "plain"), cache.reason]);
  if (batch.role === "follower") steps.push(["Batch", pill("follower", "good"), "of ", h("a", { href: `#/${address({ request_id: batch.leader_id, tenant: response.tenant })}` }, batch.leader_id), ` at similarity ${batch.similarity}: one call for both`]);
  else if (batch.role === "leader") steps.push(["Batch", pill("leader", "plain"), "others could join its call"]);
  return steps;
}

const call = (one, number) => [`Call ${number + 1}`, pill(one.outcome), `${one.provider} / ${one.model}`, one.status ? ` answered ${one.status}` : "", ` after ${text.ms(one.duration_ms)}`, one.waited_ms ? `, having waited ${text.ms(one.waited_ms)} before` : ""];
const failure = (error) => ["Error", pill(error.code, "bad"), error.message, error.remedy && ` - ${error.remedy}`];
const story = (steps) => h("ol", { class: "story" }, steps.map(([name, ...what]) => h("li", {}, h("b", {}, name), h("span", {}, ...what.flat().filter(Boolean).flatMap((part) => [part, " "])))));

/** How long each step took: `enrich` and `execute` are wholes, the others parts of them. */
function times(found) {
  const rows = Object.entries(found), most = Math.max(...rows.map(([, ms]) => ms), 1e-9);
  const bar = (name, ms) => h("svg", { class: "took", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, h("rect", { class: name === "provider" ? "fc" : "fa", width: Math.max(0.5, (100 * ms) / most), height: 10 }, hint(`${name} ${text.ms(ms)}`)));
  return table("Times", [{ title: "step", of: ([name]) => name }, { title: "took", of: ([, ms]) => text.ms(ms), number: true }, { title: "", of: ([name, ms]) => bar(name, ms) }], rows);
}

export const execution = {
  title: "One request", under: "requests",
  async show(place, asked) {
    const id = asked.get("id") || "", tenant = asked.get("tenant") || "";
    const { journal, response, followers, problems, trace_id } = await api(`/api/execution?${query({ id, tenant })}`);
    const answer = response || journal?.answer || {}, error = response?.error || journal?.error, words = h("div", {});
    const attempts = response?.attempts?.length ? response.attempts : journal?.attempts || [];
    const reveal = () => attempt(async () => {
      const said = await api(`/api/execution/text?${query({ id, tenant })}`);
      words.replaceChildren(h("pre", { tabindex: 0 }, said.text ?? JSON.stringify(said.tool_calls, null, 2)));
    });
    const whole = response && (response.timings_ms.enrich || 0) + (response.timings_ms.execute || 0), source = response?.source;
    place.fill(
      h("p", { class: "lead" }, code(id), pill(journal?.state), response && pill(response.status === "ok" ? "ok" : "error"), h("span", { class: "quiet" }, `of ${response?.tenant || journal?.tenant || tenant}`)),
      problems.map((problem) => h("p", { class: "warn" }, problem)),
      tiles(response && tile(text.usd(response.cost_usd), "cost"), response?.saved_usd ? tile(text.usd(response.saved_usd), "saved", { state: "good" }) : null,
        whole ? tile(text.ms(whole), "in the runtime") : null, answer.model && tile(answer.model, answer.provider), answer.usage && tile(`${text.number(answer.usage.input_tokens)} + ${text.number(answer.usage.output_tokens)}`, "tokens in and out")),
      section("Story", story([...(response ? verdict(response) : []), ...attempts.map(call), ...(error ? [failure(error)] : [])])),
      followers.length > 0 && section("Waiting for this one's answer", table("Followers", [{ title: "request", of: (row) => row.request_id, mono: true }], followers, { link: address })),
      h("div", { class: "side" },
        response && Object.keys(response.timings_ms).length > 0 && section("Times", times(response.timings_ms)),
        section("Where and when", facts([["Route", response?.route_id || journal?.route_id], ["Record", code(source ? `${source.topic}-${source.partition}@${source.offset}` : journal?.source || "in-process")],
          ["Trace", trace_id && code(trace_id)], ["Out of the journal", response?.from_journal ? "yes: recorded by an earlier run, no call was made" : null], ["Replay", response?.replay_id],
          ["Begun (UTC)", journal && text.time(journal.created_at)], ["Finished (UTC)", journal?.finished_at && text.time(journal.finished_at)], ["Calls begun", journal?.starts], ["Owner", journal && !journal.finished_at ? code(journal.owner) : null]]))),
      section("Answer", h("p", {}, button("Show the text", reveal), !token() && h("span", { class: "quiet" }, " needs the token")), words));
  },
};
