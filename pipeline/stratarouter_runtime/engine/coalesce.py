"""Leaders in flight, and which of them a new request may follow. Pure: no waiting happens here."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.port_values import JournalKey
from stratarouter_runtime.ports import Guard
from stratarouter_runtime.records import Execution, Vector
from stratarouter_runtime.similarity import products

FIRST_CAPACITY = 16
"""Rows of a scope's first matrix; doubled as leaders come."""

ALIASES = 64
"""Other wordings of one leader's question that are known by their hash."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A request that leads or may follow: its identity, scope, exact key, text (for the guard) and vector."""

    key: JournalKey
    scope: str
    content_hash: str
    text: str
    vector: Vector | None

    @classmethod
    def of(cls, execution: Execution, text: str) -> Candidate:
        """From an execution and its conversation as text."""
        request = execution.request
        return cls(
            JournalKey.of(request),
            execution.scope,
            execution.content_hash,
            text,
            request.embedding,
        )


@dataclass(frozen=True, slots=True)
class Match:
    """The leader to follow and how alike it is (1.0: the same words)."""

    leader: JournalKey
    similarity: float


@dataclass(frozen=True, slots=True)
class _Alias:
    """A leader that the guard let these words follow, and how alike they are."""

    leader: Candidate
    similarity: float


class _Scope:
    """The vectors of one scope's leaders as rows of one matrix; freed rows are used again."""

    def __init__(self, dimension: int) -> None:
        self.rows = np.zeros((FIRST_CAPACITY, dimension), dtype=np.float32)
        self.owners: list[Candidate | None] = [None] * FIRST_CAPACITY
        self.free = list(range(FIRST_CAPACITY - 1, -1, -1))
        self.top = 0
        """Rows from here on were never used."""

    def add(self, candidate: Candidate) -> int:
        if not self.free:
            size = len(self.owners)
            self.rows = np.vstack([self.rows, np.zeros_like(self.rows)])
            self.owners += [None] * size
            self.free = list(range(2 * size - 1, size - 1, -1))
        row = self.free.pop()
        self.top = max(self.top, row + 1)
        self.rows[row] = candidate.vector
        self.owners[row] = candidate
        return row

    def remove(self, row: int) -> bool:
        """Free ``row``; True where the scope is empty now."""
        self.rows[row] = 0.0
        self.owners[row] = None
        self.free.append(row)
        return len(self.free) == len(self.owners)


class Leaders:
    """Every leader in flight in this process."""

    def __init__(self, guard: Guard, *, candidates: int = 5) -> None:
        """``candidates``: how many of the nearest leaders the guard is asked about."""
        self._guard = guard
        self._candidates = candidates
        self._exact: dict[str, tuple[Candidate, ...]] = {}
        """By their words, the newest last: who passes the cache by leads beside another one."""
        self._aliases: dict[str, _Alias] = {}
        self._known_as: dict[JournalKey, list[str]] = {}
        self._scopes: dict[tuple[str, int], _Scope] = {}
        self._rows: dict[JournalKey, tuple[tuple[str, int], int]] = {}

    def __len__(self) -> int:
        return len(self._exact)

    def __contains__(self, content_hash: str) -> bool:
        """Whether somebody leads for these very words."""
        return content_hash in self._exact

    def know(self, content_hash: str) -> bool:
        """Whether somebody leads who asks these words, or is known to answer them."""
        return content_hash in self._exact or content_hash in self._aliases

    def add(self, candidate: Candidate) -> None:
        """``candidate`` leads from now on."""
        self._exact[candidate.content_hash] = (*self._exact.get(candidate.content_hash, ()), candidate)
        if candidate.vector is not None:
            home = (candidate.scope, len(candidate.vector))
            scope = self._scopes.get(home)
            if scope is None:
                scope = self._scopes[home] = _Scope(len(candidate.vector))
            self._rows[candidate.key] = (home, scope.add(candidate))

    def remove(self, candidate: Candidate) -> None:
        """``candidate`` leads no more."""
        others = tuple(one for one in self._exact.pop(candidate.content_hash, ()) if one is not candidate)
        if others:
            self._exact[candidate.content_hash] = others
        for content_hash in self._known_as.pop(candidate.key, ()):
            del self._aliases[content_hash]
        placed = self._rows.pop(candidate.key, None)
        if placed is not None:
            home, row = placed
            if self._scopes[home].remove(row):
                del self._scopes[home]

    def find(self, candidate: Candidate, threshold: float, vetoed: Collection[str] = ()) -> Match | None:
        """The most similar leader at or above ``threshold`` that the guard lets pass, in the same scope only.

        ``vetoed`` are content hashes whose answers were marked wrong for this question.
        """
        same = self._exact.get(candidate.content_hash)
        if same is not None:
            return Match(same[-1].key, 1.0)
        alias = self._aliases.get(candidate.content_hash)
        if alias is not None and alias.similarity >= threshold and alias.leader.content_hash not in vetoed:
            return Match(alias.leader.key, alias.similarity)
        if candidate.vector is None:
            return None
        scope = self._scopes.get((candidate.scope, len(candidate.vector)))
        return None if scope is None else self._nearest(scope, candidate, threshold, vetoed)

    def _nearest(self, scope: _Scope, candidate: Candidate, threshold: float, vetoed: Collection[str]) -> Match | None:
        assert candidate.vector is not None
        similarities = products(scope.rows[: scope.top], candidate.vector)
        for _ in range(self._candidates):
            # One after the other: nearly always the nearest is the one, or nobody is near.
            row = int(similarities.argmax())
            similarity = float(similarities[row])
            if not similarity >= threshold:
                return None
            owner = scope.owners[row]
            if owner is not None and owner.content_hash not in vetoed:
                similarity = min(1.0, similarity)
                if self._guard.differs(candidate.text, owner.text, similarity) is None:
                    self._remember(candidate.content_hash, owner, similarity)
                    return Match(owner.key, similarity)
            similarities[row] = -np.inf
        return None

    def _remember(self, content_hash: str, leader: Candidate, similarity: float) -> None:
        """The same words again need neither the search nor the guard while ``leader`` leads."""
        known = self._known_as.setdefault(leader.key, [])
        if len(known) < ALIASES and content_hash not in self._aliases:
            known.append(content_hash)
            self._aliases[content_hash] = _Alias(leader, similarity)
