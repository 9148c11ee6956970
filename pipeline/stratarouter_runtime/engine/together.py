"""Calls of providers that take several prompts at once: what waits for the same target leaves together.

``state/window.py`` decides when; this drives it, and hands each prompt its own answer or error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import orjson

from stratarouter_runtime.engine.gates import Gates, Passage
from stratarouter_runtime.errors import (
    DeadlineExceededError,
    ProviderError,
    ProviderInterruptedError,
    ProviderRejectedError,
)
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.ports import Clock, Providers
from stratarouter_runtime.records import Answer, Target, Usage
from stratarouter_runtime.state.window import Windows
from stratarouter_runtime.telemetry.metrics import Metrics

log = logging.getLogger("stratarouter.together")


@dataclass(slots=True, eq=False)
class Prompt:
    """One prompt on its way. ``alone`` once a call that it was part of was refused: it may have been another's fault.

    ``waits_until`` says how long somebody waits for it, monotonic seconds; its call may last until ``deadline``, for
    who comes later. ``sent`` says that its call is under way: it may be paid for. ``exchange`` is that call, which is
    broken off once nobody waits for any of its prompts. ``patient``: as for ``Gates.enter``.
    """

    target: Target
    call: ProviderCall
    tokens: Callable[[], int]
    answer: asyncio.Future[Answer]
    deadline: float
    waits_until: Callable[[], float]
    patient: bool = False
    alone: bool = False
    sent: bool = False
    exchange: _Exchange | None = None


@dataclass(slots=True, eq=False)
class _Exchange:
    task: asyncio.Task[Any]
    prompts: list[Prompt]


@dataclass(slots=True)
class _Provider:
    windows: Windows[Hashable, Prompt]
    timer: asyncio.Task[None] | None = None
    entering: int = 0
    calls: set[asyncio.Task[None]] = field(default_factory=set)


class Together:
    """Every provider's windows.

    Args:
        window_s: how long a prompt may wait for company.
        max_size: prompts in one call.
    """

    def __init__(
        self,
        *,
        providers: Providers,
        gates: Gates,
        clock: Clock,
        metrics: Metrics,
        window_s: float,
        max_size: int,
    ) -> None:
        self._providers = providers
        self._gates = gates
        self._clock = clock
        self._metrics = metrics
        self._window_s = window_s
        self._max_size = max_size
        self._by_provider: dict[str, _Provider] = {}

    def takes(self, provider: str) -> bool:
        """Whether calls of ``provider`` go this way."""
        return self._providers.takes_many(provider)

    async def stop(self) -> None:
        """Break off what is under way; nobody waits for it any more. Idempotent."""
        for provider in self._by_provider.values():
            tasks = [*provider.calls, *([] if provider.timer is None else [provider.timer])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def prompt(
        self,
        target: Target,
        call: ProviderCall,
        tokens: Callable[[], int],
        waits_until: Callable[[], float],
        *,
        patient: bool = False,
    ) -> Prompt:
        """Have ``call`` sent, with others that wait for the same target; ``answer`` is to be waited for at once.

        Args:
            target: where it goes.
            call: what is asked; ``timeout_s`` bounds all of the wait.
            tokens: says about how many it will take.
            waits_until: how long somebody waits for it, as of now: so long it may wait under a rate limit.
            patient: it has no other target; see ``Gates.enter``.

        Raises:
            ProviderError: it cannot be sent.
        """
        self._providers.check(target.provider, call)
        now = self._clock.monotonic()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        prompt = Prompt(target, call, tokens, answer, now + call.timeout_s, waits_until, patient)
        provider = self._provider(target.provider)
        provider.windows.add(now, _company(prompt), prompt)
        self._pump(provider)
        return prompt

    async def answer(self, prompt: Prompt) -> Answer:
        """The answer to ``prompt``, out of a call that others may share; given up where the wait is cancelled.

        Raises:
            ProviderError: as a call of its own would.
            DeadlineExceededError: the time was over before it was sent.
        """
        target, call, answer = prompt.target, prompt.call, prompt.answer
        try:
            async with asyncio.timeout(call.timeout_s):
                return await answer
        except TimeoutError as exc:
            if not prompt.sent:
                raise DeadlineExceededError("the deadline passed before the prompt was sent") from exc
            late = f"no answer from provider {target.provider!r} within {call.timeout_s:.1f} s"
            raise ProviderInterruptedError(late, maybe_paid=True) from exc
        finally:
            # Nobody waits any more: a prompt that has not left stays behind, one that has takes nothing from others.
            self._provider(target.provider).windows.discard(_company(prompt), prompt)
            if not answer.cancel() and not answer.cancelled():
                answer.exception()
            if prompt.exchange is not None and all(one.answer.done() for one in prompt.exchange.prompts):
                prompt.exchange.task.cancel()

    def _provider(self, name: str) -> _Provider:
        provider = self._by_provider.get(name)
        max_calls = self._gates.max_calls(name)
        if provider is None:
            provider = self._by_provider[name] = _Provider(Windows(self._window_s, self._max_size, max_calls))
        provider.windows.max_calls = max_calls
        return provider

    # -- who leaves --------------------------------------------------------------------------------------------

    def _pump(self, provider: _Provider) -> None:
        """Send what leaves now; see to it that the end of a window is noticed."""
        if provider.entering:
            # One already waits for its turn under the rate limits; what comes meanwhile fills the next.
            return
        for key, prompts in provider.windows.take(self._clock.monotonic()):
            provider.entering += 1
            task = asyncio.create_task(self._send(provider, prompts), name="prompts together")
            provider.calls.add(task)
            task.add_done_callback(partial(self._ended, provider, key))
        due = provider.windows.due_at()
        if due is not None and provider.timer is None:
            provider.timer = asyncio.create_task(self._at(provider, due), name="window")
            provider.timer.add_done_callback(_say)

    async def _at(self, provider: _Provider, due: float) -> None:
        await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
        provider.timer = None
        self._pump(provider)

    def _ended(self, provider: _Provider, key: Hashable, task: asyncio.Task[None]) -> None:
        provider.calls.discard(task)
        provider.windows.ended(key)
        _say(task)
        self._pump(provider)

    # -- one call ----------------------------------------------------------------------------------------------

    async def _send(self, provider: _Provider, prompts: list[Prompt]) -> None:
        passage = None
        try:
            try:
                passage = await self._enter(provider, prompts)
            finally:
                provider.entering -= 1
                self._pump(provider)
            prompts = [prompt for prompt in prompts if not prompt.answer.done()]
            if prompts:
                await self._exchange(passage, provider, prompts)
            else:
                self._gates.turn_back(passage)
        except ProviderError as exc:
            _fail(prompts, exc)
        except BaseException as exc:
            # Whoever waits must hear of it, whatever it is.
            _fail(
                prompts, ProviderInterruptedError(f"the call was broken off: {exc!r}", maybe_paid=passage is not None)
            )
            raise

    async def _enter(self, provider: _Provider, prompts: Sequence[Prompt]) -> Passage:
        target = prompts[0].target
        waiting = [prompt for prompt in prompts if not prompt.answer.done()] or prompts
        until = max(prompt.waits_until() for prompt in waiting)
        patient = any(prompt.patient for prompt in waiting)
        if patient and self._gates.is_probed(target):
            # Other models of the provider may be well.
            provider.entering -= 1
            self._pump(provider)
            try:
                await self._gates.until_probed(target, until)
            finally:
                provider.entering += 1
        tokens: Callable[[], int] = lambda: sum(prompt.tokens() for prompt in prompts)  # noqa: E731
        return await self._gates.enter(target, tokens, until - self._clock.monotonic(), patient=patient)

    async def _exchange(self, passage: Passage, provider: _Provider, prompts: list[Prompt]) -> None:
        name = passage.target.provider
        task = asyncio.current_task()
        assert task is not None
        exchange = _Exchange(task, prompts)
        for prompt in prompts:
            prompt.sent, prompt.exchange = True, exchange
        self._metrics.prompts_per_call.observe(len(prompts))
        ended: Answer | ProviderError | None = None
        code = "given_up"
        try:
            answers = await self._providers.call_many(
                name,
                [replace(prompt.call, timeout_s=prompt.deadline - passage.began) for prompt in prompts],
                key=passage.key,
                on_rates=lambda hint: self._gates.learn(passage, hint),
            )
        except ProviderRejectedError as exc:
            ended, code = exc, exc.code
            if len(prompts) == 1:
                raise
            self._each_alone(provider, prompts)
        except ProviderError as exc:
            ended, code = exc, exc.code
            raise
        else:
            ended, code = _sum(answers), "ok"
            for prompt, answer in zip(prompts, answers, strict=True):
                if not prompt.answer.done():
                    prompt.answer.set_result(answer)
        finally:
            self._gates.leave(passage, ended)
            self._metrics.provider_calls_total.labels(name, code).inc()
            self._metrics.provider_call_seconds.labels(name).observe(self._clock.monotonic() - passage.began)

    def _each_alone(self, provider: _Provider, prompts: Sequence[Prompt]) -> None:
        """A provider refuses a call for one bad prompt in it; the others' answers must not depend on that."""
        now = self._clock.monotonic()
        for prompt in prompts:
            if not prompt.answer.done():
                prompt.alone, prompt.sent, prompt.exchange = True, False, None
                provider.windows.add(now, _company(prompt), prompt)


def _company(prompt: Prompt) -> Hashable:
    """What prompts must have in common to leave together."""
    shared = (prompt.target.model, json_bytes(prompt.call.params, option=orjson.OPT_SORT_KEYS, default=str))
    return (*shared, id(prompt)) if prompt.alone else shared


def _sum(answers: Sequence[Answer]) -> Answer:
    """The answers as one, for the limits on tokens."""
    usage = Usage(sum(one.usage.input_tokens for one in answers), sum(one.usage.output_tokens for one in answers))
    return Answer("", answers[0].provider, answers[0].model, usage)


def _fail(prompts: Sequence[Prompt], exc: ProviderError) -> None:
    for prompt in prompts:
        if not prompt.answer.done():
            prompt.answer.set_exception(exc)


def _say(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("%s failed", task.get_name(), exc_info=task.exception())
