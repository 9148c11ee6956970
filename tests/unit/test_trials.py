"""Hits by likeness under a bound on wrong ones, through the engine: held back, compared, served, checked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stratarouter_runtime.cache.memory import MemoryCache
from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine.compare import AnswerComparer, load
from stratarouter_runtime.engine.trials import MAX_COMPARISONS, OwnEvidence, Trials, shadow_id
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.port_values import CacheHit, JournalKey
from stratarouter_runtime.ports import Comparer
from stratarouter_runtime.records import Answer, CacheOptions, Coordinates, Execution, Response, Vector
from stratarouter_runtime.route_file import Budget
from stratarouter_runtime.state.error_bound import ErrorBound
from unit.engine_bench import Bench, EqualGuard, Provider, execution, vector

BOUND = 0.5
"""Met after eight right answers."""
ENOUGH = 8


class Judge:
    """Says ``verdict`` of every pair, or raises it."""

    def __init__(self, verdict: bool | Exception | None = True) -> None:
        self.verdict = verdict
        self.asked: list[tuple[str, str, str]] = []

    async def same(self, question: str, kept: Answer, fresh: Answer) -> bool | None:
        self.asked.append((question, kept.text, fresh.text))
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


def bounded(bench: Bench, judge: Comparer, share: float = 1e-9) -> MemoryCache:
    """Give the engine a cache, and what judges."""
    evidence = OwnEvidence()
    trials = Trials(ErrorBound(), evidence=evidence, comparer=judge, metrics=bench.metrics, share=share)
    evidence._learn = trials.learn
    cache = MemoryCache(clock=SystemClock(), guard=EqualGuard())
    bench.engine_with(cache, trials=trials)
    return cache


def asked(number: int | str, words: str, bound: float | None = BOUND, **changes: Any) -> Execution:
    near: Vector = vector(1, len(words) / 50)
    return replace(execution(f"r-{number}", words, embedding=near, threshold=None, **changes), max_error_rate=bound)


async def answer(bench: Bench, one: Execution) -> Response:
    response = await bench.engine.submit(one)
    async with asyncio.timeout(5):
        while bench.engine._tasks:
            await asyncio.sleep(0)
    return response


async def taught(bench: Bench, times: int = ENOUGH) -> list[Response]:
    await answer(bench, asked("first", "where is it"))
    return [await answer(bench, asked(number, "where is it" + "?" * (number + 1))) for number in range(times)]


def counted(bench: Bench, source: str, verdict: str) -> float:
    return float(bench.metrics.cache_evidence_total.labels(source, verdict)._value.get())


async def test_a_hit_that_is_not_proven_is_executed_and_says_so() -> None:
    async with Bench(Provider()) as bench:
        bounded(bench, judge := Judge())
        [first, *_] = await taught(bench, 1)
    assert (first.cache.kind, first.cache.reason, first.cache.entry_id) == ("miss", "unproven", "s:where is it")
    assert first.cache.similarity is not None
    assert first.text == "answer to where is it?"
    assert judge.asked == [("where is it?", "answer to where is it", "answer to where is it?")]
    assert counted(bench, "held_back", "right") == 1


async def test_hits_are_served_once_enough_of_them_were_right() -> None:
    provider = Provider()
    async with Bench(provider) as bench:
        bounded(bench, Judge())
        await taught(bench)
        calls = len(provider.calls)
        found = await answer(bench, asked("late", "where is it!!"))
    assert found.cache.kind == "semantic"
    assert len(provider.calls) == calls


async def test_hits_are_never_served_where_most_would_be_wrong() -> None:
    async with Bench(Provider()) as bench:
        bounded(bench, Judge(verdict=False))
        kinds = {response.cache.kind for response in await taught(bench, 40)}
    assert kinds == {"miss"}


@pytest.mark.parametrize("verdict", [None, ValueError("a judge that breaks")])
async def test_what_cannot_be_judged_is_no_evidence(verdict: Exception | None) -> None:
    async with Bench(Provider()) as bench:
        bounded(bench, Judge(verdict))
        kinds = {response.cache.kind for response in await taught(bench)}
        trials = bench.engine._trials
    assert kinds == {"miss"}
    assert len(trials.state) == 0
    assert counted(bench, "held_back", "unknown") == ENOUGH


async def test_the_same_words_are_served_without_any_evidence() -> None:
    async with Bench(Provider()) as bench:
        bounded(bench, Judge())
        await answer(bench, asked(1, "where is it"))
        found = await answer(bench, asked(2, "where is it"))
    assert found.cache.kind == "exact"


async def test_without_a_bound_nothing_is_held_back_or_checked() -> None:
    async with Bench(Provider()) as bench:
        bounded(bench, judge := Judge(), share=1.0)
        await answer(bench, asked(1, "where is it", bound=None))
        found = await answer(bench, asked(2, "where is it?", bound=None))
    assert (found.cache.kind, judge.asked) == ("semantic", [])


async def test_what_a_person_has_corrected_is_served_without_evidence_and_never_checked() -> None:
    async with Bench(Provider()) as bench:
        bounded(bench, Judge(), share=1.0)
        trials, asks = bench.engine._trials, asked(1, "where is it?")
        kept = CacheHit("semantic", 0.97, "s:where is it", Answer("here", "p", "m"), likeness=0.97)
        corrected = replace(kept, reason="corrected")
        assert trials.judged(asks, corrected) == (None, corrected)
        assert trials.judged(asks, kept)[0] == kept
    assert trials.shadow_of(asks, corrected) is None
    assert trials.shadow_of(asks, kept) is not None


async def test_a_hit_by_its_own_words_is_never_checked_by_a_paid_call() -> None:
    provider = Provider()
    async with Bench(provider) as bench:
        bounded(bench, Judge(), share=1.0)
        await answer(bench, asked(1, "where is it"))
        await answer(bench, asked(2, "where is it"))
    assert len(provider.calls) == 1


async def test_comparisons_that_have_ended_make_room_for_others_and_too_many_at_once_are_let_go() -> None:
    async with Bench(Provider()) as bench:
        bounded(bench, judge := Judge())
        trials, asks, fresh = bench.engine._trials, asked(1, "where is it?"), Answer("there", "p", "m")
        hit = CacheHit("semantic", 0.97, "s:where is it", Answer("here", "p", "m"), likeness=0.97)
        for _ in range(MAX_COMPARISONS + 1):
            await trials.compare(asks, hit, fresh)
        assert counted(bench, "held_back", "right") == len(judge.asked) == MAX_COMPARISONS + 1
        gate, judge.same = asyncio.Event(), lambda *_: gate.wait()  # type: ignore[method-assign,assignment]
        many = [asyncio.create_task(trials.compare(asks, hit, fresh)) for _ in range(MAX_COMPARISONS + 2)]
        await _until(lambda: sum(task.done() for task in many) == 2)
        assert counted(bench, "held_back", "unknown") == 2
        gate.set()
        await asyncio.gather(*many)


async def test_an_alias_is_another_questions_answer_and_stands_under_the_bound() -> None:
    """It is found by its exact words, but they were never asked of anybody."""
    async with Bench(Provider()) as bench:
        bounded(bench, judge := Judge())
        await answer(bench, asked(1, "where is it", bound=None))
        await answer(bench, asked(2, "where is it?", bound=None))
        found = await answer(bench, asked(3, "where is it?"))
        again = await answer(bench, asked(4, "where is it?"))
    assert (found.cache.kind, found.cache.reason) == ("miss", "unproven")
    assert found.cache.similarity is not None
    assert found.cache.similarity < 1
    assert len(judge.asked) == 1
    assert again.cache.kind == "exact", "its own answer by now"


async def test_a_served_hit_is_checked_by_a_call_of_its_own_that_is_counted() -> None:
    provider = Provider()
    async with Bench(provider) as bench:
        bounded(bench, Judge())
        await taught(bench)
        bench.engine._trials._share = 1.0
        calls, provider.calls = len(provider.calls), []
        provider.gate.clear()
        late = asked("late", "where is it!!")
        found = await bench.engine.submit(late)
        assert found.cache.kind == "semantic", "answered while its check is under way"
        assert (calls, found.cost_usd) == (ENOUGH + 1, 0.0)
        provider.gate.set()
        await answer(bench, asked("next", "other words entirely", bound=None))
        spent = bench.metrics.cache_shadow_cost_usd_total._value.get()
        journaled = await bench.journal.lookup([JournalKey("acme", shadow_id(late.request))])
    assert counted(bench, "checked", "right") == 1
    assert spent == pytest.approx(0.01)
    assert [row and row.answer is not None for row in journaled] == [True]
    assert bench.engine._trials.state.measured().checked == 1


async def test_a_request_asked_again_is_checked_once() -> None:
    provider = Provider()
    async with Bench(provider) as bench:
        bounded(bench, Judge())
        await taught(bench)
        bench.engine._trials._share, provider.calls = 1.0, []
        for _ in range(3):
            # Its fresh answer is not kept, or the next would have that.
            found = await answer(bench, asked("late", "where is it!!", cache=CacheOptions(mode="read_only")))
            assert found.cache.kind == "semantic"
            await _until(lambda: not bench.engine._shadows.under_way)
        spent = bench.metrics.cache_shadow_cost_usd_total._value.get()
    assert len(provider.calls) == 1
    assert spent == pytest.approx(0.01)


async def test_a_hit_over_kafka_is_not_checked_by_the_engine_too() -> None:
    """enrich writes its check as a record."""
    provider = Provider()
    async with Bench(provider) as bench:
        bounded(bench, Judge())
        await taught(bench)
        bench.engine._trials._share, provider.calls = 1.0, []
        found = await answer(bench, replace(asked("late", "where is it!!"), source=Coordinates("requests", 0, 1)))
    assert found.cache.kind == "semantic"
    assert provider.calls == []


async def test_a_check_ends_at_a_spent_budget() -> None:
    provider = Provider()
    budget = Budget("all", usd=0.01 * (ENOUGH + 1))
    async with Bench(provider, budgets=[budget]) as bench:
        bounded(bench, Judge())
        await taught(bench)
        bench.engine._trials._share, provider.calls = 1.0, []
        found = await answer(bench, asked("late", "where is it!!"))
    assert found.cache.kind == "semantic"
    assert provider.calls == []


async def test_a_call_under_way_is_followed_for_other_words_only_where_such_are_trusted() -> None:
    provider = Provider()
    provider.gate.clear()
    async with Bench(provider) as bench:
        bounded(bench, Judge())
        lead = bench.engine.submit(replace(asked(1, "where is it"), batch_threshold=0.9))
        await _until(lambda: len(provider.calls) == 1)
        other = bench.engine.submit(replace(asked(2, "where is it?"), batch_threshold=0.9))
        same = bench.engine.submit(replace(asked(3, "where is it"), batch_threshold=0.9))
        await _until(lambda: len(provider.calls) == 2)
        provider.gate.set()
        roles = [(await task).batch.role for task in (lead, other, same)]
    assert roles == ["leader", "leader", "follower"]


async def test_a_shadow_follows_nobody_and_is_never_served_from_the_cache() -> None:
    provider = Provider()
    async with Bench(provider) as bench:
        bounded(bench, Judge())
        await taught(bench)
        hit = CacheHit("semantic", 0.99, "s:where is it", Answer("a", "p", "m"), likeness=0.99)
        one = asked("late", "where is it!!", cache=CacheOptions(threshold=0.9))
        trials = bench.engine._trials
        trials._share = 1.0
        shadow = trials.shadow_of(one, hit)
        assert shadow is not None
        assert (shadow.shadow, shadow.batch_threshold, shadow.request.reply_to) == (True, None, None)
        calls = len(provider.calls)
        await answer(bench, shadow)
    assert len(provider.calls) == calls + 1


def test_the_share_is_kept_and_the_same_request_is_always_chosen_or_never() -> None:
    trials = Trials.alone(Bench(Provider()).metrics)
    hit = CacheHit("semantic", 0.99, "s:where is it", Answer("a", "p", "m"), likeness=0.99)
    chosen = [trials.shadow_of(asked(number, "where is it!!"), hit) is not None for number in range(4000)]
    assert 0.04 <= sum(chosen) / len(chosen) <= 0.06
    assert chosen == [trials.shadow_of(asked(number, "where is it!!"), hit) is not None for number in range(4000)]


# --- the comparer that comes with it ---------------------------------------------------------------------------


class Embeds:
    """The same direction for the same first letter."""

    dimension = 2

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def embed(self, texts: Any) -> list[Vector]:
        return [vector(1, 0) if text[:1] in "Tt" else vector(0, 1) for text in texts]


def said(text: str, **more: Any) -> Answer:
    return Answer(text, "p", "m", **more)


@pytest.mark.parametrize(
    ("kept", "fresh", "bare", "embedded"),
    [
        ("It is in Billing.", "it is in  billing", True, True),
        ("Two days.", "It takes two days.", False, False),
        ("Two days.", "That is two days.", False, True),
        ("Take 2 days.", "That takes 3 days.", False, False),
        ("Take 2.", "That takes 2", False, True),
        ("Take 2 or 3.", "Those 2-3.", False, True),
        ("The balance is 5.", "The balance is -5.", False, False),
        ("The balance is -5.", "The balance: \N{MINUS SIGN}5.", False, True),
        ("Trains from 3 to 5.", "The train: from 5 to 3", False, False),
        ("Take 2 and 2.", "Those 2.", False, False),
        ("", "", True, True),
    ],
)
async def test_answers_are_the_same_by_their_words_or_their_vectors(
    kept: str, fresh: str, bare: bool, embedded: bool
) -> None:
    assert await AnswerComparer(None).same("q", said(kept), said(fresh)) is bare
    assert await AnswerComparer(Embeds()).same("q", said(kept), said(fresh)) is embedded


async def test_answers_that_contradict_each_other_are_not_the_same_however_alike_their_vectors() -> None:
    asked: list[tuple[str, str]] = []

    def contradiction(kept: str, fresh: str) -> str | None:
        asked.append((kept, fresh))
        return "guard:negation" if " not " in fresh else None

    judge = AnswerComparer(Embeds(), contradiction)
    assert await judge.same("q", said("This is free."), said("That is free."))
    assert not await judge.same("q", said("This is free."), said("This is not free."))
    assert asked == [("This is free.", "That is free."), ("This is free.", "This is not free.")]


async def test_all_of_a_long_answer_is_compared() -> None:
    judge = AnswerComparer(Embeds())
    long = " ".join(["tic tac toe"] * 200)
    assert await judge.same("q", said(long), said(f"{long} tack"))
    ends = " ".join(["no nay never"] * 100)
    assert not await judge.same("q", said(long), said(f"{long} {ends}"))
    assert not await judge.same("q", said(f"{long} {ends}"), said(long))


async def test_answers_longer_than_is_compared_are_no_evidence() -> None:
    long = "word " * 4_000
    assert await AnswerComparer(Embeds()).same("q", said(long), said(f"{long} more")) is None
    assert await AnswerComparer(Embeds()).same("q", said(long), said(long)) is True


async def test_calls_of_tools_are_the_same_by_function_and_arguments() -> None:
    def called(identity: str, city: str) -> Answer:
        function = {"name": "weather", "arguments": f'{{"city": "{city}"}}'}
        return said("", tool_calls=({"id": identity, "type": "function", "function": function},))

    same = AnswerComparer(None).same
    assert await same("q", called("1", "Oslo"), called("2", "Oslo"))
    assert not await same("q", called("1", "Oslo"), called("2", "Quito"))
    assert not await same("q", called("1", "Oslo"), said(""))


def judging(config: RuntimeConfig) -> Judge:
    del config
    return Judge()


def test_the_configured_comparer_is_loaded() -> None:
    assert isinstance(load(RuntimeConfig(cache_comparer=f"{__name__}:judging")), Judge)


@pytest.mark.parametrize("name", ["nowhere:judging", f"{__name__}:nothing", f"{__name__}:vector", "builtins:id"])
def test_a_comparer_that_is_none_is_refused_at_the_start(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cache_comparer"):
        load(RuntimeConfig(cache_comparer=name))


@pytest.mark.parametrize("value", ["module", "module:", ":name", "a b:c", "module:name()"])
def test_a_comparer_is_named_as_module_and_name(value: str) -> None:
    with pytest.raises(ConfigurationError, match="module:name"):
        RuntimeConfig(cache_comparer=value)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)
