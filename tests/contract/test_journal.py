"""What every journal promises, asked of the memory one and of PostgreSQL; at the end what only a server can do."""

import asyncio
import inspect
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from stratarouter_runtime.errors import ConfigurationError, JournalUnavailableError, SchemaViolationError
from stratarouter_runtime.journal import rows
from stratarouter_runtime.journal.asyncpg_errors import MAPPED, mapped, mapped_connect
from stratarouter_runtime.journal.memory import MemoryJournal, MemoryStore
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.port_values import Begin, Begun, BudgetWindow, Checkpoint, Finish, JournalKey, Recorded, Spent
from stratarouter_runtime.records import Answer, Attempt, ErrorInfo, Usage

PARTITIONED = Path(__file__).parents[2] / "ops" / "postgres" / "partitioned.sql"

AnyJournal: TypeAlias = MemoryJournal | PostgresJournal

A, B, C = (JournalKey("acme", name) for name in "abc")
WINDOW = BudgetWindow("team", "acme", 86_400, 86_400)
ANSWER = Answer("42", "openai", "gpt-4o-mini", Usage(3, 1), cost_usd=0.5)
OTHER = Answer("43", "google", "gemini")
ERROR = ErrorInfo("provider_rejected", "400: no", "change it")


def begin(key: JournalKey, payload: str = "p", leader: JournalKey | None = None, *, retry: bool = True) -> Begin:
    return Begin(key, payload, "billing", leader, retry_ambiguous=retry, source="requests-0@7")


def states(begun: Sequence[Begun]) -> list[str]:
    return [each.state for each in begun]


class MemoryWorld:
    def __init__(self) -> None:
        self.now = 1000.0
        self.store = MemoryStore(clock=lambda: self.now)

    async def worker(self, owner: str | None = None) -> MemoryJournal:
        journal = MemoryJournal(self.store, owner=owner or str(uuid.uuid4()))
        await journal.start()
        self.store.steady_since[journal._owner] -= 3600
        return journal

    async def outage(self) -> None:
        """Nobody's heartbeat came through for longer than any time to live."""
        self.store.heartbeats = {owner: beat - 3600 for owner, beat in self.store.heartbeats.items()}

    async def pass_ttl(self, *steady: AnyJournal) -> None:
        """A time to live later; the heartbeats of ``steady`` came all the while."""
        self.now += 6
        for journal in steady:
            self.store.heartbeats[journal._owner] = self.now

    async def silence(self, journal: AnyJournal) -> None:
        self.store.heartbeats[journal._owner] -= 3600

    async def age(self) -> None:
        self.now += 100

    async def close(self) -> None:
        self.store.rows.clear()


