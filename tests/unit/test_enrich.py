"""What enrich holds in flight, whatever becomes of a batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest

from stratarouter_runtime import wire
from stratarouter_runtime.assembly import Assembly
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import OutputRefusedError
from stratarouter_runtime.port_values import CacheHit
from stratarouter_runtime.processors.enrich import SEND_LESS, TOPICS_TRUSTED_S
from stratarouter_runtime.processors.finished import Insteads
from stratarouter_runtime.records import Answer, Coordinates, DeadLetter, Outbound
from stratarouter_runtime.routes import RouteTable
from unit.enrich_bench import enrich_of, records

if TYPE_CHECKING:
    from stratarouter_runtime.processors.enrich import Enrich
    from stratarouter_runtime.processors.lane import Lane

CONFIG = RuntimeConfig(state_backend="memory", cache_backend="memory", cache_control="off")
GONE = OutputRefusedError("no topic", topics=frozenset({"responses.gone"}))
TABLE = {
    "providers": {"sim": {"kind": "simulator", "base_url": "http://127.0.0.1:1"}},
    "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
}


class Noting:
    """A lane that notes what is finished, and that it was fenced."""

    name = "requests-0"
    backlog_end = 0

    def __init__(self) -> None:
        self.finished: list[int] = []
        self.written: dict[int, Sequence[Outbound]] = {}
        self.instead: dict[int, Insteads] = {}
        self.fenced = asyncio.Event()

    def finish(self, offset: int, outbounds: Sequence[Outbound], instead: Insteads = ()) -> None:
        self.finished.append(offset)
        self.written[offset] = outbounds
        self.instead[offset] = instead

    def fence(self, _problem: Exception) -> None:
        self.fenced.set()


def _failing(config: RuntimeConfig, monkeypatch: pytest.MonkeyPatch) -> Enrich:
    enrich = enrich_of(Assembly(config, RouteTable.from_dict(TABLE)))
    monkeypatch.setattr(enrich, "_trials", SimpleNamespace(judged=lambda *_: 1 / 0))
    return enrich


class Unforeseen:
    """A record whose headers cannot be had, for as often as it is tried."""

    def __init__(self, record: Any) -> None:
        self._record = record
        self._fails = CONFIG.poison_tries

    def __getattr__(self, name: str) -> Any:
        if name == "headers" and self._fails:
            self._fails -= 1
            raise ZeroDivisionError("what nobody foresaw")
        return getattr(self._record, name)


async def test_a_record_that_no_step_foresaw_is_a_dead_letter_and_the_others_go_on() -> None:
    enrich = enrich_of(Assembly(CONFIG, RouteTable.from_dict(TABLE)))
    asked = [{"request_id": f"r-{number}", "decision": "chat", "query": "hi"} for number in range(3)]
    polled = records([orjson.dumps(one) for one in asked])
    polled[1] = Unforeseen(polled[1])
    lane = Noting()
    enrich.handle(cast("Lane", lane), polled)
    assert sorted(lane.finished) == [0, 1, 2]
    assert [wire.decode_dead_letter(one.value).code for one in lane.written[1]] == ["poison"]
    assert enrich.in_flight == 0


TOO_LARGE = OutputRefusedError("larger than the topic takes", too_large=True)
CLOSED = OutputRefusedError("no right to it")


def _handled(value: bytes, enrich: Enrich | None = None) -> Noting:
    """A lane with what became of a record of ``value``."""
    enrich, lane = enrich or enrich_of(Assembly(CONFIG, RouteTable.from_dict(TABLE))), Noting()
    enrich.handle(cast("Lane", lane), records([value]))
    assert (lane.finished, enrich.in_flight) == ([0], 0)
    return lane


def _letter(outbounds: Sequence[Outbound]) -> DeadLetter:
    [out] = outbounds
    return wire.decode_dead_letter(out.value)


def test_a_request_whose_execution_is_larger_than_its_topic_takes_is_a_dead_letter() -> None:
    asked = orjson.dumps({"request_id": "r-1", "decision": "chat", "query": "hi"})
    lane = _handled(asked)
    first, second = lane.instead[0]
    letter, shorter = _letter(first(TOO_LARGE)), _letter(second(TOO_LARGE))
    assert (letter.code, letter.request_id, letter.value) == ("record_too_large", "r-1", asked)
    assert (shorter.code, shorter.request_id, shorter.value) == ("record_too_large", "r-1", None)
    assert (letter.source, letter.remedy) == (shorter.source, shorter.remedy) == (Coordinates("t", 0, 0, 1), SEND_LESS)


def test_a_request_is_not_given_up_because_the_topic_of_executions_is_closed_to_the_worker() -> None:
    lane = _handled(orjson.dumps({"request_id": "r-1", "decision": "chat", "query": "hi"}))
    with pytest.raises(OutputRefusedError, match="no right to it"):
        lane.instead[0][0](CLOSED)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"not JSON", "undecodable"),
        (orjson.dumps({"decision": {"route_id": "chat", "scores": {"n" * 9_000: "high"}}}), "schema_violation"),
        (orjson.dumps({"decision": "nowhere", "query": "hi"}), "unknown_route"),
    ],
)
def test_a_refused_record_has_a_short_dead_letter_whatever_its_topic_refuses(value: bytes, code: str) -> None:
    lane = _handled(value)
    [instead] = lane.instead[0]
    letter, shorter = _letter(lane.written[0]), _letter(instead(TOO_LARGE))
    assert (letter.code, letter.value, len(letter.reason) < 1_000) == (code, value, True)
    assert (shorter.code, shorter.key, shorter.value, shorter.headers) == (code, None, None, ())
    assert shorter.reason.startswith(letter.reason)
    assert TOO_LARGE.message in shorter.reason


@pytest.mark.parametrize(("refusal", "code"), [(TOO_LARGE, None), (CLOSED, None), (GONE, "reply_topic_not_allowed")])
def test_a_hit_is_answered_without_its_check_where_the_two_are_refused(
    refusal: OutputRefusedError, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hit = CacheHit("exact", 1.0, "e", Answer("kept", "sim", "gpt-4o-mini"))
    trials = SimpleNamespace(judged=lambda *_: (None, hit), shadow_of=lambda execution, _: execution)
    enrich = enrich_of(Assembly(CONFIG, RouteTable.from_dict(TABLE)))
    monkeypatch.setattr(enrich, "_trials", trials)
    lane = _handled(orjson.dumps({"request_id": "r-1", "decision": "chat", "query": "hi"}), enrich)
    assert len(lane.written[0]) == 2
    first, second = lane.instead[0]
    for [out], said in ((first(refusal), code), (second(TOO_LARGE), "response_too_large")):
        response = wire.decode_response(out.value)
        assert (response.request_id, response.error and response.error.code) == ("r-1", said)
        assert response.text == (None if said else "kept")


async def test_a_batch_that_fails_at_once_gives_its_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    enrich = _failing(CONFIG, monkeypatch)
    asked = [{"request_id": f"r-{number}", "decision": "chat", "query": "hi"} for number in range(3)]
    with pytest.raises(ZeroDivisionError):
        enrich.handle(cast("Lane", Noting()), records([orjson.dumps(one) for one in asked]))
    assert enrich.in_flight == 0


async def test_a_batch_that_fails_gives_its_room_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    enrich = _failing(CONFIG, monkeypatch)
    nowhere = f"{CONFIG.reply_topic_prefix}.nowhere"
    asked = [
        {"request_id": f"r-{number}", "decision": "chat", "query": "hi"} | ({"reply_to": nowhere} if number else {})
        for number in range(3)
    ]
    lane = Noting()
    enrich.handle(cast("Lane", lane), records([orjson.dumps(one) for one in asked]))
    assert enrich.in_flight == 3
    async with asyncio.timeout(5):
        await lane.fenced.wait()
    assert lane.finished == [1, 2], "refused before the rest failed"
    assert enrich.in_flight == 0


def test_a_reply_topic_is_looked_for_again_after_a_while() -> None:
    enrich = enrich_of(Assembly(CONFIG, RouteTable.from_dict(TABLE)))
    enrich._topics, enrich._listed_at = frozenset({"responses.mine"}), time.monotonic()
    assert [enrich._is_unknown(name) for name in ("responses.mine", "responses.other", None)] == [False, True, False]
    enrich._listed_at -= TOPICS_TRUSTED_S + 1
    assert [enrich._is_unknown(name) for name in ("responses.mine", "responses.other", None)] == [True, True, False]
