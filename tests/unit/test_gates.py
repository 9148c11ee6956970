"""What calls pass on their way to a provider, by the engine's own steps: breakers, keys, limits, hedges, bulkheads."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.engine.gates import (
    DEFAULT_PENALTY_S,
    KEY_OUT_S,
    LATENCIES,
    MIN_LATENCIES,
    Gates,
    Limits,
    Passage,
)
from stratarouter_runtime.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderInterruptedError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.records import Answer, Target, Usage
from stratarouter_runtime.route_file import RouteHedge
from stratarouter_runtime.state.limiter import RateHint, RateLimiter, RateWindow
from stratarouter_runtime.telemetry.metrics import Metrics
from unit.engine_bench import Bench, Provider, SteppedClock, execution, until


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
        passage = await bench.gates.enter(target, lambda: 10, 5.0)
        bench.gates.leave(passage, ProviderRateLimitedError("429", retry_after_s=30.0))
        assert bench.gates.room_in_s(target, lambda: 10) == 0
        other = await bench.gates.enter(target, lambda: 10, 5.0)
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


async def test_nobody_waits_for_an_ill_target_where_another_one_can_answer() -> None:
    provider, clock = Models(small=ProviderUnavailableError("503")), SteppedClock()
    async with Bench(provider, max_retries=9, clock=clock) as bench:
        await bench.engine.submit(execution("r0", "question 0", threshold=None))
        before = clock.now
        answer = await bench.engine.submit(execution("r1", "question 1", threshold=None))
    assert answer.text == "large"
    assert (provider.count("small"), clock.now) == (10, before)


async def test_the_only_target_is_waited_for_until_its_breaker_lets_a_call_through() -> None:
    provider, clock = Models(small=ProviderUnavailableError("503")), SteppedClock()
    only = [("openai", "small")]
    async with Bench(provider, max_retries=9, clock=clock) as bench:
        await bench.engine.submit(execution("r0", "question 0", threshold=None, targets=only))
        provider.by_model.clear()
        before = clock.now
        answer = await bench.engine.submit(execution("r1", "question 1", threshold=None, targets=only))
    assert answer.text == "small"
    assert (provider.count("small"), clock.now) == (11, before + 2)


class Curing(SteppedClock):
    """After any sleep the provider is well."""

    def __init__(self, provider: Models) -> None:
        super().__init__()
        self.provider = provider

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        self.provider.by_model.clear()


async def test_a_try_comes_as_late_as_the_provider_asks_and_not_after_the_deadline() -> None:
    for timeout, model, later in ((60, "small", 7.0), (5, "large", 0.0)):
        provider = Models(small=ProviderUnavailableError("503", retry_after_s=7.0))
        clock = Curing(provider)
        began = clock.now
        async with Bench(provider, max_retries=1, clock=clock, execution_timeout=timeout) as bench:
            answer = await bench.engine.submit(execution("r", "question", threshold=None))
        assert (answer.text, clock.now - began) == (model, later)
        assert [attempt.waited_ms for attempt in answer.attempts] == [0.0, 1000 * later]
        assert _value(bench, "retries_total", code="provider_unavailable") == (later > 0)


async def test_what_was_surely_not_paid_for_is_tried_again_though_no_call_may_be_repeated() -> None:
    provider = Provider(ProviderUnavailableError("503"))
    async with Bench(provider, max_retries=1, on_ambiguous="fail") as bench:
        answer = await bench.engine.submit(execution("r", "question", threshold=None))
    assert answer.error is None
    assert len(provider.calls) == 2
    assert _value(bench, "ambiguous_calls_total") == 0


async def test_a_fallback_waits_for_room_at_its_provider_and_for_no_longer_than_its_request() -> None:
    class Refusing(Models):
        async def call(self, provider: str, call: ProviderCall, **more: Any) -> Answer:
            if provider == "a":
                raise ProviderRejectedError("400")
            return await super().call(provider, call, **more)

    provider = Refusing()
    asked = execution("r", "question", threshold=None, targets=[("a", "m"), ("b", "m")])
    async with Bench(provider, slots=1, execution_timeout=0.2) as bench:
        await bench.gates.hold("b").place()
        late = await asyncio.wait_for(bench.engine.submit(asked), 5)
    assert late.error is not None
    assert late.error.code == "deadline_exceeded"
    assert provider.calls == []


async def test_a_call_that_answers_in_time_gets_no_second_one_beside_it() -> None:
    provider = Models()
    async with Bench(provider, hedge=RouteHedge(after_ms=30_000, max_share=1.0)) as bench:
        answer = await asyncio.wait_for(bench.engine.submit(execution("r", "question", threshold=None)), 5)
    assert (answer.text, len(provider.calls)) == ("small", 1)
    assert _value(bench, "hedge_cost_usd_total") == 0


async def test_the_first_call_may_still_win_and_the_second_one_is_given_up() -> None:
    provider = Models(small=0.05, large=30.0)
    async with Bench(provider, hedge=RouteHedge(after_ms=10, max_share=1.0)) as bench:
        answer = await asyncio.wait_for(bench.engine.submit(execution("r", "question", threshold=None)), 5)
    assert answer.text == "small"
    assert sorted((attempt.model, attempt.outcome) for attempt in answer.attempts) == [
        ("large", "given_up"),
        ("small", "ok"),
    ]
    assert (_value(bench, "hedges_total", taken="first"), _value(bench, "hedge_cost_usd_total")) == (1, 0.5)


class Failing(Provider):
    """Its first call fails when the second one has."""

    def __init__(self) -> None:
        super().__init__()
        self.gate.clear()

    async def call(self, provider: str, call: ProviderCall, **_: Any) -> Answer:  # noqa: ARG002 - the port's shape
        self.calls.append(call)
        if len(self.calls) == 1:
            await self.gate.wait()
            raise ProviderRejectedError("of the first")
        self.gate.set()
        raise ProviderRejectedError("of the second")


async def test_where_both_calls_fail_the_firsts_error_stands_and_no_price_is_reported() -> None:
    hedge = RouteHedge(after_ms=0, max_share=1.0)
    async with Bench(Failing(), hedge=hedge) as bench:
        asked = execution("r", "question", threshold=None, targets=[("openai", "small")])
        failed = await asyncio.wait_for(bench.engine.submit(asked), 5)
    assert failed.error is not None
    assert "of the first" in failed.error.message
    assert (_value(bench, "hedges_total", taken="neither"), _value(bench, "hedge_cost_usd_total")) == (1, 0)


class Ending(Provider):
    """Ends its first call, after the second, and its second one as it is told; then answers."""

    def __init__(self, first: Exception, second: Exception) -> None:
        super().__init__()
        self.gate.clear()
        self._ends = [first, second]

    async def call(self, provider: str, call: ProviderCall, **_: Any) -> Answer:
        self.calls.append(call)
        number = len(self.calls)
        if number == 1:
            await self.gate.wait()
        self.gate.set()
        if number <= len(self._ends):
            raise self._ends[number - 1]
        return Answer("at last", provider, call.model, Usage(10, 5), cost_usd=0.5)


UNKNOWN, KNOWN = ProviderInterruptedError("reset in the body", maybe_paid=True), ProviderUnavailableError("503")


@pytest.mark.parametrize("policy", ["fail", "retry"])
@pytest.mark.parametrize(
    ("ends", "unknown"), [((KNOWN, UNKNOWN), 1), ((UNKNOWN, KNOWN), 1), ((UNKNOWN, UNKNOWN), 2), ((KNOWN, KNOWN), 0)]
)
async def test_a_hedge_of_unknown_outcome_is_counted_and_not_repeated_either(
    policy: str, ends: tuple[Exception, Exception], unknown: int
) -> None:
    provider = Ending(*ends)
    # One hedge: of three calls no more than a half.
    hedge = RouteHedge(after_ms=0, max_share=0.5)
    async with Bench(provider, hedge=hedge, on_ambiguous=policy) as bench:
        asked = execution("r", "question", threshold=None, targets=[("openai", "small")])
        response = await asyncio.wait_for(bench.engine.submit(asked), 5)
    assert _value(bench, "ambiguous_calls_total") == unknown
    if policy == "fail" and unknown:
        assert response.error is not None
        assert (response.error.code, len(provider.calls)) == ("ambiguous", 2)
    else:
        assert (response.text, len(provider.calls)) == ("at last", 3)


async def test_an_answer_that_is_heard_as_it_comes_gets_no_second_one_into_it() -> None:
    provider = Provider()
    provider.gate.clear()
    heard: list[str] = []
    async with Bench(provider, hedge=RouteHedge(after_ms=0, max_share=1.0)) as bench:
        asked = bench.engine.submit(execution("r", "question", threshold=None), on_text=heard.append)
        for _ in range(50):
            await asyncio.sleep(0)
        provider.gate.set()
        answer = await asyncio.wait_for(asked, 5)
    assert answer.text == "answer to question"
    assert (len(provider.calls), heard) == (1, ["answer ", "to "])


async def test_calls_are_hedged_by_their_targets_own_time_once_enough_of_them_are_known() -> None:
    provider = Models(small=0.05)
    async with Bench(provider, hedge=RouteHedge(max_share=1.0)) as bench:
        target = execution("r", "question").targets[0]

        async def hedged(name: str) -> bool:
            before = provider.count("large")
            await bench.engine.submit(execution(name, f"question of {name}", threshold=None))
            return provider.count("large") > before

        async def know(calls: int, each_s: float) -> None:
            for _ in range(calls):
                passage = await bench.gates.enter(target, lambda: 1, 60.0)
                passage.began -= each_s
                bench.gates.leave(passage, Answer("text", "openai", "small"))

        assert not await hedged("the first")
        await know(MIN_LATENCIES - 2, 0.0)
        assert bench.gates.p95_s(target) is None
        await know(1, 0.0)
        assert bench.gates.p95_s(target) is not None
        await know(LATENCIES, 5.0)
        assert not await hedged("a quick one")
        await know(LATENCIES, 0.0)
        assert await hedged("a slow one")


@pytest.mark.parametrize("lacks", ["nothing", "a place", "rate", "health"])
async def test_no_second_call_is_made_where_it_would_have_to_wait(lacks: str) -> None:
    provider, limits = Models(small=0.05), Limits(1, requests_per_minute=30 if lacks == "rate" else None)
    asked = execution("r", "question", threshold=None, targets=[("a", "small"), ("b", "large")])
    async with Bench(provider, hedge=RouteHedge(after_ms=0, max_share=1.0), limits={"b": limits}) as bench:
        for _ in range({"rate": 1, "health": 10}.get(lacks, 0)):
            passage = await bench.gates.enter(asked.targets[1], lambda: 1, 60.0)
            bench.gates.leave(passage, ProviderUnavailableError("503"))
        if lacks == "a place":
            await bench.gates.hold("b").place()
        answer = await asyncio.wait_for(bench.engine.submit(asked), 5)
    assert answer.error is None
    hedges = sum(_value(bench, "hedges_total", taken=taken) for taken in ("first", "second", "neither"))
    assert provider.count("large") == hedges == (lacks == "nothing")


class ByKey(Models):
    """Refuses the first of its two keys."""

    async def call(self, provider: str, call: ProviderCall, *, key: int = 0, **more: Any) -> Answer:
        if key == 0:
            self.used_keys.append(key)
            raise ProviderAuthError("401")
        return await super().call(provider, call, key=key, **more)


async def test_a_refused_key_costs_one_call_and_no_wait_and_is_tried_again_in_five_minutes() -> None:
    provider, clock = ByKey(keys=2), SteppedClock()
    began = clock.now
    async with Bench(provider, clock=clock) as bench:
        for n in range(3):
            answer = await bench.engine.submit(execution(f"r{n}", f"question {n}", threshold=None))
            assert answer.text == "small"
        assert (provider.used_keys, clock.now) == ([0, 1, 1, 1], began)
        for after_s, keys in ((KEY_OUT_S - 1, [1]), (KEY_OUT_S, [0, 1])):
            clock.now, provider.used_keys = began + after_s, []
            await bench.engine.submit(execution(f"r{after_s}", f"question {after_s}", threshold=None))
            assert provider.used_keys == keys


async def test_the_only_key_is_not_tried_twice_where_it_is_refused() -> None:
    provider = Models(small=ProviderAuthError("401"))
    async with Bench(provider) as bench:
        assert (await bench.engine.submit(execution("r", "question", threshold=None))).text == "large"
    assert provider.count("small") == 1


class Still(SteppedClock):
    """Time stands still, and who sleeps never wakes."""

    async def sleep(self, seconds: float) -> None:  # noqa: ARG002 - the port's shape
        await asyncio.Event().wait()


def _gates(clock: SteppedClock, limits: Limits) -> Gates:
    return Gates(clock=clock, metrics=Metrics(), keys=lambda _: 1, limits={}, default=limits)


async def test_who_gives_up_waiting_for_its_turn_makes_no_call_and_leaves_its_place_to_the_next() -> None:
    gates, target = _gates(Still(), Limits(100, requests_per_minute=60)), Target("openai", "small")
    for _ in range(2):
        await gates.enter(target, lambda: 10, 60.0)
    waiting = asyncio.create_task(gates.enter(target, lambda: 10, 60.0))
    await asyncio.sleep(0)
    assert gates.room_in_s(target, lambda: 10) == 2.0
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert gates.room_in_s(target, lambda: 10) == 1.0


async def test_a_target_that_was_ill_gets_one_probe_at_a_time_whose_answer_lets_the_others_through() -> None:
    clock, target = SteppedClock(), Target("openai", "small")
    gates = _gates(clock, Limits(100))
    for _ in range(10):
        gates.leave(await gates.enter(target, lambda: 10, 60.0), ProviderUnavailableError("503"))
    assert gates.open_in_s(target) == 2.0
    clock.now += 2.0
    assert gates.open_in_s(target) == 0.0
    probe = await gates.enter(target, lambda: 10, 60.0)
    assert gates.open_in_s(target) > 0.0
    with pytest.raises(ProviderUnavailableError, match="failed too often"):
        await gates.enter(target, lambda: 10, 60.0)
    gates.leave(probe, Answer("text", "openai", "small"))
    assert gates.open_in_s(target) == 0.0
    assert list(gates.breakers()) == [(target, "closed")]


@pytest.mark.parametrize(
    ("outcome", "room_in_s"),
    [
        (Answer("text", "openai", "small", Usage(60, 40)), 1.0),
        (ProviderRejectedError("400"), 0.0),
        (ProviderInterruptedError("cut off", maybe_paid=True), 2.0),
        (None, 2.0),
        (ProviderRateLimitedError("429"), DEFAULT_PENALTY_S),
        (ProviderRateLimitedError("429", retry_after_s=30.0), 30.0),
        (ProviderRateLimitedError("429", retry_after_s=0.0), 0.0),
    ],
)
async def test_what_a_call_came_to_says_when_the_next_has_room(
    outcome: Answer | ProviderError | None, room_in_s: float
) -> None:
    gates, target = _gates(Still(), Limits(100, tokens_per_minute=6000)), Target("openai", "small")
    gates.leave(await gates.enter(target, lambda: 200, 60.0), outcome)
    assert gates.room_in_s(target, lambda: 200) == room_in_s


@pytest.mark.parametrize("outcome", [Answer("text", "openai", "small", Usage(60, 40)), ProviderRejectedError("400")])
@pytest.mark.parametrize(
    "hint", [RateHint(RateWindow(), RateWindow(limit=6000)), RateHint(RateWindow(limit=30), RateWindow())]
)
async def test_calls_that_booked_nothing_have_nothing_to_give_back_under_a_limit_learnt_since(
    hint: RateHint, outcome: Answer | ProviderError
) -> None:
    gates, target = _gates(Still(), Limits(100)), Target("openai", "small")
    early = [await gates.enter(target, lambda: 2000, 60.0) for _ in range(10)]
    gates.learn(early[0], hint)
    await gates.enter(target, lambda: 200, 60.0)
    for passage in early[:5]:
        gates.leave(passage, outcome)
    for passage in early[5:]:
        gates.turn_back(passage)
    assert gates.room_in_s(target, lambda: 200) == 2.0


async def test_a_call_that_was_not_sent_takes_nothing_from_its_keys_limits() -> None:
    gates, target = _gates(Still(), Limits(100, 60, tokens_per_minute=6000)), Target("openai", "small")
    for _ in range(3):
        gates.turn_back(await gates.enter(target, lambda: 200, 60.0))
    assert gates.room_in_s(target, lambda: 200) == 0.0


class Late(SteppedClock):
    """Wakes whoever sleeps a second late."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds + 1.0)


