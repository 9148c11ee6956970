"""Which rows this process was granted and has not finished: what tells a row at work from one nobody was told of.

A ``begin`` whose reply was lost (timeout, broken connection) may have marked its rows started. Nobody calls for them,
so the next ``begin`` of such a row is granted again instead of waiting for itself. Pure state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from stratarouter_runtime.port_values import Begin, Begun, JournalKey


@runtime_checkable
class Releases(Protocol):
    """A journal that takes back grants which nobody will use."""

    def release(self, keys: Iterable[JournalKey]) -> None:
        """Give up granted rows that no call was made for."""


class Held:
    """The keys granted to lead, from before their ``begin`` is sent until they are finished or released."""

    def __init__(self) -> None:
        self._keys: set[JournalKey] = set()

    def __contains__(self, key: JournalKey) -> bool:
        return key in self._keys

    def claim(self, items: Sequence[Begin]) -> frozenset[JournalKey]:
        """Hold the keys of ``items``; returns those that nobody held before.

        To be called before the rows are sent: another ``begin`` of the same key, under way at the same time, must
        not take the row for one that nobody was told of.
        """
        fresh = frozenset(item.key for item in items) - self._keys
        self._keys |= fresh
        return fresh

    def settle(self, items: Sequence[Begin], begun: Sequence[Begun], fresh: frozenset[JournalKey], owner: str) -> None:
        """Keep of ``fresh`` what was granted to lead; let go what is finished or another's."""
        granted = []
        for item, one in zip(items, begun, strict=True):
            if one.state == "granted" and item.leader is None:
                granted.append(item.key)
            elif item.key in fresh or one.state == "recorded" or _is_anothers(one, owner):
                self._keys.discard(item.key)
        # Last: a key may have been asked for with another payload too, which was refused.
        self._keys.update(granted)

    def release(self, keys: Iterable[JournalKey]) -> None:
        """Let go of ``keys``: finished, or never to be worked on."""
        self._keys.difference_update(keys)


def _is_anothers(begun: Begun, owner: str) -> bool:
    return begun.state == "ambiguous" or (begun.state == "busy" and begun.owner != owner)
