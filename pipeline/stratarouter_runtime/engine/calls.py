"""Calls a leader's targets in their order: retries, fallbacks, hedges, shared calls. What they pass is in ``gates``."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from stratarouter_runtime.engine.gates import Gates, Passage, circuit_open
from stratarouter_runtime.engine.places import Hold
from stratarouter_runtime.engine.respond import error_info
from stratarouter_runtime.engine.together import Prompt, Together
from stratarouter_runtime.engine.tokens import guessed_input
from stratarouter_runtime.engine.work import Work
from stratarouter_runtime.errors import (
    AmbiguousCallError,
    DeadlineExceededError,
    ExecutionError,
    ProviderAuthError,
    ProviderError,
    ProviderInterruptedError,
    ProviderRateLimitedError,
    UnknownProviderError,
)
from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.ports import Clock, Providers
from stratarouter_runtime.records import Answer, Attempt, ErrorInfo, Target, milliseconds
from stratarouter_runtime.route_file import RouteHedge
from stratarouter_runtime.routes import LIMIT_NAMES, params_over
from stratarouter_runtime.state.retry import RetryPolicy
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.telemetry.tracing import exemplar

log = logging.getLogger("stratarouter.calls")

GUESSED_OUTPUT_TOKENS = 256
"""Booked for an answer whose length the request does not limit."""
PATIENCE_S = 0.25
"""A call whose own time ends so soon after its last waiter's is not watched: its timeout is the waiter's."""
UNKNOWN_POLL_S = 0.25
"""Between two looks whether this worker's route table names the provider by now."""

Outcome = tuple[Answer | None, ErrorInfo | None]


