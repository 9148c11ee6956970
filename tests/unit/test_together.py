"""Providers that take several prompts in one call: who goes together, and that nobody pays for another's trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from stratarouter_runtime.clock import SystemClock
from stratarouter_runtime.engine.gates import Limits
from stratarouter_runtime.errors import ProviderInterruptedError, ProviderRejectedError, ProviderUnavailableError
from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.records import Answer, Response, Target, Usage
from stratarouter_runtime.state.breaker import BreakerPolicy
from unit.engine_bench import Bench, Provider, execution

ONE = (("vllm", "small"),)


class Together(Provider):
    """Takes many; each call waits for ``gate`` and fails by the script, or for a prompt that it will not have."""

    def __init__(self, *script: Exception, poison: str = "") -> None:
        super().__init__(*script)
        self.poison = poison
        self.batches: list[list[str]] = []

    def takes_many(self, _provider: str) -> bool:
        return True

    async def call_many(self, provider: str, calls: Sequence[ProviderCall], **_: Any) -> list[Answer]:
        prompts = [str(call.messages[-1]["content"]) for call in calls]
        self.batches.append(prompts)
        await self.gate.wait()
        if self.script:
            raise self.script.pop(0)
        if self.poison and self.poison in prompts:
            raise ProviderRejectedError("that prompt is none")
        return [Answer(f"answer to {prompt}", provider, "small", Usage(10, 5), cost_usd=0.01) for prompt in prompts]


def _ask(bench: Bench, *queries: str, **changes: Any) -> list[asyncio.Task[Response]]:
    return [
        bench.engine.submit(execution(f"id of {query}", query, targets=ONE, threshold=None, **changes))
        for query in queries
    ]


async def _until_sent(provider: Together, calls: int) -> None:
    async with asyncio.timeout(10):
        while len(provider.batches) < calls:
            await asyncio.sleep(0.001)


async def test_a_lone_prompt_leaves_at_once_whatever_the_window() -> None:
    async with Bench(Together(), batch_window_ms=60_000) as bench:
        [response] = await asyncio.gather(*_ask(bench, "a"))
    assert response.text == "answer to a"


async def test_what_comes_while_a_call_is_under_way_leaves_together_after_it() -> None:
    provider = Together()
    provider.gate.clear()
    async with Bench(provider, batch_window_ms=60_000) as bench:
        tasks = _ask(bench, "a")
        await _until_sent(provider, 1)
        tasks += _ask(bench, "b", "c", "d")
        await asyncio.sleep(0.05)
        provider.gate.set()
        responses = await asyncio.gather(*tasks)
    assert provider.batches == [["a"], ["b", "c", "d"]]
    assert [response.text for response in responses] == [f"answer to {query}" for query in "abcd"]
    assert all(len(response.attempts) == 1 for response in responses)


async def test_a_window_ends_and_a_full_call_does_not_wait_for_it() -> None:
    provider = Together()
    provider.gate.clear()
    async with Bench(provider, batch_window_ms=100, batch_max_size=2) as bench:
        tasks = _ask(bench, "a")
        await _until_sent(provider, 1)
        tasks += _ask(bench, "b", "c", "d")
        await _until_sent(provider, 3)
        provider.gate.set()
        await asyncio.gather(*tasks)
    assert provider.batches == [["a"], ["b", "c"], ["d"]]


async def test_a_full_provider_fills_the_calls_that_follow() -> None:
    provider = Together()
    provider.gate.clear()
    limits = {"vllm": Limits(1)}
    async with Bench(provider, batch_window_ms=1, batch_max_size=8, limits=limits) as bench:
        tasks = _ask(bench, "a")
        await _until_sent(provider, 1)
        tasks += _ask(bench, "b", "c", "d")
        await asyncio.sleep(0.1)
        assert len(provider.batches) == 1
        provider.gate.set()
        await asyncio.gather(*tasks)
    assert provider.batches == [["a"], ["b", "c", "d"]]


async def test_other_parameters_do_not_share_a_call() -> None:
    provider = Together()
    provider.gate.clear()
    async with Bench(provider) as bench:
        tasks = [*_ask(bench, "a", params={"seed": 1}), *_ask(bench, "b", params={"seed": 2})]
        await _until_sent(provider, 2)
        provider.gate.set()
        await asyncio.gather(*tasks)
    assert provider.batches == [["a"], ["b"]]


async def test_a_prompt_that_the_provider_refuses_takes_nothing_from_the_others() -> None:
    provider = Together(poison="c")
    provider.gate.clear()
    async with Bench(provider) as bench:
        tasks = _ask(bench, "a")
        await _until_sent(provider, 1)
        tasks += _ask(bench, "b", "c", "d")
        await asyncio.sleep(0.05)
        provider.gate.set()
        responses = await asyncio.gather(*tasks)
    assert [response.text for response in responses] == ["answer to a", "answer to b", None, "answer to d"]
    assert responses[2].error is not None
    assert responses[2].error.code == "provider_rejected"
    assert provider.batches[1] == ["b", "c", "d"]
    assert ["c"] in provider.batches[2:]


async def test_an_outage_of_one_call_is_retried_by_each() -> None:
    provider = Together(ProviderUnavailableError("down", status=503))
    async with Bench(provider, max_retries=2) as bench:
        responses = await asyncio.gather(*_ask(bench, "a", "b"))
    assert [response.text for response in responses] == ["answer to a", "answer to b"]


async def test_one_that_gives_up_takes_nothing_from_the_others() -> None:
    provider = Together()
    provider.gate.clear()
    async with Bench(provider) as bench:
        first = _ask(bench, "a")
        await _until_sent(provider, 1)
        soon = bench.engine.submit(
            execution("id of b", "b", targets=ONE, threshold=None, deadline_ms=int(time.time() * 1000) + 150)
        )
        others = _ask(bench, "c")
        late = await soon
        provider.gate.set()
        responses = await asyncio.gather(*first, *others)
    assert late.error is not None
    assert late.error.code == "deadline_exceeded"
    assert [response.text for response in responses] == ["answer to a", "answer to c"]


async def test_a_shared_call_that_one_has_given_up_goes_on_for_the_others() -> None:
    provider = Together()
    provider.gate.clear()
    async with Bench(provider, batch_window_ms=1) as bench:
        first = _ask(bench, "a")
        await _until_sent(provider, 1)
        gives_up, stays = _ask(bench, "b", "c")
        await _until_sent(provider, 2)
        gives_up.cancel()
        await asyncio.wait([gives_up])
        provider.gate.set()
        response, _ = await asyncio.gather(stays, *first)
    assert provider.batches == [["a"], ["b", "c"]]
    assert response.text == "answer to c"
    assert [attempt.outcome for attempt in response.attempts] == ["ok"]


async def test_the_end_breaks_off_what_is_under_way() -> None:
    provider = Together()
    provider.gate.clear()
    async with Bench(provider) as bench:
        tasks = _ask(bench, "a", "b")
        await _until_sent(provider, 1)
    assert all(task.done() for task in tasks)
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name() in {"prompts together", "window"}]


class Punctual(Together):
    """Answers when the gate opens, and breaks off where none of its prompts has so much time."""

    async def call_many(self, provider: str, calls: Sequence[ProviderCall], **_: Any) -> list[Answer]:
        self.batches.append([str(call.messages[-1]["content"]) for call in calls])
        try:
            async with asyncio.timeout(max(call.timeout_s for call in calls)):
                await self.gate.wait()
        except TimeoutError as exc:
            raise ProviderInterruptedError("cut off", maybe_paid=True) from exc
        return [Answer("the answer", provider, "small", Usage(10, 5), cost_usd=0.01) for _ in calls]


@pytest.mark.parametrize("policy", ["retry", "fail"])
async def test_a_shared_call_lasts_as_long_as_its_most_patient_member(policy: str) -> None:
    provider = Punctual()
    provider.gate.clear()
    async with Bench(provider, on_ambiguous=policy) as bench:
        hasty = execution("lead", "same", targets=ONE, deadline_ms=int(time.time() * 1000) + 1500)
        lead = bench.engine.submit(hasty)
        await _until_sent(provider, 1)
        patient = bench.engine.submit(execution("patient", "same", targets=ONE))
        late = await lead
        provider.gate.set()
        answered = await patient
        ambiguous = bench.metrics.ambiguous_calls_total._value.get()
    assert late.error is not None
    assert late.error.code == "deadline_exceeded"
    assert (answered.text, answered.batch.role) == ("the answer", "follower")
    assert (provider.batches, ambiguous) == ([["same"]], 0)


async def test_a_prompt_that_was_never_sent_is_not_booked_as_paid() -> None:
    provider = Together()
    provider.gate.clear()
    async with Bench(provider, batch_window_ms=60_000) as bench:
        [first] = _ask(bench, "a")
        await _until_sent(provider, 1)
        [late] = _ask(bench, "b", deadline_ms=int(time.time() * 1000) + 100)
        response = await late
        ambiguous = bench.metrics.ambiguous_calls_total._value.get()
        provider.gate.set()
        await first
    assert response.error is not None
    assert (response.error.code, ambiguous) == ("deadline_exceeded", 0)
    assert provider.batches == [["a"]]


async def test_a_shared_call_that_nobody_waits_for_any_more_is_broken_off() -> None:
    provider = Together()
    provider.gate.clear()
    async with Bench(provider, limits={"vllm": Limits(1)}) as bench:
        soon_ms = int(time.time() * 1000) + 100
        late = await asyncio.gather(*_ask(bench, "a", deadline_ms=soon_ms))
        assert [response.status for response in late] == ["error"]
        async with asyncio.timeout(5):
            while bench.together._by_provider["vllm"].calls:
                await asyncio.sleep(0.01)
        provider.gate.set()
        [after] = await asyncio.gather(*_ask(bench, "b"))
    assert after.text == "answer to b"


async def test_a_hasty_prompt_goes_to_the_next_target_where_a_rate_limit_outlasts_it() -> None:
    provider = Together()
    limits = {"vllm": Limits(4, requests_per_minute=6), "openai": Limits(4)}
    targets = (("vllm", "small"), ("openai", "small"))
    async with Bench(provider, limits=limits) as bench:
        for number in range(3):
            soon_ms = int(time.time() * 1000) + 3000
            last = await bench.engine.submit(
                execution(f"r{number}", f"question {number}", targets=targets, threshold=None, deadline_ms=soon_ms)
            )
    assert last.status == "ok"
    assert last.provider == "openai"


async def test_prompts_that_waited_while_their_target_fell_ill_are_not_sent_to_it() -> None:
    provider = Together(*[ProviderUnavailableError("503")] * 60)
    limits = {"vllm": Limits(1)}
    async with Bench(provider, batch_window_ms=1, max_retries=0, limits=limits) as bench:
        tasks = [task for number in range(60) for task in _ask(bench, f"q{number}", params={"seed": number})]
        responses = await asyncio.gather(*tasks)
    assert len(provider.batches) == BreakerPolicy().min_calls
    messages = [response.error.message for response in responses if response.error is not None]
    assert sum("failed too often" in message for message in messages) == 60 - BreakerPolicy().min_calls


class Cured(Together):
    """Its model "small" answers nobody until it is ``well``; the others are."""

    well = False

    async def call_many(self, provider: str, calls: Sequence[ProviderCall], **_: Any) -> list[Answer]:
        if not self.well and calls[0].model == "small":
            self.batches.append([])
            raise ProviderUnavailableError("503")
        return await super().call_many(provider, calls)


class Ahead(SystemClock):
    """Real time, and what a test adds to it."""

    by = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.by


async def _fall_ill(bench: Bench, provider: Cured, clock: Ahead) -> None:
    for number in range(10):
        await asyncio.gather(*_ask(bench, f"early {number}"))
    assert bench.gates.open_in_s(Target("vllm", "small")) > 0
    provider.well = True
    provider.batches.clear()
    clock.by += 60.0


async def test_prompts_beside_the_probe_of_a_target_wait_for_what_comes_of_it() -> None:
    """Of 20 that had waited for a breaker one was answered, by the probe, and 19 failed while it was under way."""
    provider, clock = Cured(), Ahead()
    async with Bench(provider, clock=clock, max_retries=0, batch_window_ms=1) as bench:
        await _fall_ill(bench, provider, clock)
        provider.gate.clear()
        tasks = _ask(bench, *(f"late {number}" for number in range(20)))
        await _until_sent(provider, 1)
        other = bench.engine.submit(execution("other", "other", targets=(("vllm", "large"),), threshold=None))
        await _until_sent(provider, 2)
        await asyncio.sleep(0.05)
        assert [len(batch) for batch in provider.batches] == [1, 1], "who waits for a probe holds no other model up"
        provider.gate.set()
        responses = await asyncio.gather(*tasks, other)
    assert [response.status for response in responses] == ["ok"] * 21
