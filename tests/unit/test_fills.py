"""Who fills an entry, and how long the others wait: the cases in which nobody may be held up or paid for twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from stratarouter_runtime.cache.keys import Keys
from stratarouter_runtime.cache.leases import LEASE_S, PEXPIRE, UNLINK, Leases
from stratarouter_runtime.engine.fills import Fills
from stratarouter_runtime.errors import ShuttingDownError
from stratarouter_runtime.port_values import CacheHit, CacheMiss
from stratarouter_runtime.records import Answer, Decision, Execution, Request, Target


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class SharedCache:
    """Answers ``claims`` and ``found`` in their order, the last one for ever."""

    shared = True

    def __init__(self, claims: list[bool], found: list[CacheHit | CacheMiss | BaseException]) -> None:
        self.claims = claims
        self.found = found
        self.released: list[Any] = []

    async def claim(self, place: Any) -> bool:  # noqa: ARG002 - the port's shape
        return self.claims.pop(0) if len(self.claims) > 1 else self.claims[0]

    async def release(self, place: Any) -> None:
        self.released.append(place)

    async def lookup(self, queries: Any) -> list[CacheHit | CacheMiss]:  # noqa: ARG002 - the port's shape
        found = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if isinstance(found, BaseException):
            raise found
        return [found]


HIT = CacheHit("exact", 1.0, "e", Answer("p", "m", "text"))
EXECUTION = Execution(
    Request("r", Decision("chat"), ({"role": "user", "content": "hello"},)),
    (Target("p", "m"),),
    None,
    "s",
    "c",
    "h",
    None,
)


async def _wait(fills: Fills, *, due: float = 60.0, leads: bool = False, closing: bool = False) -> CacheHit | None:
    return await fills.wait(EXECUTION, "", due=due, somebody_leads=lambda: leads, closing=lambda: closing)


async def test_the_first_one_fills_and_gives_back() -> None:
    cache = SharedCache([True], [CacheMiss()])
    fills = Fills(cache, Clock())  # type: ignore[arg-type]
    assert await _wait(fills) is None
    assert fills.holds(EXECUTION)
    await fills.done(EXECUTION)
    assert cache.released == [("s", "c")]
    assert not fills.holds(EXECUTION)


async def test_what_came_between_the_look_and_the_claim_is_taken_and_the_lease_given_back() -> None:
    cache = SharedCache([True], [HIT])
    fills = Fills(cache, Clock())  # type: ignore[arg-type]
    assert await _wait(fills) is HIT
    assert cache.released == [("s", "c")]
    assert not fills.holds(EXECUTION)


async def test_the_others_take_what_the_first_one_brings() -> None:
    cache = SharedCache([False], [CacheMiss(), CacheMiss(), HIT])
    clock = Clock()
    fills = Fills(cache, clock)  # type: ignore[arg-type]
    assert await _wait(fills) is HIT
    assert not fills.holds(EXECUTION)
    assert clock.now < 1.0


class Counting(SharedCache):
    """Counts what it is asked."""

    def __init__(self, claims: list[bool], found: list[CacheHit | CacheMiss | BaseException]) -> None:
        super().__init__(claims, found)
        self.asked = {"claim": 0, "lookup": 0}

    async def claim(self, place: Any) -> bool:
        self.asked["claim"] += 1
        return await super().claim(place)

    async def lookup(self, queries: Any) -> list[CacheHit | CacheMiss]:
        self.asked["lookup"] += 1
        return await super().lookup(queries)


async def test_of_many_who_wait_for_one_place_one_looks() -> None:
    cache = Counting([False], [CacheMiss()] * 30 + [HIT])
    fills = Fills(cache, Clock())  # type: ignore[arg-type]
    assert await asyncio.gather(*(_wait(fills) for _ in range(20))) == [HIT] * 20
    # The others once each, when it is there.
    assert cache.asked == {"claim": 31, "lookup": 31 + 19}
    assert fills._watched == {}


async def test_who_looks_for_all_and_leaves_is_followed_by_another() -> None:
    clock = Clock()
    cache = Counting([False], [CacheMiss()] * 60 + [HIT])
    fills = Fills(cache, clock)  # type: ignore[arg-type]
    cancelled = asyncio.create_task(_wait(fills))
    late, patient = (asyncio.create_task(_wait(fills, due=due)) for due in (1.0, 60.0))
    await _pass(clock, 0.5)
    cancelled.cancel()
    assert await asyncio.gather(late, patient) == [None, HIT]
    assert cancelled.cancelled()
    assert fills._watched == {}


async def test_where_the_other_one_is_gone_one_leads_and_the_others_follow_it() -> None:
    cache = Counting([False, False, True], [CacheMiss()])
    fills = Fills(cache, Clock())  # type: ignore[arg-type]

    async def ask() -> CacheHit | None:
        led = lambda: fills.holds(EXECUTION)  # noqa: E731 - who is told to fill leads from then on
        return await fills.wait(EXECUTION, "", due=60.0, somebody_leads=led, closing=lambda: False)

    assert await asyncio.gather(*(ask() for _ in range(20))) == [None] * 20
    assert cache.asked == {"claim": 3, "lookup": 3}
    assert fills.holds(EXECUTION)


async def test_nobody_waits_longer_than_the_caller_does() -> None:
    clock = Clock()
    fills = Fills(SharedCache([False], [CacheMiss()]), clock)  # type: ignore[arg-type]
    assert await _wait(fills, due=5.0) is None
    assert 5.0 <= clock.now < 5.2
    assert not fills.holds(EXECUTION)


async def test_a_leader_in_this_process_ends_the_wait_and_closing_breaks_it_off() -> None:
    fills = Fills(SharedCache([False], [CacheMiss()]), Clock())  # type: ignore[arg-type]
    assert await _wait(fills, leads=True) is None
    with pytest.raises(ShuttingDownError):
        await _wait(fills, closing=True)


async def test_one_broken_off_in_its_last_look_gives_its_lease_back() -> None:
    cache = SharedCache([True], [asyncio.CancelledError()])
    fills = Fills(cache, Clock())  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await _wait(fills)
    assert cache.released == [("s", "c")]
    assert not fills.holds(EXECUTION)


class LeaseKeys:
    """What a Redis does with leases: keys with an owner and an end. ``away``: it does not answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.away = False
        self._kept: dict[str, tuple[str, float]] = {}

    @property
    def names(self) -> set[str]:
        return {name for name, (_, until) in self._kept.items() if until > self._clock.now}

    async def ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any] | None:
        return None if self.away else [self._do(*command) for command in commands]

    def _do(self, verb: str, *arguments: Any) -> Any:
        if verb == "SET":
            name, owner, _, _, ms = arguments
            if name in self.names:
                return None
            self._kept[name] = (owner, self._clock.now + ms / 1000)
            return b"OK"
        script, _, name, owner, *rest = arguments
        if name not in self.names or self._kept[name][0] != owner:
            return 0
        if script == UNLINK:
            del self._kept[name]
        else:
            assert script == PEXPIRE
            self._kept[name] = (owner, self._clock.now + rest[0] / 1000)
        return 1