class PostgresWorld:
    def __init__(self, url: str) -> None:
        self.url = url
        self.journals = AsyncExitStack()

    async def worker(self, owner: str | None = None, timeout_s: float = 10.0) -> PostgresJournal:
        journal = PostgresJournal(self.url, owner=owner or str(uuid.uuid4()), timeout_s=timeout_s)
        self.journals.push_async_callback(journal.stop)
        await journal.start()
        await self.run("UPDATE workers SET steady_since = now() - interval '1 hour' WHERE owner = $1", journal._owner)
        return journal

    async def outage(self) -> None:
        await self.run("UPDATE workers SET heartbeat_at = heartbeat_at - interval '1 hour'")

    async def pass_ttl(self, *steady: AnyJournal) -> None:
        earlier = "heartbeat_at = heartbeat_at - interval '6 s', steady_since = steady_since - interval '6 s'"
        await self.run(f"UPDATE workers SET {earlier}")
        owners = [journal._owner for journal in steady]
        await self.run("UPDATE workers SET heartbeat_at = now() WHERE owner = ANY($1::uuid[])", owners)

    async def run(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def silence(self, journal: AnyJournal) -> None:
        hour_ago = "UPDATE workers SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE owner = $1"
        await self.run(hour_ago, journal._owner)

    async def age(self) -> None:
        earlier = "finished_at = finished_at - interval '100 s', started_at = started_at - interval '100 s'"
        await self.run(f"UPDATE journal SET {earlier}")

    async def close(self) -> None:
        await self.journals.aclose()


World: TypeAlias = MemoryWorld | PostgresWorld


@pytest.fixture
async def postgres(postgres_url: str) -> AsyncIterator[PostgresWorld]:
    await migrate(postgres_url)
    world = PostgresWorld(postgres_url)
    yield world
    await world.close()


@pytest.fixture(
    params=["memory", *(pytest.param(kind, marks=pytest.mark.stack) for kind in ("postgres", "partitioned"))]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(request: pytest.FixtureRequest, kind: str) -> str | None:
    """Asked for by name, so that the memory journal's tests start no server."""
    return None if kind == "memory" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def world(database: str | None, kind: str) -> AsyncIterator[World]:
    if database is not None:
        await migrate(database)
    if kind == "partitioned":
        await _partition(str(database))
    made: World = MemoryWorld() if database is None else PostgresWorld(database)
    yield made
    await made.close()


async def _partition(database: str) -> None:
    """As an operator does it, into fewer partitions."""
    script = PARTITIONED.read_text().replace("MODULUS 64", "MODULUS 4").replace("0..63", "0..3")
    owner = await asyncpg.connect(database)
    try:
        async with owner.transaction():
            await owner.execute(script)
    finally:
        await owner.close()


# -- who may call ----------------------------------------------------------------------------------------------


async def test_new_request_is_granted_and_not_yet_recorded(world: World) -> None:
    me = await world.worker()
    assert await me.begin([begin(A)]) == [Begun("granted")]
    assert await me.lookup([A]) == [None]


async def test_rows_begun_and_finished_at_once_are_recorded_and_charged_once(world: World) -> None:
    me = await world.worker()
    odd = JournalKey('a"c\\me', "NULL")
    charge = ((WINDOW, Spent(7, 3)),)
    done = [(begin(A), Finish(A, ANSWER, None, charges=charge)), (begin(odd), Finish(odd, None, ERROR))]
    await me.record_new(done)
    await me.record_new(done)
    await me.record_new([(begin(A), Finish(A, OTHER, None, charges=charge))])
    assert await me.lookup([A, odd]) == [Recorded(ANSWER, None), Recorded(None, ERROR)]
    assert await me.spent([WINDOW]) == [Spent(7, 3)]
    assert states(await me.begin([begin(A), begin(A, "other"), begin(odd)])) == ["recorded", "conflict", "recorded"]


async def test_long_answers_are_all_recorded_in_statements_that_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_PORTION_CHARS", 1000)
    me = await world.worker()
    long = Answer("x" * 400, "openai", "gpt-4o-mini")
    called = Answer("", "openai", "gpt-4o-mini", tool_calls=({"id": "1", "arguments": "y" * 2000},))
    results = [Finish(JournalKey("acme", f"long {n}"), called if n == 4 else long, None) for n in range(7)]
    assert await me.finish(results) == [Recorded(one.answer, None) for one in results]
    new = [JournalKey("acme", f"new {n}") for n in range(5)]
    await me.record_new([(begin(key), Finish(key, long, None)) for key in new])
    assert await me.lookup(new) == [Recorded(long, None)] * 5
    if isinstance(world, PostgresWorld):
        by_statement = "SELECT count(*) FROM journal GROUP BY xmin::text ORDER BY min(request_id)"
        # Two at a time, the one with long arguments by itself, and what is left.
        assert [record[0] for record in await world.run(by_statement)] == [2, 2, 1, 2, 2, 2, 1]


async def test_no_rows_are_no_work(world: World) -> None:
    me = await world.worker()
    assert await me.begin([]) == []
    assert await me.finish([]) == []
    assert await me.lookup([]) == []
    await me.save_checkpoints([])


async def test_request_of_a_living_worker_is_busy_and_names_it(world: World) -> None:
    me, other = await world.worker(), await world.worker()
    await other.begin([begin(A)])
    assert await me.begin([begin(A)]) == [Begun("busy", owner=other._owner)]


async def test_own_request_under_way_is_busy_and_names_this_worker(world: World) -> None:
    me = await world.worker()
    await me.begin([begin(A)])
    await world.silence(me)
    assert await me.begin([begin(A)]) == [Begun("busy", owner=me._owner)]


async def test_tenants_do_not_share_request_ids(world: World) -> None:
    me = await world.worker()
    assert states(await me.begin([begin(A), begin(JournalKey("evil", "a"))])) == ["granted", "granted"]


async def test_same_id_with_another_payload_is_a_conflict_in_every_state(world: World) -> None:
    me = await world.worker()
    await me.begin([begin(A), begin(B, leader=A), begin(C)])
    await me.finish([Finish(C, ANSWER, None)])
    changed = [begin(key, payload="q") for key in (A, B, C)]
    assert states(await me.begin(changed)) == ["conflict"] * 3


async def test_request_of_a_dead_worker_is_taken_over_once(world: World) -> None:
    dead, me, third = await world.worker(), await world.worker(), await world.worker()
    await dead.begin([begin(A)])
    await world.silence(dead)
    assert await me.begin([begin(A)]) == [Begun("granted", took_over=True)]
    assert await third.begin([begin(A)]) == [Begun("busy", owner=me._owner)]


async def test_request_of_a_dead_worker_stays_ambiguous_where_retry_is_forbidden(world: World) -> None:
    dead, me = await world.worker(), await world.worker()
    await dead.begin([begin(A)])
    await world.silence(dead)
    assert await me.begin([begin(A, retry=False)]) == [Begun("ambiguous")]
    assert await me.begin([begin(A, retry=False)]) == [Begun("ambiguous")]


async def test_a_call_is_abandoned_where_a_dead_worker_started_it_and_nobody_recorded_it(world: World) -> None:
    dead, alive, me = await world.worker(), await world.worker(), await world.worker()
    keys = [JournalKey("acme", name) for name in ("dead's", "finished", "follows", "alive's", "mine", "nobody's")]
    await dead.begin([begin(keys[0]), begin(keys[1]), begin(keys[2], leader=keys[0])])
    await dead.finish([Finish(keys[1], ANSWER, None)])
    await alive.begin([begin(keys[3])])
    await me.begin([begin(keys[4])])
    assert await me.abandoned(keys) == [False] * 6
    await world.silence(dead)
    assert await me.abandoned(keys) == [True] + [False] * 5
    assert await alive.abandoned(keys[::-1]) == [False] * 5 + [True]
    await me.begin([begin(keys[0])])
    assert await me.abandoned(keys) == [False] * 6, "taken over: counted there"
    assert await me.abandoned([]) == []


async def test_an_id_is_spoken_for_where_it_has_a_result_or_another_living_worker_is_at_it(world: World) -> None:
    dead, alive, me = await world.worker(), await world.worker(), await world.worker()
    names = ("answered", "failed", "alive's", "follows answer", "dead's", "mine", "follows nothing", "nobody's")
    keys = [JournalKey("acme", name) for name in names]
    answered, failed, alives, follower, deads, mine, idle, _ = keys
    await alive.begin([begin(one) for one in (answered, failed, alives)])
    await alive.finish([Finish(answered, ANSWER, None), Finish(failed, None, ERROR)])
    await alive.begin([begin(follower, leader=answered), begin(idle, leader=alives)])
    await dead.begin([begin(deads)])
    await me.begin([begin(mine)])
    assert await me.spoken_for(keys) == [True] * 5 + [False] * 3
    await world.silence(dead)
    assert await me.spoken_for(keys) == [True] * 4 + [False] * 4
    assert await me.spoken_for(keys[::-1]) == [False] * 4 + [True] * 4
    assert await me.spoken_for([]) == []
    # As begin judges: who was silent itself takes nobody for dead.
    await world.outage()
    assert await me.spoken_for([deads, alives]) == [True, True]
    assert states(await me.begin([begin(deads), begin(alives)])) == ["busy", "busy"]


async def test_heartbeat_brings_a_silent_worker_back_to_life(world: World) -> None:
    other, me = await world.worker(), await world.worker()
    await other.begin([begin(A)])
    await world.silence(other)
    await other.heartbeat()
    assert states(await me.begin([begin(A)])) == ["busy"]


async def test_stopped_worker_is_dead_at_once_and_stops_twice(world: World) -> None:
    other, me = await world.worker(), await world.worker()
    await other.begin([begin(A)])
    await other.stop()
    await other.stop()
    assert await me.begin([begin(A)]) == [Begun("granted", took_over=True)]


async def test_stopped_journal_is_unavailable(world: World) -> None:
    me = await world.worker()
    await me.stop()
    with pytest.raises(JournalUnavailableError):
        await me.begin([begin(A)])


async def test_simultaneous_begins_grant_each_request_to_exactly_one(world: World) -> None:
    workers = [await world.worker() for _ in range(4)]
    asked = [begin(JournalKey("acme", f"r{n}")) for n in range(100)]
    replies = await asyncio.gather(*(w.begin(asked if i % 2 else asked[::-1]) for i, w in enumerate(workers)))
    by_key = [reply if i % 2 else reply[::-1] for i, reply in enumerate(replies)]
    assert [sorted(states(each)) for each in zip(*by_key, strict=True)] == [["busy"] * 3 + ["granted"]] * 100


async def test_simultaneous_take_overs_grant_each_request_to_exactly_one(world: World) -> None:
    dead, *workers = [await world.worker() for _ in range(4)]
    asked = [begin(JournalKey("acme", f"r{n}")) for n in range(50)]
    await dead.begin(asked)
    await world.silence(dead)
    replies = await asyncio.gather(*(worker.begin(asked) for worker in workers))
    assert [sorted(states(each)) for each in zip(*replies, strict=True)] == [["busy", "busy", "granted"]] * 50


async def test_twice_in_one_call_is_granted_once(world: World) -> None:
    me = await world.worker()
    first, second, changed = await me.begin([begin(A), begin(A), begin(A, payload="q")])
    assert (first.state, second, changed.state) == ("granted", Begun("busy", owner=me._owner), "conflict")


async def test_twice_in_one_call_is_judged_by_each_payload(world: World) -> None:
    me = await world.worker()
    await me.begin([begin(A)])
    await me.finish([Finish(A, ANSWER, None)])
    assert states(await me.begin([begin(A, payload="q"), begin(A), begin(A)])) == ["conflict", "recorded", "recorded"]


async def test_grant_whose_reply_was_lost_is_granted_again(world: World) -> None:
    lost = await world.worker()
    await lost.begin([begin(A)])
    me = await world.worker(lost._owner)
    assert await me.begin([begin(A, retry=False)]) == [Begun("granted")]
    assert states(await me.begin([begin(A)])) == ["busy"]


async def test_new_rows_are_granted_beside_rows_of_every_state_in_one_call(world: World) -> None:
    me, other = await world.worker(), await world.worker()
    done, busy, mine, follower, conflict, back = (JournalKey("acme", f"old {what}") for what in "abcdef")
    new = [JournalKey("acme", f"new {number}") for number in range(3)]
    await other.begin([begin(done), begin(busy), begin(conflict, "another")])
    await other.finish([Finish(done, ANSWER, None)])
    await me.begin([begin(mine), begin(back, leader=done)])
    me.release([mine, back])  # nobody was told of them
    asked = [
        begin(new[0]), begin(busy), begin(new[1]), begin(done), begin(conflict), begin(mine),
        begin(new[2], leader=new[0]), begin(follower, leader=done), begin(back, leader=done),
    ]  # fmt: skip
    begun = await me.begin(asked)
    expected = ["granted", "busy", "granted", "recorded", "conflict", "granted", "granted", "granted", "recorded"]
    assert states(begun) == expected
    assert (begun[1].owner, begun[3].recorded) == (other._owner, Recorded(ANSWER, None))
    assert states(await me.begin(asked[:1] + asked[2:3])) == ["busy", "busy"]


async def test_released_grant_is_granted_again(world: World) -> None:
    me = await world.worker()
    await me.begin([begin(A)])
    me.release([A])
    assert states(await me.begin([begin(A)])) == ["granted"]


# -- results ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [(ANSWER, None), (None, ERROR)])
async def test_recorded_result_is_returned_instead_of_a_grant(
    world: World, result: tuple[Answer | None, ErrorInfo | None]
) -> None:
    me, other = await world.worker(), await world.worker()
    attempts = (Attempt("openai", "gpt", "ok", 12.5, 200, 3.0),)
    stands = Recorded(*result, attempts)
    await me.begin([begin(A)])
    assert await me.finish([Finish(A, *result, attempts)]) == [stands]
    assert await other.begin([begin(A)]) == [Begun("recorded", recorded=stands)]
    assert await other.lookup([B, A, A]) == [None, stands, stands]


async def test_first_result_stands_and_a_later_writer_is_told(world: World) -> None:
    slow, me = await world.worker(), await world.worker()
    await slow.begin([begin(A)])
    await world.silence(slow)
    await me.begin([begin(A)])
    assert await slow.finish([Finish(A, OTHER, None)]) == [Recorded(OTHER, None)]
    assert await me.finish([Finish(A, ANSWER, None)]) == [Recorded(OTHER, None)]


async def test_simultaneous_results_agree_on_one(world: World) -> None:
    workers = [await world.worker() for _ in range(4)]
    keys = [JournalKey("acme", f"r{n}") for n in range(50)]
    replies = await asyncio.gather(
        *(w.finish([Finish(key, Answer(str(i), "p", "m"), None) for key in keys]) for i, w in enumerate(workers))
    )
    assert replies == [list(await workers[0].lookup(keys))] * 4


async def test_result_for_a_request_never_begun_is_kept_and_fits_any_payload(world: World) -> None:
    me = await world.worker()
    assert await me.finish([Finish(A, ANSWER, None)]) == [Recorded(ANSWER, None)]
    assert await me.begin([begin(A)]) == [Begun("recorded", recorded=Recorded(ANSWER, None))]


async def test_two_results_in_one_call_keep_the_first(world: World) -> None:
    me = await world.worker()
    both = [Finish(A, None, None), Finish(A, ANSWER, None), Finish(A, OTHER, None)]
    assert await me.finish(both) == [Recorded(ANSWER, None)] * 3


async def test_answer_survives_whatever_a_provider_sends(world: World) -> None:
    me = await world.worker()
    odd = Answer(
        "\x00 \ud83d half, \U0001f600 'quote' \\u0000", "p", "m", tool_calls=({"id": 2**80, "a": [None, "ü"]},)
    )
    assert await me.finish([Finish(A, odd, None)]) == [Recorded(odd, None)]
    assert await me.lookup([A]) == [Recorded(odd, None)]


@pytest.mark.parametrize("bad", ["a\x00b", "half \ud83d", "x" * 513, "\U0001f600" * 512])
async def test_id_that_cannot_be_stored_is_refused_as_the_record_s_fault(world: World, bad: str) -> None:
    me = await world.worker()
    with pytest.raises(SchemaViolationError, match="request_id"):
        await me.begin([begin(A), begin(JournalKey("\U0001f600" * 200, bad))])
    with pytest.raises(SchemaViolationError, match="request_id"):
        await me.finish([Finish(JournalKey("\U0001f600" * 200, bad), ANSWER, None)])
    assert await me.lookup([A]) == [None]


@pytest.mark.parametrize("hostile", ["'; DROP TABLE journal; --", "$1", "", "x" * 512, "\U0001f600" * 312, "{a,b}\\N"])
async def test_hostile_id_is_only_an_id(world: World, hostile: str) -> None:
    me = await world.worker()
    key = JournalKey("\U0001f600" * 312, hostile)
    assert states(await me.begin([begin(key)])) == ["granted"]
    await me.finish([Finish(key, ANSWER, None)])
    assert await me.lookup([key, A]) == [Recorded(ANSWER, None), None]


# -- followers -------------------------------------------------------------------------------------------------


async def test_follower_has_its_leader_s_answer_without_a_copy(world: World) -> None:
    me, other = await world.worker(), await world.worker()
    assert states(await me.begin([begin(A), begin(B, leader=A)])) == ["granted", "granted"]
    assert await me.finish([Finish(B, None, None)]) == [Recorded(None, None, leader=A)]
    await me.finish([Finish(A, ANSWER, None)])
    stands = Recorded(ANSWER, None, leader=A)
    assert await other.begin([begin(B)]) == [Begun("recorded", recorded=stands)]
    assert await other.lookup([B]) == [stands]
    assert await other.finish([Finish(B, None, None)]) == [stands]


async def test_each_follower_has_its_own_leader_s_answer_and_none_another_s(world: World) -> None:
    me, other = await world.worker(), await world.worker()
    namesake = JournalKey("globex", "a")
    of_a, of_b, of_namesake = (JournalKey("acme", f"follows {name}") for name in ("a", "b", "namesake"))
    await me.begin([begin(A), begin(B), begin(namesake)])
    followers = [begin(of_a, leader=A), begin(of_b, leader=B), begin(of_namesake, leader=namesake)]
    await me.begin(followers)
    tried = (Attempt("openai", "gpt-4o-mini", "ok", 1.0),)
    await me.finish([Finish(A, ANSWER, None, tried), Finish(B, OTHER, None)])
    stands = [Recorded(ANSWER, None, tried, leader=A), Recorded(OTHER, None, leader=B)]
    keys = [of_a, of_b, of_namesake]
    assert await other.lookup(keys) == [*stands, None]
    assert await other.finish([Finish(key, None, None) for key in keys]) == [
        *stands,
        Recorded(None, None, leader=namesake),
    ]
    # The leader of the last has no result: nothing was paid for it that could be given.
    assert await other.begin([begin(key) for key in keys]) == [
        *(Begun("recorded", recorded=one) for one in stands),
        Begun("granted"),
    ]


async def test_follower_with_its_leader_s_answer_cannot_be_overwritten(world: World) -> None:
    me = await world.worker()
    await me.begin([begin(A), begin(B, leader=A)])
    await me.finish([Finish(A, ANSWER, None)])
    assert await me.finish([Finish(B, None, ERROR)]) == [Recorded(ANSWER, None, leader=A)]


async def test_follower_is_granted_to_any_worker_until_its_leader_answers(world: World) -> None:
    other, me = await world.worker(), await world.worker()
    await other.begin([begin(A), begin(B, leader=A)])
    assert await me.begin([begin(B, leader=C)]) == [Begun("granted")]
    await other.finish([Finish(A, ANSWER, None)])
    assert await me.lookup([B]) == [None]
    await me.finish([Finish(C, OTHER, None)])
    assert await me.lookup([B]) == [Recorded(OTHER, None, leader=C)]


async def test_follower_of_a_failed_leader_may_lead(world: World) -> None:
    me, other = await world.worker(), await world.worker()
    await me.begin([begin(A), begin(B, leader=A)])
    await me.finish([Finish(A, None, ERROR)])
    assert await me.lookup([B]) == [None]
    assert await me.begin([begin(B)]) == [Begun("granted")]
    assert await other.begin([begin(B)]) == [Begun("busy", owner=me._owner)]
    assert await me.finish([Finish(B, OTHER, None)]) == [Recorded(OTHER, None)]


async def test_follower_s_own_result_stands_before_its_leader_s(world: World) -> None:
    me = await world.worker()
    await me.begin([begin(A), begin(B, leader=A)])
    await me.finish([Finish(B, None, ERROR)])
    await me.finish([Finish(A, ANSWER, None)])
    assert await me.lookup([B]) == [Recorded(None, ERROR)]


async def test_dead_leader_may_be_taken_over_as_a_follower(world: World) -> None:
    dead, me = await world.worker(), await world.worker()
    await dead.begin([begin(A)])
    await world.silence(dead)
    assert await me.begin([begin(A, leader=C)]) == [Begun("granted", took_over=True)]
    await me.finish([Finish(C, ANSWER, None)])
    assert await me.lookup([A]) == [Recorded(ANSWER, None, leader=C)]


# -- checkpoints and retention ---------------------------------------------------------------------------------


async def test_charges_of_one_window_add_up_over_calls(world: World) -> None:
    me = await world.worker()
    await me.begin([begin(A), begin(B)])
    await me.finish([Finish(A, ANSWER, None, charges=((WINDOW, Spent(7, 3)),))])
    await me.finish([Finish(B, ANSWER, None, charges=((WINDOW, Spent(5, 40)),))])
    assert await me.spent([WINDOW]) == [Spent(12, 43)]
    await me.record_new([(begin(C), Finish(C, ANSWER, None, charges=((WINDOW, Spent(100, 600)),)))])
    assert await me.spent([WINDOW]) == [Spent(112, 643)]


async def test_a_result_is_charged_once_by_whoever_records_it_first(world: World) -> None:
    first, second = await world.worker(), await world.worker()
    window, other = BudgetWindow("team", "acme", 86_400, 86_400), BudgetWindow("all", "acme", 0, 60)
    charges = ((window, Spent(1_500, 10)), (other, Spent(1_500, 10)))
    await first.begin([begin(A), begin(B)])
    await first.finish([Finish(A, ANSWER, None, charges=charges), Finish(B, ANSWER, None, charges=charges[:1])])
    await second.finish([Finish(A, OTHER, None, charges=charges)])
    await first.finish([Finish(A, ANSWER, None, charges=charges)])
    assert await second.spent([window, other, BudgetWindow("team", "globex", 86_400, 86_400)]) == [
        Spent(3_000, 20),
        Spent(1_500, 10),
        Spent(),
    ]


async def test_a_worker_that_was_away_itself_judges_nobody_although_others_may(world: World) -> None:
    dead, away, steady = await world.worker(), await world.worker(), await world.worker()
    await dead.begin([begin(A)])
    await world.silence(dead)
    await world.silence(away)
    await away.heartbeat()
    assert await away.begin([begin(A)]) == [Begun("busy", owner=dead._owner)]
    assert await steady.begin([begin(A)]) == [Begun("granted", took_over=True)]


async def test_after_an_outage_of_the_database_nobody_is_taken_for_dead_too_early(world: World) -> None:
    first, second = await world.worker(), await world.worker()
    await first.begin([begin(A)])
    await world.outage()
    assert states(await second.begin([begin(A)])) == ["busy"]
    await second.heartbeat()
    assert states(await second.begin([begin(A)])) == ["busy"]
    await world.pass_ttl(second)
    assert await second.begin([begin(A)]) == [Begun("granted", took_over=True)]


async def test_a_new_worker_waits_a_time_to_live_before_it_takes_a_silent_one_for_dead(world: World) -> None:
    first, second = await world.worker(), await world.worker()
    await first.begin([begin(A), begin(B)])
    await world.silence(first)
    assert states(await second.begin([begin(A)])) == ["granted"]
    await world.outage()
    await second.heartbeat()
    assert states(await second.begin([begin(B)])) == ["busy"]


async def test_a_worker_that_has_left_is_dead_at_once(world: World) -> None:
    first, second = await world.worker(), await world.worker()
    await first.begin([begin(A)])
    await first.stop()
    await world.outage()
    await second.heartbeat()
    assert await second.begin([begin(A)]) == [Begun("granted", took_over=True)]


async def test_a_checkpoint_keeps_its_witness_until_it_is_dropped(world: World) -> None:
    me = await world.worker()
    seen = Checkpoint("g", "t", 3, 5, "a", (4, "digest"))
    await me.save_checkpoints([seen])
    assert await me.load_checkpoint("g", "t", 3) == seen
    await me.save_checkpoints([Checkpoint("g", "t", 3, 5, "b")])
    assert await me.load_checkpoint("g", "t", 3) == Checkpoint("g", "t", 3, 5, "b", seen.witness)
    await me.drop_checkpoint("g", "t", 3)
    assert await me.load_checkpoint("g", "t", 3) is None


async def test_checkpoint_moves_forward_only(world: World) -> None:
    me = await world.worker()
    older, same, newer = (Checkpoint("g", "t", 0, offset, meta) for offset, meta in ((5, "a"), (7, "b"), (7, "c")))
    assert await me.load_checkpoint("g", "t", 0) is None
    await me.save_checkpoints([same, Checkpoint("g", "t", 1, 1, "")])
    await me.save_checkpoints([newer, older])
    await me.save_checkpoints([older])
    assert await me.load_checkpoint("g", "t", 0) == newer
    assert await me.load_checkpoint("g", "t", 1) == Checkpoint("g", "t", 1, 1, "")


async def test_purge_deletes_old_results_with_their_followers_and_nothing_else(world: World) -> None:
    me = await world.worker()
    olds = [JournalKey("old", str(n)) for n in range(5)]
    await me.begin([begin(A, leader=olds[0]), begin(B)])
    await me.finish([Finish(key, ANSWER, None) for key in olds])
    await world.age()
    await me.finish([Finish(C, ANSWER, None)])
    assert await me.purge(50, batch=2) == 6
    assert await me.lookup([*olds, A, C]) == [None] * 6 + [Recorded(ANSWER, None)]
    assert states(await me.begin([begin(B), begin(A)])) == ["busy", "granted"]
    assert await me.purge(50, batch=2) == 0


async def test_purge_deletes_old_calls_whose_worker_is_no_more_and_their_followers(world: World) -> None:
    gone, silent, me = await world.worker(), await world.worker(), await world.worker()
    await gone.begin([begin(A), begin(B, leader=A)])
    late = JournalKey("acme", "late")
    await silent.begin([begin(C)])
    await gone.stop()
    assert await me.purge(50) == 0
    await world.age()
    await me.begin([begin(late)])
    await world.silence(silent)
    assert await me.purge(50) == 2
    # Whose worker may only be cut off from the database is kept until that is forgotten.
    assert states(await me.begin([begin(key, "other") for key in (A, B, C, late)])) == [
        *("granted", "granted"),
        *("conflict", "conflict"),
    ]


async def test_purge_forgets_what_was_spent_in_windows_long_over(world: World) -> None:
    me = await world.worker()
    present = BudgetWindow("team", "acme", int(time.time()), 86_400)
    await me.finish([Finish(A, ANSWER, None, charges=((WINDOW, Spent(1, 2)), (present, Spent(3, 4))))])
    assert await me.spent([WINDOW, present]) == [Spent(1, 2), Spent(3, 4)]
    assert await me.purge(50) == 0
    assert await me.spent([WINDOW, present]) == [Spent(), Spent(3, 4)]


async def test_purges_find_every_old_call_of_a_table_that_none_looks_through_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stratarouter_runtime.journal.postgres.PURGED_PAGES", 1)
    gone, me = await world.worker(), await world.worker()
    left = 600
    await gone.begin([begin(JournalKey("old", f"{n:0200}")) for n in range(left)])
    await gone.stop()
    await world.age()
    for _ in range(1000):
        found = await me.purge(50)
        assert found < 600 or isinstance(world, MemoryWorld)
        left -= found
        if not left:
            break
    assert left == 0


async def test_a_purge_in_memory_gives_others_their_turn() -> None:
    world = MemoryWorld()
    me = await world.worker()
    keys = [JournalKey("acme", f"{n}") for n in range(100)]
    await me.begin([begin(JournalKey("acme", f"follows {n}"), leader=key) for n, key in enumerate(keys)])
    await me.finish([Finish(key, ANSWER, None) for key in keys])
    await world.age()
    left: list[int] = []

    async def look() -> None:
        while True:
            left.append(len(world.store.rows))
            await asyncio.sleep(0)

    async with asyncio.timeout(5):
        looking = asyncio.create_task(look())
        assert await me.purge(50, batch=10) == 200
        looking.cancel()
    assert [before - after for before, after in pairwise(left) if before != after] == [10] * 20


# -- what only a server can do ---------------------------------------------------------------------------------

CALLS = {
    "begin": lambda j: j.begin([begin(A)]),
    "finish": lambda j: j.finish([Finish(A, ANSWER, None)]),
    "lookup": lambda j: j.lookup([A]),
    "heartbeat": lambda j: j.heartbeat(),
    "save_checkpoints": lambda j: j.save_checkpoints([Checkpoint("g", "t", 0, 1, "")]),
    "load_checkpoint": lambda j: j.load_checkpoint("g", "t", 0),
    "purge": lambda j: j.purge(60),
    "spent": lambda j: j.spent([BudgetWindow("b", "t", 0, 60)]),
    "drop_checkpoint": lambda j: j.drop_checkpoint("g", "t", 0),
}


@pytest.mark.stack
@pytest.mark.parametrize("name", CALLS)
async def test_table_locked_past_the_timeout_is_unavailable_not_a_hang(postgres: PostgresWorld, name: str) -> None:
    me = await postgres.worker(timeout_s=1.0)  # its start has to fit in too, on a busy machine
    blocker = await asyncpg.connect(postgres.url)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE journal, workers, checkpoints, spending")
        with pytest.raises(JournalUnavailableError) as caught:
            await CALLS[name](me)
        assert isinstance(caught.value.__cause__, TimeoutError)
    await blocker.close()


@pytest.mark.stack
async def test_begin_that_timed_out_is_granted_when_asked_again(postgres: PostgresWorld) -> None:
    me = await postgres.worker(timeout_s=1.0)
    blocker = await asyncpg.connect(postgres.url)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE journal IN EXCLUSIVE MODE")
        with pytest.raises(JournalUnavailableError):
            await me.begin([begin(A)])
    await blocker.close()
    # As if the server had committed it after all: the same owner's row, whose grant nobody was told of.
    await (await postgres.worker(me._owner)).begin([begin(A)])
    assert await me.begin([begin(A, retry=False)]) == [Begun("granted")]


@pytest.mark.stack
async def test_broken_connections_are_unavailable_and_then_replaced(postgres: PostgresWorld) -> None:
    me = await postgres.worker()
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
    await postgres.run(kill, postgres.url.rsplit("/", 1)[1])
    for _ in range(5):
        try:
            begun = await me.begin([begin(A)])
            break
        except JournalUnavailableError:
            continue
    assert begun == [Begun("granted")]


@pytest.mark.stack
@pytest.mark.parametrize(("code", "times", "granted"), [("40P01", 2, True), ("40001", 2, True), ("40P01", 3, False)])
async def test_lost_deadlock_is_tried_again_but_not_for_ever(
    postgres: PostgresWorld, code: str, times: int, granted: bool
) -> None:
    await postgres.run("CREATE SEQUENCE tries")
    await postgres.run(
        f"CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') <= {times} "
        f"THEN RAISE 'lost' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$"
    )
    await postgres.run("CREATE TRIGGER lose BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION lose()")
    me = await postgres.worker()
    if granted:
        assert states(await me.begin([begin(A)])) == ["granted"]
    else:
        with pytest.raises(JournalUnavailableError, match="lost"):
            await me.begin([begin(A)])


@pytest.mark.stack
async def test_a_new_row_beside_an_old_one_was_started_once(postgres: PostgresWorld) -> None:
    other, me = await postgres.worker(), await postgres.worker()
    await other.begin([begin(A)])
    await me.begin([begin(C)])
    me.release([C])
    assert states(await me.begin([begin(A), begin(B), begin(C)])) == ["busy", "granted", "granted"]
    found = await postgres.run("SELECT request_id, starts, owner::text FROM journal ORDER BY 1")
    assert [tuple(row) for row in found] == [("a", 1, other._owner), ("b", 1, me._owner), ("c", 2, me._owner)]


@pytest.mark.stack
@pytest.mark.parametrize(
    ("keys", "finished"),
    [((B, C), (B,)), ((B, C), (C,)), ((B, C, JournalKey("acme", "d")), (B, C))],
    ids=["an old row", "a new row", "one of each"],
)
async def test_a_row_whose_result_comes_while_rows_are_made_is_none_of_them(
    postgres: PostgresWorld, monkeypatch: pytest.MonkeyPatch, keys: Sequence[JournalKey], finished: Sequence[JournalKey]
) -> None:
    """The newest of this owner's rows were taken for the new ones: a call was made, and paid, for what had failed."""
    me = await postgres.worker()
    await me.begin([begin(A)])
    await me.begin([begin(B, leader=A)])
    execute = asyncpg.Pool.execute

    async def and_then(pool: asyncpg.Pool, statement: str, *arguments: object) -> str:
        monkeypatch.undo()
        made: str = await execute(pool, statement, *arguments)
        await me.finish([Finish(key, None, ERROR) for key in finished])
        return made

    monkeypatch.setattr(asyncpg.Pool, "execute", and_then)
    begun = await me.begin([begin(key) for key in keys])
    assert states(begun) == ["recorded" if key in finished else "granted" for key in keys]
    found = await postgres.run("SELECT state FROM journal WHERE request_id > 'a' ORDER BY request_id")
    assert [row["state"] for row in found] == ["failed" if key in finished else "started" for key in keys]


@pytest.mark.stack
async def test_follower_s_row_holds_no_answer(postgres: PostgresWorld) -> None:
    me = await postgres.worker()
    await me.begin([begin(A), begin(B, leader=A)])
    await me.finish([Finish(A, ANSWER, None), Finish(B, None, None)])
    stored = await postgres.run("SELECT request_id, state, starts, answer IS NULL AS bare FROM journal ORDER BY 1")
    assert [tuple(row) for row in stored] == [("a", "succeeded", 1, False), ("b", "following", 0, True)]


@pytest.mark.stack
async def test_heartbeat_forgets_workers_silent_for_a_day(postgres: PostgresWorld) -> None:
    me, other = await postgres.worker(), await postgres.worker()
    await postgres.run("UPDATE workers SET heartbeat_at = now() - interval '25 hours'")
    await me.heartbeat()
    owners = [str(row["owner"]) for row in await postgres.run("SELECT owner FROM workers")]
    assert owners == [me._owner]
    assert other._owner not in owners


@pytest.mark.stack
async def test_the_server_compiles_no_statement_of_ours(postgres: PostgresWorld) -> None:
    me = await postgres.worker()
    assert me._pool is not None
    assert await me._pool.fetchval("SHOW jit") == "off"


async def test_absent_server_is_unavailable() -> None:
    journal = PostgresJournal("postgresql://u:p@127.0.0.1:1/d", owner=str(uuid.uuid4()), timeout_s=2)
    with pytest.raises(JournalUnavailableError):
        await journal.start()
    await journal.stop()
    assert journal._pool is None


@pytest.mark.parametrize(
    "url", ["s3cret", "mysql://u:s3cret@h/d", "postgresql://u:s3cret/w@h/d", "postgresql://u:s3cret@127.0.0.1:99999/d"]
)
async def test_unreadable_url_is_a_configuration_error_that_does_not_quote_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await PostgresJournal(url, owner=str(uuid.uuid4())).start()
    assert "s3cret" not in f"{caught.value} {caught.value.remedy} {caught.value.__cause__}"
    assert caught.value.__suppress_context__


def test_every_error_of_asyncpg_is_mapped() -> None:
    raised = [
        kind
        for _, kind in inspect.getmembers(asyncpg.exceptions, inspect.isclass)
        if issubclass(kind, Exception) and not issubclass(kind, Warning)
    ]
    assert len(raised) > 200
    assert [kind for kind in raised if not issubclass(kind, MAPPED)] == []


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), asyncpg.TooManyConnectionsError("full")])
def test_error_is_mapped_with_its_cause(error: Exception) -> None:
    with pytest.raises(JournalUnavailableError, match="failed to finish") as caught, mapped("finish"):
        raise error
    assert caught.value.__cause__ is error


def test_refused_certificate_is_not_taken_for_an_unreadable_url() -> None:
    with pytest.raises(JournalUnavailableError), mapped_connect():
        raise ssl.SSLCertVerificationError("host name mismatch")


def test_server_s_detail_stays_out_of_the_message() -> None:
    error = asyncpg.CheckViolationError("violates a check")
    error.detail = "Failing row contains (secret answer)."
    with pytest.raises(JournalUnavailableError) as caught, mapped("finish"):
        raise error
    assert "secret" not in caught.value.message


def test_cancellation_is_not_mapped() -> None:
    with pytest.raises(asyncio.CancelledError), mapped("finish"):
        raise asyncio.CancelledError


def test_fields_of_a_newer_version_are_left_out() -> None:
    newer = b'{"text":"t","provider":"p","model":"m","usage":{"input_tokens":1,"audio":2},"mood":"good"}'
    assert rows.unpack(newer, None, None).answer == Answer("t", "p", "m", Usage(1))
