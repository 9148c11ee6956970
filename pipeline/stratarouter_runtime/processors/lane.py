"""A lane: one assigned input partition, its offset ledger and its commit loop.

While one commit is under way, finished work gathers for the next. A lane knows no Kafka client; a publisher does
the writing (``publisher.py``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

from stratarouter_runtime.errors import (
    BrokerError,
    LaneFencedError,
    OffsetMetadataError,
    OffsetRegressionError,
    OutputRefusedError,
)
from stratarouter_runtime.processors.finished import (
    MAX_COMMIT_RECORDS,
    Accounts,
    Committed,
    Finished,
    Insteads,
    first_batch,
)
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.records import Outbound, UsageLine
from stratarouter_runtime.state.offsets import OffsetLedger, OffsetMap, encode
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics

log = logging.getLogger("stratarouter.lane")

LaneState = Literal["opening", "running", "fenced", "halted", "closed"]

SMALLEST_POLL = 8
"""A lane is asked for an eighth of what could be polled, or not at all."""
GAP_COMMIT_S = 1.0
"""An idle lane commits past a gap after this; under load the next commit does it."""
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
"""Waits between tries to replace a publisher while the broker is away."""
STALLED_S = 10.0
"""A commit takes about 10 ms and fails only after ``transaction_timeout_ms``; one under way for this long waits for
brokers that are away or too few."""


class Publisher(Protocol):
    """Writes outputs and the input offset together, and reads what was committed."""

    async def open(self) -> OffsetMap:
        """Fence earlier owners, then read the committed map. Raises BrokerError, OffsetMetadataError."""

    async def publish(self, outbounds: Sequence[Outbound], offset: int, metadata: str) -> None:
        """Write ``outbounds`` and commit ``offset``. Raises LaneFencedError, or BrokerError where the outcome is
        unknown: then ``open`` must be called before anything else.
        """

    async def close(self) -> None:
        """Release the connections. Idempotent; bounded."""


class Lane:
    """Owns one input partition from its assignment to its revocation.

    Args:
        name: for logs: topic and partition.
        publisher: writes this lane's outputs.
        max_in_flight: records taken and not yet committed; more are not polled.
        metadata_max_chars: the broker's ``offset.metadata.max.bytes``.
        on_change: called when there may be room again or the state has changed.
        accounts: sums up the responses of a commit; None: nothing is published beside them.
        committed: told of each commit: this lane's name, the watermark, records, seconds, and what was published.
    """

    def __init__(
        self,
        name: str,
        publisher: Publisher,
        *,
        processor: str,
        max_in_flight: int,
        metadata_max_chars: int,
        metrics: Metrics,
        on_change: Callable[[], None],
        accounts: Accounts | None = None,
        committed: Committed | None = None,
    ) -> None:
        self._told = committed
        self.name = name
        self.state: LaneState = "opening"
        self.problem: str | None = None
        self.ended_at: float | None = None
        self.last_record: Record | None = None
        """What was read last: a checkpoint's witness."""
        self.turned_away: int | None = None
        """The first offset that the last ``take_all`` had no room for: to be read again."""
        self.held_bytes = 0
        """Of the records taken and not yet committed, with their outputs once these are there."""
        self._sizes: dict[int, int] = {}
        self.backlog_end = 0
        """Records below this offset were there before the lane opened: they may have been executed before."""
        self._publisher = publisher
        self._processor = processor
        self._max_in_flight = max_in_flight
        self._max_chars = metadata_max_chars
        self._metrics = metrics
        self._on_change = on_change
        self._accounts = accounts
        self._ledger = OffsetLedger(OffsetMap(0, 0), max_chars=metadata_max_chars)
        self._ready: list[Finished] = []
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._loop_task: asyncio.Task[None] | None = None
        self._closing = False
        self._taken = 0
        self._singly = 0
        self._failures = 0
        self._commit_began: float | None = None
        self.committed = OffsetMap(0, 0)
        self._stored = OffsetMap(0, 0)

    # -- life --------------------------------------------------------------------------------------------------

    async def open(self, resume: Callable[[OffsetMap], Awaitable[OffsetMap]]) -> None:
        """Take the partition: fence, read the committed map, let ``resume`` seek to it, start committing."""
        self._stored = await self._open_publisher()
        self.committed = await resume(self._stored)
        if self._closing:
            return
        self._ledger = OffsetLedger(self.committed, max_chars=self._max_chars)
        self._loop_task = asyncio.create_task(self._commit_loop(), name=f"commit {self.name}")
        self._become("running")

    async def close(self, grace_s: float) -> None:
        """Stop taking records, commit what is finished within ``grace_s`` seconds, release the publisher."""
        self._closing = True
        if self._loop_task is not None:
            self._wake.set()
            _, pending = await asyncio.wait([self._loop_task], timeout=grace_s)
            for task in pending:
                task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        if self.state not in {"fenced", "halted"}:
            self._become("closed")
        await self._publisher.close()

    async def drained(self) -> None:
        """Wait until every record taken is committed (or the lane is over)."""
        await self._settled.wait()

    # -- records -----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Records taken and not yet committed."""
        return self._taken

    @property
    def watermark_gap(self) -> int:
        """Offsets between the watermark and the last one taken."""
        return self._ledger.span

    @property
    def next_offset(self) -> int:
        """Where to read on: the first offset that was neither taken nor passed, nor skipped as finished before."""
        return self._ledger.watermark + self._ledger.span - self._ledger.to_read_again

    @property
    def committing_s(self) -> float:
        """Seconds that the present commit has been under way, with its recovery; 0.0 where there is none."""
        return 0.0 if self._commit_began is None else time.monotonic() - self._commit_began

    @property
    def hindrance(self) -> str | None:
        """What keeps this lane from its work now, in words for ``/readyz``."""
        if self.state != "running" or self.problem is not None:
            return f"lane {self.name} is {self.state}: {self.problem or 'opening'}"
        if self.committing_s >= STALLED_S:
            return f"lane {self.name} waits for the broker: one commit for {self.committing_s:.0f} s"
        return None

    def room(self, records: int) -> int:
        """How many of ``records`` may be polled now: by number in flight and by the size of the offset map.

        After a restart, what the map held is read again first, and alone: it makes the map no longer.
        """
        if self.state != "running" or self._closing:
            return 0
        room = min(records, self._max_in_flight - self._taken)
        again = self._ledger.to_read_again
        if again:
            return max(0, min(room, again))
        # A poll much smaller than could be is not worth its round trip: better wait until more is finished.
        worth = max(1, min(records, self._max_in_flight) // SMALLEST_POLL)
        while room >= worth and not self._ledger.has_room(room):
            room //= 2
        return room if room >= worth else 0

    @property
    def full_by(self) -> str:
        """What a lane without room lacks: places, or characters for its offset map."""
        return "lane_full" if self._taken >= self._max_in_flight else "metadata_full"

    def take(self, offset: int) -> bool:
        """Take the record at ``offset``; False where it must be skipped (finished before, or not ours any more)."""
        if self.state != "running" or self._closing:
            return False
        try:
            taken = self._ledger.take(offset)
        except OffsetRegressionError as exc:
            # The broker began anew: the topic is another one, or its end was cut off. Opening again finds the place.
            self._end("fenced", exc)
            return False
        if taken:
            self._taken += 1
            self._settled.clear()
        return taken

    def take_all(self, records: Sequence[Record]) -> list[Record]:
        """Take what is to be taken of ``records``, which come in the order of their offsets.

        Ends before ``turned_away`` where the map might outgrow its limit: how long the gaps are is known only here.
        """
        taken: list[Record] = []
        self.turned_away = None
        certain = bool(records) and self._ledger.has_room_until(records[-1].offset, len(records))
        for record in records:
            if self.state != "running" or self._closing:
                break
            if not certain:
                self._ledger.pass_to(record.offset)
                if not self._ledger.has_room(1):
                    self.turned_away = record.offset
                    break
            if self.take(record.offset):
                taken.append(record)
                self._hold(record.offset, len(record.value or b""))
            self.last_record = record
        return taken

    def _hold(self, offset: int, size: int) -> None:
        self._sizes[offset] = self._sizes.get(offset, 0) + size
        self.held_bytes += size

    def passed(self, position: int) -> None:
        """Everything below ``position`` was delivered; transaction markers at the end must not look like lag."""
        if self.state != "running" or self._closing:
            return
        # A gap that waits to be committed already is not to begin its wait anew with each marker that comes.
        waits = self._ledger.watermark > self.committed.watermark
        if self._ledger.pass_to(position) and not self._taken and not waits:
            self._wake.set()

    def finish(
        self,
        offset: int,
        outbounds: tuple[Outbound, ...],
        instead: Insteads = (),
        usage: tuple[UsageLine, ...] = (),
    ) -> None:
        """Publish ``outbounds`` with the offset of the record that is done, or what ``instead`` makes of refusals.

        Dropped where the lane is over: the new owner publishes from the journal.
        """
        if self.state != "running":
            return
        finished = Finished(offset, outbounds, sum(len(o.value) for o in outbounds), instead, usage)
        self._hold(offset, finished.size)
        self._ready.append(finished)
        self._wake.set()

    # -- commits -----------------------------------------------------------------------------------------------

    async def _commit_loop(self) -> None:
        try:
            while True:
                if not self._ready and not self._begins_anew:
                    if self._closing:
                        return
                    self._wake.clear()
                    if await self._woken():
                        continue
                self._commit_began = time.monotonic()
                try:
                    await self._commit_once()
                finally:
                    self._commit_began = None
        except LaneFencedError as exc:
            self._end("fenced", exc)
        except (OffsetMetadataError, OutputRefusedError) as exc:
            self._end("halted", exc)
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            # The outermost loop of the lane: an error nobody foresaw must be seen, and must not look like success.
            log.exception("lane failed", extra={"fields": {"lane": self.name}})
            self._end("fenced", exc)

    async def _woken(self) -> bool:
        """Wait for work. False where none came and a gap at the end of what was read is still to be committed."""
        if self._taken or self._ledger.watermark <= self.committed.watermark:
            return await self._wake.wait()
        try:
            async with asyncio.timeout(GAP_COMMIT_S):
                return await self._wake.wait()
        except TimeoutError:
            return False

    @property
    def _begins_anew(self) -> bool:
        """Whether the group's offset is still that of an earlier topic of the same name: ``resume`` began elsewhere."""
        return self._stored.watermark >= 0 and self._stored != self.committed

    async def _commit_once(self) -> None:
        # 1. What is finished now makes one commit; what finishes meanwhile makes the next. A topic made anew has its
        #    place committed first and alone: whoever takes over must not go on at the old one's offset, and a commit
        #    that comes to this very offset would leave open whether it happened.
        writing: list[Finished] = []
        if not self._begins_anew:
            writing, self._ready = first_batch(self._ready, 1 if self._singly else MAX_COMMIT_RECORDS)
        offsets = [f.offset for f in writing]
        self._ledger.finish(offsets)
        snapshot = self._ledger.snapshot()
        outbounds = [o for f in writing for o in f.outbounds]
        if self._accounts is not None:
            lines = [line for f in writing for line in f.lines]
            outbounds += self._accounts(lines, int(time.time() * 1000))
        began = time.perf_counter()
        try:
            # 2. Outputs and offsets together.
            await self._publisher.publish(outbounds, snapshot.watermark, encode(snapshot))
        except LaneFencedError:
            raise
        except BrokerError as exc:
            # 3. Unknown outcome: a new publisher settles it, and the committed map says how.
            await self._recover(exc, snapshot, writing)
            return
        self._singly = max(0, self._singly - 1)
        self._failures = 0
        self.committed = self._stored = snapshot
        took_s = time.perf_counter() - began
        self._metrics.transaction_seconds.labels(self._processor).observe(took_s)
        if self._told is not None:
            self._told(self.name, snapshot.watermark, len(offsets), took_s, outbounds)
        self._metrics.transaction_records.observe(len(offsets))
        self._notice_progress(offsets)

    async def _recover(self, cause: BrokerError, attempted: OffsetMap, writing: list[Finished]) -> None:
        self._metrics.producer_replacements_total.labels("transaction_failed").inc()
        event(log, logging.WARNING, "publisher replaced", lane=self.name, cause=str(cause))
        if not writing or not isinstance(cause, OutputRefusedError):
            await self._back_off(cause)
        stored = await self._open_publisher()
        if stored not in (self._stored, attempted):
            # Another owner has committed meanwhile: our ledger is out of date and must publish nothing more.
            raise LaneFencedError(f"another owner committed {stored.watermark} on {self.name}")
        # All of it happened, or nothing. ``stored`` does not say it of each record: it may be an earlier topic's.
        settled, lost = (writing, []) if stored == attempted else ([], writing)
        if stored == attempted:
            # Else the place stays where it is: a new group whose first commit failed has no map, never -1.
            self.committed = self._stored = stored
        self._ledger.reopen(f.offset for f in lost)
        if lost and isinstance(cause, OutputRefusedError):
            lost = self._without_refused(lost, cause)
        self._ready[:0] = lost
        self._notice_progress([f.offset for f in settled])

    async def _back_off(self, cause: BrokerError) -> None:
        """Wait where one commit after the other fails although the publisher opens; the first is tried again at once.
        Refused outputs do not count, where there are any: each time there are fewer.
        """
        if self._failures:
            self.problem = str(cause)
            await asyncio.sleep(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(self._failures - 1, 16)))
        self._failures += 1

    def _without_refused(self, lost: list[Finished], cause: OutputRefusedError) -> list[Finished]:
        """Put in the place of what was refused what it has instead; which it was, commits of one record tell."""
        if cause.topics:
            return [one.refused(cause) if any(o.topic in cause.topics for o in one.outbounds) else one for one in lost]
        if len(lost) != 1:
            self._singly = len(lost)
            return lost
        return [lost[0].refused(cause)]

    async def _open_publisher(self) -> OffsetMap:
        backoff = FIRST_BACKOFF_S
        while True:
            try:
                return await self._publisher.open()
            except (LaneFencedError, OffsetMetadataError):
                raise
            except BrokerError as exc:
                self.problem = str(exc)
                event(log, logging.WARNING, "broker unavailable", lane=self.name, cause=str(exc), wait_s=backoff)
            if self._closing:
                raise LaneFencedError(f"lane {self.name} was closed while the broker was away")
            await asyncio.sleep(backoff)
            backoff = min(MAX_BACKOFF_S, backoff * 2)

    def _notice_progress(self, committed: Sequence[int]) -> None:
        self.problem = None
        self._taken -= len(committed)
        self.held_bytes -= sum(self._sizes.pop(offset, 0) for offset in committed)
        if self._taken == 0:
            self._settled.set()
        self._on_change()

    def halt(self, exc: Exception) -> None:
        """Stop this lane for good: it must not go on before somebody has looked."""
        self._end("halted", exc)

    def fence(self, exc: Exception) -> None:
        """Give this lane up; it may be taken anew."""
        self._end("fenced", exc)

    def _end(self, state: LaneState, exc: Exception) -> None:
        self.problem = f"{exc} {getattr(exc, 'remedy', '')}".strip()
        event(
            log,
            logging.ERROR if state == "halted" else logging.WARNING,
            f"lane {state}",
            lane=self.name,
            cause=self.problem,
            code=getattr(exc, "code", "internal"),
        )
        self._ready.clear()
        # What it held will never be committed here, and must not throttle the lanes beside it.
        self.held_bytes = 0
        self._sizes.clear()
        self.ended_at = time.monotonic()
        self._become(state)

    def _become(self, state: LaneState) -> None:
        self.state = state
        if state != "running":
            self._settled.set()
        self._on_change()
