"""What the operators' tools make of what they read: partitions come at uneven speed, and records may have no time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Self, cast

import orjson
import pytest
from aiokafka import ConsumerRecord

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.port_values import JournalKey
from stratarouter_runtime.records import CacheVerdict, Coordinates, DeadLetter, Response
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.state.offsets import OffsetMap
from stratarouter_runtime.tools import dead_letters, hits, replay, sent_again, what_if
from stratarouter_runtime.tools.dead_letters import DeadLetters, Wish
from stratarouter_runtime.tools.ranges import Span
from stratarouter_runtime.tools.replay import Plan, Replay
from stratarouter_runtime.tools.sent_again import Missing, Place, SentAgain

CONFIG = RuntimeConfig()
SMALL = RuntimeConfig(max_request_bytes=2048)
REQUESTS, RESPONSES = CONFIG.topic(CONFIG.requests_topic), CONFIG.topic(CONFIG.responses_topic)
TABLE = RouteTable.from_dict(
    {
        "providers": {"sim": {"kind": "simulator", "base_url": "http://127.0.0.1:1/v1"}},
        "default": {"targets": [{"provider": "sim", "model": "m"}]},
    }
)
NO_TIME = -1
"""A client that writes Kafka's first formats, or none, leaves it out."""
NOW_MS = 1_900_000_000_000


def record(topic: str, partition: int, offset: int, time_ms: int, value: bytes) -> Any:
    return ConsumerRecord(topic, partition, offset, time_ms, 0, b"k", value, None, 0, len(value), ())


class Reader:
    """Gives what it holds, in the order in which it was put there."""

    def __init__(self, held: dict[str, list[Any]]) -> None:
        self.held = held
        self.asked: list[tuple[int | None, int | None]] = []
        self.topic = ""
        self.read_spans: list[list[Span]] = []

    def __call__(self, config: RuntimeConfig, topic: str) -> Self:
        del config
        self.topic = topic
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to do."""

    async def spans(
        self, wanted: Sequence[object] = (), since_ms: int | None = None, until_ms: int | None = None
    ) -> list[Span]:
        """All there is. As aiokafka, it knows no time before 1970."""
        del wanted
        assert min(since_ms or 0, until_ms or 0) >= 0
        self.asked.append((since_ms, until_ms))
        return [Span(partition, 0, 200) for partition in sorted({one.partition for one in self.held[self.topic]})]

    async def read(self, spans: Sequence[Span], *, chunk: int = 1) -> AsyncIterator[list[Any]]:
        """One record at a time."""
        del chunk
        self.read_spans.append(list(spans))
        for one in self.held[self.topic]:
            yield [one]


async def test_the_newest_letters_are_kept_in_whatever_order_the_partitions_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last that were read were kept: all of the slowest partition, which may be the oldest of all."""
    letter = wire.encode_dead_letter(DeadLetter("poison", "r", "", Coordinates(REQUESTS, 0, 1), "enrich", None, None))
    topic = CONFIG.topic(CONFIG.dead_letter_topic)
    new = [record(topic, 0, offset, NOW_MS + offset, letter) for offset in range(5)]
    old = [record(topic, 1, offset, NOW_MS - 1_000 + offset, letter) for offset in range(5)]
    monkeypatch.setattr(dead_letters, "RangeReader", Reader({topic: new + old}))
    finder = DeadLetters(CONFIG)

    async def nothing_resent(_: int) -> OffsetMap:
        return OffsetMap(-1, -1)

    monkeypatch.setattr(finder, "_resent", nothing_resent)
    listing = await finder.find(Wish(), limit=6)
    assert [found.address for found in listing.letters] == ["1@4", "0@0", "0@1", "0@2", "0@3", "0@4"]
    assert (listing.matched, listing.unreadable) == (10, 0)