class Caller:
    """Gets an answer out of a list of targets.

    Args:
        may_repeat: whether a call of unknown outcome is made again.
        hedge_of: the hedging of a route, by its id.
    """

    def __init__(
        self,
        *,
        providers: Providers,
        gates: Gates,
        together: Together,
        clock: Clock,
        metrics: Metrics,
        retry: RetryPolicy,
        may_repeat: bool,
        hedge_of: Callable[[str], RouteHedge | None],
    ) -> None:
        self._providers = providers
        self._gates = gates
        self._together = together
        self._clock = clock
        self._metrics = metrics
        self._retry = retry
        self._may_repeat = may_repeat
        self._hedge_of = hedge_of
        self._unknown: set[str] = set()

    def knows(self, work: Work) -> bool:
        """Whether the route table here names the provider of the first target."""
        return self._providers.keys(work.execution.targets[0].provider) > 0

    async def until_known(self, work: Work) -> None:
        """Wait for a table that names it, as long as one call may take: who resolved the route has a newer one, and
        this worker is likely to be told next.
        """
        provider = work.execution.targets[0].provider
        if provider not in self._unknown:
            self._unknown.add(provider)
            event(
                log,
                logging.WARNING,
                "waiting for a route table with this provider",
                provider=provider,
                remedy=UnknownProviderError.default_remedy,
            )
        until = min(work.due, self._clock.monotonic() + work.timeout_s)
        while not self.knows(work) and (left_s := until - self._clock.monotonic()) > 0:
            await self._clock.sleep(min(UNKNOWN_POLL_S, left_s))
        if self.knows(work):
            self._unknown.discard(provider)

    async def call_targets(self, work: Work, hold: Hold) -> Outcome:
        """The first answer, or the last target's error. ``hold`` is a place at the first target's provider."""
        targets = work.execution.targets
        problem: ExecutionError | None = None
        for index, target in enumerate(targets):
            if not self._providers.keys(target.provider):
                problem = UnknownProviderError(f"no provider is named {target.provider!r} in this worker's route table")
                continue
            open_in_s = self._gates.open_in_s(target)
            if open_in_s > 0 and index + 1 < len(targets):
                # Another target can answer now; nobody waits for this one to get well.
                problem = circuit_open(target, open_in_s)
                continue
            try:
                await hold.move(target.provider, work.deadline - self._clock.monotonic())
                return await self._call_target(work, target), None
            except TimeoutError:
                return None, error_info(DeadlineExceededError(f"no room at {target.provider!r} before the deadline"))
            except ProviderError as exc:
                problem = exc
                if work.spoken:
                    break
            except (DeadlineExceededError, AmbiguousCallError) as exc:
                return None, error_info(exc)
        return None, error_info(problem or DeadlineExceededError("the deadline passed before a call was made"))

    async def _call_target(self, work: Work, target: Target) -> Answer:
        tries = 0
        waited_s = 0.0
        while True:
            tries += 1
            remaining = work.deadline - self._clock.monotonic()
            if remaining <= 0:
                raise DeadlineExceededError(f"the deadline passed after {len(work.attempts)} calls")
            try:
                self._gates.check_breaker(target, patient=_is_last(work, target))
                return await self._call_or_hedge(work, target, remaining, waited_s)
            except ProviderAuthError:
                # Another key of the same provider may do; each is tried once before it is left out.
                if work.spoken or not self._gates.has_another_key(target.provider):
                    raise
                waited_s, code = 0.0, "provider_auth"
            except ProviderError as exc:
                waited_s, code = self._wait_before_next(exc, tries, work, target), exc.code
            self._metrics.retries_total.labels(code).inc()
            await self._clock.sleep(waited_s)

    def _wait_before_next(self, exc: ProviderError, tries: int, work: Work, target: Target) -> float:
        """Seconds until the next try on the same target; raises where there is to be none."""
        if work.spoken:
            # Half an answer was heard; another one must not go on in its middle.
            raise exc
        if _may_be_paid(exc):
            self._metrics.ambiguous_calls_total.inc()
            if not self._may_repeat:
                raise _ambiguous(exc) from exc
        # Jitter spreads load; it protects nothing.
        remaining = work.deadline - self._clock.monotonic()
        at_once = isinstance(exc, ProviderRateLimitedError) and self._has_room(work, target)
        wait = self._retry.wait_s(exc, tries, random.random(), remaining, at_once=at_once)  # noqa: S311
        if wait is None:
            raise exc
        return wait

    # -- one call, and perhaps a second beside it --------------------------------------------------------------

    async def _call_or_hedge(self, work: Work, target: Target, remaining_s: float, waited_s: float) -> Answer:
        if work.spoken is None and self._together.takes(target.provider):
            return await self._call_together(work, target, waited_s)
        hedge = self._hedge_of(work.execution.request.decision.route_id)
        after_s = None if hedge is None or work.spoken is not None else self._hedge_after_s(hedge, target)
        if hedge is None or after_s is None or after_s >= remaining_s:
            return await self._call_once(work, target, remaining_s, waited_s)
        first = asyncio.create_task(self._call_once(work, target, remaining_s, waited_s))
        try:
            await asyncio.wait([first], timeout=after_s)
            if first.done() or not self._may_hedge(work, target, hedge):
                return await first
            return await self._race(work, first, self._second_target(work, target), remaining_s - after_s)
        finally:
            first.cancel()
            await asyncio.wait([first])

    async def _race(self, work: Work, first: asyncio.Task[Answer], other: Target, remaining_s: float) -> Answer:
        """The first of two answers; the call whose answer comes second is given up, and its price estimated."""
        with self._gates.hold(other.provider) as hold:
            await hold.place()
            second = asyncio.create_task(self._call_once(work, other, remaining_s, 0.0))
            try:
                running = {first, second}
                while running:
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    won = next((task for task in done if task.exception() is None), None)
                    if won is not None:
                        self._metrics.hedges_total.labels("first" if won is first else "second").inc()
                        lost = next((one for one in done if one is not won and one.exception() is None), None)
                        if lost is not None or running:
                            # A loser under way is given up: its usage is never known, and the winner's stands for it.
                            self._count_hedge((lost or won).result())
                        return won.result()
                return self._neither(first, second)
            finally:
                second.cancel()
                await asyncio.wait([second])

    def _neither(self, first: asyncio.Task[Answer], second: asyncio.Task[Answer]) -> Answer:
        """Raise the first call's error; the second's too is one that may be what forbids another try."""
        self._metrics.hedges_total.labels("neither").inc()
        problem = second.exception()
        if isinstance(problem, ProviderError) and _may_be_paid(problem):
            self._metrics.ambiguous_calls_total.inc()
            if not self._may_repeat and not _may_be_paid(first.exception()):
                raise _ambiguous(problem) from problem
        return first.result()

    def _count_hedge(self, answer: Answer) -> None:
        if answer.cost_usd is not None:
            self._metrics.hedge_cost_usd_total.inc(answer.cost_usd)

    def _hedge_after_s(self, hedge: RouteHedge, target: Target) -> float | None:
        return self._gates.p95_s(target) if hedge.after_ms is None else hedge.after_ms / 1000

    def _may_hedge(self, work: Work, target: Target, hedge: RouteHedge) -> bool:
        """Only where nobody has to wait for the second call, and few enough are made."""
        other = self._second_target(work, target)
        free = self._gates.has_place(other.provider) and self._gates.open_in_s(other) == 0
        return free and self._has_room(work, other) and self._gates.may_hedge(target, hedge.max_share)

    def _has_room(self, work: Work, target: Target) -> bool:
        """Whether a key of ``target``'s provider takes a call now."""
        return self._gates.room_in_s(target, partial(_tokens, work, target)) == 0

    def _second_target(self, work: Work, target: Target) -> Target:
        """The next one in the route's order that is not ``target``; else ``target`` again."""
        return next((other for other in work.execution.targets if other is not target), target)

    async def _call_once(self, work: Work, target: Target, remaining_s: float, waited_s: float) -> Answer:
        patient = _is_last(work, target)
        passage = await self._gates.enter(target, partial(_tokens, work, target), remaining_s, patient=patient)
        try:
            self._left_s(work)
        except DeadlineExceededError:
            self._gates.turn_back(passage)
            raise
        ended: Answer | ProviderError | None = None
        code, status = "given_up", None
        try:
            ended = await self._while_waited_for(
                work,
                target,
                lambda timeout_s: self._providers.call(
                    target.provider,
                    _provider_call(work, target, timeout_s),
                    key=passage.key,
                    on_text=None if work.spoken is None else work.spoken.say,
                    on_rates=lambda hint: self._gates.learn(passage, hint),
                ),
            )
        except ProviderError as exc:
            ended, code, status = exc, exc.code, exc.status
            raise
        else:
            code = "ok"
            return ended
        finally:
            self._gates.leave(passage, ended)
            self._note(work, passage, code, status, waited_s)

    async def _call_together(self, work: Work, target: Target, waited_s: float) -> Answer:
        """One prompt of a call that others may share; what it waits for company counts as part of it."""
        began = self._clock.monotonic()
        code, status = "given_up", None
        try:
            prompts: list[Prompt] = []

            def ask(timeout_s: float) -> Awaitable[Answer]:
                call = _provider_call(work, target, timeout_s)
                tokens = partial(_tokens, work, target)
                patient = _is_last(work, target)
                prompts.append(self._together.prompt(target, call, tokens, lambda: work.deadline, patient=patient))
                return self._together.answer(prompts[0])

            answer = await self._while_waited_for(work, target, ask, is_sent=lambda: prompts[0].sent)
        except ProviderError as exc:
            code, status = exc.code, exc.status
            raise
        else:
            code = "ok"
            return answer
        finally:
            took = self._clock.monotonic() - began
            work.attempts.append(_attempt(target, code, took, status, waited_s))

    async def _while_waited_for(
        self,
        work: Work,
        target: Target,
        call: Callable[[float], Awaitable[Answer]],
        is_sent: Callable[[], bool] = lambda: True,
    ) -> Answer:
        """The answer to ``call``, which is told its seconds, as long as the most patient of who waits for it does."""
        remaining_s, longest_s = self._left_s(work)
        if longest_s - remaining_s <= PATIENCE_S:
            return await call(remaining_s)
        loop = asyncio.get_running_loop()
        cut = asyncio.timeout(remaining_s)
        try:
            async with cut:

                def move() -> None:
                    if not cut.expired():
                        cut.reschedule(loop.time() + work.deadline - self._clock.monotonic())

                work.cuts.add(move)
                try:
                    return await call(longest_s)
                finally:
                    work.cuts.discard(move)
        except TimeoutError as exc:
            if not cut.expired():
                raise
            if not is_sent():
                raise DeadlineExceededError("the deadline passed before the prompt was sent") from exc
            late = f"nobody waited any longer for the reply of provider {target.provider!r}"
            raise ProviderInterruptedError(late, maybe_paid=True) from exc

    def _left_s(self, work: Work) -> tuple[float, float]:
        """Seconds that its most patient waiter has left, and that its call may last. Raises DeadlineExceededError."""
        now = self._clock.monotonic()
        if work.deadline <= now:
            raise DeadlineExceededError("the deadline passed before the call was made")
        return work.deadline - now, work.latest - now

    def _note(self, work: Work, passage: Passage, code: str, status: int | None, waited_s: float) -> None:
        took = self._clock.monotonic() - passage.began
        provider = passage.target.provider
        work.attempts.append(_attempt(passage.target, code, took, status, waited_s))
        self._metrics.provider_calls_total.labels(provider, code).inc()
        self._metrics.provider_call_seconds.labels(provider).observe(took, exemplar(work.execution.request.traceparent))


