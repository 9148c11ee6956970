// Dead letters: what was refused and why, and sending it again, one by one or all that are listed.
import { api, attempt, choice, code, empty, facts, field, form, go, h, input, moment, pill, query, say, section, submit, table, text } from "./ui.js";

const FIELDS = ["decision.route_id", "decision.confidence", "context.tenant", "query"];
const HOURS = [["", "24 hours"], ["168", "7 days"], ["720", "30 days"]];

const mend = (words) => { try { return JSON.parse(words); } catch { return words; } };
const change = () => [
  field("Set field", input("path", "", { placeholder: FIELDS[0], list: "fields" })), h("datalist", { id: "fields" }, FIELDS.map((name) => h("option", { value: name }))), field("to", input("value", "")),
];
const again = (letter, { path, value, force }) => api("/api/dead-letters/resend", { letter, set: path ? { [path]: mend(value) } : {}, force: force === "on" });

export const deadLetters = {
  title: "Dead letters",
  async show(place, asked) {
    const values = Object.fromEntries(asked);
    const search = form((given) => go(`dead-letters?${query(given)}`), field("Code", input("code", values.code, { "data-search": true })), field("Request id", input("id", values.id)),
      field("Of the last", choice("hours", values.hours, HOURS)), submit("Search"));
    place.fill(search, h("p", { class: "quiet" }, "reading ..."));
    const found = await api(`/api/dead-letters?${query(values)}`), waiting = found.letters.filter((row) => !row.resent);
    const codes = new Map();
    for (const row of found.letters) codes.set(row.code, (codes.get(row.code) || 0) + 1);
    const all = (given) => attempt(async () => {
      const became = {};
      for (const [at, row] of waiting.entries()) {
        const { state } = await again(row.letter, given);
        became[state] = (became[state] || 0) + 1;
        say(`${at + 1} of ${waiting.length}: ${Object.entries(became).map(([name, count]) => `${count} ${name}`).join(", ")}`, became.refused ? "warn" : "good");
      }
    });
    place.fill(search,
      codes.size > 0 && h("p", { class: "chips" }, [...codes].map(([name, count]) => h("a", { href: `#/dead-letters?${query({ ...values, code: name })}` }, name, h("b", {}, text.number(count))))),
      table("Dead letters", [
        { title: "at (UTC)", of: (row) => moment(row.at) }, { title: "letter", of: (row) => row.letter, mono: true, main: true }, { title: "code", of: (row) => pill(row.code, "bad") },
        { title: "request", of: (row) => row.request_id, mono: true, minor: true }, { title: "reason", of: (row) => row.reason, wrap: true, minor: true }, { title: "sent again", of: (row) => (row.resent ? pill("yes", "good") : "") },
      ], found.letters, {
        link: (row) => `dead-letter?${query({ letter: row.letter })}`,
        none: empty(values.code || values.id ? "No letter fits." : "Nothing was refused in this time.", "Every record that cannot be executed comes here, with a code, a reason and a remedy."),
      }),
      found.letters.length > 0 && h("p", { class: "quiet" }, `${text.number(found.letters.length)} of ${text.number(found.matched)}, the newest first`),
      waiting.length > 1 && section(`Send the ${waiting.length} that are listed and were not sent again`, form(all, change(), submit("Send all again")),
        h("p", { class: "quiet" }, "More, or by time: ", code("stratarouter-runtime dead-letters resend --code ... --set ... --go"))));
  },
};

/** Indented only where that changes nothing: a number beyond 2^53 or a name given twice is shown as it came. */
function pretty(value) {
  try {
    const read = JSON.parse(value);
    return JSON.stringify(read) === value ? JSON.stringify(read, null, 2) : value;
  } catch { return value ?? "(no value)"; }
}

export const deadLetter = {
  title: "A dead letter", under: "dead-letters",
  async show(place, asked) {
    const letter = asked.get("letter") || "", found = await api(`/api/dead-letters/record?${query({ letter })}`);
    const send = (given) => attempt(async () => {
      const said = await again(letter, given);
      say(said.state === "sent" ? "sent again" : `${said.state}: ${said.reason}`, said.state === "sent" ? "good" : "bad");
    });
    place.fill(h("p", { class: "lead" }, code(letter), pill(found.code, "bad"), found.resent && pill("sent again", "good")),
      h("p", {}, found.reason), h("p", {}, h("b", {}, "What to do: "), found.remedy),
      facts([["Request", found.request_id && code(found.request_id)], ["Refused by", found.processor], ["Record", code(found.source)], ["At (UTC)", text.time(found.at)]]),
      section("Send again", form(send, change(), h("label", { class: "check" }, h("input", { type: "checkbox", name: "force" }), "also if it was sent before"), submit("Send again"))),
      section("Record", h("pre", { tabindex: 0 }, pretty(found.value)),
        Object.keys(found.headers).length > 0 && [h("h3", {}, "Headers"), facts(Object.entries(found.headers).map(([name, value]) => [name, code(value)]))]));
  },
};