@pytest.mark.parametrize(
    ("times", "asked"),
    [
        ((NOW_MS, NOW_MS + 5), (NOW_MS, NOW_MS + 5 + what_if.AFTER_MS)),
        ((NOW_MS, NO_TIME), (0, NOW_MS + what_if.AFTER_MS)),
        ((NO_TIME, NO_TIME), (0, None)),
    ],
)
async def test_a_request_without_a_time_fails_no_what_if(
    monkeypatch: pytest.MonkeyPatch, times: tuple[int, ...], asked: tuple[int, int | None]
) -> None:
    requests, responses = [], []
    for offset, time_ms in enumerate(times):
        value = orjson.dumps({"request_id": f"r{offset}", "query": f"question {offset}", "decision": "support"})
        requests.append(record(REQUESTS, 0, offset, time_ms, value))
        answer = Response(f"r{offset}", "ok", text="a", source=Coordinates(REQUESTS, 0, offset, time_ms))
        responses.append(record(RESPONSES, 0, offset, NOW_MS, wire.encode_response(answer)))
    reader = Reader({REQUESTS: requests, RESPONSES: responses})
    monkeypatch.setattr(what_if, "RangeReader", reader)
    monkeypatch.setattr(RouteTable, "for_config", lambda _: TABLE)
    report = await what_if.compare(CONFIG, (CONFIG, TABLE), [Span(0, 0, 100)])
    assert (report.unknown, report.refused, report.was.requests) == (0, 0, len(times))
    assert reader.asked == [asked]


PLACE = {"topic": REQUESTS, "partition": 0, "offset": 0}


@pytest.mark.parametrize(
    "foreign",
    [
        {"source": "elsewhere"},
        {"source": [1]},
        {"source": PLACE | {"partition": [0]}},
        {"source": PLACE, "status": "ok", "attempts": [{"provider": "p"}]},
        {"source": PLACE, "status": "ok", "attempts": ["p"]},
        {"source": PLACE, "status": "ok", "usage": 7},
        {"source": PLACE, "status": "ok", "usage": {"input_tokens": [1]}},
        {"source": PLACE, "status": "ok", "cost_usd": "much", "attempts": [{"duration_ms": 1}]},
        {"source": PLACE, "status": "ok", "cache": "hit"},
        {"source": PLACE, "status": "ok", "cache": {"kind": []}},
    ],
)
@pytest.mark.parametrize("answered", [False, True])
async def test_what_is_no_response_of_ours_fails_no_what_if(
    monkeypatch: pytest.MonkeyPatch, foreign: dict[str, object], answered: bool
) -> None:
    """One foreign record on the responses topic ended it with an AttributeError or a KeyError."""
    value = orjson.dumps({"request_id": "r0", "query": "question", "decision": "support"})
    answer = wire.encode_response(Response("r0", "ok", text="a", source=Coordinates(REQUESTS, 0, 0, NOW_MS)))
    values = [orjson.dumps(foreign), *([answer] if answered else [])]
    responses = [record(RESPONSES, 0, offset, NOW_MS, one) for offset, one in enumerate(values)]
    reader = Reader({REQUESTS: [record(REQUESTS, 0, 0, NOW_MS, value)], RESPONSES: responses})
    monkeypatch.setattr(what_if, "RangeReader", reader)
    monkeypatch.setattr(RouteTable, "for_config", lambda _: TABLE)
    report = await what_if.compare(CONFIG, (CONFIG, TABLE), [Span(0, 0, 100)])
    assert (report.unknown, report.was.requests) == ((0, 1) if answered else (1, 0))