async def test_a_call_whose_turn_comes_too_late_is_not_sent_and_leaves_its_place() -> None:
    provider, clock = Models(), Late()
    async with Bench(provider, clock=clock, limits={"openai": Limits(100, requests_per_minute=60)}) as bench:
        for n in range(2):
            await bench.engine.submit(execution(f"r{n}", f"question {n}"))
        soon_ms = int(time.time() * 1000) + 1_500
        late = await bench.engine.submit(execution("late", "the third question", deadline_ms=soon_ms))
        assert late.error is not None
        assert late.error.code == "deadline_exceeded"
        assert late.attempts == ()
        assert bench.gates.room_in_s(Target("openai", "small"), lambda: 10) == 0.0
    assert len(provider.calls) == 2


async def test_what_a_reply_says_of_the_limits_holds_for_the_next_calls() -> None:
    gates, target = _gates(Still(), Limits(100)), Target("openai", "small")
    gates.learn(await gates.enter(target, lambda: 10, 60.0), RateHint(RateWindow(limit=60), RateWindow()))
    for _ in range(2):
        assert gates.room_in_s(target, lambda: 10) == 0.0
        await gates.enter(target, lambda: 10, 60.0)
    assert gates.room_in_s(target, lambda: 10) == 1.0


class Uncounting(Provider):
    """A server that counts no tokens."""

    async def call(self, provider: str, call: ProviderCall, **_: Any) -> Answer:
        self.calls.append(call)
        return Answer("words " * 1000, provider, call.model, Usage())


