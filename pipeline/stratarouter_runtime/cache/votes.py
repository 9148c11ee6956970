"""Whether near entries speak against a hit: where a scope's answers repeat word for word, two that differ cannot both
be right. Pure.

A model that sorts questions, extracts or calls functions gives the same few answers again and again. There the nearest
entry is one vote of several, as among nearest neighbours anywhere. An answer that no other entry holds is free text: it
differs from every other, and that says nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import orjson

from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.records import Answer

MARGIN = 0.15
"""So much nearer an entry may be taken to be before the guard is asked whether it votes: one that just failed to
answer still says what it would be. From 0.1 to 0.2 wrong hits fall by a quarter, and 0.4 % fewer are served."""
DISSENT = 0.5
"""Votes against a hit, as a share of those for it (its own is one), that it survives."""
MAX_CHARS = 2_000
"""Longer answers are never looked at: they do not repeat."""
DISPUTED = "guard:disputed"
"""The reason where the guard lets an entry through, and others as well whose answers differ."""

UNSAID = 0


def said(answer: Answer) -> int:
    """A number for what ``answer`` says, 64 bits: the same for the same words and calls.

    UNSAID where it is too long, or has calls that JSON cannot hold.
    """
    if len(answer.text) > MAX_CHARS:
        return UNSAID
    words = " ".join(answer.text.split()).casefold().rstrip(".!")
    what = words.encode("utf-8", "surrogatepass")
    if answer.tool_calls:
        try:
            what += b"\0" + json_bytes(answer.called, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            # Half a surrogate pair, or an integer over 64 bits: such an answer was paid for as well, and is kept.
            return UNSAID
    return int.from_bytes(blake2b(what, digest_size=8).digest(), "big")


class Sayings:
    """How many entries of each scope hold the same answer."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, dict[int, int]] = defaultdict(dict)

    def add(self, scope: str, says: int) -> None:
        """One more holds it."""
        if says != UNSAID:
            counts = self._counts[scope]
            counts[says] = counts.get(says, 0) + 1

    def remove(self, scope: str, says: int) -> None:
        """One fewer does."""
        counts = self._counts.get(scope)
        if counts is None or says not in counts:
            return
        counts[says] -= 1
        if not counts[says]:
            del counts[says]
            if not counts:
                del self._counts[scope]

    def repeats(self, scope: str, says: int) -> bool:
        """Whether more than one holds it."""
        counts = self._counts.get(scope)
        return counts is not None and counts.get(says, 0) > 1

    def contradict(self, scope: str, one: int, others: Sequence[int]) -> bool:
        """Whether any of ``others`` speaks against ``one``: differs from it, and is of a kind that repeats."""
        return any(self._contradicts(scope, one, other) for other in others)

    def _contradicts(self, scope: str, one: int, other: int) -> bool:
        return one != other and UNSAID not in (one, other) and (self.repeats(scope, other) or self.repeats(scope, one))

    def outvoted(self, scope: str, one: int, votes: Iterable[int]) -> bool:
        """Whether an answer that says ``one`` is not to be served. ``votes``: what the others say that may vote."""
        against, agreeing = 0, 1
        for vote in votes:
            against += self._contradicts(scope, one, vote)
            agreeing += vote == one
        return against > DISSENT * agreeing
