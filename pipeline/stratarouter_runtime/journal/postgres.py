"""The journal in PostgreSQL, through asyncpg. ``sql/queries.sql`` decides a row's fate, this carries rows there.

Liveness of workers is judged by the database's clock alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import asyncpg

from stratarouter_runtime.errors import JournalUnavailableError
from stratarouter_runtime.journal import rows
from stratarouter_runtime.journal.arrays import text_array
from stratarouter_runtime.journal.asyncpg_errors import MAPPED, mapped, mapped_connect
from stratarouter_runtime.journal.held import Held
from stratarouter_runtime.journal.migrations import check_schema
from stratarouter_runtime.journal.queries import sql
from stratarouter_runtime.port_values import Begin, Begun, BudgetWindow, Checkpoint, Finish, JournalKey, Recorded, Spent

log = logging.getLogger("stratarouter.journal")
T = TypeVar("T")
R = TypeVar("R")

MAX_ROUNDS = 4
"""Rows that another transaction changed under a statement are asked for again; the second round sees the change."""

MAX_TRIES = 3
"""A statement that lost a deadlock (40P01) or a serialization race (40001) is sent again at once."""

SPENDING_KEPT_S = 400 * 86_400.0
"""What was spent in a window is kept for a year and a month, or as long as results."""

PURGED_PAGES = 12_800
"""Of 8 kB, 100 MB: what one purge looks through for calls that nobody is at any more. No index knows them."""

PRUNE_AFTER_S = 86_400.0
"""Workers silent for a day are forgotten; far beyond any heartbeat's time to live, so it changes no judgement."""

SESSION_SETTINGS = {
    "application_name": "stratarouter-runtime",
    # Planned anew at each run, about 0.5 ms: a plan kept from when the table held a few rows scans the grown one
    # (measured: 450 rows/s instead of 8,000 at 16,000 rows and more, until the next ANALYZE).
    "plan_cache_mode": "force_custom_plan",
    # Rows are always named by their keys. Up to some 20,000 rows the planner would rather read the whole journal for
    # each group of 500 (median of seven rounds in turns: 1.2 times as many rows/s without).
    "enable_seqscan": "off",
    # Up to version 17 a scan that must be costs beyond all bounds then, and where the server has a compiler it compiles
    # the statement at each run: a heartbeat took 175 ms of it, 1.2 without.
    "jit": "off",
    # A database-wide "off" would lose ``started`` rows in a crash, and with them money.
    "synchronous_commit": "on",
}