async def test_a_limit_on_tokens_holds_for_servers_that_count_none() -> None:
    clock = SteppedClock()
    limits = {"openai": Limits(100, tokens_per_minute=6000)}
    async with Bench(Uncounting(), limits=limits, clock=clock) as bench:
        target = execution("r", "q").targets[0]
        for n in range(3):
            asked = execution(f"r{n}", f"q{n}", threshold=None, params={"max_tokens": 1000})
            await bench.engine.submit(asked)
        assert bench.gates.room_in_s(target, lambda: 1000) > 5


class Eventful(SteppedClock):
    """Something happens while somebody sleeps."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self.happens = happens

    async def sleep(self, seconds: float) -> None:
        self.happens()
        await super().sleep(seconds)


async def test_who_waited_for_its_turn_does_not_go_to_a_target_that_has_fallen_ill_meanwhile() -> None:
    target, under_way = Target("openai", "small"), deque[Passage]()

    def fall_ill() -> None:
        while under_way:
            gates.leave(under_way.popleft(), ProviderUnavailableError("503"))

    gates = _gates(Eventful(fall_ill), Limits(100, requests_per_minute=300))
    for _ in range(10):
        under_way.append(await gates.enter(target, lambda: 1, 60.0))
    waits_s = gates.room_in_s(target, lambda: 1)
    assert waits_s > 0
    with pytest.raises(ProviderUnavailableError, match="failed too often"):
        await gates.enter(target, lambda: 1, 60.0)
    assert gates.room_in_s(target, lambda: 1) == 0.0, "its place is given back"


class Events:
    """A key that is refused while a call waits for its turn under its limits."""

    def __init__(self, refused: ProviderError, keys: int = 1) -> None:
        self.refused = refused
        self.target = Target("openai", "small")
        self.clock = Eventful(self.refuse)
        self.first: Passage | None = None
        limits = Limits(100, requests_per_minute=60)
        self.gates = Gates(clock=self.clock, metrics=Metrics(), keys=lambda _: keys, limits={}, default=limits)

    def refuse(self) -> None:
        if self.first is not None:
            self.gates.leave(self.first, self.refused)
            self.first = None

    async def fill(self, calls: int) -> None:
        """As many calls as go at once; the first one's end is what happens."""
        self.first, *_ = [await self.gates.enter(self.target, lambda: 1, 60.0) for _ in range(calls)]

    async def enter(self, remaining_s: float = 60.0) -> tuple[int, float]:
        """The key that the next call goes with, and after how many seconds."""
        asked = self.clock.now
        passage = await self.gates.enter(self.target, lambda: 1, remaining_s)
        return passage.key, passage.began - asked


