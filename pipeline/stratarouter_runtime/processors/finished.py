"""What a lane commits: finished records, what each publishes, and what goes into one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from stratarouter_runtime.errors import OutputRefusedError
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.records import Outbound, UsageLine

MAX_COMMIT_RECORDS = 2000
"""Records in one commit: bounds the time to write it and what a failed one repeats."""
MAX_COMMIT_BYTES = 8 * 1024 * 1024
"""Bytes in one commit, for the same reason; a single larger record still goes alone."""

Committed = Callable[[str, int, int, float, Sequence[Outbound]], None]
Instead = Callable[[OutputRefusedError], "tuple[Outbound, ...]"]
"""What to publish in the place of something that the broker has refused for good; raises the refusal where that is no
reason to publish anything else."""
Insteads = tuple[Instead, ...]
"""The first for what is finished, each further one for what came of the one before."""
Accounts = Callable[[Iterable[tuple[int, UsageLine]], int], list[Outbound]]
"""What to publish beside the responses that are committed now: given each one's offset and meaning, and the time in
epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished input record, what it publishes, and what instead where the broker refuses that for good. Without
    anything more to publish, a refusal halts the lane.

    ``usage``: what it means for the accounts beside what ``outbounds`` say.
    """

    offset: int
    outbounds: tuple[Outbound, ...]
    size: int
    instead: Insteads = ()
    usage: tuple[UsageLine, ...] = ()

    @property
    def lines(self) -> Iterator[tuple[int, UsageLine]]:
        """All that it means for the accounts, each with the offset."""
        said = (o.usage for o in self.outbounds if o.usage is not None)
        return ((self.offset, line) for line in (*said, *self.usage))

    def refused(self, cause: OutputRefusedError) -> Finished:
        """What is published in its stead; raises ``cause`` where there is nothing."""
        if not self.instead:
            raise cause
        outbounds = self.instead[0](cause)
        return Finished(self.offset, outbounds, sum(len(o.value) for o in outbounds), self.instead[1:], self.usage)


class ProcessorLane(Protocol):
    """A lane as the processor sees it whose records it carries."""

    name: str
    backlog_end: int

    def finish(
        self,
        offset: int,
        outbounds: tuple[Outbound, ...],
        instead: Insteads = (),
        usage: tuple[UsageLine, ...] = (),
    ) -> None:
        """As ``Lane.finish``."""

    def fence(self, exc: Exception) -> None:
        """As ``Lane.fence``."""


def first_batch(ready: list[Finished], most: int) -> tuple[list[Finished], list[Finished]]:
    """Split off what fits into one commit; at least one record."""
    size = 0
    for index, finished in enumerate(ready):
        size += finished.size
        if index and (index >= most or size > MAX_COMMIT_BYTES):
            return ready[:index], ready[index:]
    return ready, []
