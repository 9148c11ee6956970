"""What calls pass on their way to a provider, by the engine's own steps: breakers, keys, limits, hedges, bulkheads."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from stratarouter_runtime.engine.gates import Limits
from stratarouter_runtime.errors import (
    ProviderAuthError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from stratarouter_runtime.ports import ProviderCall
from stratarouter_runtime.records import Answer, Usage
from stratarouter_runtime.route_file import RouteHedge
from unit.engine_bench import Bench, Provider, execution


class Models(Provider):
    """Behaves by model: an exception to raise, or seconds to take."""

    def __init__(self, keys: int = 1, **by_model: Exception | float) -> None:
        super().__init__()
        self.by_model = by_model
        self.key_count = keys
        self.used_keys: list[int] = []

    def keys(self, _provider: str) -> int:
        return self.key_count

    async def call(
        self,
        provider: str,
        call: ProviderCall,
        *,
        key: int = 0,
        on_text: Callable[[str], None] | None = None,
        **_: Any,
    ) -> Answer:
        del on_text
        self.calls.append(call)
        self.used_keys.append(key)
        does = self.by_model.get(call.model, 0.0)
        if isinstance(does, Exception):
            raise does
        await asyncio.sleep(does)
        return Answer(call.model, provider, call.model, Usage(10, 5), cost_usd=0.5)

    def count(self, model: str) -> int:
        return sum(call.model == model for call in self.calls)


def _value(bench: Bench, name: str, **labels: str) -> float:
    return bench.metrics.registry.get_sample_value(f"stratarouter_{name}", labels) or 0.0


async def test_a_target_that_keeps_failing_is_left_alone_and_the_next_one_answers() -> None:
    provider = Models(small=ProviderUnavailableError("503"))
    async with Bench(provider, max_retries=0) as bench:
        answers = [await bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None)) for n in range(40)]
    assert {answer.text for answer in answers} == {"large"}
    assert provider.count("small") == 10
    assert _value(bench, "breaker_openings_total", provider="openai") == 1


async def test_a_single_ill_target_fails_quickly_with_the_reason_and_is_probed_again() -> None:
    provider = Models(small=ProviderUnavailableError("503"), large=ProviderUnavailableError("503"))
    async with Bench(provider, max_retries=0) as bench:
        for n in range(12):
            await bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None))
        calls = len(provider.calls)
        late = await bench.engine.submit(execution("late", "question", threshold=None))
        assert late.error is not None
        assert late.error.code == "provider_unavailable"
        assert "failed too often" in late.error.message
        assert len(provider.calls) == calls
        provider.by_model.clear()
        async with asyncio.timeout(10):
            for n in itertools.count():
                if (await bench.engine.submit(execution(f"p{n}", "again", threshold=None))).error is None:
                    break
                await asyncio.sleep(0.1)


async def test_requests_that_are_wrong_open_no_breaker() -> None:
    provider = Models(small=ProviderRejectedError("400"), large=ProviderRejectedError("400"))
    async with Bench(provider) as bench:
        for n in range(30):
            await bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None))
    assert len(provider.calls) == 60


async def test_keys_take_turns_and_a_refused_one_is_left_out() -> None:
    provider = Models(keys=3)
    async with Bench(provider) as bench:
        for n in range(6):
            await bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None))
        assert provider.used_keys == [0, 1, 2, 0, 1, 2]
        provider.by_model["small"] = ProviderAuthError("401")
        failed = await bench.engine.submit(execution("x", "question", threshold=None))
        assert failed.text == "large"
        assert provider.used_keys[6:9] == [0, 1, 2]


async def test_a_refused_call_closes_its_key_while_another_one_goes_on() -> None:
    provider = Models(keys=2)
    async with Bench(provider, max_retries=3) as bench:
        provider.by_model["small"] = ProviderRateLimitedError("429", retry_after_s=0.0)
        target = execution("r", "q").targets[0]
        passage = await bench.gates.enter(target, 10, 5.0)
        bench.gates.leave(passage, ProviderRateLimitedError("429", retry_after_s=30.0))
        assert bench.gates.room_in_s(target, 10) == 0
        other = await bench.gates.enter(target, 10, 5.0)
        assert other.key != passage.key
        bench.gates.leave(other, None)


async def test_a_limit_a_minute_spreads_calls_instead_of_failing_them() -> None:
    provider = Models()
    limits = {"openai": Limits(100, requests_per_minute=600)}
    async with Bench(provider, limits=limits) as bench:
        began = asyncio.get_running_loop().time()
        tasks = [bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None)) for n in range(25)]
        answers = await asyncio.gather(*tasks)
        took = asyncio.get_running_loop().time() - began
    assert {answer.status for answer in answers} == {"ok"}
    assert took > 0.3
    assert _value(bench, "rate_limit_wait_seconds_count", provider="openai") > 0


async def test_a_call_that_spent_nothing_leaves_its_tokens_to_the_others() -> None:
    provider = Models(wrong=ProviderRejectedError("too much"))
    async with Bench(provider, limits={"openai": Limits(100, tokens_per_minute=6000)}) as bench:
        refused = execution(
            "r", "question", threshold=None, targets=(("openai", "wrong"),), params={"max_tokens": 5500}
        )
        assert (await bench.engine.submit(refused)).error is not None
        began = asyncio.get_running_loop().time()
        answered = await bench.engine.submit(execution("s", "another", threshold=None))
        took = asyncio.get_running_loop().time() - began
    assert answered.status == "ok"
    assert took < 5


async def test_a_slow_call_gets_a_second_one_beside_it_and_its_price_is_reported() -> None:
    provider = Models(small=30.0, large=0.0)
    async with Bench(provider, hedge=RouteHedge(after_ms=50, max_share=1.0)) as bench:
        answer = await asyncio.wait_for(bench.engine.submit(execution("r", "question", threshold=None)), 5)
    assert answer.text == "large"
    assert [attempt.outcome for attempt in answer.attempts] == ["ok", "given_up"]
    assert _value(bench, "hedges_total", taken="second") == 1
    assert _value(bench, "hedge_cost_usd_total") == 0.5


async def test_hedges_stay_within_their_share() -> None:
    provider = Models(small=0.1, large=0.0)
    async with Bench(provider, hedge=RouteHedge(after_ms=10, max_share=0.1)) as bench:
        for n in range(20):
            await bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None))
    assert provider.count("small") == 20
    assert provider.count("large") <= 2


async def test_fallbacks_in_opposite_orders_never_wait_for_each_other() -> None:
    class Both(Models):
        async def call(self, provider: str, call: ProviderCall, **more: Any) -> Answer:
            await asyncio.sleep(0.05)
            if call.model == f"{provider}-first":
                self.calls.append(call)
                raise ProviderRejectedError("400")
            return await super().call(provider, call, **more)

    provider = Both()
    async with Bench(provider, slots=1) as bench:
        tasks = []
        for number, (one, two) in enumerate((("a", "b"), ("b", "a")) * 4):
            tasks.append(
                bench.engine.submit(
                    execution(f"r{number}", f"q {number}", threshold=None, targets=((one, f"{one}-first"), (two, "m")))
                )
            )
        answers = await asyncio.wait_for(asyncio.gather(*tasks), 10)
    assert {answer.text for answer in answers} == {"m"}


async def test_changed_limits_hold_for_newcomers() -> None:
    provider = Models(small=0.2)
    async with Bench(provider, limits={"openai": Limits(1)}) as bench:
        bench.gates.update({"openai": Limits(10)})
        began = asyncio.get_running_loop().time()
        await asyncio.gather(
            *(bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None)) for n in range(5))
        )
        assert asyncio.get_running_loop().time() - began < 0.9


async def test_a_key_that_is_added_by_a_reload_is_used() -> None:
    provider = Models(keys=1)
    async with Bench(provider, limits={"openai": Limits(4)}) as bench:
        await bench.engine.submit(execution("r0", "question 0"))
        provider.key_count = 2
        bench.gates.update({"openai": Limits(4)})
        for n in range(1, 5):
            await bench.engine.submit(execution(f"r{n}", f"question {n}"))
    assert set(provider.used_keys) == {0, 1}
