"""What the cache-control topic has said so far: what is invalidated, corrected and marked wrong. Pure.

Order is by position (the offset of a record on that topic), never by a clock. A request notes the position it began at;
its answer is stale where something that covers it was invalidated at a later position. So an answer that was under way
when it was invalidated stays out however late it comes, on every worker and after every restart.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.records import CacheCommand

BEFORE_ALL = -1
"""The position before the first record; also of an answer of which nobody knows when it was asked for."""

MAX_FENCES = 100_000
"""Labels remembered as invalidated, about 20 MB. Beyond it the oldest become a floor below which everything is stale:
that costs hits, never a wrong answer."""
MAX_CORRECTIONS = 10_000
"""Corrected answers kept in memory. Beyond it the oldest become invalidations."""
MAX_PAIRS = 50_000
"""Counter-examples kept, about 45 MB; the oldest go first."""
MAX_SILENCE_S = 30.0
"""How long the topic may be out of reach before nothing is served from the cache: somebody may have invalidated it."""

LabelKind = Literal["key", "request", "tag", "tenant", "route"]
SEPARATOR = "\x1f"
"""Between the parts of a label; no identifier holds a control character."""

NONE_VETOED: frozenset[str] = frozenset()


def label(kind: LabelKind, *parts: str) -> str:
    """What stands for all answers of one kind: ``key`` and entry, ``request`` with tenant and id, ``tag``, ..."""
    return SEPARATOR.join((kind, *parts))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a kept answer comes from.

    Attributes:
        begun: the position that was applied when the request that got it began.
        labels: everything it can be invalidated by; the entry's own key first.
    """

    begun: int = BEFORE_ALL
    labels: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the entry itself and, for an alias, of the entry whose answer it is."""
        return tuple(one.partition(SEPARATOR)[2] for one in self.labels if one.startswith("key" + SEPARATOR))


UNKNOWN = Origin()
"""Of an answer of which nothing is known: older than everything, and covered by what covers all."""


@dataclass(frozen=True, slots=True)
class Correction:
    """An answer that somebody put in the place of an entry's. ``expires_ms`` in epoch milliseconds."""

    text: str
    origin: Origin
    expires_ms: int


def labels_of(command: CacheCommand) -> tuple[str, ...]:
    """The labels that ``command`` invalidates; none where it means everything."""
    if command.everything:
        return ()
    if command.action == "mark_wrong" and command.key is not None:
        return tuple(label("key", key) for key in dict.fromkeys((command.key, command.answered_by)) if key)
    if command.request_id is not None:
        return (label("request", command.tenant or "default", command.request_id),)
    named: tuple[tuple[LabelKind, str | None], ...] = (
        ("key", command.key),
        ("tag", command.tag),
        ("route", command.route_id),
        ("tenant", command.tenant),
    )
    return tuple(label(kind, value) for kind, value in named if value is not None)[:1]