# -- hits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "foreign",
    [
        {"cache": "hit"},
        {"cache": {"kind": [1]}},
        {"cache": {"kind": "exact"}, "source": "elsewhere", "request_id": "x"},
        {"cache": {"kind": "exact"}, "source": {"topic": REQUESTS}, "request_id": "x"},
    ],
)
async def test_what_is_no_hit_of_ours_fails_no_page_of_hits(
    monkeypatch: pytest.MonkeyPatch, foreign: dict[str, object]
) -> None:
    """One foreign record failed the console's page, and each replay showed its hits once more."""
    hit = Response("r0", "ok", cache=CacheVerdict("exact"), source=Coordinates(REQUESTS, 0, 0, NOW_MS))
    values = [wire.encode_response(hit), wire.encode_response(replace(hit, replay_id="again")), orjson.dumps(foreign)]
    held = [record(RESPONSES, 0, offset, NOW_MS, value) for offset, value in enumerate(values)]
    monkeypatch.setattr(hits, "RangeReader", Reader({RESPONSES: held}))
    rows, searched = await hits.find_hits(CONFIG, hits.Hits(prefix="r"), 10)
    assert [(row["request_id"], row["source"]) for row in rows] == [("r0", f"{REQUESTS}-0@0")]
    assert searched == len(values)
    everything, _ = await hits.find_hits(CONFIG, hits.Hits(), 10)
    assert {row["source"] for row in everything if row["request_id"] != "r0"} <= {None}


# -- replay -----------------------------------------------------------------------------------------------------


class Unheard:
    """A journal that knows no request."""

    async def lookup(self, keys: Sequence[object]) -> list[None]:
        return [None] * len(keys)

    payload_hashes = lookup


@pytest.mark.parametrize("only_errors", [False, True])
@pytest.mark.parametrize("tenant", [None, "default"])
async def test_a_request_that_its_new_id_makes_too_large_is_named_and_the_others_are_sent_again(
    only_errors: bool, tenant: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = b'{"request_id":"r%d","decision":"support","query":"%s"}'
    near = fill % (1, b"x" * 1_980)
    assert wire.decode_request(near, limits=wire.Limits.of(SMALL)), "it was executed when it came"
    asked = [fill % (0, b"a"), near, fill % (2, b"b")]
    found = [record(REQUESTS, 0, offset, 1, value) for offset, value in enumerate(asked)]
    monkeypatch.setattr(replay, "RangeReader", Reader({REQUESTS: found}))
    plan = Plan((Span(0, 0, 3),), re_execute=True, only_errors=only_errors, tenant=tenant)
    once, sent = Replay(SMALL, plan, go=False), []

    async def published(_: Span, __: Sequence[Any], outbounds: Sequence[Any]) -> None:
        sent.extend(offset for offset, _ in outbounds)

    monkeypatch.setattr(once, "_publish", published)
    await once._answer_from_journal(cast("PostgresJournal", Unheard()))
    if only_errors:
        await once._execute_missing()
    assert sent == [0, 2]
    assert (once.report.re_executed, once.report.refused) == (2, 0)
    assert once.report.unread == [f"{REQUESTS}-0@1 record_too_large"]


HITS = 40
"""Answered out of the cache, between others that the journal knows."""


@pytest.mark.parametrize("again", [False, True])
async def test_only_errors_reads_none_of_what_its_own_response_answers(
    again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hit between others was read as a span of its own, a round trip each: 10 s for 10,000 hits."""
    asked = [b'{"request_id":"r%d","decision":"support","query":"a"}' % (n % HITS) for n in range(2 * HITS)]
    found = [record(REQUESTS, 0, 2 * offset, 1, value) for offset, value in enumerate(asked)]
    reader = Reader({REQUESTS: found})
    monkeypatch.setattr(sent_again, "RangeReader", reader)
    missing: dict[Place, Missing] = {}
    for n in range(HITS):
        request = wire.decode_request(asked[n], limits=wire.Limits.of(CONFIG))
        missing[REQUESTS, 0, 2 * n] = Missing(JournalKey.of(request), wire.payload_hash(request), 1)
    seeking = SentAgain(CONFIG, missing)
    answered = range(HITS, 2 * HITS) if again else range(HITS)
    for n in answered:
        seeking.note(Response(f"r{n % HITS}", "ok", source=Coordinates(REQUESTS, 0, 2 * n)))
    if again:
        assert sorted(await seeking.found()) == sorted(missing)
        assert len(reader.read_spans) == 1, "what stands near is read in one go"
    else:
        missing.clear()  # as they had their answers themselves
        assert await seeking.found() == []
        assert reader.read_spans == []
