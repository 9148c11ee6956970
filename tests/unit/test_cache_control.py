"""What the cache-control topic says, applied in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stratarouter_runtime import CoreRuntimeBridge, RuntimeConfig
from stratarouter_runtime.cache import controlled
from stratarouter_runtime.cache.controlled import ControlledCache
from stratarouter_runtime.cache.guard import create_guard
from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.errors import CacheUnavailableError, SchemaViolationError
from stratarouter_runtime.feedback import Recent, wrong_answer
from stratarouter_runtime.port_values import CacheEntry, CacheHit, CacheMiss, CacheQuery
from stratarouter_runtime.processors.cache_control import ControlReader
from stratarouter_runtime.processors.control_resolve import MAX_AGE_MS, MAX_PENDING, Resolver
from stratarouter_runtime.records import Answer, BatchVerdict, CacheCommand, CacheVerdict, Response
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.state.cache_control import (
    BEFORE_ALL,
    MAX_SILENCE_S,
    SEPARATOR,
    CacheControl,
    Origin,
    label,
    labels_of,
)
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.testing.simulator import Simulator
from stratarouter_runtime.wire_control import encode_command

if TYPE_CHECKING:
    from stratarouter_runtime.cache.controlled import ControllableCache

TTL_S = 100


def said(action: Any = "invalidate", **fields: Any) -> CacheCommand:
    return CacheCommand(action, "ann", "because", 0, **fields)


def answer(begun: int, key: str = "k", *, tenant: str = "acme", tags: tuple[str, ...] = ()) -> Origin:
    return Origin(begun, (label("key", key), label("tenant", tenant), *(label("tag", tag) for tag in tags)))


def test_an_answer_is_stale_where_it_was_asked_for_before_the_invalidation_and_only_then() -> None:
    control = CacheControl()
    control.apply(said(tag="doc-7"), 5, 0, TTL_S)
    assert control.is_stale(answer(4, tags=("doc-7",)))
    assert not control.is_stale(answer(5, tags=("doc-7",)))
    assert not control.is_stale(answer(4, tags=("doc-8",)))


@pytest.mark.parametrize(
    ("named", "labels"),
    [
        ({"key": "k"}, (label("key", "k"),)),
        ({"request_id": "r"}, (label("request", "default", "r"),)),
        ({"request_id": "r", "tenant": "acme"}, (label("request", "acme", "r"),)),
        ({"tag": "t"}, (label("tag", "t"),)),
        ({"route_id": "b"}, (label("route", "b"),)),
        ({"tenant": "acme"}, (label("tenant", "acme"),)),
        ({"everything": True}, ()),
    ],
)
def test_each_way_to_name_answers_has_its_label(named: dict[str, Any], labels: tuple[str, ...]) -> None:
    assert labels_of(said(**named)) == labels


def test_everything_covers_what_has_no_label_at_all() -> None:
    control = CacheControl()
    control.apply(said(everything=True), 0, 0, TTL_S)
    assert control.is_stale(Origin(BEFORE_ALL, ()))
    assert not control.is_stale(Origin(0, ()))


def test_a_record_that_was_applied_changes_nothing_when_it_comes_again() -> None:
    control = CacheControl()
    control.apply(said("correct", key="k", text="right"), 3, 0, TTL_S)
    control.apply(said(key="k"), 4, 0, TTL_S)
    control.apply(said("correct", key="k", text="right"), 3, 0, TTL_S)
    assert control.position == 4
    assert control.correction(("k",), 0) is None


steps = st.lists(
    st.tuples(
        st.sampled_from(["tag", "tenant", "key", "everything", "answer"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["a", "b", "c"]),
    ),
    max_size=30,
)


@settings(max_examples=300, deadline=None)
@given(steps, st.integers(1, 4))
def test_no_invalidated_answer_is_fresh_however_little_is_remembered(
    steps: list[tuple[str, str, str]], room: int
) -> None:
    """The oracle remembers everything; with little room more is stale than must be, never less."""
    whole, small = CacheControl(), CacheControl(max_fences=room)
    answers: list[Origin] = []
    history: list[tuple[int, str, str]] = []
    for kind, one, other in steps:
        if kind == "answer":
            answers.append(answer(whole.position, one, tenant=other, tags=(one + other,)))
            continue
        position = whole.position + 1
        named: dict[str, Any] = {kind: True if kind == "everything" else (one + other if kind == "tag" else one)}
        for control in (whole, small):
            control.apply(said(**named), position, 0, TTL_S)
        history.append((position, kind, str(named[kind])))
    for origin in answers:
        expected = any(
            position > origin.begun and (kind == "everything" or f"{kind}{SEPARATOR}{value}" in origin.labels)
            for position, kind, value in history
        )
        assert whole.is_stale(origin) == expected
        assert small.is_stale(origin) or not expected


def test_what_the_topic_no_longer_holds_may_have_covered_what_had_not_seen_it() -> None:
    control = CacheControl()
    control.forget_before(0)
    assert not control.is_stale(answer(BEFORE_ALL))
    control.forget_before(6)
    assert control.is_stale(answer(4))
    assert not control.is_stale(answer(5))


def test_a_correction_stands_for_its_time_and_until_it_is_invalidated() -> None:
    control = CacheControl()
    control.apply(said("correct", key="k", text="right", tenant="acme"), 0, 1000, TTL_S)
    found = control.correction(("other", "k"), 1000)
    assert found is not None
    assert found.text == "right"
    assert control.correction(("k",), 1000 + 1000 * TTL_S) is None
    control.apply(said(tenant="acme"), 1, 0, TTL_S)
    assert control.correction(("k",), 1000) is None


def test_a_correction_that_goes_for_want_of_room_takes_the_bad_answer_with_it() -> None:
    control = CacheControl(max_corrections=1)
    control.apply(said("correct", key="k", text="right"), 5, 0, TTL_S)
    control.apply(said("correct", key="other", text="right"), 6, 0, TTL_S)
    assert control.correction(("k",), 0) is None
    assert control.is_stale(answer(4))
    assert not control.is_stale(answer(5))


def test_a_pair_marked_wrong_is_refused_both_ways_and_both_answers_go() -> None:
    control = CacheControl()
    control.apply(said("mark_wrong", key="asked", answered_by="stored"), 0, 0, TTL_S)
    assert (control.vetoed("asked"), control.vetoed("stored")) == ({"stored"}, {"asked"})
    assert control.is_stale(answer(BEFORE_ALL, "asked"))
    assert control.is_stale(answer(BEFORE_ALL, "stored"))
    assert control.vetoed("else") == frozenset()


def test_an_answer_of_its_own_marked_wrong_is_no_counter_example() -> None:
    control = CacheControl()
    control.apply(said("mark_wrong", key="asked"), 0, 0, TTL_S)
    control.apply(said("mark_wrong", key="asked", answered_by="asked"), 1, 0, TTL_S)
    assert control.counter_examples == 0
    assert control.is_stale(answer(0, "asked"))


def test_counter_examples_are_bounded_and_the_oldest_go_first() -> None:
    control = CacheControl(max_pairs=2)
    for number in range(4):
        control.apply(said("mark_wrong", key="asked", answered_by=f"s{number}"), number, 0, TTL_S)
    assert control.vetoed("asked") == {"s2", "s3"}
    assert control.vetoed("s0") == frozenset()
    assert (control.counter_examples, control.forgotten_pairs) == (2, 2)


def test_who_reads_no_topic_is_always_current_and_who_lost_it_is_not_for_long() -> None:
    control = CacheControl()
    assert control.is_current(10.0)
    control.followed = True
    assert not control.is_current(10.0)
    control.heard(10.0)
    assert control.is_current(10.0 + MAX_SILENCE_S)
    assert not control.is_current(10.1 + MAX_SILENCE_S)


def test_an_answer_from_further_on_is_not_trusted() -> None:
    control = CacheControl()
    assert not control.is_ahead(answer(3))
    control.followed = True
    assert control.is_ahead(answer(3))
    control.advance(3)
    assert not control.is_ahead(answer(3))


# --- what callers say ------------------------------------------------------------------------------------------


def response(kind: Any, *, entry: str | None = None, leader: str | None = None, key: str | None = "q") -> Response:
    batch = BatchVerdict() if leader is None else BatchVerdict("follower", "r0", 0.99, leader)
    return Response("r1", "ok", cache=CacheVerdict(kind, entry_id=entry, key=key), batch=batch)


@pytest.mark.parametrize(
    ("given_response", "answered_by"),
    [
        (response("exact", entry="q"), None),
        (response("exact", entry="s"), "s"),
        (response("semantic", entry="s"), "s"),
        (response("miss", entry="near"), None),
        (response("miss", entry="near", leader="l"), "l"),
        (response("miss", leader="q"), None),
    ],
    ids=["own", "alias", "semantic", "paid", "follower", "follower of the same words"],
)
def test_a_wrong_answer_names_the_question_and_what_answered_it(
    given_response: Response, answered_by: str | None
) -> None:
    command = wrong_answer(given_response, "ann", "wrong")
    assert (command.key, command.answered_by, command.request_id) == ("q", answered_by, "r1")


def test_a_response_without_a_key_cannot_be_called_wrong() -> None:
    with pytest.raises(SchemaViolationError, match="r1"):
        wrong_answer(response("bypass", key=None), "ann", "wrong")


def test_responses_are_remembered_without_their_texts_and_not_for_ever() -> None:
    recent = Recent(limit=2)
    for number in range(3):
        recent.add(Response(f"r{number}", "ok", text="long", cache=CacheVerdict("miss", key="q")))
    assert recent.get("r0") is None
    kept = recent.get("r2")
    assert kept is not None
    assert kept.cache.key == "q"
    assert not hasattr(kept, "text")


def test_an_id_of_several_tenants_is_told_apart() -> None:
    recent = Recent()
    for tenant, key in (("acme", "a"), ("umbra", "u")):
        recent.add(Response("r1", "ok", cache=CacheVerdict("miss", key=key), tenant=tenant))
    with pytest.raises(SchemaViolationError, match="'acme', 'umbra'"):
        recent.get("r1")
    kept = [recent.get("r1", tenant) for tenant in ("acme", "umbra", "nobody")]
    assert [gist and gist.cache.key for gist in kept] == ["a", "u", None]


# --- marks by request id alone ---------------------------------------------------------------------------------

NOW_MS = 10 * MAX_AGE_MS


class Topic:
    """Responses to find, and what was written."""

    def __init__(self, *responses: Response) -> None:
        self.responses = {one.request_id: one for one in responses}
        self.written: list[CacheCommand] = []
        self.resolver = Resolver(self.find, self.say)

    async def find(self, request_id: str, tenant: str | None) -> Response | None:
        found = self.responses.get(request_id)
        return found if found is not None and tenant in {None, found.tenant} else None

    async def say(self, command: CacheCommand) -> int:
        self.written.append(command)
        return len(self.written)

    async def resolve(self) -> list[tuple[str | None, str | None, str]]:
        self.resolver.begin()
        if self.resolver._task is not None:
            await self.resolver._task
        await self.resolver.stop()
        return [(one.key, one.answered_by, one.by) for one in self.written]


def marked(request_id: str, **more: Any) -> CacheCommand:
    return said("mark_wrong", request_id=request_id, **more)


async def test_a_mark_by_request_id_is_said_again_with_its_keys() -> None:
    topic = Topic(response("semantic", entry="s"))
    topic.resolver.note(marked("r1", tenant="default"), NOW_MS, NOW_MS)
    assert await topic.resolve() == [("q", "s", "ann")]


async def test_a_mark_that_was_resolved_is_not_resolved_again() -> None:
    topic = Topic(response("semantic", entry="s"))
    for tenant in ("default", None):
        topic.resolver.note(marked("r1", tenant=tenant), NOW_MS, NOW_MS)
    topic.resolver.note(marked("r1", tenant="default", key="q", answered_by="s"), NOW_MS, NOW_MS)
    assert await topic.resolve() == []


async def test_marks_that_cannot_be_resolved_do_not_hold_up_the_others(caplog: pytest.LogCaptureFixture) -> None:
    topic = Topic(response("bypass", key=None), Response("r2", "ok", cache=CacheVerdict("miss", key="q2")))
    for request_id in ("r0", "r1", "r2"):
        topic.resolver.note(marked(request_id), NOW_MS, NOW_MS)
    topic.resolver.note(marked("r3"), NOW_MS - MAX_AGE_MS - 1, NOW_MS)
    assert await topic.resolve() == [("q2", None, "ann")]
    assert [record.getMessage() for record in caplog.records] == ["mark not resolved"] * 2


async def test_marks_waiting_to_be_resolved_are_bounded() -> None:
    topic = Topic(*(Response(f"r{n}", "ok", cache=CacheVerdict("miss", key=f"q{n}")) for n in range(MAX_PENDING + 5)))
    for number in range(MAX_PENDING + 5):
        topic.resolver.note(marked(f"r{number}"), NOW_MS, NOW_MS)
    assert len(await topic.resolve()) == MAX_PENDING


def test_a_mark_by_request_id_takes_what_that_request_left() -> None:
    control = CacheControl()
    control.apply(marked("r1", tenant="acme"), 0, 0, TTL_S)
    assert control.is_stale(Origin(BEFORE_ALL, (label("key", "q"), label("request", "acme", "r1"))))
    assert control.counter_examples == 0


# --- a backend that does not answer ----------------------------------------------------------------------------

NOWHERE = RuntimeConfig(
    state_backend="memory", cache_backend="redis", redis_url="redis://127.0.0.1:1", drain_timeout_s=0.1
)


@pytest.mark.parametrize(
    "say",
    [
        lambda bridge: bridge.correct("r-1", "Under Account.", reason="shorter"),
        lambda bridge: bridge.invalidate(key="r-1", reason="shorter"),
    ],
)
async def test_what_is_no_key_is_refused_instead_of_done_for_nothing(
    say: Callable[[CoreRuntimeBridge], Coroutine[None, None, None]],
) -> None:
    table = RouteTable.from_dict(
        {
            "providers": {"sim": {"kind": "simulator", "base_url": "http://127.0.0.1:9/v1"}},
            "routes": {"chat": {"targets": [{"provider": "sim", "model": "m"}]}},
        }
    )
    async with CoreRuntimeBridge(RuntimeConfig(state_backend="memory", cache_backend="memory"), table) as bridge:
        with pytest.raises(SchemaViolationError, match=r"'r-1' is no key of the cache: 32 digits") as caught:
            await say(bridge)
    assert "cache.key" in caught.value.remedy


async def test_what_the_cache_did_not_hear_of_is_not_said_to_be_done() -> None:
    """In-process nobody judges a hit by a command once Redis is back: the answer taken back was served again."""
    async with Simulator() as simulator:
        table = {
            "providers": {"sim": {"kind": "simulator", "base_url": simulator.base_url}},
            "routes": {"chat": {"targets": [{"provider": "sim", "model": "gpt-4o-mini"}]}},
        }
        async with CoreRuntimeBridge(NOWHERE, RouteTable.from_dict(table)) as bridge:
            result = await bridge.execute("chat", query="Where is my invoice?")
            for _ in range(2):
                with pytest.raises(CacheUnavailableError, match="Redis did not answer"):
                    await bridge.invalidate(tag="handbook", reason="new edition")
                with pytest.raises(CacheUnavailableError):
                    await bridge.mark_wrong(result, reason="wrong")
            # A correction stands in this process and takes nothing out.
            await bridge.correct(result, "Under Account.", reason="shorter")
            assert (await bridge.execute("chat", query="Where is my invoice?")).response == "Under Account."


class Backend:
    """Says that it did not answer, ``away`` times."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.dropped: list[str | None] = []

    async def drop(self, is_stale: Callable[[Origin], bool], turn: str | None) -> int:
        assert callable(is_stale)
        if self.away:
            self.away -= 1
            raise CacheUnavailableError("away")
        self.dropped.append(turn)
        return 3


