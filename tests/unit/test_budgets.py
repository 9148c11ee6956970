"""Budgets: refused once spent, by tenant and window, and never for what a price is unknown of."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.engine.budgets import Budgets
from stratarouter_runtime.errors import IdempotencyConflictError
from stratarouter_runtime.journal.grouped import GroupedJournal
from stratarouter_runtime.journal.memory import MemoryJournal, MemoryStore
from stratarouter_runtime.port_values import BudgetWindow, ProviderCall, Spent
from stratarouter_runtime.records import Answer, Response, Usage
from stratarouter_runtime.route_file import Budget
from stratarouter_runtime.telemetry.metrics import Metrics
from unit.engine_bench import FIRST, SECOND, Bench, Provider, execution, until

HUNDRED_CALLS = Budget("team", window_s=86_400, usd=0.05)
"""Five calls of a cent each."""


def _code(response: Response) -> str | None:
    return None if response.error is None else response.error.code


async def test_a_spent_budget_refuses_before_a_call_is_made_across_workers() -> None:
    store, provider = MemoryStore(), Provider()
    async with (
        Bench(provider, store=store, budgets=[HUNDRED_CALLS]) as first,
        Bench(provider, store=store, owner=SECOND, budgets=[HUNDRED_CALLS]) as second,
    ):
        codes = []
        for n in range(8):
            bench = (first, second)[n % 2]
            codes.append(_code(await bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None))))
    assert codes == [None] * 5 + ["budget_exhausted"] * 3
    assert len(provider.calls) == 5


async def test_a_budget_is_exceeded_by_the_calls_in_flight_at_most() -> None:
    provider = Provider()
    async with Bench(provider, slots=3, budgets=[HUNDRED_CALLS]) as bench:
        tasks = [bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None)) for n in range(30)]
        answers = await asyncio.gather(*tasks)
    answered = sum(answer.error is None for answer in answers)
    assert 5 <= answered <= 5 + 2
    assert len(provider.calls) == answered


async def test_budgets_of_other_tenants_and_routes_do_not_matter() -> None:
    budgets = [Budget("other", tenant="globex", usd=1e-9), Budget("route", route="billing", tokens=1)]
    async with Bench(Provider(), budgets=budgets) as bench:
        for n in range(3):
            assert _code(await bench.engine.submit(execution(f"r{n}", f"q {n}", threshold=None))) is None


@pytest.mark.parametrize("deferred", [False, True], ids=["own id", "made-up id"])
async def test_tokens_count_too_and_each_call_before_the_next(deferred: bool) -> None:
    async with Bench(Provider(), budgets=[Budget("small", tokens=30)]) as bench:
        codes = []
        for n in range(3):
            made = bench.engine.submit(execution(f"r{n}", f"q {n}", threshold=None), deferred=deferred)
            codes.append(_code(await made))
    assert codes == [None, None, "budget_exhausted"]


async def test_a_target_without_a_known_price_is_refused_under_a_budget_in_money() -> None:
    provider = Provider()
    async with Bench(provider, budgets=[HUNDRED_CALLS]) as bench:
        response = await bench.engine.submit(
            execution("r", "q", threshold=None, targets=[("openai", "small"), ("openai", "unpriced")])
        )
    assert _code(response) == "unpriced_target"
    assert provider.calls == []


async def test_a_request_refused_for_its_budget_may_be_sent_again() -> None:
    store, provider = MemoryStore(), Provider()
    async with Bench(provider, store=store, budgets=[Budget("none", tokens=1)]) as bench:
        await bench.engine.submit(execution("first", "one", threshold=None))
        assert _code(await bench.engine.submit(execution("again", "two", threshold=None))) == "budget_exhausted"
        bench.budgets.update([])
        assert _code(await bench.engine.submit(execution("again", "two", threshold=None))) is None


class Uncounting(Provider):
    """A server that tells no usage, so that there is no price either."""

    async def call(self, provider: str, call: ProviderCall, **_: Any) -> Answer:
        self.calls.append(call)
        return Answer("a long answer of forty characters, about", provider, call.model, Usage(), cost_usd=None)


@pytest.mark.parametrize(
    "budget", [Budget("money", window_s=86_400, usd=0.05), Budget("tokens", window_s=86_400, tokens=50)]
)
async def test_answers_without_counted_tokens_spend_a_budget_by_their_length(budget: Budget) -> None:
    provider = Uncounting()
    async with Bench(provider, budgets=[budget]) as bench:
        codes = [_code(await bench.engine.submit(execution(f"r{n}", "q" * 8 + str(n)))) for n in range(8)]
        guesses = bench.metrics.budget_guesses_total._value.get()
    # Two tokens of a question and ten of an answer each, at a thousandth of a dollar.
    assert codes == [None] * 5 + ["budget_exhausted"] * 3
    assert (len(provider.calls), guesses) == (5, 5)


class Wall(SystemClock):
    """The time of day as told."""

    def __init__(self, wall_ms: int) -> None:
        self.now_ms = wall_ms

    def wall_ms(self) -> int:
        return self.now_ms


def _at(bench: Bench, clock: Wall, *budgets: Budget) -> Budgets:
    return Budgets(
        budgets, journal=bench.grouped, clock=clock, is_priced=lambda *_: True, cost_usd=lambda *_: None,
        metrics=bench.metrics,
    )  # fmt: skip


async def test_a_spent_window_refuses_until_its_end_and_the_next_one_is_whole() -> None:
    store, clock = MemoryStore(), Wall(0)
    store.spending[BudgetWindow("hour", "acme", 7200, 3600)] = Spent(0, 30)
    refused = []
    async with Bench(Provider(), store=store) as bench:
        budgets = _at(bench, clock, Budget("hour", window_s=3600, tokens=30))
        for clock.now_ms in (7_199_999, 7_200_000, 10_799_999, 10_800_000):
            refused.append(await budgets.refusal(execution("r", "q")) is not None)
    assert refused == [False, True, True, False]


@pytest.mark.parametrize(("left_nano", "refused"), [(0, True), (1, False)])
async def test_a_budget_is_spent_with_its_last_nano_dollar(left_nano: int, refused: bool) -> None:
    """1.07 * 1e9 is more than 1,070,000,000 in floats: one call more was made."""
    store, clock = MemoryStore(), Wall(7_200_000)
    store.spending[BudgetWindow("hour", "acme", 7200, 3600)] = Spent(1_070_000_000 - left_nano, 0)
    async with Bench(Provider(), store=store) as bench:
        refusal = await _at(bench, clock, Budget("hour", window_s=3600, usd=1.07)).refusal(execution("r", "q"))
    assert (refusal is not None) is refused


@pytest.mark.parametrize("usd", [1e-300, 1e300])
async def test_a_budget_of_next_to_nothing_and_one_without_end_still_let_a_first_call_through(usd: float) -> None:
    async with Bench(Provider()) as bench:
        assert await _at(bench, Wall(0), Budget("odd", usd=usd)).refusal(execution("r", "q")) is None


async def test_each_tenant_and_each_budget_is_counted_by_itself() -> None:
    store, clock = MemoryStore(), Wall(7_200_000)
    store.spending[BudgetWindow("one", "acme", 7200, 3600)] = Spent(0, 29)
    store.spending[BudgetWindow("one", "globex", 7200, 3600)] = Spent(0, 30)
    store.spending[BudgetWindow("two", "acme", 7200, 3600)] = Spent(0, 30)
    async with Bench(Provider(), store=store) as bench:
        assert await _at(bench, clock, Budget("one", window_s=3600, tokens=30)).refusal(execution("r", "q")) is None
        assert await _at(bench, clock, Budget("two", window_s=3600, tokens=30)).refusal(execution("r", "q")) is not None


async def test_what_a_server_has_counted_is_charged_as_it_stands_and_nothing_is_guessed() -> None:
    long = Answer("x" * 400, "openai", "small")
    async with Bench(Provider()) as bench:
        budgets = _at(bench, Wall(7_300_000), Budget("hour", window_s=3600, tokens=30), Budget("day", usd=1.0))
        for usage, cost_usd, spent in (
            (Usage(1, 0), None, Spent(0, 1)),
            (Usage(0, 1), 0.25, Spent(250_000_000, 1)),
            (Usage(2, 3), 1e-9, Spent(1, 5)),
        ):
            charges = budgets.charges(execution("r", "q"), replace(long, usage=usage, cost_usd=cost_usd))
            assert charges == (
                (BudgetWindow("hour", "acme", 7200, 3600), spent),
                (BudgetWindow("day", "acme", 0, 86_400), spent),
            )
        assert bench.metrics.budget_guesses_total._value.get() == 0


async def test_a_guess_counts_the_systems_prompt_every_kind_of_content_and_calls() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "refund", "arguments": "x" * 400}}
    plain, parts = execution("r", "q" * 400), [{"type": "text", "text": "q" * 400}]
    listed = replace(plain, request=replace(plain.request, messages=({"role": "user", "content": parts},)))
    answer = Answer("x" * 40, "openai", "small")
    async with Bench(Provider()) as bench:
        budgets = _at(bench, Wall(0), Budget("day", tokens=30))
        tokens = [
            spent.tokens
            for asked, answered in (
                (plain, answer),
                (replace(plain, system_prompt="s" * 400), answer),
                (listed, answer),
                (plain, replace(answer, tool_calls=(call,))),
            )
            for _, spent in budgets.charges(asked, answered)
        ]
    assert tokens[:2] == [110, 210]
    assert min(tokens[2] - 110, tokens[3] - 210) >= 0


async def test_an_id_that_is_paid_for_is_answered_again_though_the_budget_is_spent() -> None:
    provider = Provider()
    async with Bench(provider, budgets=[Budget("small", tokens=10)]) as bench:
        first = await bench.engine.submit(execution("r", "q", threshold=None))
        again = await bench.engine.submit(execution("r", "q", threshold=None))
        other = await bench.engine.submit(execution("another", "q", threshold=None))
        with pytest.raises(IdempotencyConflictError):
            await bench.engine.submit(replace(execution("r", "other words", threshold=None)))
    assert [_code(first), _code(again), _code(other)] == [None, None, "budget_exhausted"]
    assert again.from_journal
    assert len(provider.calls) == 1


class Waiting(Provider):
    """Holds the calls for one id back."""

    async def call(self, provider: str, call: ProviderCall, **_: Any) -> Answer:
        if call.request_id == "r":
            self.calls.append(call)
            await self.gate.wait()
            return Answer("late", provider, call.model, Usage(10, 5), cost_usd=0.01)
        return Answer("soon", provider, call.model, Usage(10, 5), cost_usd=0.01)


@pytest.mark.parametrize("lives", [True, False])
async def test_an_id_that_a_living_worker_is_paying_for_is_waited_for_though_the_budget_is_spent(lives: bool) -> None:
    """Its partition's next owner published the refusal, and the answer that was paid for stood in the journal alone."""
    store, provider, budgets = MemoryStore(), Waiting(), [Budget("small", tokens=10)]
    provider.gate.clear()
    async with (
        Bench(provider, store=store, budgets=budgets) as first,
        Bench(provider, store=store, owner=SECOND, budgets=budgets) as second,
    ):
        paid = first.engine.submit(execution("r", "q", threshold=None))
        await until(lambda: bool(provider.calls))
        assert _code(await first.engine.submit(execution("other", "else", threshold=None))) is None
        store.steady_since[SECOND] -= 60
        if not lives:
            store.heartbeats[FIRST] -= 60
        again = second.engine.submit(execution("r", "q", threshold=None), check_journal=True)
        new = await second.engine.submit(execution("new", "else", threshold=None))
        if not lives:
            await again
        provider.gate.set()
        codes = [_code(await asked) for asked in (paid, again)]
    assert (codes, _code(new)) == ([None, None if lives else "budget_exhausted"], "budget_exhausted")
    assert len(provider.calls) == 1


def test_counts_that_contradict_each_other_are_charged_without_what_contradicts() -> None:
    def cost_usd(_provider: str, _model: str, usage: Usage) -> float | None:
        return None if usage.cached_tokens > usage.input_tokens else usage.input_tokens / 1000

    journal = GroupedJournal(MemoryJournal(MemoryStore(), owner=FIRST))
    budgets = Budgets(
        [Budget("money", usd=1.0)], journal=journal, clock=SystemClock(), is_priced=lambda *_: True, cost_usd=cost_usd,
        metrics=Metrics(),
    )  # fmt: skip
    [(_, spent)] = budgets.charges(execution("r", "q"), Answer("a", "openai", "small", Usage(10, 5, 99)))
    assert spent == Spent(10_000_000, 15)