class CacheControl:
    """The topic's effect up to ``position``. One for each process.

    Args:
        max_fences: labels remembered.
        max_corrections: corrected answers kept.
        max_pairs: counter-examples kept.

    Attributes:
        position: the offset of the last record applied.
        followed: whether somebody reads the topic; without, the cache is this process's own business.
        forgotten_pairs: counter-examples that went for want of room.
    """

    def __init__(
        self,
        *,
        max_fences: int = MAX_FENCES,
        max_corrections: int = MAX_CORRECTIONS,
        max_pairs: int = MAX_PAIRS,
    ) -> None:
        self._bounds = (max_fences, max_corrections, max_pairs)
        self.forgotten_pairs = 0
        self.followed = False
        self._heard_at = float("-inf")
        self.restart()

    def restart(self) -> None:
        """Forget everything: the topic was made anew."""
        self.position = BEFORE_ALL
        self._floor = BEFORE_ALL
        self._fences: OrderedDict[str, int] = OrderedDict()
        self._corrections: OrderedDict[str, Correction] = OrderedDict()
        self._ends: list[tuple[int, str]] = []
        """A heap of when each correction ends; also of some that were replaced."""
        self._ended: list[str] = []
        """Keys of corrections that are over, until ``lapse`` tells of them."""
        self._pairs: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._vetoed: dict[str, frozenset[str]] = {}

    # -- what the topic says -----------------------------------------------------------------------------------

    def apply(self, command: CacheCommand, position: int, at_ms: int, default_ttl_s: int) -> None:
        """Take one record in, in the topic's order.

        Args:
            command: what it says.
            position: its offset; one that was applied before changes nothing.
            at_ms: when it was written, in epoch milliseconds: a correction's time to live counts from there.
            default_ttl_s: how long a correction lasts that does not say so.
        """
        if position <= self.position:
            return
        self.position = position
        if command.action == "correct":
            self._correct(command, at_ms + 1000 * (command.ttl or default_ttl_s))
            return
        if command.everything:
            self._floor = position
        for one in labels_of(command):
            self._fence(one, position)
        if command.action == "mark_wrong" and command.key is not None and command.answered_by is not None:
            self._refuse(command.key, command.answered_by)

    def advance(self, position: int) -> None:
        """Everything up to ``position`` was read: what stood between were no records."""
        self.position = max(self.position, position)

    def forget_before(self, first: int) -> None:
        """The topic no longer holds what stood before position ``first``: answers that had not seen it are stale."""
        self._floor = max(self._floor, first - 1)

    def _fence(self, one: str, position: int) -> None:
        # A correction that goes for want of room fences its own place, which may be older than what came after it.
        self._fences[one] = max(position, self._fences.get(one, BEFORE_ALL))
        self._fences.move_to_end(one)
        if len(self._fences) > self._bounds[0]:
            self._floor = max(self._floor, self._fences.popitem(last=False)[1])

    def _correct(self, command: CacheCommand, expires_ms: int) -> None:
        assert command.key is not None, "the decoder demands a key"
        assert command.text is not None, "the decoder demands a text"
        labels = [label("key", command.key)]
        if command.tenant is not None:
            labels.append(label("tenant", command.tenant))
        if command.route_id is not None:
            labels.append(label("route", command.route_id))
        if command.tag is not None:
            labels.append(label("tag", command.tag))
        origin = Origin(self.position, tuple(labels))
        self._corrections[command.key] = Correction(command.text, origin, expires_ms)
        self._corrections.move_to_end(command.key)
        if len(self._corrections) > self._bounds[1]:
            self._end(next(iter(self._corrections)))
        heapq.heappush(self._ends, (expires_ms, command.key))
        if len(self._ends) > 2 * self._bounds[1]:
            self._ends = sorted((kept.expires_ms, key) for key, kept in self._corrections.items())

    def _end(self, key: str) -> None:
        # The answer it replaced must not come back with it.
        self._fence(label("key", key), self._corrections.pop(key).origin.begun)
        if not self.followed:
            self._ended.append(key)

    def lapse(self, now_ms: int) -> list[str]:
        """End the corrections whose time is over at ``now_ms`` (epoch milliseconds): what was kept before each is stale
        from here on, since it may be kept for longer than that. Where nobody reads the topic, so that no answer has a
        position to be judged by: returns the keys of all that ended since the last time, for want of room as well.
        """
        while self._ends and self._ends[0][0] <= now_ms:
            expires_ms, key = heapq.heappop(self._ends)
            found = self._corrections.get(key)
            if found is not None and found.expires_ms == expires_ms:
                self._end(key)
        ended, self._ended = self._ended, []
        return ended

    def _refuse(self, asked: str, stored: str) -> None:
        if asked == stored:
            return
        pair = (min(asked, stored), max(asked, stored))
        self._pairs[pair] = None
        self._pairs.move_to_end(pair)
        for one, other in (pair, pair[::-1]):
            self._vetoed[one] = self.vetoed(one) | {other}
        if len(self._pairs) > self._bounds[2]:
            forgotten, _ = self._pairs.popitem(last=False)
            for one, other in (forgotten, forgotten[::-1]):
                left = self._vetoed[one] - {other}
                if left:
                    self._vetoed[one] = left
                else:
                    del self._vetoed[one]
            self.forgotten_pairs += 1

    # -- what follows from it ----------------------------------------------------------------------------------

    def may_cover(self, begun: int) -> bool:
        """Whether any answer to a request that began at ``begun`` can be stale: asked before its labels are made."""
        return begun < self._floor or bool(self._fences)

    def is_stale(self, origin: Origin) -> bool:
        """Whether an answer was invalidated after its request began."""
        begun = origin.begun
        if begun < self._floor:
            return True
        fences = self._fences
        return bool(fences) and any(fences.get(one, BEFORE_ALL) > begun for one in origin.labels)

    def is_ahead(self, origin: Origin) -> bool:
        """Whether an answer was got by somebody who had read more of the topic than this process, or another topic of
        the same name: what this process does not know yet may cover it.
        """
        return self.followed and origin.begun > self.position

    def correction(self, keys: Iterable[str], now_ms: int) -> Correction | None:
        """The correction that stands for the first of ``keys`` that has one, at ``now_ms`` (epoch milliseconds)."""
        if not self._corrections:
            return None
        for key in keys:
            found = self._corrections.get(key)
            if found is not None and found.expires_ms > now_ms and not self.is_stale(found.origin):
                return found
        return None

    @property
    def corrects(self) -> bool:
        """Whether any correction is kept."""
        return bool(self._corrections)

    def vetoed(self, key: str) -> frozenset[str]:
        """The entries whose answers were marked wrong for the question ``key``, and the other way round."""
        return self._vetoed.get(key, NONE_VETOED)

    @property
    def counter_examples(self) -> int:
        """Pairs kept."""
        return len(self._pairs)

    # -- whether it is known -----------------------------------------------------------------------------------

    def heard(self, now: float) -> None:
        """The topic was read to its end at ``now`` (monotonic seconds)."""
        self._heard_at = now

    def is_current(self, now: float) -> bool:
        """Whether what was invalidated up to MAX_SILENCE_S ago is known here."""
        return not self.followed or now - self._heard_at <= MAX_SILENCE_S