class Consumer:
    """The topic as far as a reader asks for it: each poll brings the next of ``polls``."""

    def __init__(self, *polls: list[tuple[int, CacheCommand]]) -> None:
        self.polls = list(polls)
        self.end = 0

    async def getmany(self, *, timeout_ms: int) -> dict[str, list[Any]]:
        assert timeout_ms > 0
        some = self.polls.pop(0) if self.polls else []
        self.end = some[-1][0] + 1 if some else self.end
        return {"0": [SimpleNamespace(**PLACE, offset=at, value=encode_command(one)) for at, one in some]}

    async def end_offsets(self, places: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(places, self.end)

    async def position(self, place: Any) -> int:
        assert place
        return self.end


PLACE: dict[str, Any] = {"topic": "cache-control", "partition": 0, "timestamp": 0}


def reader_of(backend: Backend) -> tuple[ControlReader, CacheControl]:
    control, clock = CacheControl(), SystemClock()
    control.followed = True
    cache = ControlledCache(cast("ControllableCache", backend), control, clock)
    return ControlReader(NOWHERE, control=control, cache=cache, clock=clock, metrics=Metrics()), control


async def test_a_record_holds_where_the_cache_is_away_and_the_topic_is_followed_on() -> None:
    backend = Backend(away=1)
    reader, control = reader_of(backend)
    consumer: Any = Consumer([(0, said(tag="a"))], [(1, said(tag="b"))])
    await reader._follow_on(consumer)
    assert (control.position, backend.dropped) == (0, [])
    assert control.is_stale(answer(BEFORE_ALL, tags=("a",)))
    await reader._follow_on(consumer)
    assert (control.position, backend.dropped) == (1, ["1"])


async def test_a_cache_that_was_away_when_the_topic_was_made_anew_is_emptied_once_it_is_back() -> None:
    """Positions of the other topic mean nothing in this one: what is left of it can be served once that is as long."""
    backend = Backend(away=2)
    reader, control = reader_of(backend)
    control.advance(5)
    consumer: Any = Consumer([(0, said("correct", key="k", text="right"))])
    await reader._follow_on(consumer)
    assert (control.position, control.corrects, backend.dropped) == (0, True, [])
    for _ in range(3):
        await reader._follow_on(consumer)
    assert backend.dropped == [None]


async def test_without_the_topic_a_command_takes_out_what_it_names_and_everything_is_everything() -> None:
    clock = SystemClock()
    backend = MemoryCache(clock=clock, guard=create_guard())
    cache = ControlledCache(backend, CacheControl(), clock)
    for number, tenant in enumerate(("acme", "acme", "globex", "initech")):
        key, right = f"k{number}", Answer("yes", "openai", "small")
        origin = answer(BEFORE_ALL, key, tenant=tenant)
        entry = CacheEntry(key, "s", key, key, right, None, TTL_S, tenant, "support", (), origin)
        await cache.store([entry])
    dropped = [
        await cache.drop_covered(command)
        for command in (said("correct", key="k0", text=""), said(key="k0"), said(tenant="acme"), said(everything=True))
    ]
    assert (dropped, cache.kept_out.dropped, backend.held.entries) == ([0, 1, 1, 2], 4, 0)


class Slow:
    """Takes what it is given only once ``gate`` is open, as a Redis does that is slow to write."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.kept: list[CacheEntry] = []

    async def store(self, entries: Sequence[CacheEntry]) -> None:
        await self.gate.wait()
        self.kept += entries

    async def drop(self, is_stale: Callable[[Origin], bool], turn: str | None) -> int:
        assert turn is None
        before = len(self.kept)
        self.kept = [entry for entry in self.kept if not is_stale(entry.origin)]
        return before - len(self.kept)


def slowly() -> tuple[Slow, CacheControl, ControlledCache]:
    backend, control = Slow(), CacheControl()
    return backend, control, ControlledCache(cast("ControllableCache", backend), control, SystemClock())


def kept(key: str, begun: int) -> CacheEntry:
    return CacheEntry(key, "s", key, key, Answer("yes", "openai", "small"), None, origin=answer(begun, key))


@pytest.mark.parametrize("everything", [False, True], ids=["a command", "a topic made anew"])
async def test_what_is_on_its_way_into_the_cache_is_taken_out_as_well(everything: bool) -> None:
    """It was judged before the command came, and arrived after the walk over what is kept."""
    backend, control, cache = slowly()
    storing = asyncio.create_task(cache.store([kept("k", BEFORE_ALL), kept("other", BEFORE_ALL)]))
    await asyncio.sleep(0)
    command = said(key="k")
    control.apply(command, 0, 0, TTL_S)
    dropping = asyncio.create_task(cache.drop_everything() if everything else cache.drop_covered(command))
    await asyncio.sleep(0)
    assert not dropping.done()
    backend.gate.set()
    await storing
    assert await dropping == (2 if everything else 1)
    assert [entry.entry_id for entry in backend.kept] == ([] if everything else ["other"])


async def test_what_was_asked_for_before_the_topic_was_made_anew_is_not_kept() -> None:
    """Its position in the old topic stood behind the new one's commands, which took it out of the cache no more."""
    control = CacheControl()
    control.followed = True
    cache = ControlledCache(MemoryCache(clock=SystemClock(), guard=create_guard()), control, SystemClock())
    control.advance(500)
    asked_before = kept("k", control.position)
    control.restart()
    await cache.drop_everything()
    await cache.store([asked_before])
    control.apply(said(key="k"), 100, 0, TTL_S)
    control.advance(501)
    control.heard(SystemClock().monotonic())
    query = CacheQuery("s", "k", "k")
    assert await cache.lookup([query]) == [CacheMiss()]
    await cache.store([kept("k", control.position)])
    assert isinstance((await cache.lookup([query]))[0], CacheHit)


@pytest.mark.parametrize("ends", ["cancelled", "never"])
async def test_a_store_that_is_broken_off_or_never_ends_holds_no_command_up(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, control, cache = slowly()
    storing = asyncio.create_task(cache.store([kept("k", BEFORE_ALL)]))
    await asyncio.sleep(0)
    command = said(key="k")
    control.apply(command, 0, 0, TTL_S)
    if ends == "cancelled":
        storing.cancel()
        assert await cache.drop_covered(command) == 0
    else:
        monkeypatch.setattr(controlled, "STORES_TIMEOUT_S", 0.01)
        with pytest.raises(CacheUnavailableError, match="on their way"):
            await cache.drop_covered(command)
        backend.gate.set()
    await asyncio.wait([storing])
    assert storing.cancelled() == (ends == "cancelled")


class Large(Slow):
    """Holds so much that a walk over it takes until ``gate`` is open; the first ``failing`` come to nothing."""

    def __init__(self, failing: int = 0) -> None:
        super().__init__()
        self.walks, self.failing = 0, failing

    async def lookup(self, queries: Sequence[CacheQuery]) -> list[CacheHit | CacheMiss]:
        return [CacheMiss() for _ in queries]

    async def drop(self, is_stale: Callable[[Origin], bool], turn: str | None) -> int:
        self.walks += 1
        if self.walks <= self.failing:
            raise CacheUnavailableError("refused", remedy="none")
        await self.gate.wait()
        return await super().drop(is_stale, turn)

    async def stop(self) -> None:
        """Nothing to disconnect."""


def over(backend: Large) -> ControlledCache:
    """A cache that holds what a correction, over by now, stood in front of."""
    control = CacheControl()
    control.apply(said("correct", key="k", text="no"), 0, 0, TTL_S)
    backend.kept = [kept("k", BEFORE_ALL), kept("other", BEFORE_ALL)]
    return ControlledCache(cast("ControllableCache", backend), control, SystemClock())


OTHERS = [CacheQuery("s", "other words", "other words")]


async def test_what_a_correction_that_went_for_want_of_room_stood_in_front_of_stays_out() -> None:
    """Where nobody followed the topic, what had been corrected was served again."""
    clock, control = SystemClock(), CacheControl(max_corrections=1)
    cache = ControlledCache(MemoryCache(clock=clock, guard=create_guard()), control, clock)
    await cache.store([kept("k", BEFORE_ALL), kept("other", BEFORE_ALL)])
    for position, key in enumerate(("k", "j")):
        control.apply(said("correct", key=key, text="no"), position, clock.wall_ms(), TTL_S)
    assert isinstance((await cache.lookup([CacheQuery("s", "k", "k")]))[0], CacheMiss)
    assert isinstance((await cache.lookup([CacheQuery("s", "other", "other")]))[0], CacheHit)
    assert cache.backend.held.entries == 1


async def test_no_lookup_waits_for_all_that_a_correction_leaves_nor_breaks_its_removal_off() -> None:
    """Each took 2.8 s with 50,000 entries in Redis; one that had less time broke it off, and the next began it anew."""
    backend = Large()
    cache = over(backend)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await cache.lookup(OTHERS)
    for _ in range(2):
        async with asyncio.timeout(1.0):
            assert await cache.lookup(OTHERS) == [CacheMiss()]
    backend.gate.set()
    async with asyncio.timeout(5.0):
        while not cache.kept_out.dropped:
            await asyncio.sleep(0.001)
    await cache.lookup(OTHERS)
    assert (backend.walks, [entry.entry_id for entry in backend.kept]) == (1, ["other"])
    await cache.stop()


async def test_a_backend_that_takes_nothing_out_is_not_walked_over_with_each_lookup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Redis that refuses writes answers lookups all the same, and each of them walked over it."""
    backend = Large(failing=1)
    backend.gate.set()
    cache = over(backend)
    monkeypatch.setattr(controlled, "LAPSED_WAIT_S", 0.001, raising=False)
    for _ in range(5):
        await cache.lookup(OTHERS)
    assert backend.walks == 1
    await cache.stop()
    # It is not forgotten.
    await cache.lookup(OTHERS)
    async with asyncio.timeout(5.0):
        while not cache.kept_out.dropped:
            await asyncio.sleep(0.001)
    assert backend.walks == 2
    await cache.stop()