class PostgresJournal:
    """A ``Journal`` over a pool of connections.

    Args:
        database_url: ``postgresql://user:password@host:port/database``; its query part may demand TLS.
        owner: this process's UUID, new at every start.
        heartbeat_ttl_s: seconds after its last heartbeat that a worker counts as dead.
        pool_max: connections at most.
        timeout_s: seconds that any statement may take, with the wait for a connection.
    """

    def __init__(
        self,
        database_url: str,
        *,
        owner: str,
        heartbeat_ttl_s: float = 5.0,
        pool_max: int = 4,
        timeout_s: float = 10.0,
    ) -> None:
        self._database_url = database_url
        self._owner = str(uuid.UUID(owner))
        self._heartbeat_ttl_s = heartbeat_ttl_s
        self._judge = (self._owner, heartbeat_ttl_s)
        self._pool_max = pool_max
        self._timeout_s = timeout_s
        self._pool: asyncpg.Pool | None = None
        self._held = Held()

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, check the schema and register this worker.

        Raises:
            ConfigurationError: the URL cannot be read.
            SchemaVersionError: the schema is not this version's.
            JournalUnavailableError: no connection.
        """
        with mapped_connect():
            pool = asyncpg.create_pool(
                self._database_url,
                min_size=1,
                max_size=self._pool_max,
                timeout=self._timeout_s,
                command_timeout=self._timeout_s,
                server_settings=SESSION_SETTINGS,
                reset=_leave_as_it_is,
            )
        try:
            with mapped_connect():
                async with asyncio.timeout(self._timeout_s):
                    await pool
            with mapped("check the schema"):
                async with asyncio.timeout(self._timeout_s), pool.acquire() as connection:
                    await check_schema(connection)
            self._pool = pool
            await self.heartbeat()
        except BaseException:
            self._pool = None
            pool.terminate()
            raise

    async def stop(self) -> None:
        """Deregister this worker and disconnect. Idempotent.

        To be called when nothing is in flight any more: from here on, others may take this worker's rows over.
        """
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await pool.execute(sql("deregister"), self._owner)
                await pool.close()
        except MAPPED as exc:
            # Not the caller's concern: the row lapses with its heartbeat.
            log.warning("the journal could not deregister this worker: %s", type(exc).__name__)
        finally:
            pool.terminate()

    async def heartbeat(self) -> None:
        """Say that this worker lives, and forget those long dead. Raises JournalUnavailableError."""
        me = (self._owner, socket.gethostname(), os.getpid())
        await self._fetch("heartbeat", *me, PRUNE_AFTER_S, self._heartbeat_ttl_s)

    # -- executions --------------------------------------------------------------------------------------------

    async def begin(self, items: Sequence[Begin]) -> list[Begun]:
        """Claim rows durably: one round trip where all are new, two where none is, three where some are.

        A started row of this owner is busy with ``owner`` this one's; but one that nobody was told of (the reply
        was lost, or the grant was given back by ``release``) is granted again.
        A follower whose leader failed is granted: nothing was paid for it.

        Raises:
            JournalUnavailableError: the rows may or may not be claimed; ask again.
            SchemaViolationError: an item cannot be stored; nothing was sent.
        """
        for item in items:
            rows.check_begin(item)
        fresh = self._held.claim(items)
        # Nearly always nothing is asked twice: then every list is in the order of ``items``.
        asked = items if len(fresh) == len(items) else _each_once(items)
        try:
            begun = await self._begin_each(asked, fresh)
        except BaseException:
            self._held.release(fresh)
            raise
        self._held.settle(asked, begun, fresh, self._owner)
        return begun if asked is items else self._replies(items, asked, begun)

    def _replies(self, items: Sequence[Begin], asked: Sequence[Begin], begun: Sequence[Begun]) -> list[Begun]:
        """Of the same request twice in one call the first has the grant."""
        firsts = {_identity(item): (item, one) for item, one in zip(asked, begun, strict=True)}
        busy = Begun("busy", owner=self._owner)
        found = [(item, *firsts[_identity(item)]) for item in items]
        return [busy if one.state == "granted" and first is not item else one for item, first, one in found]

    async def _begin_each(self, asked: Sequence[Begin], fresh: frozenset[JournalKey]) -> list[Begun]:
        begun = [GRANTED] * len(asked)
        # A row that a begin of this process has on its way is no new one, whoever comes first.
        mine = [at for at, item in enumerate(asked) if item.key in fresh]
        there = set[int]() if len(mine) == len(asked) else set(range(len(asked))).difference(mine)
        if mine:
            there |= await self._begin_new(asked, mine)
        if there:
            left = sorted(there, key=lambda at: asked[at].key)
            settled = await self._resolve([asked[at] for at in left], lambda part: self._begin_round(part, fresh))
            for at, one in zip(left, settled, strict=True):
                begun[at] = one
        return begun

    async def _begin_new(self, asked: Sequence[Begin], mine: list[int]) -> set[int]:
        """Of the rows at ``mine`` those that could not be made new."""
        items = [asked[at] for at in mine]
        columns = [text_array(column) for column in _begun_columns(items)]
        leaders = [text_array(column) for column in _columns(2, (_key(item.leader) for item in items))]
        made = await self._execute("begin_new", *columns, *leaders, self._owner)
        if made == len(mine):
            return set()
        left = set(mine)
        if made:
            found = await self._fetch("begun_by", *columns[:3], self._owner)
            # Another count: somebody took rows over or finished some meanwhile, and what is found may be older.
            if len(found) == made:
                left.difference_update([mine[record["ord"] - 1] for record in found])
        return left

    async def _begin_round(self, items: Sequence[Begin], fresh: frozenset[JournalKey]) -> list[Begun | None]:
        records = await self._fetch(
            "begin",
            *_columns(
                9,
                (
                    (
                        *_key(item.key), item.payload_hash, item.route_id, item.source, *_key(item.leader),
                        item.retry_ambiguous, item.key in self._held and item.key not in fresh,
                    )
                    for item in items
                ),
            ),
            self._owner,
            self._heartbeat_ttl_s,
        )  # fmt: skip
        return _in_order(records, len(items), _begun)

    async def finish(self, items: Sequence[Finish]) -> list[Recorded]:
        """Record results, the first writer wins; returns what stands for each.

        A row that nobody had begun is made. An item with neither answer nor error changes nothing: for a follower
        the leader's result is returned, or an empty ``Recorded`` while there is none.

        Raises:
            JournalUnavailableError: the results may or may not be recorded; ask again.
            SchemaViolationError: a key cannot be stored; nothing was sent.
        """
        for item in items:
            rows.check_finish(item)
        distinct = len({item.key for item in items}) == len(items)
        asked = items if distinct else _first_results(items)
        stands = await self._resolve(asked, self._finish_round)
        self._held.release([item.key for item in asked if rows.state_of(item) is not None])
        if distinct:
            return stands
        answers = dict(zip((item.key for item in asked), stands, strict=True))
        return [answers[item.key] for item in items]

    async def _finish_round(self, items: Sequence[Finish]) -> list[Recorded | None]:
        return [each for part in rows.portions(items, rows.size) for each in await self._finish_portion(part)]

    async def _finish_portion(self, items: Sequence[Finish]) -> list[Recorded | None]:
        stands: list[Recorded | None] = [rows.recorded_by(item) for item in items]
        columns = (*map(text_array, _columns(2, (item.key for item in items))), *_result_columns(items))
        for record in await self._fetch("finish", *columns, self._owner, *_charge_columns(items)):
            at = record["ord"] - 1
            known = record["finished"] or rows.state_of(items[at]) is None
            stands[at] = _recorded(record) if known else None
        return stands

    async def record_new(self, items: Sequence[tuple[Begin, Finish]]) -> None:
        """Record rows begun and finished at once, whose keys nobody else can know; one that is there already stands.

        Errors as ``finish``'s; every item must hold a result.
        """
        for begin, _ in items:
            rows.check_begin(begin)
        for part in rows.portions(items, lambda item: rows.size(item[1])):
            finishes = [finish for _, finish in part]
            begun = map(text_array, _begun_columns([begin for begin, _ in part]))
            columns = (*begun, *_result_columns(finishes), self._owner, *_charge_columns(finishes))
            await self._fetch("record_new", *columns)

    async def lookup(self, keys: Sequence[JournalKey]) -> list[Recorded | None]:
        """Read finished results; None where there is none yet. Errors as ``finish``'s."""
        for key in keys:
            rows.check_key(key)
        if not keys:
            return []
        records = await self._fetch("lookup", *_columns(2, keys))
        return _in_order(records, len(keys), _recorded)

    async def abandoned(self, keys: Sequence[JournalKey]) -> list[bool]:
        """Whether each was started by another worker that is dead now. Errors as ``finish``'s."""
        return _named(await self._fetch("abandoned", *_columns(2, keys), *self._judge) if keys else (), len(keys))

    async def spoken_for(self, keys: Sequence[JournalKey]) -> list[bool]:
        """Whether each has a result, or is busy for this worker with another one. Errors as ``finish``'s."""
        return _named(await self._fetch("spoken_for", *_columns(2, keys), *self._judge) if keys else (), len(keys))

    async def payload_hashes(self, keys: Sequence[JournalKey]) -> list[str | None]:
        """What each request was when it was begun (``wire.payload_hash``); None where that is not known."""
        found: list[str | None] = [None] * len(keys)
        for record in await self._fetch("payload_hashes", *_columns(2, keys)) if keys else ():
            found[record["ord"] - 1] = record["payload_hash"]
        return found

    async def spent(self, windows: Sequence[BudgetWindow]) -> list[Spent]:
        """What was spent in each window, by all workers. Errors as ``finish``'s."""
        found = [Spent()] * len(windows)
        keys = ((window.budget, window.tenant, window.start) for window in windows)
        for record in await self._fetch("spent", *_columns(3, keys)) if windows else ():
            found[record["ord"] - 1] = Spent(record["nano_usd"], record["tokens"])
        return found

    def release(self, keys: Iterable[JournalKey]) -> None:
        """Give up granted rows that no call was made for: the next ``begin`` by this owner is granted again."""
        self._held.release(keys)

    # -- checkpoints and retention -----------------------------------------------------------------------------

    async def save_checkpoints(self, items: Sequence[Checkpoint]) -> None:
        """Upsert checkpoints, never backwards in offset.

        A group that was reset to earlier offsets therefore keeps its old checkpoint until it has passed it; where
        that must not be, delete the group's rows from ``checkpoints`` with the reset.
        """
        latest: dict[tuple[str, str, int], Checkpoint] = {}
        for item in items:
            where = (item.group, item.topic, item.partition)
            if where not in latest or item.offset >= latest[where].offset:
                latest[where] = item
        if latest:
            ordered = [latest[where] for where in sorted(latest)]
            values = (
                (each.group, each.topic, each.partition, each.offset, each.metadata, *(each.witness or (None, None)))
                for each in ordered
            )
            await self._fetch("save_checkpoints", *_columns(7, values))

    async def load_checkpoint(self, group: str, topic: str, partition: int) -> Checkpoint | None:
        """Read one checkpoint."""
        for record in await self._fetch("load_checkpoint", group, topic, partition):
            offset, digest = record["witness_offset"], record["witness_digest"]
            witness = None if offset is None else (offset, digest)
            return Checkpoint(group, topic, partition, record["committed_offset"], record["metadata"], witness)
        return None

    async def drop_checkpoint(self, group: str, topic: str, partition: int) -> None:
        """Forget one checkpoint: its topic is no more."""
        await self._fetch("drop_checkpoint", group, topic, partition)

    async def purge(self, older_than_s: float, batch: int = 5000) -> int:
        """Delete results finished more than ``older_than_s`` seconds ago, each with its followers, and some of the
        calls begun before whose worker is no more: of a table beyond PURGED_PAGES each purge looks through a piece.

        ``batch`` results a statement, so that none holds its locks for long. Returns how many rows are gone. A
        purged request id that comes again is executed, and paid for, again: keep results longer than the topic
        keeps requests.
        """
        await self._fetch("purge_spending", max(older_than_s, SPENDING_KEPT_S))
        gone = 0
        finished = batch
        while finished >= batch:
            [counts] = await self._fetch("purge", older_than_s, batch)
            finished = counts["finished"]
            gone += finished + counts["following"]
        [counts] = await self._fetch("purge_started", older_than_s, PURGED_PAGES, batch)
        return gone + int(counts["gone"])

    # -- statements --------------------------------------------------------------------------------------------

    async def _resolve(self, items: Sequence[T], send: Callable[[Sequence[T]], Awaitable[list[R | None]]]) -> list[R]:
        """Send ``items``, and again those whose fate a concurrent transaction hid, until each has its result."""
        results = await send(items)
        for _ in range(MAX_ROUNDS - 1):
            unsettled = [at for at, result in enumerate(results) if result is None]
            if not unsettled:
                break
            for at, result in zip(unsettled, await send([items[at] for at in unsettled]), strict=True):
                results[at] = result
        settled = [result for result in results if result is not None]
        if len(settled) < len(items):
            missing = len(items) - len(settled)
            raise JournalUnavailableError(f"{missing} rows kept changing under {MAX_ROUNDS} statements")
        return settled

    async def _fetch(self, name: str, *arguments: object) -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await self._send(asyncpg.Pool.fetch, name, arguments)
        return found

    async def _execute(self, name: str, *arguments: object) -> int:
        """How many rows it wrote."""
        status: str = await self._send(asyncpg.Pool.execute, name, arguments)
        return int(status.rpartition(" ")[2])

    async def _send(self, how: Callable[..., Awaitable[Any]], name: str, arguments: tuple[object, ...]) -> Any:
        doing = name.replace("_", " ")
        if self._pool is None:
            raise JournalUnavailableError(f"the journal failed to {doing}: it is not started")
        pool = self._pool
        with mapped(doing):
            async with asyncio.timeout(self._timeout_s):
                for _ in range(MAX_TRIES - 1):
                    try:
                        return await how(pool, sql(name), *arguments)
                    except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as exc:
                        log.info("journal statement %s is sent again: %s", name, type(exc).__name__)
                return await how(pool, sql(name), *arguments)


