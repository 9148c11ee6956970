"""A mark by request id alone is looked up until that says something about it: a broker that is away does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from stratarouter_runtime.errors import BrokerError, OutputRefusedError, TopicContractError
from stratarouter_runtime.processors import control_resolve
from stratarouter_runtime.processors.control_resolve import MAX_PENDING, Resolver
from stratarouter_runtime.records import CacheCommand, CacheVerdict, Response

NOW_MS = 1_000_000_000


class Topics:
    """Finds each response, and writes what is said; a search raises what ``away`` has for it."""

    def __init__(self, *away: Exception | None) -> None:
        self.away = list(away)
        self.found: list[str] = []
        self.said: list[str | None] = []
        self.resolver = Resolver(self.find, self.say)
        self.meanwhile: Callable[[], None] = lambda: None

    async def find(self, request_id: str, _: str | None) -> Response | None:
        self.found.append(request_id)
        self.meanwhile()
        error = self.away.pop(0) if self.away else None
        if error is not None:
            raise error
        return Response(request_id, "ok", cache=CacheVerdict("miss", key=f"key of {request_id}"))

    async def say(self, command: CacheCommand) -> int:
        self.said.append(command.key)
        return len(self.said)

    def mark(self, *request_ids: str) -> None:
        for request_id in request_ids:
            command = CacheCommand("mark_wrong", "ann", "because", 0, request_id=request_id)
            self.resolver.note(command, NOW_MS, NOW_MS)

    async def resolve(self) -> None:
        self.resolver.begin()
        assert self.resolver._task is not None
        async with asyncio.timeout(5):
            await self.resolver._task


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited between two tries."""
    waited: list[float] = []
    turn = asyncio.sleep

    async def sleep(delay_s: float) -> None:
        waited.append(delay_s)
        await turn(0)

    monkeypatch.setattr("stratarouter_runtime.processors.control_resolve.asyncio.sleep", sleep)
    return waited


async def test_a_mark_is_looked_up_again_where_the_broker_was_away(waits: list[float]) -> None:
    """It was given up at the first failure: its answer was served again to the same question in other words."""
    topics = Topics(*[BrokerError("away")] * 9)
    topics.mark("r1")
    await topics.resolve()
    assert topics.said == ["key of r1"]
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


async def test_one_that_fails_lets_the_others_go_first_and_the_next_failure_waits_briefly(waits: list[float]) -> None:
    topics = Topics(BrokerError("away"), BrokerError("away"), None, BrokerError("away"))
    topics.mark("r1", "r2", "r3")
    await topics.resolve()
    assert topics.found == ["r1", "r2", "r3", "r1", "r2", "r1"]
    assert topics.said == ["key of r3", "key of r2", "key of r1"]
    assert waits == [1.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "error",
    [TopicContractError("no such topic"), OutputRefusedError("no right to it"), KeyError("a defect")],
    ids=lambda error: type(error).__name__,
)
async def test_what_waiting_does_not_help_is_said_and_holds_nothing_up(
    error: Exception, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    topics = Topics(error)
    topics.mark("r1", "r2")
    await topics.resolve()
    assert topics.said == ["key of r2"]
    assert waits == []
    [said] = caplog.records
    assert (said.message, said.levelname, said.fields["request_id"]) == ("mark not resolved", "ERROR", "r1")


async def test_marks_that_wait_stay_bounded(caplog: pytest.LogCaptureFixture) -> None:
    topics = Topics(BrokerError("away"))
    topics.mark("r0")

    def more() -> None:
        topics.meanwhile = lambda: None
        topics.mark(*(f"more {number}" for number in range(MAX_PENDING)))

    topics.meanwhile = more
    await topics.resolve()
    assert len(topics.said) == MAX_PENDING
    [lost] = [one.fields["request_id"] for one in caplog.records if one.message == "mark not resolved"]
    assert lost == "more 0"


async def test_a_wait_ends_with_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(control_resolve, "FIRST_BACKOFF_S", 3600.0)
    topics = Topics(BrokerError("away"))
    topics.mark("r1")
    topics.resolver.begin()
    while not topics.found:
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await topics.resolver.stop()
    assert topics.said == []


async def test_a_search_that_always_takes_too_long_is_given_up(
    waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    late = BrokerError("TimeoutError while looking for the response")
    late.__cause__ = TimeoutError()
    topics = Topics(late, None, late, late)
    topics.mark("r1", "r2")
    await topics.resolve()
    assert topics.found == ["r1", "r2", "r1", "r1"]
    assert topics.said == ["key of r2"]
    assert len(waits) == 2
    assert [record.fields["request_id"] for record in caplog.records if record.message == "mark not resolved"] == ["r1"]