async def test_who_waited_for_its_turn_does_not_leave_while_its_key_is_closed() -> None:
    events = Events(ProviderRateLimitedError("429", retry_after_s=30.0))
    await events.fill(2)
    assert await events.enter() == (0, 30.0)
    assert await events.enter() == (0, 0.0), "two at once after a pause, as ever"
    assert await events.enter() == (0, 1.0)


async def test_who_waited_for_its_turn_goes_by_another_key_where_its_own_is_closed() -> None:
    events = Events(ProviderRateLimitedError("429", retry_after_s=30.0), keys=2)
    await events.fill(4)
    assert await events.enter() == (1, 1.0)


async def test_who_waited_for_its_turn_goes_by_another_key_where_its_own_is_refused() -> None:
    events = Events(ProviderAuthError("401"), keys=2)
    await events.fill(4)
    assert await events.enter() == (1, 1.0)


async def test_who_waited_for_its_turn_at_the_only_key_tries_it_although_it_was_refused() -> None:
    events = Events(ProviderAuthError("401"))
    await events.fill(2)
    assert await events.enter() == (0, 1.0)


async def test_who_waited_for_its_turn_hears_where_its_key_is_closed_for_longer_than_it_has() -> None:
    events = Events(ProviderRateLimitedError("429", retry_after_s=30.0))
    await events.fill(2)
    with pytest.raises(ProviderRateLimitedError, match=r"within 4\.0 s"):
        await events.enter(remaining_s=5.0)
    assert events.gates.room_in_s(events.target, lambda: 1) == 29.0
    events.clock.now += 29.0
    assert [await events.enter() for _ in range(2)] == [(0, 0.0)] * 2, "its place is given back"


