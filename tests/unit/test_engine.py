"""The engine's promises, on the memory journal and a provider that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.engine.later import GATHER_S
from stratarouter_runtime.errors import (
    IdempotencyConflictError,
    ProviderInterruptedError,
    ProviderRejectedError,
    ProviderUnavailableError,
    ShuttingDownError,
)
from stratarouter_runtime.journal.memory import MemoryStore
from stratarouter_runtime.port_values import Begin, CacheEntry, JournalKey, ProviderCall
from stratarouter_runtime.ports import Cache
from stratarouter_runtime.records import Answer, CacheOptions, Coordinates, Response
from stratarouter_runtime.route_file import RouteHedge
from unit.engine_bench import FIRST, SECOND, Bench, EqualGuard, Provider, execution, vector


async def test_duplicates_in_flight_are_paid_for_once_and_each_gets_a_response() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        tasks = [bench.engine.submit(execution(f"r{n}", "same words")) for n in range(5)]
        await _until(lambda: len(provider.calls) == 1)
        provider.gate.set()
        responses = await asyncio.gather(*tasks)
    assert len(provider.calls) == 1
    assert [r.request_id for r in responses] == [f"r{n}" for n in range(5)]
    assert {r.text for r in responses} == {"answer to same words"}
    assert [r.batch.role for r in responses] == ["leader"] + ["follower"] * 4
    assert sum(r.cost_usd or 0 for r in responses) == pytest.approx(0.01)
    assert sum(r.saved_usd or 0 for r in responses) == pytest.approx(0.04)


async def test_alike_in_flight_join_only_past_the_guard_and_within_the_scope() -> None:
    provider = Provider()
    provider.gate.clear()
    near, other = vector(1, 0.01), vector(1, 0.02)
    async with Bench(provider) as bench:
        tasks = [
            bench.engine.submit(execution("lead", "pay 5 dollars", embedding=near)),
            bench.engine.submit(execution("joins", "pay dollars 5", embedding=other)),
            bench.engine.submit(execution("number", "pay 6 dollars", embedding=other)),
            bench.engine.submit(execution("scope", "pay dollars 5", embedding=other, scope="t")),
        ]
        await _until(lambda: len(provider.calls) == 3)
        provider.gate.set()
        lead, joins, number, scope = await asyncio.gather(*tasks)
    assert joins.batch.role == "follower"
    assert joins.batch.leader_id == "lead"
    assert joins.text == lead.text
    assert {lead.batch.role, number.batch.role, scope.batch.role} == {"leader"}
    assert len(provider.calls) == 3


async def test_a_follower_is_not_failed_with_its_leader() -> None:
    provider = Provider(ProviderRejectedError("too long"), ProviderRejectedError("too long"))
    provider.gate.clear()
    near, other = vector(1, 0.01), vector(1, 0.02)
    async with Bench(provider) as bench:
        lead = bench.engine.submit(execution("lead", "words in one order", embedding=near))
        follow = bench.engine.submit(execution("follow", "in one order words", embedding=other))
        await _until(lambda: len(provider.calls) == 1)
        provider.gate.set()
        failed, answered = await asyncio.gather(lead, follow)
    assert failed.error is not None
    assert failed.error.code == "provider_rejected"
    assert answered.status == "ok"
    assert answered.batch.role == "leader"


async def test_a_leader_whose_task_is_cancelled_takes_no_follower_with_it() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        leader = bench.engine.submit(execution("leader", "hello"))
        followers = [bench.engine.submit(execution(f"follower {n}", "hello")) for n in range(3)]
        while not provider.calls:
            await asyncio.sleep(0)
        leader.cancel()
        provider.gate.set()
        responses = await asyncio.gather(*followers)
    assert leader.cancelled()
    assert [response.text for response in responses] == ["answer to hello"] * 3
    assert [response.batch.role for response in responses].count("leader") == 1
    assert len(provider.calls) == 2


async def test_an_outage_does_not_make_followers_queue_for_ever() -> None:
    provider = Provider(*(ProviderUnavailableError("503") for _ in range(100)))
    async with Bench(provider, max_retries=0) as bench:
        tasks = [bench.engine.submit(execution(f"r{n}", "same")) for n in range(20)]
        responses = await asyncio.gather(*tasks)
    assert {r.error.code for r in responses if r.error} == {"provider_unavailable"}
    assert len(responses) == 20
    assert len(provider.calls) <= 2 * 3


async def test_retries_then_the_next_target_then_an_answer() -> None:
    script = [
        ProviderUnavailableError("503", status=503),
        ProviderUnavailableError("503"),
        ProviderRejectedError("400"),
    ]
    provider = Provider(*script)
    async with Bench(provider, max_retries=2) as bench:
        response = await bench.engine.submit(execution("r", "q"))
    assert response.status == "ok"
    assert [(a.model, a.outcome) for a in response.attempts] == [
        ("small", "provider_unavailable"),
        ("small", "provider_unavailable"),
        ("small", "provider_rejected"),
        ("large", "ok"),
    ]


async def test_a_recorded_result_is_given_again_without_a_call() -> None:
    provider, store = Provider(), MemoryStore()
    async with Bench(provider, store=store) as bench:
        first = await bench.engine.submit(execution("r", "q"))
    async with Bench(provider, store=store, owner=SECOND) as bench:
        again = await bench.engine.submit(execution("r", "q"), check_journal=True)
    assert len(provider.calls) == 1
    assert again.from_journal
    assert (again.cache.kind, again.cache.reason) == ("bypass", "journal")
    same = replace(again, from_journal=False, timings_ms={}, batch=first.batch, cache=first.cache)
    assert same == replace(first, timings_ms={})


@pytest.mark.parametrize(("on_ambiguous", "calls", "code"), [("retry", 2, None), ("fail", 1, "ambiguous")])
async def test_a_call_of_its_own_that_a_worker_broke_off_is_of_unknown_outcome(
    on_ambiguous: str, calls: int, code: str | None
) -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider, on_ambiguous=on_ambiguous) as bench:
        broken_off = bench.engine.submit(execution("r", "q"))
        await _until(lambda: len(provider.calls) == 1)
        broken_off.cancel()
        await asyncio.wait([broken_off])
        provider.gate.set()
        again = await bench.engine.submit(execution("r", "q"))
        ambiguous = bench.metrics.ambiguous_calls_total._value.get()
    assert (None if again.error is None else again.error.code) == code
    assert (len(provider.calls), ambiguous) == (calls, 1)


async def test_a_call_of_a_dead_worker_is_counted_where_a_hit_answers_in_its_place() -> None:
    provider, store, clock = Provider(), MemoryStore(), SystemClock()
    cache = MemoryCache(clock=clock, guard=EqualGuard())
    async with Bench(provider, store=store) as bench:
        # Its worker dies in mid-call: nobody knows what comes of it.
        begun = Begin(JournalKey("acme", "r"), execution("r", "q").payload_hash, "support")
        assert (await bench.grouped.begin_one(begun)).state == "granted"
        store.heartbeats.pop(FIRST)
    async with Bench(provider, store=store, owner=SECOND) as bench:
        engine = bench.engine_with(cache)
        await engine.submit(execution("other", "q"))
        for request_id, counted in (("fresh", 0), ("r", 1)):
            answered = await engine.submit(execution(request_id, "q"), check_journal=True)
            assert answered.cache.kind == "exact"
            assert bench.metrics.registry.get_sample_value("stratarouter_ambiguous_calls_total") == counted
    assert len(provider.calls) == 1


async def test_an_id_that_is_under_way_is_not_answered_from_the_cache_meanwhile() -> None:
    provider, clock = Provider(), SystemClock()
    asked = replace(execution("r", "q"), cache_ttl=60)
    async with Bench(provider) as bench:
        engine = bench.engine_with(MemoryCache(clock=clock, guard=EqualGuard()))
        await engine.submit(replace(asked, request=replace(asked.request, request_id="before")))
        provider.gate.clear()
        own = replace(asked, request=replace(asked.request, cache=CacheOptions(mode="refresh")))
        under_way = engine.submit(own)
        await _until(lambda: len(provider.calls) == 2)
        found = [engine.look_now(asked), await engine.look(asked), await engine.same_words(asked)]
        provider.gate.set()
        await under_way
        assert found == [None, None, None]
        assert isinstance(engine.look_now(asked), Response)


async def test_an_error_that_the_same_words_would_meet_again_is_met_once_and_recorded_for_all() -> None:
    provider = Provider(ProviderRejectedError("too long"))
    provider.gate.clear()
    one = [("openai", "small")]
    async with Bench(provider) as bench:
        tasks = [bench.engine.submit(execution(f"r{n}", "same words", targets=one)) for n in range(3)]
        await _until(lambda: len(provider.calls) == 1)
        provider.gate.set()
        failed = await asyncio.gather(*tasks)
        again = await bench.engine.submit(execution("r2", "same words", targets=one), check_journal=True)
    assert [response.batch.role for response in failed] == ["leader", "follower", "follower"]
    assert {response.error.code for response in (*failed, again) if response.error} == {"provider_rejected"}
    assert (again.status, again.from_journal, len(provider.calls)) == ("error", True, 1)


async def test_the_same_id_with_other_words_is_a_conflict_and_the_first_stands() -> None:
    provider = Provider()
    async with Bench(provider) as bench:
        await bench.engine.submit(execution("r", "first"))
        with pytest.raises(IdempotencyConflictError):
            await bench.engine.submit(execution("r", "second"))
        again = await bench.engine.submit(execution("r", "first"))
    assert again.text == "answer to first"
    assert len(provider.calls) == 1


async def test_a_call_of_unknown_outcome_is_not_repeated_under_fail() -> None:
    provider = Provider(ProviderInterruptedError("reset", maybe_paid=True))
    async with Bench(provider, on_ambiguous="fail") as bench:
        response = await bench.engine.submit(execution("r", "q"))
    assert response.error is not None
    assert response.error.code == "ambiguous"
    assert len(provider.calls) == 1


async def test_a_call_of_unknown_outcome_is_repeated_and_counted_under_retry() -> None:
    provider = Provider(ProviderInterruptedError("reset", maybe_paid=True))
    async with Bench(provider, on_ambiguous="retry") as bench:
        response = await bench.engine.submit(execution("r", "q"))
        counted = bench.metrics.registry.get_sample_value("stratarouter_ambiguous_calls_total")
    assert response.status == "ok"
    assert len(provider.calls) == 2
    assert counted == 1


async def test_a_follower_past_its_deadline_takes_nothing_from_the_others() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        lead = bench.engine.submit(execution("lead", "same"))
        hasty = bench.engine.submit(execution("hasty", "same", deadline_ms=SystemClock().wall_ms() + 30))
        late = await hasty
        provider.gate.set()
        answered = await lead
    assert late.error is not None
    assert late.error.code == "deadline_exceeded"
    assert answered.status == "ok"
    assert len(provider.calls) == 1


class Punctual(Provider):
    """Cuts a call at its timeout, as every transport does."""

    async def call(self, provider: str, call: ProviderCall, **given: Any) -> Answer:
        try:
            async with asyncio.timeout(call.timeout_s):
                return await super().call(provider, call, **given)
        except TimeoutError as exc:
            raise ProviderInterruptedError("cut off", maybe_paid=True) from exc


@pytest.mark.parametrize("hedged", [False, True])
async def test_a_call_lasts_as_long_as_its_most_patient_member(hedged: bool) -> None:
    provider = Punctual()
    provider.gate.clear()
    hedge = RouteHedge(after_ms=10, max_share=1.0) if hedged else None
    async with Bench(provider, hedge=hedge) as bench:
        lead = bench.engine.submit(execution("lead", "same", deadline_ms=SystemClock().wall_ms() + 100))
        await _until(lambda: len(provider.calls) == 1 + hedged)
        patient = bench.engine.submit(execution("patient", "same"))
        late = await lead
        await asyncio.sleep(0.1)
        provider.gate.set()
        answered = await patient
        ambiguous = bench.metrics.ambiguous_calls_total._value.get()
    assert late.error is not None
    assert late.error.code == "deadline_exceeded"
    assert (answered.status, answered.batch.role) == ("ok", "follower")
    assert len(provider.calls) == 1 + hedged
    assert ambiguous == 0


async def test_a_call_that_nobody_waits_for_any_more_is_cut_off() -> None:
    provider = Punctual()
    provider.gate.clear()
    async with Bench(provider) as bench:
        lead = bench.engine.submit(execution("lead", "same", deadline_ms=SystemClock().wall_ms() + 100))
        assert (await lead).error is not None
        async with asyncio.timeout(1.0):
            while bench.journal._store.rows[JournalKey("acme", "lead")].result is None:
                await asyncio.sleep(0.01)
        recorded = bench.journal._store.rows[JournalKey("acme", "lead")].result
    assert recorded is not None
    assert recorded.error is not None
    assert recorded.error.code == "deadline_exceeded"
    assert [attempt.outcome for attempt in recorded.attempts] == ["provider_interrupted"]


async def test_a_request_that_bypasses_the_cache_follows_nobody() -> None:
    provider = Provider()
    async with Bench(provider) as bench:
        fresh = CacheOptions(mode="bypass")
        tasks = [bench.engine.submit(execution(f"r{n}", "same", cache=fresh)) for n in range(3)]
        responses = await asyncio.gather(*tasks)
    assert len(provider.calls) == 3
    assert {r.batch.role for r in responses} == {"leader"}


async def test_where_the_route_forbids_it_nobody_follows() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        tasks = [bench.engine.submit(execution(f"r{n}", "same", threshold=None)) for n in range(3)]
        await _until(lambda: len(provider.calls) == 3)
        provider.gate.set()
        responses = await asyncio.gather(*tasks)
    assert {r.batch.role for r in responses} == {"none"}


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_the_result_of_another_living_worker_is_waited_for_without_holding_a_slot() -> None:
    store = MemoryStore()
    theirs, ours = Provider(), Provider()
    theirs.gate.clear()
    async with Bench(theirs, store=store) as first, Bench(ours, store=store, owner=SECOND, slots=1) as second:
        paid = first.engine.submit(execution("shared", "one"))
        await _until(lambda: len(theirs.calls) == 1)
        waiting = second.engine.submit(execution("shared", "one"))
        other = await asyncio.wait_for(second.engine.submit(execution("other", "two")), 5)
        theirs.gate.set()
        answers = [await asyncio.wait_for(task, 10) for task in (paid, waiting)]
    assert other.status == "ok"
    assert [answer.text for answer in answers] == ["answer to one"] * 2
    assert answers[1].from_journal
    assert (len(theirs.calls), len(ours.calls)) == (1, 1)


async def test_a_closing_engine_ends_what_has_begun_and_leaves_the_rest_to_others() -> None:
    store = MemoryStore()
    provider, next_provider = Provider(), Provider()
    provider.gate.clear()
    async with Bench(provider, store=store, slots=1) as bench:
        begun = bench.engine.submit(execution("begun", "one", threshold=None))
        await _until(lambda: len(provider.calls) == 1)
        queued = bench.engine.submit(execution("queued", "two", threshold=None))
        await asyncio.sleep(0)
        bench.engine.close()
        late = bench.engine.submit(execution("late", "three", threshold=None))
        for refused in (queued, late):
            with pytest.raises(ShuttingDownError):
                await asyncio.wait_for(refused, 5)
        provider.gate.set()
        await bench.engine.stop(5.0)
        assert (await begun).status == "ok"
    async with Bench(next_provider, store=store, owner=SECOND) as successor:
        taken = [
            await successor.engine.submit(execution(name, text)) for name, text in (("queued", "two"), ("begun", "one"))
        ]
    assert [answer.from_journal for answer in taken] == [False, True]
    assert len(next_provider.calls) == 1


async def test_a_paid_result_whose_task_is_cancelled_while_the_journal_is_away_is_recorded() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        task = bench.engine.submit(execution("r0", "words"))
        await _until(lambda: bool(provider.calls))
        bench.journal._store.available = False
        provider.gate.set()
        # Long enough to be between two tries, or in one.
        await asyncio.sleep(0.3)
        await bench.engine.stop(0.0)
        with pytest.raises(ShuttingDownError):
            await task
        bench.journal._store.available = True
        await bench.grouped.stop()
        kept = bench.journal._store.rows[JournalKey("acme", "r0")].result
    assert kept is not None
    assert kept.answer is not None


class SlowToKeep:
    """A cache that takes its time to keep an answer."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    async def store(self, entries: Sequence[CacheEntry]) -> None:
        await asyncio.sleep(0.05)
        await self._cache.store(entries)