async def _leave_as_it_is(_: object) -> None:
    """Nothing here changes a session, so none is reset: that would be a second round trip for each statement."""


def _key(key: JournalKey | None) -> tuple[str | None, str | None]:
    return (None, None) if key is None else key


def _identity(item: Begin) -> tuple[JournalKey, str]:
    return item.key, item.payload_hash


def _each_once(items: Sequence[Begin]) -> list[Begin]:
    unique: dict[tuple[JournalKey, str], Begin] = {}
    for item in items:
        unique.setdefault(_identity(item), item)
    return list(unique.values())


def _first_results(items: Sequence[Finish]) -> list[Finish]:
    """One item a key: the first that brings a result."""
    unique: dict[JournalKey, Finish] = {}
    for item in items:
        if rows.state_of(unique.setdefault(item.key, item)) is None:
            unique[item.key] = item
    return list(unique.values())


GRANTED = Begun("granted")


def _columns(width: int, table: Iterable[tuple[T, ...]]) -> list[tuple[T, ...]]:
    return list(zip(*table, strict=True)) or [()] * width


def _begun_columns(items: Sequence[Begin]) -> list[tuple[str | None, ...]]:
    """Tenant, request id, payload hash, route and source."""
    return _columns(5, ((*item.key, item.payload_hash, item.route_id, item.source) for item in items))