async def test_a_key_that_is_refused_after_other_failures_leaves_the_next_key_its_try() -> None:
    class Ailing(Models):
        async def call(self, provider: str, call: ProviderCall, *, key: int = 0, **more: Any) -> Answer:
            failed = len(self.calls) < 2
            answer = await super().call(provider, call, key=key, **more)
            if failed:
                raise ProviderUnavailableError("503")
            if key == 0:
                raise ProviderAuthError("401")
            return answer

    provider = Ailing(keys=2)
    async with Bench(provider, max_retries=5) as bench:
        only = [("openai", "small")]
        answer = await bench.engine.submit(execution("r", "q", threshold=None, targets=only))
    assert answer.error is None
    assert provider.used_keys[-1] == 1


@pytest.mark.parametrize("limit", [-(10**9), 0, True, 1e6, "many", None])
async def test_a_limit_that_is_none_books_what_is_usual(limit: object) -> None:
    provider = Uncounting()
    async with Bench(provider, limits={"openai": Limits(100, tokens_per_minute=100_000)}, clock=Still()) as bench:
        target = execution("r", "q").targets[0]
        provider.gate.clear()
        asked = bench.engine.submit(execution("r", "q", threshold=None, params={"max_tokens": limit}))
        await until(lambda: bool(provider.calls))
        booked_s = bench.gates.room_in_s(target, lambda: 3300)
        asked.cancel()
        await asyncio.wait([asked])
    assert 0 < booked_s < 1


