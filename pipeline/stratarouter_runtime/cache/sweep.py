"""Walks over the answers in Redis: to take out what was invalidated, and for people to look at.

Where the cache-control topic is followed, taking out is tidying: every lookup judges what it finds by itself, so one
worker does it for all. Where nobody follows it, an invalidation holds only if this came to its end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stratarouter_runtime.cache.keys import Keys
from stratarouter_runtime.cache.shelf import Place
from stratarouter_runtime.cache.values import GarbageError, origin_of, read_answer
from stratarouter_runtime.errors import CacheUnavailableError
from stratarouter_runtime.state.cache_control import Origin

Ask = Callable[[Sequence[tuple[Any, ...]]], Awaitable[list[Any] | None]]
"""One round trip for several commands; None where it failed."""

COUNT = 200
"""Keys looked at in one step: 200 answers of 5 kB are 1 MB and a few milliseconds."""
TURN_MS = 600_000
"""How long a worker's word stands that it tidies up after one invalidation."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry as it lies in Redis. ``ttl_ms`` is what is left of its time, ``size_bytes`` its answer's value."""

    key: str
    entry_id: str
    scope: str
    tenant: str
    route_id: str
    tags: tuple[str, ...]
    text: str
    answer: str
    origin: Origin
    ttl_ms: int
    size_bytes: int

    @property
    def place(self) -> Place:
        """Scope and content hash."""
        return self.scope, self.key


async def walk(ask: Ask, keys: Keys) -> AsyncIterator[list[Kept]]:
    """Every readable entry, some at a time; one may come twice. Raises CacheUnavailableError where Redis fails."""
    cursor: Any = 0
    while True:
        [[cursor, names]] = await _asked(ask, [("SCAN", cursor, "MATCH", keys.answer_pattern, "COUNT", COUNT)])
        replies = await _asked(ask, [command for name in names for command in (("GET", name), ("PTTL", name))])
        yield [kept for raw, ttl in zip(replies[::2], replies[1::2], strict=True) if (kept := _kept(raw, ttl))]
        if int(cursor) == 0:
            return


async def drop(
    ask: Ask,
    keys: Keys,
    is_stale: Callable[[Origin], bool],
    turn: str | None,
    gone: Callable[[Place], None] = lambda _: None,
) -> int:
    """Take out what ``is_stale`` names, unless another worker has taken this ``turn``; returns how many entries.

    ``turn``: None where no other worker would do it. ``gone`` is told of each, before Redis itself tells of it. Raises
    CacheUnavailableError where Redis fails; what was taken out by then is.
    """
    if turn is not None:
        [mine] = await _asked(ask, [("SET", keys.turn(turn), b"1", "NX", "PX", TURN_MS)])
        if mine is None:
            return 0
    count = 0
    async for some in walk(ask, keys):
        stale = [kept.place for kept in some if is_stale(kept.origin)]
        await _asked(ask, removals(keys, stale))
        for place in stale:
            gone(place)
        count += len(stale)
    return count


async def _asked(ask: Ask, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    replies = await ask(commands)
    if replies is None:
        raise no_answer()
    return replies


def no_answer() -> CacheUnavailableError:
    """What is raised where Redis fails."""
    return CacheUnavailableError("Redis did not answer", remedy="check Redis (REDIS_URL), then try again")


def removals(keys: Keys, places: Sequence[Place]) -> list[tuple[Any, ...]]:
    """The commands that take entries out, each on a key of its own."""
    names = [name for place in places for name in (keys.answer(place), keys.findable(place))]
    return [("UNLINK", name) for name in names]


def _kept(raw: Any, ttl: Any) -> Kept | None:
    """None for what expired meanwhile and for what nobody can read: a lookup deletes that."""
    if not isinstance(raw, bytes) or not isinstance(ttl, int):
        return None
    try:
        fields = read_answer(raw)
        return Kept(
            key=str(fields["content_hash"]),
            entry_id=str(fields["entry_id"]),
            scope=str(fields["scope"]),
            tenant=str(fields["tenant"]),
            route_id=str(fields["route_id"]),
            tags=tuple(map(str, fields["tags"])),
            text=str(fields.get("text", "")),
            answer=str(fields["answer"]["text"]),
            origin=origin_of(fields),
            ttl_ms=ttl,
            size_bytes=len(raw),
        )
    except (GarbageError, KeyError, TypeError, ValueError):
        return None
