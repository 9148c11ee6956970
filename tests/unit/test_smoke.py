"""The smoke test counts its own records on topics that it shares with everybody."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from stratarouter_runtime import wire
from stratarouter_runtime.demo.smoke import _Count
from stratarouter_runtime.processors.tail import Tail
from stratarouter_runtime.records import Coordinates, DeadLetter, Response

AT = Coordinates("requests", 0, 7, 1_700_000_000_000)
FOREIGN = (b"junk", b"", None, b"[]", b'{"request_id": "smoke-1-0"}', b"\xff\xfe")


class Topic:
    """A topic's tail that gives what it holds, each time anew."""

    def __init__(self, *values: bytes | None) -> None:
        self._records = [SimpleNamespace(value=value, timestamp=AT.timestamp_ms + 5) for value in values]

    async def poll(self, _timeout_s: float = 1.0) -> Sequence[Any]:
        return self._records


async def test_other_peoples_records_pass_by() -> None:
    ours, theirs = (Response(f"{name}-0", "ok", text="42", source=AT) for name in ("smoke-1", "smoke-2"))
    letters = [
        DeadLetter("unknown_route", "no such route", "add it", AT, "enrich", name.encode(), b"{}", request_id=name)
        for name in ("smoke-1-1", "smoke-2-1")
    ]
    responses = Topic(*FOREIGN, *(wire.encode_response(one) for one in (theirs, ours)), *FOREIGN)
    dead = Topic(*FOREIGN, *(wire.encode_dead_letter(one) for one in letters), *FOREIGN)
    count = _Count("smoke-1-")
    await count.collect(cast("Tail", responses), cast("Tail", dead))
    assert set(count.tally.responses) == {"smoke-1-0"}
    assert count.tally.latencies_ms == [5.0]
    assert dict(count.letters) == {"unknown_route": 1}
    assert count.refused == {"smoke-1-1"}
    assert count.settled == 2
