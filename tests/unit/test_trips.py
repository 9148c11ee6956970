"""Round trips to Redis are shared by whoever asks at once, and only the server's own time makes them late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from stratarouter_runtime.cache.trips import AT_ONCE, MAX_COMMANDS, Trips


class Server:
    """Stands in for the client and its pool: echoes what is asked once ``answer`` lets it."""

    def __init__(self, answer: Callable[[], Awaitable[object]]) -> None:
        self.answer = answer
        self.trips: list[Sequence[tuple[Any, ...]]] = []
        self.at_once = self.most_at_once = 0
        self.connections: list[Connection] = []
        self.connection_pool = self

    def make_connection(self) -> Connection:
        self.connections.append(Connection(self))
        return self.connections[-1]


class Connection:
    """One of the client's: as much of it as a trip needs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_connected = False
        self.connects = 0
        self.has_ended = False
        self.replies: list[Any] = []

    async def connect(self) -> None:
        self.is_connected, self.has_ended = True, False
        self.connects += 1

    async def disconnect(self, *, nowait: bool = False) -> None:
        assert nowait in (True, False)
        self.is_connected = False
        self.replies.clear()

    async def can_read(self) -> bool:
        return self.has_ended

    def pack_commands(self, commands: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        return commands

    async def send_packed_command(self, packed: Sequence[tuple[Any, ...]], *, check_health: bool) -> None:
        assert self.is_connected
        assert not check_health
        assert not self.replies, "what an earlier trip did not read"
        self.server.trips.append(packed)
        self.replies += [command[-1] for command in packed]

    async def read_response(self) -> Any:
        server = self.server
        server.at_once += 1
        server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            await server.answer()
        finally:
            server.at_once -= 1
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def trips_to(server: Server, timeout_s: float = 5.0) -> tuple[Trips, list[Exception]]:
    failures: list[Exception] = []
    return Trips(cast("Redis", server), timeout_s, failures.append), failures


class Listening:
    """Trips of which a listener is told, and how often one of their connections was lost to it."""

    def __init__(self, server: Server, timeout_s: float = 5.0) -> None:
        self.listener: int | None = 7
        self.lost = 0
        self.trips = Trips(
            cast("Redis", server), timeout_s, lambda _: None, listener=lambda: self.listener, lost=self.lose
        )

    def lose(self) -> None:
        self.lost += 1


async def test_what_is_asked_at_once_shares_a_few_trips_and_each_gets_its_own_replies() -> None:
    server = Server(lambda: asyncio.sleep(0))
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


async def test_a_connection_is_used_again_and_one_that_ended_meanwhile_is_opened_anew() -> None:
    server = Server(lambda: asyncio.sleep(0))
    trips, failures = trips_to(server)
    for n in range(3):
        assert await trips.ask([("GET", n)]) == [n]
    [connection] = server.connections
    assert connection.connects == 1
    connection.has_ended = True
    assert await trips.ask([("GET", "after")]) == ["after"]
    assert (connection.connects, len(server.connections), failures) == (2, 1, [])
    await trips.stop()
    assert not connection.is_connected


async def test_a_refused_command_is_a_reply_like_the_others() -> None:
    server = Server(lambda: asyncio.sleep(0))
    trips, failures = trips_to(server)
    refused = ResponseError("WRONGTYPE")
    assert await trips.ask([("GET", "a"), ("GET", refused), ("GET", "c")]) == ["a", refused, "c"]
    assert failures == []
    assert server.connections[0].connects == 1


async def test_a_connection_whose_trip_broke_off_brings_no_reply_to_the_next() -> None:
    server = Server(asyncio.Event().wait)
    trips, _ = trips_to(server, timeout_s=0.05)
    assert await trips.ask([("GET", "late")]) is None
    assert not server.connections[0].is_connected
    server.answer = lambda: asyncio.sleep(0)
    assert await trips.ask([("GET", "next")]) == ["next"]


async def test_stopping_leaves_nobody_waiting() -> None:
    server = Server(asyncio.Event().wait)
    trips, failures = trips_to(server)
    asked = [asyncio.create_task(trips.ask([("GET", n)])) for n in range(AT_ONCE + 2)]
    await asyncio.sleep(0.01)
    await trips.stop()
    assert await asyncio.wait_for(asyncio.gather(*asked), 5) == [None] * (AT_ONCE + 2)
    assert failures == []
    assert server.at_once == 0


async def test_a_connection_that_is_dropped_is_told_of_where_its_keys_were() -> None:
    """Redis names nobody the keys that a connection read which is gone: an old copy was served for its whole time."""
    server = Server(lambda: asyncio.sleep(0))
    listening = Listening(server, timeout_s=0.05)
    trips = listening.trips
    assert await trips.ask([("GET", "read")]) == ["read"]
    assert listening.lost == 0, "the first has nothing to lose"
    server.connections[0].has_ended = True
    assert await trips.ask([("GET", "closed meanwhile")]) == ["closed meanwhile"]
    assert listening.lost == 1
    server.answer = asyncio.Event().wait
    assert await trips.ask([("GET", "late")]) is None
    assert listening.lost == 2
    server.answer = lambda: asyncio.sleep(0)
    assert await trips.ask([("GET", "opened anew")]) == ["opened anew"]
    assert listening.lost == 2
    await server.connections[-1].disconnect()
    assert await trips.ask([("GET", "dropped by the client")]) == ["dropped by the client"]
    assert listening.lost == 3
    await trips.stop()


async def test_a_connection_whose_keys_nobody_was_told_is_no_loss() -> None:
    server = Server(lambda: asyncio.sleep(0))
    listening = Listening(server)
    listening.listener = None
    for n in range(3):
        assert await listening.trips.ask([("GET", n)]) == [n]
        server.connections[0].has_ended = True
    assert listening.lost == 0
    await listening.trips.stop()


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_connection_that_ended_is_found_out_where_nobody_asks() -> None:
    gate = asyncio.Event()
    server = Server(gate.wait)
    listening = Listening(server)
    trips = listening.trips
    asked = []
    for n in range(AT_ONCE):
        asked.append(asyncio.create_task(trips.ask([("GET", n)])))
        await settled()
    gate.set()
    assert await asyncio.gather(*asked) == [[n] for n in range(AT_ONCE)]
    assert len(server.connections) == AT_ONCE
    trips.beat()
    await settled()
    assert server.trips[-AT_ONCE:] == [[("PING",)]] * AT_ONCE
    assert listening.lost == 0
    server.connections[0].has_ended = True
    trips.beat()
    await settled()
    assert listening.lost == 1
    assert [connection.connects for connection in server.connections] == [2, 1, 1, 1]
    await trips.stop()


async def test_a_connection_that_went_dumb_is_found_out_and_is_no_failure_of_a_question() -> None:
    server = Server(lambda: asyncio.sleep(0))
    listening = Listening(server, timeout_s=0.05)
    trips = listening.trips
    assert await trips.ask([("GET", "read")]) == ["read"]
    server.answer = asyncio.Event().wait
    trips.beat()
    async with asyncio.timeout(5):
        while not listening.lost:
            await asyncio.sleep(0.01)
    assert not server.connections[0].is_connected
    server.answer = lambda: asyncio.sleep(0)
    assert await trips.ask([("GET", "next")]) == ["next"]
    await trips.stop()


async def test_beats_take_no_more_connections_than_trips_and_hold_up_no_question_for_good() -> None:
    gate = asyncio.Event()
    server = Server(gate.wait)
    trips = Listening(server).trips
    for turn in range(20):
        gate.clear()
        asked = [asyncio.create_task(trips.ask([("GET", n)])) for n in range(turn % 6)]
        if turn % 2:
            await asyncio.sleep(0)
        trips.beat()
        trips.beat()
        await settled()
        assert server.at_once <= AT_ONCE
        gate.set()
        assert await asyncio.wait_for(asyncio.gather(*asked), 5) == [[n] for n in range(turn % 6)]
        await settled()
    assert len(server.connections) <= AT_ONCE
    await trips.stop()
    trips.beat()