async def test_a_negative_booking_gives_no_key_room() -> None:
    limiter = RateLimiter(None, 1000)
    for _ in range(3):
        limiter.reserve(0.0, 1000)
    before = limiter.wait_s(0.0, 100)
    limiter.reserve(0.0, -(10**6)).settle(0)
    limiter.reserve(0.0, -(10**6)).release()
    assert limiter.wait_s(0.0, 100) == before


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_requests_limit_stands_in_place_of_the_tables_under_either_name(name: str) -> None:
    provider = Provider()
    async with Bench(provider) as bench:
        asked = execution("r", "q", threshold=None, params={name: 50, "temperature": 0})
        table = {"max_tokens": 1000, "max_completion_tokens": 1000, "top_p": 0.5}
        await bench.engine.submit(replace(asked, targets=(Target("openai", "small", table),)))
        await bench.engine.submit(replace(execution("s", "r"), targets=(Target("openai", "small", {"max_tokens": 9}),)))
    assert [call.params for call in provider.calls] == [{"top_p": 0.5, name: 50, "temperature": 0}, {"max_tokens": 9}]


async def test_a_hedge_that_answers_in_the_same_turn_costs_its_own_price() -> None:
    class Both(Models):
        async def call(self, provider: str, call: ProviderCall, **_: Any) -> Answer:
            self.calls.append(call)
            await both.wait()
            return Answer("a", provider, call.model, Usage(1, 1), cost_usd=0.5 if call.model == "small" else 0.25)

    both, provider = asyncio.Event(), Both()
    async with Bench(provider, hedge=RouteHedge(after_ms=1, max_share=1.0)) as bench:
        asked = bench.engine.submit(execution("r", "q", threshold=None))
        await until(lambda: len(provider.calls) == 2)
        both.set()
        cost_usd = (await asked).cost_usd
        assert cost_usd is not None
        assert cost_usd + _value(bench, "hedge_cost_usd_total") == 0.75


class Ahead(SystemClock):
    """Real time, and what a test adds to it."""

    by = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.by


