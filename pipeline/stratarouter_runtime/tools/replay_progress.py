"""How far a replay is: the offsets of one partition that its runs have gone through, in the metadata of its group.

Runs of one replay may go over different ranges, as bounds that are written as "20m" move on; so these are intervals and
no watermark. Metadata, as text: ``srr1`` and the intervals, as in ``srr1 100-200 5000-5300`` (to before the end).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from aiokafka import TopicPartition

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError, OffsetMetadataError
from stratarouter_runtime.processors import admin_client
from stratarouter_runtime.processors.publisher import READ_TIMEOUT_S, TransactionalPublisher
from stratarouter_runtime.records import Outbound
from stratarouter_runtime.state.offsets import OffsetMap
from stratarouter_runtime.tools.ranges import Span

VERSION_TAG = "srr1"
MAX_METADATA_CHARS = 4_000
"""Below the broker's usual limit (4,096) on what is committed beside an offset: some 200 ranges with gaps between."""

_INTERVAL = re.compile(r"(\d{1,19})-(\d{1,19})")


@dataclass(frozen=True, slots=True)
class Gone:
    """Offsets gone through: sorted intervals, each to before its end, none touching the next."""

    intervals: tuple[tuple[int, int], ...] = ()

    def holds(self, offset: int) -> bool:
        """Whether ``offset`` is in one of them."""
        at = bisect_right(self.intervals, offset, key=lambda interval: interval[0]) - 1
        return at >= 0 and offset < self.intervals[at][1]

    def joined(self, begin: int, end: int) -> Gone:
        """With ``begin`` to before ``end`` gone through too."""
        apart = [one for one in self.intervals if one[1] < begin or end < one[0]]
        touching = [one for one in self.intervals if one not in apart]
        whole = (min([begin, *(one[0] for one in touching)]), max([end, *(one[1] for one in touching)]))
        return Gone(tuple(sorted([*apart, whole])))

    def since(self, first: int) -> Gone:
        """Without what lies wholly before ``first``, where the topic begins now."""
        return Gone(tuple(one for one in self.intervals if one[1] > first))

    def encode(self) -> str:
        """As metadata. Raises ConfigurationError where it has no room there."""
        text = " ".join([VERSION_TAG, *(f"{begin}-{end}" for begin, end in self.intervals)])
        if len(text) > MAX_METADATA_CHARS:
            raise ConfigurationError(
                f"this replay has gone over {len(self.intervals)} ranges with gaps between, more than can be kept",
                remedy="another --replay-id begins anew; it knows nothing of what this one has written",
            )
        return text

    @classmethod
    def decode(cls, text: str) -> Self:
        """From metadata. Raises OffsetMetadataError for anything else."""
        tag, *words = text.split(" ")
        found = [_INTERVAL.fullmatch(word) for word in words]
        if tag != VERSION_TAG or not all(found):
            raise OffsetMetadataError(
                f"what is committed for this replay is not its progress: {text[:40]!r}",
                remedy="take another --replay-id; it knows nothing of what this one has written",
            )
        return cls(tuple((int(one[1]), int(one[2])) for one in found if one is not None))


class ProgressWriter(TransactionalPublisher):
    """Publishes in transactions that commit how far a replay is in one partition.

    Attributes:
        gone: as it is committed; known once it was opened or read.
        begun: whether anything was ever committed.
    """

    def __init__(self, config: RuntimeConfig, group: str, partition: TopicPartition) -> None:
        super().__init__(config, group, partition)
        self.gone = Gone()
        self.begun = False

    async def read_committed(self) -> OffsetMap:
        """Read ``gone`` and ``begun``. Raises BrokerError, OffsetMetadataError."""
        place = self._partition
        doing = f"reading how far the replay is in {place}"
        async with admin_client.connected(self._config, doing, READ_TIMEOUT_S, partition=str(place)) as client:
            committed = (await admin_client.committed_offsets(client, self._group, [place]))[place]
        self.begun = committed.offset >= 0
        self.gone = Gone.decode(committed.metadata or "") if self.begun else Gone()
        return OffsetMap(committed.offset, committed.offset)

    async def go_on(self, outbounds: Sequence[Outbound], gone: Gone) -> None:
        """One transaction: ``outbounds``, and how far the replay is. Raises BrokerError, ConfigurationError."""
        end = gone.intervals[-1][1] if gone.intervals else 0
        await self.publish(outbounds, end, gone.encode())
        self.gone = gone


def rounds(spans: Sequence[Span]) -> list[list[Span]]:
    """``spans`` in lists that hold each partition once, as a reader takes them; overlapping ones are one."""
    merged: dict[int, list[Span]] = {}
    for span in sorted(spans):
        mine = merged.setdefault(span.partition, [])
        if mine and span.begin <= mine[-1].end:
            mine[-1] = Span(span.partition, mine[-1].begin, max(mine[-1].end, span.end))
        else:
            mine.append(span)
    deepest = max(map(len, merged.values()), default=0)
    return [[mine[at] for mine in merged.values() if at < len(mine)] for at in range(deepest)]