async def _pass(clock: Clock, until: float) -> None:
    """Let the refreshing, which alone moves the clock, come to that time."""
    async with asyncio.timeout(5):
        while clock.now < until:
            await asyncio.sleep(0)


async def test_a_lease_is_one_processs_until_it_gives_it_back_however_long_that_takes() -> None:
    redis = LeaseKeys(clock := Clock())
    one, other = (Leases(redis.ask, Keys("p"), clock) for _ in range(2))
    assert await one.claim(("s", "c"))
    assert not await one.claim(("s", "c"))
    await _pass(clock, 3 * LEASE_S)
    assert not await other.claim(("s", "c"))
    await other.release(("s", "c"))
    assert redis.names, "what another holds is not given back"
    await one.release(("s", "c"))
    assert await other.claim(("s", "c"))
    await one.stop()
    assert len(redis.names) == len(other) == 1
    await other.stop()
    assert (redis.names, len(other)) == (set(), 0)


async def test_a_redis_that_is_away_leases_to_everybody() -> None:
    redis = LeaseKeys(clock := Clock())
    one, other = (Leases(redis.ask, Keys("p"), clock) for _ in range(2))
    redis.away = True
    assert [await each.claim(("s", "c")) for each in (one, other)] == [True, True]
    assert not await one.claim(("s", "c")), "one process's own calls still wait for each other"
    await asyncio.gather(one.stop(), other.stop())


async def test_a_claim_that_the_end_overtakes_leaves_neither_a_lease_nor_a_task() -> None:
    redis = LeaseKeys(clock := Clock())
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(commands: Sequence[tuple[Any, ...]]) -> list[Any] | None:
        replies = await redis.ask(commands)
        if commands and commands[0][0] == "SET":
            asked.set()
            await answer.wait()
        return replies

    leases = Leases(slow, Keys("p"), clock)
    claim = asyncio.create_task(leases.claim(("s", "c")))
    await asked.wait()
    before = asyncio.all_tasks()
    await leases.stop()
    answer.set()
    assert await claim
    assert (redis.names, len(leases)) == (set(), 0)
    assert await leases.claim(("s", "d")), "nobody is held up by who is stopped"
    assert (redis.names, len(leases)) == (set(), 0)
    assert asyncio.all_tasks() <= before
    leases.start()
    assert await leases.claim(("s", "c"))
    assert len(redis.names) == len(leases) == 1
    await leases.stop()