async def test_what_is_begun_within_the_grace_ends_within_it() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        cache = MemoryCache(clock=SystemClock(), guard=EqualGuard())
        engine = bench.engine_with(cast("Cache", SlowToKeep(cache)))
        engine.submit(execution("r0", "words"))
        await _until(lambda: bool(provider.calls))
        asyncio.get_running_loop().call_later(0.05, provider.gate.set)
        await engine.stop(5.0)
        assert cache.held.entries == 1
        with pytest.raises(ShuttingDownError):
            await engine.submit(execution("r1", "other words"))


async def test_followers_in_their_callers_tasks_are_journaled_before_the_end() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        bench.engine.submit(execution("r0", "words"), deferred=True)
        await _until(lambda: bool(provider.calls))
        following = asyncio.create_task(bench.engine.follow(execution("r1", "words"), None))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, provider.gate.set)
        await bench.engine.stop(5.0)
        followed = await following
        assert followed is not None
        assert followed.status == "ok"
        assert set(bench.journal._store.rows) == {JournalKey("acme", "r0"), JournalKey("acme", "r1")}


async def test_followers_of_a_leader_that_a_closing_engine_gave_up_record_no_failure() -> None:
    store = MemoryStore()
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider, store=store, slots=1) as bench:
        bench.engine.submit(execution("busy", "something else", threshold=None))
        await _until(lambda: len(provider.calls) == 1)
        tasks = [
            bench.engine.submit(execution(name, "same words", embedding=vector(1, 0))) for name in ("lead", "follow")
        ]
        await _until(lambda: len(store.rows) == 2)
        bench.engine.close()
        ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert [type(one) for one in ended] == [ShuttingDownError] * 2
    assert [row.result for row in store.rows.values()] == [None] * 2