async def test_who_asks_for_the_only_target_waits_for_its_probe() -> None:
    """Of 20 that had waited for a breaker one was answered, the probe, and 19 failed while it was under way."""
    provider, clock = Models(small=ProviderUnavailableError("503")), Ahead()
    only = [("openai", "small")]
    async with Bench(provider, max_retries=0, clock=clock) as bench:
        for number in range(10):
            await bench.engine.submit(execution(f"r{number}", f"question {number}", threshold=None, targets=only))
        clock.by += 60.0
        provider.by_model["small"] = 0.2
        asked = [execution(f"s{number}", f"asked {number}", threshold=None, targets=only) for number in range(20)]
        tasks = [bench.engine.submit(one) for one in asked]
        await until(lambda: provider.count("small") > 10)
        assert provider.count("small") == 11
        assert [(await task).status for task in tasks] == ["ok"] * 20


@pytest.mark.parametrize("patient", [True, False])
async def test_whose_turn_comes_beside_a_probe_waits_for_it_where_it_has_no_other_target(*, patient: bool) -> None:
    clock, target = Ahead(), Target("openai", "small")
    bench = Bench(Models(), clock=clock, limits={"openai": Limits(100, tokens_per_minute=6000)})
    for _ in range(10):
        bench.gates.leave(await bench.gates.enter(target, lambda: 1, 60.0), ProviderUnavailableError("503"))
    clock.by += 60.0
    # Takes the burst, and says nothing of the target.
    bench.gates.leave(await bench.gates.enter(target, lambda: 200, 60.0), None)
    first, second = (asyncio.create_task(bench.gates.enter(target, lambda: 5, 60.0, patient=patient)) for _ in range(2))
    probe = await first
    await asyncio.sleep(0.3)
    assert second.done() is not patient
    if patient:
        bench.gates.leave(probe, Answer("text", "openai", "small"))
        bench.gates.leave(await second, Answer("text", "openai", "small"))
    else:
        with pytest.raises(ProviderUnavailableError, match="failed too often"):
            await second


async def test_nobody_waits_for_a_probe_where_another_target_can_answer() -> None:
    provider, clock = Models(small=ProviderUnavailableError("503")), SteppedClock()
    async with Bench(provider, max_retries=0, clock=clock) as bench:
        for number in range(10):
            await bench.engine.submit(execution(f"r{number}", f"question {number}", threshold=None))
        clock.now += 60.0
        provider.by_model["small"] = 0.2
        first = bench.engine.submit(execution("probe", "probe", threshold=None))
        await until(lambda: provider.count("small") == 11)
        before = clock.now
        beside = await bench.engine.submit(execution("beside", "beside", threshold=None))
        assert (beside.text, clock.now) == ("large", before)
        assert (await first).text == "small"


class FirstRefused(Models):
    """Refuses its first key for ``after_s`` seconds."""

    def __init__(self, after_s: float | None, keys: int) -> None:
        super().__init__(keys)
        self.after_s = after_s

    async def call(self, provider: str, call: ProviderCall, *, key: int = 0, **_: Any) -> Answer:
        self.used_keys.append(key)
        if key == 0 and len(self.used_keys) == 1:
            raise ProviderRateLimitedError("429", retry_after_s=self.after_s)
        return Answer(call.model, provider, call.model, Usage(10, 5))


@pytest.mark.parametrize("after_s", [None, 30.0, 100.0])
async def test_a_call_that_one_key_is_refused_for_goes_by_another_at_once(after_s: float | None) -> None:
    """With two keys it waited for 30 s where the first one's refusal said so, though the second one had room."""
    provider, clock = FirstRefused(after_s, keys=2), SteppedClock()
    async with Bench(provider, clock=clock) as bench:
        before = clock.now
        answer = await bench.engine.submit(execution("r", "question", threshold=None))
    assert (answer.text, provider.used_keys, clock.now) == ("small", [0, 1], before)


async def test_a_call_that_the_only_key_is_refused_for_waits_as_long_as_it_is_asked_to() -> None:
    provider, clock = FirstRefused(30.0, keys=1), SteppedClock()
    async with Bench(provider, clock=clock) as bench:
        before = clock.now
        answer = await bench.engine.submit(execution("r", "question", threshold=None))
    assert (answer.text, provider.used_keys, clock.now) == ("small", [0, 0], before + 30.0)
