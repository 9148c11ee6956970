"""Finds the nearest vectors within one scope.

Exact up to BRUTE_FORCE_MAX entries a scope, approximate candidates with exact scores above. Knows keys and vectors;
what they stand for is its owner's business, and so is any bound.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from stratarouter_runtime.records import Vector
from stratarouter_runtime.similarity import products

NEIGHBOURS, EXPANSIONS = 32, 32
"""Of each row in the graph, and of each search in it. Rows stand there with a byte a number, as what is proposed is
scored again exactly. Of 10,000 questions in all-MiniLM-L6-v2's vectors the nearest is found for .997 of other wordings
in 94 us, where half precision, 16 neighbours and 64 expansions find .967 in 124 us; of 60,000 mixtures .987 in 282 us
(.993 in 509 us). A row takes 848 bytes instead of 1,407, and an addition three quarters of the time."""
PROPOSED = 16
"""Rows that the graph proposes at least: a byte a number tells the very nearest apart only roughly."""

BRUTE_FORCE_MAX = 2_000
"""Entries a scope up to which one matrix product (0.15 ms at 384 dimensions) costs less than the graph's search
(0.36 ms) and finds everything."""

GRAPH_MIN = 1_000
"""Entries a scope below which the graph is dropped: far enough under BRUTE_FORCE_MAX that a scope at the border
does not build it again and again."""

CATCH_UP = 8
"""Rows put into the graph with every addition (0.7 ms each), until it holds all: so that no addition pays for
building it. Until then searches are exact."""

SPARE = 8
"""One row in so many is added beside the one that is needed, and left where rows go. A scope may hold one entry only,
so it begins with one row; and room that nobody fills is memory which no bound counts."""
FILLED = 0.8
"""Of a matrix at least, or rows are given back: what ``shelf.size_of`` counts for a row is what it takes at this."""

UNIT_TOLERANCE = 1e-3
"""How far a vector's length may be from one before it is scaled again."""

Key = TypeVar("Key", bound=Hashable)


def unit(vector: Vector) -> Vector | None:
    """``vector`` as float32 of length one, or None where it has no direction (zero, NaN, infinite, not a row)."""
    row = np.ascontiguousarray(vector, dtype=np.float32)
    length = float(np.sqrt(np.dot(row, row))) if row.ndim == 1 and row.size else 0.0
    if not np.isfinite(length) or length == 0.0:
        return None
    return row if abs(length - 1.0) <= UNIT_TOLERANCE else row / np.float32(length)