async def test_a_record_waits_for_a_busy_provider_and_a_caller_in_this_process_only_so_long() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider, slots=1, execution_timeout=0.2) as bench:
        first = bench.engine.submit(execution("first", "one", threshold=None))
        await _until(lambda: len(provider.calls) == 1)
        record = replace(execution("record", "two", threshold=None), source=Coordinates("executions", 0, 1))
        waiting = bench.engine.submit(record)
        caller = bench.engine.submit(execution("caller", "three", threshold=None))
        await asyncio.sleep(0.3)
        provider.gate.set()
        answers = [await asyncio.wait_for(task, 5) for task in (first, waiting, caller)]
    assert [answer.status for answer in answers] == ["ok", "ok", "error"]
    assert answers[2].error is not None
    assert answers[2].error.code == "deadline_exceeded"
    assert len(provider.calls) == 2


async def test_a_streamed_answer_is_heard_as_it_comes_by_all_who_wait_for_it() -> None:
    provider = Provider()
    provider.gate.clear()
    first_heard: list[str] = []
    second_heard: list[str] = []
    async with Bench(provider) as bench:
        first = bench.engine.submit(execution("a", "one", embedding=vector(1, 0)), on_text=first_heard.append)
        await _until(lambda: len(first_heard) == 2)
        second = bench.engine.submit(execution("b", "one", embedding=vector(1, 0)), on_text=second_heard.append)
        await _until(lambda: len(second_heard) == 2)
        assert not first.done()
        provider.gate.set()
        answers = [await asyncio.wait_for(task, 5) for task in (first, second)]
    assert [answer.text for answer in answers] == ["answer to one"] * 2
    assert answers[1].batch.role == "follower"
    assert len(provider.calls) == 1


