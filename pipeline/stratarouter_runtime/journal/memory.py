"""The journal in memory: for tests, demos and ``state_backend = "memory"``. It forgets everything with its process.

Workers of one test share a ``MemoryStore``, as real ones share a database.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field, replace

from stratarouter_runtime.errors import JournalUnavailableError
from stratarouter_runtime.journal import rows
from stratarouter_runtime.journal.held import Held
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.port_values import Begin, Begun, BudgetWindow, Checkpoint, Finish, JournalKey, Recorded, Spent


@dataclass(frozen=True, slots=True)
class Row:
    """One execution. ``result`` is set once it is finished, ``leader`` while it follows; neither: it is started.

    ``started_at`` and ``finished_at`` in the store's seconds.
    """

    payload_hash: str | None
    owner: str
    leader: JournalKey | None = None
    result: Recorded | None = None
    finished_at: float | None = None
    started_at: float = 0.0


@dataclass(slots=True)
class MemoryStore:
    """What the workers share.

    Attributes:
        clock: seconds that never jump; a test's own, to let heartbeats lapse.
        wall: epoch seconds, which budgets' windows are aligned to.
        available: False lets every call raise JournalUnavailableError, as a database that is away would.
    """

    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    available: bool = True
    rows: dict[JournalKey, Row] = field(default_factory=dict)
    heartbeats: dict[str, float] = field(default_factory=dict)
    steady_since: dict[str, float] = field(default_factory=dict)
    checkpoints: dict[tuple[str, str, int], Checkpoint] = field(default_factory=dict)
    spending: dict[BudgetWindow, Spent] = field(default_factory=dict)

    def result(self, key: JournalKey) -> Recorded | None:
        """The row's own result, or its leader's answer where it follows one."""
        row = self.rows.get(key)
        if row is None or row.result is not None or row.leader is None:
            return None if row is None else row.result
        leader = self.rows.get(row.leader)
        if leader is None or leader.result is None or leader.result.answer is None:
            return None
        return replace(leader.result, leader=row.leader)


def judge(row: Row, result: Recorded | None, item: Begin, *, mine: bool, held: bool, alive: bool) -> Begun:
    """What ``item`` gets where ``row`` exists; pure.

    Args:
        row: the row as it stands.
        result: its own or its leader's.
        item: what is asked.
        mine: whether the asking worker owns the row.
        held: whether that worker was granted the row and has not finished it.
        alive: whether the row's owner lives.
    """
    if row.payload_hash is not None and row.payload_hash != item.payload_hash:
        return Begun("conflict")
    if result is not None:
        return Begun("recorded", recorded=result)
    if row.leader is not None or (mine and not held):
        return Begun("granted")
    if mine or alive:
        return Begun("busy", owner=row.owner)
    return Begun("granted", took_over=True) if item.retry_ambiguous else Begun("ambiguous")


class MemoryJournal:
    """A ``Journal`` over a shared ``MemoryStore``.

    Args:
        store: shared by the workers of one test.
        owner: this worker's UUID.
        heartbeat_ttl_s: seconds after its last heartbeat that a worker counts as dead.
    """

    def __init__(self, store: MemoryStore, *, owner: str, heartbeat_ttl_s: float = 5.0) -> None:
        self._store = store
        self._owner = str(uuid.UUID(owner))
        self._heartbeat_ttl_s = heartbeat_ttl_s
        self._held = Held()
        self._started = False

    async def start(self) -> None:
        """Register this worker."""
        self._started = True
        await self.heartbeat()

    async def stop(self) -> None:
        """Deregister this worker. Idempotent."""
        if self._started:
            self._store.heartbeats.pop(self._owner, None)
        self._started = False

    async def heartbeat(self) -> None:
        """Say that this worker lives."""
        self._check_available("heartbeat")
        now = self._store.clock()
        if not self._beats(self._owner):
            self._store.steady_since[self._owner] = now
        self._store.heartbeats[self._owner] = now

    async def begin(self, items: Sequence[Begin]) -> list[Begun]:
        """As ``PostgresJournal.begin``."""
        for item in items:
            rows.check_begin(item)
        self._check_available("begin")
        granted: set[tuple[JournalKey, str]] = set()
        return [self._begin_in_call(item, granted) for item in items]

    def _begin_in_call(self, item: Begin, granted: set[tuple[JournalKey, str]]) -> Begun:
        if (item.key, item.payload_hash) in granted:
            # The same request twice in one call: the first has it.
            return Begun("busy", owner=self._owner)
        begun = self._begin(item)
        if begun.state == "granted":
            granted.add((item.key, item.payload_hash))
        return begun

    def _begin(self, item: Begin) -> Begun:
        row = self._store.rows.get(item.key)
        if row is None:
            begun = Begun("granted")
        else:
            mine, held = row.owner == self._owner, item.key in self._held
            result = self._store.result(item.key)
            begun = judge(row, result, item, mine=mine, held=held, alive=self._is_alive(row.owner))
        if begun.state == "granted":
            now = self._store.clock()
            self._store.rows[item.key] = Row(item.payload_hash, self._owner, leader=item.leader, started_at=now)
        self._held.settle([item], [begun], frozenset(), self._owner)
        return begun

    def _is_alive(self, owner: str) -> bool:
        """Whether ``owner`` is to be taken for alive; a silent one is while our own heartbeat was not steady either."""
        if owner not in self._store.heartbeats:
            return False
        steady_for = self._store.clock() - self._store.steady_since[self._owner]
        may_judge = self._beats(self._owner) and steady_for >= self._heartbeat_ttl_s
        return self._beats(owner) or not may_judge

    def _beats(self, owner: str) -> bool:
        beat = self._store.heartbeats.get(owner)
        return beat is not None and beat > self._store.clock() - self._heartbeat_ttl_s

    async def finish(self, items: Sequence[Finish]) -> list[Recorded]:
        """As ``PostgresJournal.finish``."""
        for item in items:
            rows.check_finish(item)
        self._check_available("finish")
        # As one statement does: what stood before the call decides, whatever else the call writes.
        before = {item.key: self._store.result(item.key) for item in items}
        for item in items:
            if before[item.key] is None and rows.state_of(item) is not None:
                before[item.key] = self._finish(item)
        self._held.release(item.key for item in items if rows.state_of(item) is not None)
        return [before[item.key] or self._pending(item.key) for item in items]

    def _finish(self, item: Finish) -> Recorded:
        row = self._store.rows.get(item.key)
        payload_hash, owner = (None, self._owner) if row is None else (row.payload_hash, row.owner)
        return self._keep_result(payload_hash, owner, item)

    def _keep_result(self, payload_hash: str | None, owner: str, item: Finish) -> Recorded:
        result = rows.recorded_by(item)
        self._store.rows[item.key] = Row(payload_hash, owner, result=result, finished_at=self._store.clock())
        for window, spent in item.charges:
            before = self._store.spending.get(window, Spent())
            after = Spent(before.nano_usd + spent.nano_usd, before.tokens + spent.tokens)
            self._store.spending[window] = after
        return result

    async def record_new(self, items: Sequence[tuple[Begin, Finish]]) -> None:
        """As ``PostgresJournal.record_new``."""
        for begin, _ in items:
            rows.check_begin(begin)
        self._check_available("record new rows")
        for begin, finish in items:
            if begin.key not in self._store.rows:
                self._keep_result(begin.payload_hash, self._owner, finish)

    def _pending(self, key: JournalKey) -> Recorded:
        row = self._store.rows.get(key)
        return Recorded(None, None, leader=None if row is None else row.leader)

    async def lookup(self, keys: Sequence[JournalKey]) -> list[Recorded | None]:
        """As ``PostgresJournal.lookup``."""
        for key in keys:
            rows.check_key(key)
        self._check_available("lookup")
        return [self._store.result(key) for key in keys]

    async def abandoned(self, keys: Sequence[JournalKey]) -> list[bool]:
        """As ``PostgresJournal.abandoned``."""
        self._check_available("read abandoned rows")
        return [self._is_abandoned(self._store.rows.get(key)) for key in keys]

    def _is_abandoned(self, row: Row | None) -> bool:
        if row is None or row.result is not None or row.leader is not None:
            return False
        return row.owner != self._owner and not self._beats(row.owner)

    async def spoken_for(self, keys: Sequence[JournalKey]) -> list[bool]:
        """As ``PostgresJournal.spoken_for``."""
        self._check_available("read who is at rows")
        return [self._store.result(key) is not None or self._is_anothers(self._store.rows.get(key)) for key in keys]

    def _is_anothers(self, row: Row | None) -> bool:
        """Whether another worker that lives is at it."""
        if row is None or row.result is not None or row.leader is not None:
            return False
        return row.owner != self._owner and self._is_alive(row.owner)

    async def spent(self, windows: Sequence[BudgetWindow]) -> list[Spent]:
        """As ``PostgresJournal.spent``."""
        self._check_available("read what was spent")
        return [self._store.spending.get(window, Spent()) for window in windows]

    def release(self, keys: Iterable[JournalKey]) -> None:
        """As ``PostgresJournal.release``."""
        self._held.release(keys)

    async def save_checkpoints(self, items: Sequence[Checkpoint]) -> None:
        """As ``PostgresJournal.save_checkpoints``."""
        self._check_available("save checkpoints")
        for item in items:
            known = self._store.checkpoints.get((item.group, item.topic, item.partition))
            if known is None or item.offset >= known.offset:
                kept = item if known is None or item.witness is not None else replace(item, witness=known.witness)
                self._store.checkpoints[item.group, item.topic, item.partition] = kept

    async def load_checkpoint(self, group: str, topic: str, partition: int) -> Checkpoint | None:
        """Read one checkpoint."""
        self._check_available("load checkpoint")
        return self._store.checkpoints.get((group, topic, partition))

    async def drop_checkpoint(self, group: str, topic: str, partition: int) -> None:
        """Forget one checkpoint."""
        self._check_available("drop checkpoint")
        self._store.checkpoints.pop((group, topic, partition), None)

    async def purge(self, older_than_s: float, batch: int = 5000) -> int:
        """As ``PostgresJournal.purge``: after ``batch`` rows others have their turn. What was spent in windows that are
        over goes as soon as results do: nobody reads it here.
        """
        self._check_available("purge")
        ended = self._store.wall() - older_than_s
        for window in [window for window in self._store.spending if window.start + window.length_s < ended]:
            del self._store.spending[window]
        before = self._store.clock() - older_than_s
        gone = await self._delete(lambda row: self._is_old(row, before), batch)
        # A follower has no result once its leader is gone.
        followers = await self._delete(lambda row: row.leader in gone, batch) if gone else gone
        return len(gone | followers)

    async def _delete(self, is_over: Callable[[Row], bool], batch: int) -> set[JournalKey]:
        every, gone = self._store.rows, set[JournalKey]()
        keys = list(every)
        for start in range(0, len(keys), batch):
            for key in keys[start : start + batch]:
                row = every.get(key)
                if row is not None and is_over(row):
                    del every[key]
                    gone.add(key)
            await asyncio.sleep(0)
        return gone

    def _is_old(self, row: Row, before: float) -> bool:
        if row.finished_at is not None:
            return row.finished_at < before
        return row.started_at < before and self._is_nobodys(row)

    def _is_nobodys(self, row: Row) -> bool:
        """Whether it is a call that nobody is at any more."""
        return row.result is None and row.leader is None and row.owner not in self._store.heartbeats

    def _check_available(self, doing: str) -> None:
        if not (self._started and self._store.available):
            raise JournalUnavailableError(f"the journal failed to {doing}: it is away or not started")
