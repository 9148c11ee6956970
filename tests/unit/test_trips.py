"""Round trips to Redis are shared by whoever asks at once, and only the server's own time makes them late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from stratarouter_runtime.cache.trips import AT_ONCE, MAX_COMMANDS, Trips


class Server:
    """Stands in for the client: echoes what is asked once ``answer`` lets it."""

    def __init__(self, answer: Callable[[], Awaitable[object]]) -> None:
        self.answer = answer
        self.trips: list[list[tuple[Any, ...]]] = []
        self.at_once = self.most_at_once = 0

    def pipeline(self, *, transaction: bool) -> Pipeline:
        assert not transaction
        return Pipeline(self)


class Pipeline:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.commands: list[tuple[Any, ...]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    def execute_command(self, *command: Any) -> None:
        self.commands.append(command)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        server = self.server
        server.trips.append(self.commands)
        server.at_once += 1
        server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            await server.answer()
        finally:
            server.at_once -= 1
        return [command[1] for command in self.commands]


def trips_to(server: Server, timeout_s: float = 5.0) -> tuple[Trips, list[Exception]]:
    failures: list[Exception] = []
    return Trips(cast("Redis", server), timeout_s, failures.append), failures


async def test_what_is_asked_at_once_shares_a_few_trips_and_each_gets_its_own_replies() -> None:
    server = Server(lambda: asyncio.sleep(0.01))
    trips, failures = trips_to(server)
    asked = [[("GET", f"{n}-{m}") for m in range(n % 3 + 1)] for n in range(1000)]
    replies = await asyncio.gather(*map(trips.ask, asked))
    assert replies == [[name for _, name in commands] for commands in asked]
    assert len(server.trips) <= AT_ONCE + sum(map(len, asked)) // (MAX_COMMANDS - 3) + 1
    assert max(map(len, server.trips)) <= MAX_COMMANDS
    assert server.most_at_once <= AT_ONCE
    assert failures == []
    assert await trips.ask([]) == []


async def test_a_lone_question_waits_for_nobody() -> None:
    slow = asyncio.Event()
    server = Server(slow.wait)
    trips, _ = trips_to(server)
    first = asyncio.create_task(trips.ask([("GET", "slow")]))
    await asyncio.sleep(0)
    server.answer = lambda: asyncio.sleep(0)
    assert await asyncio.wait_for(trips.ask([("GET", "quick")]), 5) == ["quick"]
    slow.set()
    assert await first == ["slow"]


async def test_time_in_which_this_thread_worked_makes_no_reply_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this thread had worked all the time; only a server that is silent for many times as long fails then."""
    monkeypatch.setattr(time, "thread_time", time.monotonic)
    server = Server(lambda: asyncio.sleep(0.2))
    trips, failures = trips_to(server, timeout_s=0.05)
    assert await trips.ask([("GET", "a")]) == ["a"]
    assert failures == []
    server.answer = asyncio.Event().wait
    assert await asyncio.wait_for(trips.ask([("GET", "b")]), 5) is None
    assert [type(failure) for failure in failures] == [TimeoutError]


async def test_a_server_that_hangs_fails_all_who_wait_for_it_and_no_later_ones() -> None:
    server = Server(asyncio.Event().wait)
    trips, failures = trips_to(server, timeout_s=0.05)
    asked = [asyncio.create_task(trips.ask([("GET", n)])) for n in range(AT_ONCE + 3)]
    assert await asyncio.wait_for(asyncio.gather(*asked), 5) == [None] * (AT_ONCE + 3)
    assert failures
    assert all(isinstance(failure, TimeoutError) for failure in failures)
    assert server.at_once == 0
    server.answer = lambda: asyncio.sleep(0)
    assert await trips.ask([("GET", "again")]) == ["again"]


@pytest.mark.parametrize("failure", [RedisConnectionError("gone"), OSError("reset")])
async def test_a_trip_that_breaks_is_told_once_for_all_of_it(failure: Exception) -> None:
    async def fail() -> None:
        raise failure

    trips, failures = trips_to(Server(fail))
    assert await asyncio.gather(*(trips.ask([("GET", n)]) for n in range(3))) == [None] * 3
    assert set(failures) == {failure}


async def test_who_gives_up_before_the_trip_is_not_asked_for() -> None:
    gate = asyncio.Event()
    server = Server(gate.wait)
    trips, _ = trips_to(server)
    asked = [asyncio.create_task(trips.ask([("GET", n)])) for n in range(AT_ONCE + 2)]
    await asyncio.sleep(0.01)
    asked[-1].cancel()
    gate.set()
    assert await asyncio.gather(*asked[:-1]) == [[n] for n in range(AT_ONCE + 1)]
    assert [("GET", AT_ONCE + 1)] not in server.trips


async def test_stopping_leaves_nobody_waiting() -> None:
    server = Server(asyncio.Event().wait)
    trips, failures = trips_to(server)
    asked = [asyncio.create_task(trips.ask([("GET", n)])) for n in range(AT_ONCE + 2)]
    await asyncio.sleep(0.01)
    await trips.stop()
    assert await asyncio.wait_for(asyncio.gather(*asked), 5) == [None] * (AT_ONCE + 2)
    assert failures == []
    assert server.at_once == 0