@pytest.mark.parametrize("mode", ["default", "bypass"])
async def test_an_id_asked_again_past_its_deadline_waits_for_its_own_call(mode: Any) -> None:
    provider = Provider()
    provider.gate.clear()
    options = CacheOptions(mode=mode)
    async with Bench(provider) as bench:
        soon = SystemClock().wall_ms() + 50
        first = bench.engine.submit(execution("x", "same", deadline_ms=soon, cache=options))
        await _until(lambda: bool(provider.calls))
        # Keeps the call going past the deadline of who asked for it.
        other = bench.engine.submit(execution("y", "same"))
        late = await first
        assert late.error is not None
        again = bench.engine.submit(execution("x", "same", cache=options))
        changed = bench.engine.submit(replace(execution("x", "other", cache=options), payload_hash="of other words"))
        with pytest.raises(IdempotencyConflictError):
            await changed
        await asyncio.sleep(0.05)
        provider.gate.set()
        answered = await again
        await other
    assert answered.status == "ok"
    assert answered.batch.leader_id is None
    assert [call.request_id for call in provider.calls] == ["x"]


async def test_a_listener_of_a_leader_that_fails_midway_hears_no_second_answer() -> None:
    provider = Provider(ProviderUnavailableError("gone"))
    provider.gate.clear()
    heard: list[str] = []
    also_heard: list[str] = []
    async with Bench(provider) as bench:
        first = bench.engine.submit(execution("a", "one"), on_text=heard.append)
        while len(heard) < 2:
            await asyncio.sleep(0.001)
        second = bench.engine.submit(execution("b", "one"), on_text=also_heard.append)
        while len(also_heard) < 2:
            await asyncio.sleep(0.001)
        provider.gate.set()
        failed = [await first, await second]
    assert [one.status for one in failed] == ["error", "error"]
    assert also_heard == heard == ["answer ", "to "]
    assert len(provider.calls) == 1


