"""Budgets: refused once spent, by tenant and window, and never for what a price is unknown of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stratarouter_runtime.journal.memory import MemoryStore
from stratarouter_runtime.ports import ProviderCall
from stratarouter_runtime.records import Answer, Response, Usage
from stratarouter_runtime.route_file import Budget
from unit.engine_bench import SECOND, Bench, Provider, execution

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
