"""What is counted and logged of a response, whoever it goes to."""

from __future__ import annotations

import logging

from stratarouter_runtime.records import Answer, Attempt, Request, Response
from stratarouter_runtime.telemetry.logs import event, event_of, ids
from stratarouter_runtime.telemetry.metrics import Metrics

log = logging.getLogger("stratarouter.responses")


def log_texts(request: Request, response: Response) -> None:
    """Log what was asked and answered, where the setting ``log_texts`` asks for it; long texts are cut."""
    said = {"messages": request.messages, "text": response.text, "tool_calls": response.tool_calls}
    event(log, logging.INFO, "texts", **ids(request.request_id, request.traceparent), **said)


def count_response(metrics: Metrics, response: Response, traceparent: str | None) -> None:
    """Count one response, its outcome and what it saved; and log how it ended."""
    if response.error is not None:
        code, attempts = response.error.code, len(response.attempts)
        told = ids(response.request_id, traceparent)
        event_of(log, logging.WARNING, "error response", **told, code=code, attempts=attempts)
    elif log.isEnabledFor(logging.DEBUG):
        told = ids(response.request_id, traceparent)
        event_of(log, logging.DEBUG, "answered", **told, cache=response.cache.kind, batch=response.batch.role)
    metrics.responses_total.labels(response.status, response.error.code if response.error else "ok").inc()
    if response.saved_usd:
        metrics.saved_usd_total.labels(_saved_by(response.cache.kind)).inc(response.saved_usd)


class Tally:
    """Counts many answers at once that cost nothing and saved what they would have cost: hits."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._saved: dict[str, list[float]] = {}

    def take(self, response: Response) -> bool:
        """Whether ``response`` is counted here, by the next ``count``. False: ``count_response`` is to do it."""
        if response.error is not None or response.attempts or log.isEnabledFor(logging.DEBUG):
            return False
        self._saved.setdefault(response.cache.kind, []).append(response.saved_usd or 0.0)
        return True

    def count(self) -> None:
        """Count what was taken."""
        for kind, saved in self._saved.items():
            self._metrics.responses_total.labels("ok", "ok").inc(len(saved))
            self._metrics.saved_usd_total.labels(_saved_by(kind)).inc(sum(saved))
        self._saved.clear()


def _saved_by(kind: str) -> str:
    return kind if kind in {"exact", "semantic"} else "coalesced"


def count_shadow(metrics: Metrics, response: Response) -> None:
    """Count what checking a hit cost; nobody gets this response."""
    if response.cost_usd and not response.from_journal:
        metrics.cache_shadow_cost_usd_total.inc(response.cost_usd)


def count_calls(metrics: Metrics, attempts: list[Attempt], answer: Answer | None) -> None:
    """Count what the calls of this process for one request took and cost, once, whoever gets the answer: who asked may
    be gone, and what is journaled may be said again and again.
    """
    if metrics.gen_ai is not None:
        metrics.gen_ai.called(attempts, answer)
    if answer is not None:
        count_paid(metrics, answer)


def count_paid(metrics: Metrics, answer: Answer) -> None:
    """Count what was used and cost."""
    if answer.cost_usd:
        metrics.cost_usd_total.inc(answer.cost_usd)
    usage, tokens = answer.usage, metrics.tokens_total
    tokens.labels("input").inc(usage.input_tokens)
    tokens.labels("output").inc(usage.output_tokens)
    if usage.cached_tokens:
        tokens.labels("cached").inc(usage.cached_tokens)
    if usage.reasoning_tokens:
        tokens.labels("reasoning").inc(usage.reasoning_tokens)