async def test_a_failure_in_the_middle_of_a_stream_is_final() -> None:
    provider = Provider(ProviderUnavailableError("gone"))
    heard: list[str] = []
    async with Bench(provider) as bench:
        response = await bench.engine.submit(execution("a", "one"), on_text=heard.append)
    assert response.error is not None
    assert response.error.code == "provider_unavailable"
    assert heard == ["answer ", "to "]
    assert len(provider.calls) == 1


async def test_who_waits_for_a_response_goes_on_before_the_tasks_callbacks() -> None:
    order: list[str] = []
    async with Bench(Provider()) as bench:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended.add_done_callback(lambda _: order.append("caller"))
        task = bench.engine.submit(execution("r0", "words"), deferred=True, ended=ended)
        task.add_done_callback(lambda _: order.append("callback"))
        response = await task
    assert response.status == "ok"
    assert order == ["caller", "callback"]


# --- following in the caller's own task --------------------------------------------------------------------------


async def test_a_caller_follows_the_same_words_in_its_own_task() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        leading = bench.engine.submit(execution("r0", "same words"), deferred=True)
        assert not bench.engine.knows_leader(execution("r1", "same words"))
        await _until(lambda: len(provider.calls) == 1)
        assert bench.engine.knows_leader(execution("r1", "same words"))
        assert not bench.engine.knows_leader(execution("r1", "same words", threshold=None))
        following = [asyncio.create_task(bench.engine.follow(execution(f"r{n}", "same words"), None)) for n in (1, 2)]
        await asyncio.sleep(0)
        following[0].cancel()
        provider.gate.set()
        led, followed = await leading, await following[1]
        assert isinstance(followed, Response)
        assert (followed.text, followed.batch.role, followed.batch.leader_id) == (led.text, "follower", "r0")
        assert (followed.cost_usd, followed.saved_usd) == (0.0, led.cost_usd)
        assert await bench.engine.follow(execution("r3", "same words"), None) == 0, "nobody leads any more"
    assert len(provider.calls) == 1