def _result_columns(items: Sequence[Finish]) -> tuple[object, ...]:
    """State, answer, error and attempts. An answer wins over an error."""
    return (
        text_array([rows.state_of(item) for item in items]),
        [rows.pack(item.answer) for item in items],
        [rows.pack(None if item.answer is not None else item.error) for item in items],
        [rows.pack(item.attempts) for item in items],
    )


def _charge_columns(items: Sequence[Finish]) -> list[tuple[object, ...]]:
    """What results are charged to, each with the place of its result."""
    charges = (
        (place, window.budget, window.start, window.length_s, spent.nano_usd, spent.tokens)
        for place, item in enumerate(items, 1)
        for window, spent in item.charges
    )
    return _columns(6, charges)


def _named(records: Iterable[asyncpg.Record], count: int) -> list[bool]:
    """Whose places are in ``records``."""
    places = {record["ord"] - 1 for record in records}
    return [place in places for place in range(count)]


def _in_order(
    records: Sequence[asyncpg.Record], count: int, read: Callable[[asyncpg.Record], T | None]
) -> list[T | None]:
    results: list[T | None] = [None] * count
    for record in records:
        results[record["ord"] - 1] = read(record)
    return results


def _recorded(record: asyncpg.Record) -> Recorded:
    leader = record["leader_request_id"]
    link = None if leader is None else JournalKey(record["leader_tenant"], leader)
    return rows.unpack(record["answer"], record["error"], record["attempts"], link)


def _begun(record: asyncpg.Record) -> Begun | None:
    match record["verdict"]:
        case None:
            return None
        case "recorded":
            return Begun("recorded", recorded=_recorded(record))
        case "busy":
            return Begun("busy", owner=str(record["owner"]))
        case "granted":
            return Begun("granted", took_over=record["took_over"])
        case verdict:
            return Begun(verdict)
