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
from stratarouter_runtime.processors.enrich import TOPICS_TRUSTED_S
from stratarouter_runtime.records import Outbound
from stratarouter_runtime.routes import RouteTable
from unit.enrich_bench import enrich_of, records

if TYPE_CHECKING:
    from stratarouter_runtime.processors.enrich import Enrich
    from stratarouter_runtime.processors.lane import Lane

CONFIG = RuntimeConfig(state_backend="memory", cache_backend="memory", cache_control="off")
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
        self.fenced = asyncio.Event()

    def finish(self, offset: int, outbounds: Sequence[Outbound], _instead: object = None) -> None:
        self.finished.append(offset)
        self.written[offset] = outbounds

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
