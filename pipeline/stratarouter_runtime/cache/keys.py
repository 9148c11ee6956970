"""The names of the cache's keys in Redis. Each command touches one key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

from stratarouter_runtime.cache.shelf import Place

_PLAIN = re.compile(r"[A-Za-z0-9]{1,128}")
_GLOB = re.compile(r"([\\*?\[\]])")


@dataclass(frozen=True, slots=True)
class Keys:
    """Key names below ``prefix``; workers share a cache where they share it."""

    prefix: str

    @property
    def stream(self) -> str:
        """The stream that names every new entry that can be found by likeness."""
        return f"{self.prefix}:new"

    @property
    def evidence(self) -> str:
        """The stream of what was learnt of hits by likeness."""
        return f"{self.prefix}:evidence"

    @property
    def findable_pattern(self) -> str:
        """The pattern of every ``findable`` key, for SCAN."""
        escaped = _GLOB.sub(r"\\\1", self.prefix)
        return f"{escaped}:*:vector"

    @property
    def answer_pattern(self) -> str:
        """The pattern of every ``answer`` key, for SCAN."""
        escaped = _GLOB.sub(r"\\\1", self.prefix)
        return f"{escaped}:*:answer"

    def turn(self, name: str) -> str:
        """Where a worker says that it tidies up: ``name`` is after what."""
        return f"{self.prefix}:turn:{_plain(name)}"

    def answer(self, place: Place) -> str:
        """Where an entry's answer lies."""
        return f"{self.prefix}:{_plain(place[0])}:{_plain(place[1])}:answer"

    def lease(self, place: Place) -> str:
        """Who fills an entry."""
        return f"{self.prefix}:{_plain(place[0])}:{_plain(place[1])}:lease"

    def findable(self, place: Place) -> str:
        """Where lies what finds an entry by likeness."""
        return f"{self.prefix}:{_plain(place[0])}:{_plain(place[1])}:vector"


def _plain(part: str) -> str:
    """``part``, or a digest where it could be read as two parts. Values name their place, so no digest misleads."""
    if _PLAIN.fullmatch(part):
        return part
    return blake2b(part.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
