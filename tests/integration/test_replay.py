"""Replay and dead letters over the real stack: answered again without paying, once for each replay; mended and sent."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiokafka.admin import NewTopic

from stratarouter_runtime import topics, wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine import respond
from stratarouter_runtime.engine.respond import Story
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.port_values import Recorded
from stratarouter_runtime.processors import kafka_client
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.records import Answer, Coordinates, Execution, Usage
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings
from stratarouter_runtime.tools.dead_letters import DeadLetters, Wish, parse_change
from stratarouter_runtime.tools.ranges import RangeReader, Span, Wanted
from stratarouter_runtime.tools.replay import HEADER, Plan, Replay, Report, find_spans
from support.cluster import admin
from support.fleet import Watch, WorkerProcess, command, produce, request, write_routes

pytestmark = pytest.mark.stack

ASKED = 40
AGAIN = 20
"""Requests whose words were asked before: the cache answers them, and no journal knows."""
BAD = 3
FAILED = 4


@dataclass
class Answered:
    """A pipeline that has answered everything once, with its worker still running."""

    config: RuntimeConfig
    simulator: Simulator
    watch: Watch

    @property
    def ids(self) -> set[str]:
        return {f"r{n}" for n in range(ASKED + AGAIN)}


@pytest.fixture
async def answered(config: RuntimeConfig, tmp_path: Path) -> AsyncIterator[Answered]:
    await topics.apply(config, partitions=3)
    await migrate(config.database_url)
    async with Simulator(SimulatorSettings(latency_ms=20)) as simulator, Watch(config) as watch:
        worker = WorkerProcess(
            config, write_routes(tmp_path / "routes.toml", simulator.base_url), tmp_path / "worker.log"
        )
        await worker.start()
        await produce(config, [request(f"r{n}", f"what is {n} and {n}") for n in range(ASKED)])
        await watch.until(ASKED, 60)
        bad = [request(f"bad{n}", f"a bad one {n}", route="nowhere") for n in range(BAD - 1)]
        again = [request(f"r{ASKED + n}", f"what is {n} and {n}") for n in range(AGAIN)]
        await produce(config, [*again, *bad, b"{no json"])
        seen = await watch.until(ASKED + AGAIN + BAD, 60)
        assert len(seen.responses) == ASKED + AGAIN
        assert len(seen.dead_letters) == BAD
        yield Answered(config, simulator, watch)
        assert await worker.stop() == 0


async def _plan(config: RuntimeConfig, **more: Any) -> Plan:
    return Plan(tuple(await find_spans(config, [], None, None)), **more)


async def test_a_range_is_answered_again_without_paying_and_once(answered: Answered) -> None:
    config, watch = answered.config, answered.watch
    plan, paid = await _plan(config), len(answered.simulator.paid_calls)
    dry = await Replay(config, plan, go=False).run()
    assert (dry.requests, dry.refused, dry.unanswered, dry.published) == (ASKED + AGAIN + BAD - 1, 1, BAD - 1, 0)
    done = await Replay(config, plan, go=True).run()
    assert done.published == ASKED + AGAIN
    assert (done.from_journal, done.from_responses) == (dry.from_journal, dry.from_responses)
    assert done.from_responses >= AGAIN // 2
    assert len(done.without) == BAD - 1
    assert all("bad" in line for line in done.without)
    assert [line.partition(" ")[2] for line in done.unread] == ["undecodable"]
    # Started again, it has nothing left to do; another name is another replay.
    again = await Replay(config, plan, go=True).run()
    assert (again.published, again.before) == (0, ASKED + AGAIN)
    other = await Replay(config, await _plan(config, replay_id="another", tenant="acme"), go=True).run()
    assert other.published == ASKED + AGAIN
    seen = await watch.until(3 * (ASKED + AGAIN) + BAD, 60)
    seen = await watch.settle(1.0)
    assert Counter(response.request_id for response in seen.responses) == dict.fromkeys(answered.ids, 3)
    originals = {r.request_id: r for r in seen.responses if r.replay_id is None}
    for replay_id in (plan.name, "another"):
        mine = {r.request_id: r for r in seen.responses if r.replay_id == replay_id}
        assert set(mine) == answered.ids
        assert all(mine[name].text == originals[name].text for name in answered.ids)
        assert all(mine[name].source == originals[name].source for name in answered.ids)
    assert len(answered.simulator.paid_calls) == paid


async def test_a_replay_broken_off_goes_on_where_it_was(answered: Answered) -> None:
    config, watch = answered.config, answered.watch
    plan = await _plan(config, tenant="acme")
    runs = 0
    report: Report | None = None
    while report is None:
        task = asyncio.create_task(Replay(config, plan, go=True, rate=15).run())
        done, _ = await asyncio.wait({task}, timeout=2.0)
        runs += 1
        if done:
            report = task.result()
        else:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert runs < 60
    assert runs > 1
    assert report.before > 0
    assert report.before + report.published == ASKED + AGAIN
    await watch.until(2 * (ASKED + AGAIN) + BAD, 60)
    seen = await watch.settle(1.0)
    assert Counter(r.request_id for r in seen.responses if r.replay_id) == dict.fromkeys(answered.ids, 1)


async def test_executing_again_pays_and_answers_under_new_ids(answered: Answered) -> None:
    config, watch = answered.config, answered.watch
    paid = len(answered.simulator.paid_calls)
    plan = await _plan(config, re_execute=True, request_id="r3", replay_id="x1")
    report = await Replay(config, plan, go=True).run()
    assert report.published == 1
    seen = await watch.until(ASKED + AGAIN + BAD + 1, 60)
    assert seen.responses[-1].request_id == "r3.replay-x1"
    assert len(answered.simulator.paid_calls) == paid + 1
    assert (await Replay(config, plan, go=True).run()).published == 0
    # What a replay has written is left out of the next one.
    later = await Replay(config, await _plan(config, re_execute=True, request_id="r3.replay-x1"), go=True).run()
    assert (later.published, later.replays) == (0, 1)


async def test_only_what_was_answered_with_an_error_or_not_at_all_is_executed_again(answered: Answered) -> None:
    config, watch, simulator = answered.config, answered.watch, answered.simulator
    simulator.set_faults([FaultRule("status", status=400)])
    await produce(config, [request(f"e{n}", f"one that fails {n} times {n}") for n in range(FAILED)])
    await watch.until(ASKED + AGAIN + BAD + FAILED, 60)
    simulator.set_faults([])
    paid = len(simulator.paid_calls)
    plan = await _plan(config, re_execute=True, only_errors=True, replay_id="x2")
    dry = await Replay(config, plan, go=False).run()
    # Those of a route that is not there have no answer either; hits, which no journal knows, have theirs.
    assert (dry.left_out, dry.re_executed, dry.unanswered) == (ASKED + AGAIN, FAILED + BAD - 1, 0)
    assert (await Replay(config, plan, go=True).run()).published == FAILED + BAD - 1
    seen = await watch.until(ASKED + AGAIN + BAD + 2 * FAILED + BAD - 1, 60)
    seen = await watch.settle(1.0)
    assert {r.request_id for r in seen.responses[-FAILED:]} == {f"e{n}.replay-x2" for n in range(FAILED)}
    assert {r.status for r in seen.responses[-FAILED:]} == {"ok"}
    assert len(simulator.paid_calls) == paid + FAILED
    again = await Replay(config, plan, go=True).run()
    assert (again.published, again.before) == (0, FAILED + BAD - 1)
    # The range has grown by what the replay has written; looked at, too, it says what is paid for already.
    moved = replace(plan, spans=(await _plan(config)).spans)
    assert moved.spans != plan.spans
    for go in (False, True):
        again = await Replay(config, moved, go=go).run()
        assert (again.re_executed, again.published, again.before) == (FAILED + BAD - 1, 0, FAILED + BAD - 1)
    with pytest.raises(ConfigurationError, match="chooses what to execute again"):
        await Replay(config, await _plan(config, only_errors=True), go=True).run()


async def test_what_was_mended_and_answered_since_is_not_executed_once_more(answered: Answered) -> None:
    """A mended letter stands elsewhere, its hit in no journal: it was paid for although its id has its answer."""
    config, watch = answered.config, answered.watch
    await produce(config, [request("known", "a bad one 0"), request("twice", "something else", route="nowhere")])
    count = ASKED + AGAIN + BAD + 2
    await watch.until(count, 60)
    mend = ("dead-letters", "resend", "--code", "unknown_route", "--set", "decision.route_id=support", "--go", "--json")
    for name in ("bad0", "bad1"):
        code, out, err = await command(config, *mend, "--request-id", name)
        assert code == 0, (out, err)
    # Not mended, but another question under the same id.
    await produce(config, [request("twice", "what is 1 and 1")])
    seen = await watch.until(count + 3, 60)
    ends = {response.request_id: response.cache.kind for response in seen.responses[-3:]}
    assert ends == {"bad0": "exact", "bad1": "miss", "twice": "exact"}
    plan = await _plan(config, re_execute=True, only_errors=True, replay_id="x3")
    report = await Replay(config, plan, go=True).run()
    assert (report.re_executed, report.published) == (1, 1)
    seen = await watch.until(count + 4, 60)
    assert seen.dead_letters[-1].request_id == "twice.replay-x3"


async def test_the_same_words_pay_once_while_their_bounds_move_on(answered: Answered) -> None:
    """The id was made of the offsets that "20m" stood for, which are others at each start: typed twice, paid twice."""
    config, watch, simulator = answered.config, answered.watch, answered.simulator
    paid = len(simulator.paid_calls)
    words = ("replay", "--re-execute", "--from", "1h", "--request-id", "r3")
    code, out, err = await command(config, *words, "--go", "--json")
    assert code == 0, err
    first = orjson.loads(out)
    assert (first["published"], first["before"]) == (1, 0)
    await watch.until(ASKED + AGAIN + BAD + 1, 60)
    code, out, _ = await command(config, *words, "--go")
    assert (code, "0 written, 1 by an earlier run" in out) == (0, True), out
    code, out, _ = await command(config, *words)
    assert (code, "0 to be executed again, and paid for" in out, "1 by an earlier run" in out) == (0, True, True), out
    assert first["continue"] in err
    # Over just its offsets, as it was said: the same replay. Under a name of one's own it is another one.
    code, out, err = await command(config, *shlex.split(first["continue"])[1:])
    assert (code, "0 written, 1 by an earlier run" in out) == (0, True), (out, err)
    assert len(simulator.paid_calls) == paid + 1
    code, out, err = await command(config, *words, "--replay-id", "once-more", "--go")
    assert (code, "1 written, 0 by an earlier run" in out) == (0, True), (out, err)
    seen = await watch.until(ASKED + AGAIN + BAD + 2, 60)
    assert seen.responses[-1].request_id == "r3.replay-once-more"
    assert len(simulator.paid_calls) == paid + 2


async def test_a_replay_whose_bounds_move_answers_each_request_once(answered: Answered) -> None:
    """What came since is answered too, hits among them, which stand on the responses topic in an order of their own."""
    config, watch = answered.config, answered.watch
    plan = await _plan(config, asked=("1h",))
    assert (await Replay(config, plan, go=True).run()).published == ASKED + AGAIN
    late = {f"late{n}" for n in range(6)}
    await produce(config, [request(f"late{n}", f"what is {n} and {n}" if n % 2 else f"new {n}") for n in range(6)])
    await watch.until(2 * (ASKED + AGAIN) + BAD + 6, 60)
    moved = await _plan(config, asked=("1h",))
    assert (moved.name, moved.spans != plan.spans) == (plan.name, True)
    report = await Replay(config, moved, go=True).run()
    assert (report.published, report.before) == (6, ASKED + AGAIN)
    # Earlier offsets than were ever looked at, under the same name, are gone through as well.
    part = [Span(span.partition, span.end - 1, span.end) for span in plan.spans]
    named = [await _plan(config, replay_id="mine"), replace(await _plan(config, replay_id="mine"), spans=tuple(part))]
    ends = await Replay(config, named[1], go=True).run()
    assert (await Replay(config, named[0], go=True).run()).before == ends.published
    await watch.until(4 * (ASKED + AGAIN + 6) - 6 - (ASKED + AGAIN) + BAD, 60)
    seen = await watch.settle(1.0)
    for name in (plan.name, "mine"):
        mine = Counter(response.request_id for response in seen.responses if response.replay_id == name)
        assert mine == dict.fromkeys(answered.ids | late, 1)


async def test_a_hit_is_found_though_the_clock_of_who_asked_is_ahead(config: RuntimeConfig) -> None:
    await topics.apply(config, partitions=1)
    await migrate(config.database_url)
    asked_on, now_ms = config.topic(config.requests_topic), int(time.time() * 1000)
    value, ahead_ms = request("r1", "what is 1"), now_ms + 120_000
    producer = kafka_client.producer(config)
    await producer.start()
    sent = await producer.send_and_wait(asked_on, value, key=b"r1", timestamp_ms=ahead_ms, partition=0)
    at = Coordinates(asked_on, 0, sent.offset, ahead_ms)
    asked = wire.decode_request(value, headers=(), limits=wire.Limits.of(config), source=at)
    hit = Recorded(Answer("hit", "openai", "m", Usage(1, 1)), None)
    response = respond.from_outcome(Execution(asked, (), None, "", "", "", source=at), hit, Story())
    responses = config.topic(config.responses_topic)
    await producer.send_and_wait(responses, wire.encode_response(response), timestamp_ms=now_ms, partition=0)
    await producer.stop()
    plan = Plan(tuple(await find_spans(config, [], None, None)), re_execute=True, only_errors=True)
    report = await Replay(config, plan, go=False).run()
    assert (report.left_out, report.re_executed) == (1, 0)


async def test_two_ranges_of_one_partition_are_both_gone_through(answered: Answered) -> None:
    config = answered.config
    [span] = [max(await find_spans(config, [], None, None), key=lambda span: span.width)]
    ranges = (Span(span.partition, span.begin, span.begin + 2), Span(span.partition, span.begin + 4, span.begin + 5))
    assert (await Replay(config, Plan(ranges), go=False).run()).read == 3


async def test_a_topic_that_is_not_there_is_named_before_anything_is_written(answered: Answered) -> None:
    config = answered.config
    target = config.topic("nosuch")
    with pytest.raises(ConfigurationError, match=f"--to-topic {target}: there is no such topic"):
        await Replay(config, await _plan(config, to_topic=target), go=True).run()


async def test_responses_go_to_another_topic_with_the_mark(answered: Answered) -> None:
    config = answered.config
    target = config.topic("elsewhere")
    async with admin(config) as client:
        await client.create_topics([NewTopic(target, 1, 1)])
    report = await Replay(config, await _plan(config, request_id="r1", to_topic=target), go=True).run()
    assert report.published == 1
    async with Tail(config, target, from_beginning=True) as tail:
        records = []
        while not any(record.key == b"r1" for record in records):
            records += await tail.poll()
    [marked] = [record for record in records if record.key == b"r1"]
    assert dict(marked.headers)[HEADER] == orjson.loads(marked.value or b"")["replay_id"].encode()
    for name in ("requests", "executions", "dead-letter", "cache-control", "usage-deltas", "usage"):
        with pytest.raises(ConfigurationError, match="expect other records"):
            await Replay(config, await _plan(config, to_topic=config.topic(name)), go=True).run()


async def test_ranges_are_held_against_what_the_topic_has(answered: Answered) -> None:
    config = answered.config
    async with RangeReader(config, config.topic("requests")) as reader:
        whole = await reader.spans()
        assert sum(span.width for span in whole) == ASKED + AGAIN + BAD
        assert await reader.spans(since_ms=4_000_000_000_000) == []
        assert await reader.spans(until_ms=0) == []
        first = whole[0]
        part = await reader.spans([Wanted(first.partition, first.begin + 1, first.begin + 3)])
        assert part == [Span(first.partition, first.begin + 1, first.begin + 3)]
        read = [record.offset async for records in reader.read(part) for record in records]
        assert read == [first.begin + 1, first.begin + 2]
        with pytest.raises(ConfigurationError, match="no partition 7"):
            await reader.spans([Wanted(7)])
        with pytest.raises(ConfigurationError, match="does not hold offset"):
            await reader.spans([Wanted(0, 10_000)])


async def test_dead_letters_are_listed_mended_and_sent_once(answered: Answered) -> None:
    config, watch = answered.config, answered.watch
    letters = DeadLetters(config)
    listing = await letters.find(Wish())
    assert (listing.matched, listing.unreadable) == (BAD, 0)
    wrong = (await letters.find(Wish(code="unknown_route"))).letters
    assert {found.letter.request_id for found in wrong} == {"bad0", "bad1"}
    assert not any(found.resent for found in wrong)
    # As they are they would be let through here, since only workers know the routes; mended they are answered.
    change = parse_change("decision.route_id=support")
    assert {outcome.state for outcome in await letters.resend(wrong, changes=[change], go=False)} == {"sent"}
    assert {outcome.state for outcome in await letters.resend(wrong, changes=[change])} == {"sent"}
    seen = await watch.until(ASKED + AGAIN + BAD + 2, 60)
    assert {response.request_id for response in seen.responses} == answered.ids | {"bad0", "bad1"}
    assert {outcome.state for outcome in await letters.resend(wrong, changes=[change])} == {"before"}
    assert {found.resent for found in (await letters.find(Wish(code="unknown_route"))).letters} == {True}
    assert (await letters.find(Wish(resent=False))).matched == BAD - 2
    [broken] = (await letters.find(Wish(resent=False))).letters
    [refused] = await letters.resend([broken], changes=[change])
    assert refused.state == "refused"
    assert "no JSON object" in refused.reason
    [sent] = await letters.resend([broken], value=request("mended", "written anew"))
    assert sent.state == "sent"
    await watch.until(ASKED + AGAIN + BAD + 3, 60)
    seen = await watch.settle(1.0)
    assert seen.by_id == dict.fromkeys(answered.ids | {"bad0", "bad1", "mended"}, 1)


async def test_the_commands(answered: Answered) -> None:
    config = answered.config
    code, out, err = await command(config, "replay", "--request-id", f"r{ASKED + 1}", "--json")
    assert (code, err) == (0, "")
    said = orjson.loads(out)
    assert (said["requests"], said["dry_run"], said["published"]) == (1, True, 0)
    assert said["from_journal"] + said["from_responses"] == 1
    code, out, _ = await command(config, "replay", "--from", "1h", "--go")
    assert code == 1  # the two of a route that is not there have no answer
    assert " undecodable" in out
    assert f"{ASKED + AGAIN} written, 0 by an earlier run" in out
    code, out, _ = await command(config, "replay", "--from", "1h", "--re-execute", "--only-errors")
    assert code == 1  # what was refused for its form cannot be sent again
    assert f"{BAD - 1} to be executed again, and paid for" in out
    assert f"{ASKED + AGAIN} answered then, left out" in out
    for arguments, exits, expected in (
        (("replay",), 2, "no range"),
        (("replay", "--request-id", "nobody"), 2, "knows no response"),
        (("replay", "--offsets", "0:9..3"), 2, "is empty"),
        (("replay", "--offsets", "x"), 2, "is no range"),
        (("replay", "--from", "yesterday"), 2, "is no time"),
        (("dead-letters", "show", "0"), 2, "no dead letter's address"),
        (("dead-letters", "resend"), 2, "no letters named"),
    ):
        code, out, err = await command(config, *arguments)
        assert (code, out) == (exits, ""), arguments
        assert expected in err
        assert "remedy" in err
    code, out, _ = await command(config, "dead-letters", "list", "--json")
    listed = [orjson.loads(line) for line in out.splitlines()]
    assert sorted(letter["code"] for letter in listed) == ["undecodable", "unknown_route", "unknown_route"]
    letter = next(letter for letter in listed if letter["code"] == "unknown_route")
    code, out, _ = await command(config, "dead-letters", "show", letter["letter"])
    assert code == 0
    assert '"nowhere"' in out
    assert letter["source"] in out
    code, out, _ = await command(config, "replay", "--dead-letter", letter["letter"], "--json")
    assert code == 0
    assert orjson.loads(out) == {"letter": letter["letter"], "state": "sent", "reason": "", "dry_run": True}
    arguments = ("dead-letters", "resend", letter["letter"], "--set", "decision.route_id=support")
    code, out, _ = await command(config, *arguments)
    assert (code, "1 of 1 would be sent; --go sends" in out) == (0, True)
    code, out, _ = await command(config, *arguments, "--go")
    assert (code, "1 of 1 sent" in out) == (0, True)
    code, out, _ = await command(config, *arguments, "--go", "--json")
    assert code == 1
    assert orjson.loads(out)["state"] == "before"
