"""Up to where the records of one partition are done, by what was read and what is done of it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class InOrder:
    """One partition since its position was set. Offsets may have gaps: markers of transactions and what was aborted."""

    def __init__(self) -> None:
        self._read: deque[int] = deque()
        self._done: set[int] = set()
        self._gap: tuple[int, float] | None = None
        """The first offset that later ones have passed, and since when."""

    def __len__(self) -> int:
        """Records read and not done."""
        return len(self._read) - len(self._done.intersection(self._read))

    def read(self, offsets: Iterable[int]) -> None:
        """``offsets`` were read, in this order. One that was read before begins again there."""
        for offset in offsets:
            while self._read and self._read[-1] >= offset:
                self._read.pop()
            self._read.append(offset)

    def done(self, offsets: Iterable[int]) -> None:
        """In any order; also of ones that were read under an earlier position."""
        self._done.update(offsets)

    def advance(self) -> int | None:
        """The first offset that is not done, where that has moved; None else."""
        last = None
        while self._read and self._read[0] in self._done:
            last = self._read.popleft()
        if last is None:
            return None
        self._done = {offset for offset in self._done if offset > last}
        return last + 1

    def passed_over(self, now: float) -> tuple[int, float] | None:
        """An offset that is not done while a later one is, and for how many seconds; None where there is none."""
        head = next((offset for offset in self._read if offset not in self._done), None)
        if head is None or not self._done or max(self._done) < head:
            self._gap = None
            return None
        if self._gap is None or self._gap[0] != head:
            self._gap = head, now
        return head, now - self._gap[1]
