"""Builds responses: from a cache hit, from an outcome, from an error. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from stratarouter_runtime.errors import RuntimeSystemError
from stratarouter_runtime.ports import CacheHit, Recorded
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
    story = Story(cache=verdict, batch=_ALONE, timings_ms=timings_ms)
    return _ok(execution, hit.answer, story, cost_usd=0.0, saved_usd=hit.answer.cost_usd)


def from_outcome(execution: Execution, outcome: Recorded, story: Story) -> Response:
    """The response for what a call (this request's, its leader's, or a recorded one) came to."""
    follows = story.batch.role == "follower" or outcome.leader is not None
    if outcome.answer is None:
        assert outcome.error is not None
        failed = from_error(execution, outcome.error, story)
        return failed if follows else replace(failed, attempts=outcome.attempts)
    answer = outcome.answer
    if follows:
        return _ok(execution, answer, story, cost_usd=0.0, saved_usd=answer.cost_usd)
    return _ok(execution, answer, story, cost_usd=answer.cost_usd, saved_usd=0.0, attempts=outcome.attempts)


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
    story: Story,
    *,
    cost_usd: float | None,
    saved_usd: float | None,
    attempts: tuple[Attempt, ...] = (),
) -> Response:
    request = execution.request
    return Response(
        request_id=request.request_id,
        status="ok",
        text=answer.text,
        provider=answer.provider,
        model=answer.model,
        finish_reason=answer.finish_reason,
        tool_calls=answer.tool_calls,
        usage=answer.usage,
        cost_usd=cost_usd,
        saved_usd=saved_usd,
        attempts=attempts,
        cache=story.cache,
        batch=story.batch,
        timings_ms={**execution.enriched_ms, **story.timings_ms},
        route_id=request.decision.route_id,
        tenant=request.context.tenant,
        source=execution.source,
        from_journal=story.from_journal,
    )