async def test_what_a_follower_pays_for_after_its_leader_has_failed_is_journaled() -> None:
    provider = Provider(ProviderInterruptedError("cut off"))
    provider.gate.clear()
    one = [("openai", "small")]
    async with Bench(provider, max_retries=0) as bench:
        leading = bench.engine.submit(execution("r0", "same words", targets=one), deferred=True)
        await _until(lambda: len(provider.calls) == 1)
        following = bench.engine.submit(execution("r1", "same words", targets=one), deferred=True)
        # Longer than rows gather: what was begun is in the journal.
        await asyncio.sleep(3 * GATHER_S)
        provider.gate.set()
        led, answered = await leading, await following
        await bench.engine.stop(1.0)
        kept = bench.journal._store.rows[JournalKey("acme", "r1")]
    assert (led.status, answered.status, answered.batch.role) == ("error", "ok", "leader")
    assert kept.result is not None
    assert kept.result.answer is not None


@pytest.mark.parametrize(
    ("problem", "shared"), [(ProviderRejectedError("no"), True), (ProviderInterruptedError("cut off"), False)]
)
async def test_only_an_error_that_the_same_words_would_meet_again_is_taken_over(
    problem: Exception, shared: bool
) -> None:
    provider = Provider(problem)
    provider.gate.clear()
    async with Bench(provider, max_retries=0) as bench:
        one = [("openai", "small")]
        leading = bench.engine.submit(execution("r0", "same words", targets=one), deferred=True)
        await _until(lambda: len(provider.calls) == 1)
        following = asyncio.create_task(bench.engine.follow(execution("r1", "same words", targets=one), None))
        await asyncio.sleep(0)
        provider.gate.set()
        led, followed = await leading, await following
        assert led.status == "error"
        if shared:
            assert isinstance(followed, Response)
            assert followed.error == led.error
        else:
            assert followed == 1
            answered = await bench.engine.submit(execution("r1", "same words", targets=one), deferred=True)
            assert (answered.status, answered.batch.role) == ("ok", "leader")
        await bench.engine.stop(1.0)
        rows = bench.journal._store.rows
    kept = rows[JournalKey("acme", "r1")]
    assert kept.payload_hash is not None
    assert kept.result is not None
    assert (kept.result.answer is None) is shared
    assert len(provider.calls) == 2 - shared


async def test_a_repeat_of_an_id_under_way_is_told_at_its_own_deadline() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        first = bench.engine.submit(execution("r", "q"))
        await _until(lambda: bool(provider.calls))
        soon_ms = SystemClock().wall_ms() + 50
        repeat = await bench.engine.submit(execution("r", "q", deadline_ms=soon_ms))
        assert repeat.error is not None
        assert repeat.error.code == "deadline_exceeded"
        provider.gate.set()
        assert (await first).error is None
    assert len(provider.calls) == 1