class ScopedIndex(Generic[Key]):
    """Vectors by scope. No search ever sees a row of another scope, nor of another dimension."""

    def __init__(self, *, brute_force_max: int = BRUTE_FORCE_MAX, graph_min: int = GRAPH_MIN) -> None:
        self._limits = (brute_force_max, graph_min)
        self._scopes: dict[tuple[str, int], _Rows[Key]] = {}
        self._places: dict[Key, tuple[str, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def add(self, key: Key, scope: str, vector: Vector) -> bool:
        """Put ``key`` in, in place of an older vector of its own. False where the vector has no direction."""
        self.remove(key)
        row = unit(vector)
        if row is None:
            return False
        place = (scope, row.size)
        rows = self._scopes.get(place)
        if rows is None:
            rows = self._scopes[place] = _Rows(row.size, *self._limits)
        rows.add(key, row)
        self._places[key] = place
        return True

    def remove(self, key: Key) -> None:
        """Take ``key`` out, if it is in."""
        place = self._places.pop(key, None)
        if place is None:
            return
        rows = self._scopes[place]
        rows.remove(key)
        if not rows.keys:
            del self._scopes[place]

    def search(self, scope: str, vector: Vector, count: int) -> list[tuple[Key, float]]:
        """The ``count`` nearest keys of ``scope`` with their cosine similarities, nearest first."""
        row = unit(vector)
        rows = None if row is None else self._scopes.get((scope, row.size))
        return [] if rows is None or row is None else rows.search(row, count)


class _Rows(Generic[Key]):
    """One scope's vectors: a float32 matrix without gaps, and above a size a graph that proposes candidates."""

    def __init__(self, dimension: int, brute_force_max: int, graph_min: int) -> None:
        self.keys: list[Key] = []
        self._row_of: dict[Key, int] = {}
        self._matrix: NDArray[np.float32] = np.zeros((1, dimension), dtype=np.float32)
        self._labels: list[int] = []
        self._row_of_label: dict[int, int] = {}
        self._next_label = 0
        self._graph: Any = None
        self._pending: list[int] = []
        self._brute_force_max = brute_force_max
        self._graph_min = graph_min

    def add(self, key: Key, vector: Vector) -> None:
        row = len(self.keys)
        if row == len(self._matrix):
            self._resize(row + row // SPARE + 1)
        self._matrix[row] = vector
        self.keys.append(key)
        self._row_of[key] = row
        label = self._next_label
        self._next_label += 1
        self._labels.append(label)
        self._row_of_label[label] = row
        self._grow_graph(label)

    def remove(self, key: Key) -> None:
        """Take out by moving the last row into the gap."""
        row = self._row_of.pop(key)
        label = self._labels[row]
        last = len(self.keys) - 1
        if row != last:
            self._matrix[row] = self._matrix[last]
            self.keys[row], self._labels[row] = self.keys[last], self._labels[last]
            self._row_of[self.keys[row]] = row
            self._row_of_label[self._labels[row]] = row
        self.keys.pop()
        self._labels.pop()
        del self._row_of_label[label]
        self._shrink_graph(label)
        if 0 < last < FILLED * len(self._matrix):
            self._resize(last + last // SPARE)

    def search(self, vector: Vector, count: int) -> list[tuple[Key, float]]:
        rows = self._candidates(vector, count)
        if rows is None:
            scores = products(self._matrix[: len(self.keys)], vector)
            best = np.argpartition(-scores, count)[:count] if count < len(scores) else np.arange(len(scores))
            rows, negative = best.tolist(), (-scores[best]).tolist()
        else:
            negative = (-products(self._matrix[rows], vector)).tolist()
        # Ties go to the row, so that the same contents always give the same order.
        found = sorted(zip(negative, rows, strict=True))[:count]
        return [(self.keys[row], min(1.0, max(-1.0, -score))) for score, row in found]

    def _resize(self, capacity: int) -> None:
        """In place: a large matrix moves by its pages, and is never there twice. No view of it outlives a call."""
        self._matrix.resize((capacity, self._matrix.shape[1]), refcheck=False)

    def _candidates(self, vector: Vector, count: int) -> list[int] | None:
        """Rows that the graph proposes; None where every row is to be scored."""
        if self._graph is None or self._pending:
            return None
        row_of, wanted = self._row_of_label, max(count, PROPOSED)
        labels = self._graph.search(vector, wanted).keys.tolist()
        rows = [row for label in labels if (row := row_of.get(label)) is not None]
        # A graph whose entries were removed can lose its way: then look at everything.
        return rows if len(rows) >= min(count, len(self.keys)) else None

    def _grow_graph(self, label: int) -> None:
        if self._graph is None:
            if len(self.keys) <= self._brute_force_max:
                return
            self._graph = _graph(self._matrix.shape[1])
            self._pending = list(self._labels)
        else:
            self._pending.append(label)
        for _ in range(min(CATCH_UP, len(self._pending))):
            pending = self._pending.pop()
            row = self._row_of_label.get(pending)
            if row is not None:
                self._graph.add(pending, self._matrix[row])

    def _shrink_graph(self, label: int) -> None:
        if self._graph is None:
            return
        if len(self.keys) < self._graph_min:
            self._graph, self._pending = None, []
        elif label in self._graph:
            self._graph.remove(label)


def _graph(dimension: int) -> Any:
    from stratarouter_runtime.native import Index  # noqa: PLC0415 - 80 ms, which a worker's start does not need

    return Index(ndim=dimension, metric="cos", dtype="i8", connectivity=NEIGHBOURS, expansion_search=EXPANSIONS)
