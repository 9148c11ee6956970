"""Hits by likeness under a bound on wrong ones: which are held back, which are checked, and what comes of it.

What is learnt is ``state/error_bound.py``'s; here it meets executions. A hit that is not trusted yet is executed like a
miss, and its answer compared with the one that was kept: evidence that costs nothing beyond the hit. Of those served a
small share is checked by a call of its own, after the client has its answer.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Self

from stratarouter_runtime.cache.normalise import conversation_text
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine.compare import AnswerComparer
from stratarouter_runtime.port_values import CacheHit, CacheMiss
from stratarouter_runtime.ports import Comparer, Evidence
from stratarouter_runtime.records import Answer, Execution, Request
from stratarouter_runtime.state.error_bound import ErrorBound, Observation
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics

log = logging.getLogger("stratarouter.trials")

UNPROVEN = "unproven"
"""The reason of a miss whose nearest entry would have answered, were it known that such ones do."""
COMPARE_TIMEOUT_S = 30.0
"""For a comparer that asks a model. Nobody waits for it."""
MAX_COMPARISONS = 64
"""At once; beyond it evidence is let go, not queued."""


class OwnEvidence:
    """What this process compares, for itself alone: as long-lived as a cache in its memory."""

    def __init__(self) -> None:
        self._learn: Callable[[Observation], None] | None = None

    async def start(self, learn: Callable[[Observation], None]) -> None:
        """As the port says."""
        self._learn = learn

    async def stop(self) -> None:
        """Nothing to end."""

    async def note(self, seen: Observation) -> None:
        """As the port says."""
        if self._learn is not None:
            self._learn(seen)


class Trials:
    """The bound of one process.

    Args:
        state: what is known.
        evidence: takes what is compared, and brings it to ``state``.
        comparer: judges answers.
        metrics: where it is counted.
        share: of the served hits, how many are checked.
    """

    def __init__(
        self, state: ErrorBound, *, evidence: Evidence, comparer: Comparer, metrics: Metrics, share: float
    ) -> None:
        self.state = state
        self._evidence = evidence
        self._comparer = comparer
        self._metrics = metrics
        self._share = share
        self._comparing = 0

    @classmethod
    def alone(cls, metrics: Metrics) -> Self:
        """Of a process that shares nothing and was told nothing."""
        share = RuntimeConfig.model_fields["cache_shadow_share"].default
        return cls(ErrorBound(), evidence=OwnEvidence(), comparer=AnswerComparer(None), metrics=metrics, share=share)

    async def start(self) -> None:
        """Learn what is known."""
        await self._evidence.start(self.learn)

    async def stop(self) -> None:
        """Let the evidence go."""
        await self._evidence.stop()

    def least_batch_similarity(self, execution: Execution) -> float:
        """From which likeness ``execution`` may follow a leader; infinite where only the same words will do."""
        least = execution.batch_threshold or 0.0
        if execution.max_error_rate is None:
            return least
        return max(least, self.state.floor(execution.scope, execution.max_error_rate))

    def judged(self, execution: Execution, found: CacheHit | CacheMiss) -> tuple[CacheHit | None, CacheHit | CacheMiss]:
        """The hit that is held back, if ``found`` is one; and ``found``, or a miss in its place."""
        if not isinstance(found, CacheHit) or self._may_serve(execution, found):
            return None, found
        return found, CacheMiss(UNPROVEN, found.likeness, found.entry_id)

    def _may_serve(self, execution: Execution, hit: CacheHit) -> bool:
        if not is_by_likeness(execution, hit):
            # Its own words' answer would be compared with itself; what a person has corrected stands.
            return True
        if execution.shadow:
            return False
        bound = execution.max_error_rate
        return bound is None or self.state.trusts(execution.scope, hit.likeness, bound)

    def shadow_of(self, execution: Execution, hit: CacheHit) -> Execution | None:
        """The execution that checks a hit that is served; None for one that is not to be checked.

        The choice hangs on the request's id alone, so a request that is read again is checked again, or not again.
        """
        bounded = execution.max_error_rate is not None and is_by_likeness(execution, hit)
        if not bounded or _lot(execution.request) >= self._share:
            return None
        # Nobody waits for it, and nobody's words follow it or are followed for it.
        request = replace(execution.request, request_id=shadow_id(execution.request), deadline_ms=None, reply_to=None)
        return replace(execution, request=request, batch_threshold=None, shadow=True)

    async def compare(self, execution: Execution, hit: CacheHit, fresh: Answer) -> None:
        """Hold the kept answer of ``hit`` against a fresh one to the same question, and tell everybody."""
        source = "checked" if execution.shadow else "held_back"
        if self._comparing >= MAX_COMPARISONS:
            self._metrics.cache_evidence_total.labels(source, "unknown").inc()
            return
        self._comparing += 1
        try:
            right = await self._same(execution, hit.answer, fresh)
        finally:
            self._comparing -= 1
        verdict = "unknown" if right is None else "right" if right else "wrong"
        self._metrics.cache_evidence_total.labels(source, verdict).inc()
        if right is not None and execution.max_error_rate is not None:
            served = execution.shadow
            await self._evidence.note(
                Observation(execution.scope, hit.likeness, right, served, execution.max_error_rate)
            )

    async def _same(self, execution: Execution, kept: Answer, fresh: Answer) -> bool | None:
        question = conversation_text(execution.request.messages)
        try:
            async with asyncio.timeout(COMPARE_TIMEOUT_S):
                return await self._comparer.same(question, kept, fresh)
        except Exception as exc:  # noqa: BLE001
            # The user's own code: whatever befalls it, it has not said that the two differ.
            event(log, logging.WARNING, "answers not compared", cause=repr(exc))
            return None

    def learn(self, seen: Observation) -> None:
        """Take one comparison in, whoever made it."""
        self.state.observe(seen)
        found = self.state.measured()
        for name, value in (("estimate", found.rate), ("low", found.low), ("high", found.high)):
            self._metrics.cache_wrong_hit_rate.labels(name).set(math.nan if value is None else value)
        self._metrics.cache_checked_hits.set(found.checked)


def is_by_likeness(execution: Execution, hit: CacheHit) -> bool:
    """Whether the answer was given to other words. An alias is exact, and its answer is another question's."""
    return hit.reason is None and hit.entry_id != execution.content_hash


def shadow_id(request: Request) -> str:
    """The id of the execution that checks the hit of ``request``: of its own in the journal, the same every time."""
    return f"shadow-{blake2b(request.request_id.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"


def _lot(request: Request) -> float:
    """A number from 0 to 1, the same for the same id."""
    digest = blake2b(request.request_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"shadow").digest()
    return int.from_bytes(digest, "big") / 2**64