def _is_last(work: Work, target: Target) -> bool:
    """Whether there is no other target after ``target``."""
    return target is work.execution.targets[-1]


def _may_be_paid(problem: BaseException | None) -> bool:
    """Whether it is of a call that was sent and brought no whole reply."""
    return isinstance(problem, ProviderError) and problem.maybe_paid and problem.retryable


def _ambiguous(exc: ProviderError) -> AmbiguousCallError:
    return AmbiguousCallError(f"{exc.message}; it may have been paid for")


def _attempt(target: Target, code: str, took_s: float, status: int | None, waited_s: float) -> Attempt:
    return Attempt(target.provider, target.model, code, milliseconds(took_s), status, milliseconds(waited_s))


def _tokens(work: Work, target: Target) -> int:
    """About how many tokens the call will take, to book them under a limit.

    A limit that is none is the provider's to refuse, and books what is usual.
    """
    params = _params(work, target)
    limits = (params.get(name) for name in LIMIT_NAMES)
    limit = next((limit for limit in limits if type(limit) is int and limit > 0), GUESSED_OUTPUT_TOKENS)
    return guessed_input(work.execution) + limit


def _params(work: Work, target: Target) -> dict[str, Any]:
    """What is asked of ``target``: the request's own parameters before the table's."""
    return params_over(target.params, work.execution.request.params)


def _provider_call(work: Work, target: Target, timeout_s: float) -> ProviderCall:
    execution = work.execution
    messages = execution.request.messages
    if execution.system_prompt:
        messages = ({"role": "system", "content": execution.system_prompt}, *messages)
    return ProviderCall(target.model, messages, _params(work, target), work.key.request_id, timeout_s)
