"""Builds responses: from a cache hit, from an outcome, from an error. Pure."""

from __future__ import annotations

from dataclasses import field, replace

from stratarouter_runtime.errors import RuntimeSystemError
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.port_values import CacheHit, Recorded
from stratarouter_runtime.records import (
    Answer,
    Attempt,
    BatchVerdict,
    CacheVerdict,
    ErrorInfo,
    Execution,
    Request,
    Response,
)

_ALONE = BatchVerdict()


@dataclass(slots=True)
class Story:
    """What has happened to one request so far."""

    cache: CacheVerdict = field(default_factory=lambda: CacheVerdict("bypass"))
    batch: BatchVerdict = field(default_factory=BatchVerdict)
    timings_ms: dict[str, float] = field(default_factory=dict)
    from_journal: bool = False
    withheld: CacheHit | None = None
    """A hit that is not known well enough to be served; its answer is compared with the fresh one."""


def error_info(exc: RuntimeSystemError) -> ErrorInfo:
    """An exception as records carry it."""
    return ErrorInfo(code=exc.code, message=exc.message, remedy=exc.remedy, retryable=exc.retryable)


def from_hit(execution: Execution, hit: CacheHit, timings_ms: dict[str, float]) -> Response:
    """The response for an answer out of the cache: nothing paid, its price saved."""
    similarity = 1.0 if hit.kind == "exact" else round(hit.similarity, 4)
    verdict = CacheVerdict(hit.kind, similarity, hit.entry_id, hit.reason, execution.content_hash)
    return _ok(execution, hit.answer, verdict, _ALONE, timings_ms, (0.0, hit.answer.cost_usd))


def from_outcome(execution: Execution, outcome: Recorded, story: Story) -> Response:
    """The response for what a call (this request's, its leader's, or a recorded one) came to."""
    follows = story.batch.role == "follower" or outcome.leader is not None
    if outcome.answer is None:
        assert outcome.error is not None
        failed = from_error(execution, outcome.error, story)
        return failed if follows else replace(failed, attempts=outcome.attempts)
    answer = outcome.answer
    money, attempts = ((0.0, answer.cost_usd), ()) if follows else ((answer.cost_usd, 0.0), outcome.attempts)
    response = _ok(execution, answer, story.cache, story.batch, story.timings_ms, money, attempts)
    return replace(response, from_journal=True) if story.from_journal else response


def from_error(execution: Execution, error: ErrorInfo, story: Story) -> Response:
    """An error response."""
    return replace(
        refused(execution.request, error),
        cache=story.cache,
        batch=story.batch,
        timings_ms={**execution.enriched_ms, **story.timings_ms},
        source=execution.source,
        from_journal=story.from_journal,
    )


def refused(request: Request, error: ErrorInfo) -> Response:
    """An error response to a request that was never made into an execution."""
    return Response(
        request_id=request.request_id,
        status="error",
        error=error,
        route_id=request.decision.route_id,
        tenant=request.context.tenant,
        cost_usd=0.0,
        saved_usd=0.0,
    )


def _ok(
    execution: Execution,
    answer: Answer,
    cache: CacheVerdict,
    batch: BatchVerdict,
    timings_ms: dict[str, float],
    money: tuple[float | None, float | None],
    attempts: tuple[Attempt, ...] = (),
) -> Response:
    """``money`` is what it cost and what it saved. In the order of Response's fields: every answer passes here, and
    twenty names cost as much as the rest of this.
    """
    request, (cost_usd, saved_usd) = execution.request, money
    return Response(
        request.request_id,
        "ok",
        answer.text,
        answer.provider,
        answer.model,
        answer.finish_reason,
        answer.tool_calls,
        answer.usage,
        cost_usd,
        saved_usd,
        cache,
        batch,
        attempts,
        {**execution.enriched_ms, **timings_ms},
        None,
        request.decision.route_id,
        request.context.tenant,
        execution.source,
    )
