"""OpenTelemetry's metrics of calls to models, by its semantic conventions for generative AI.

Names, units and buckets: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/. What Prometheus scrapes is
in ``metrics``; these go out over OTLP, for those who compare services of several kinds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from opentelemetry.metrics import Meter

from stratarouter_runtime.records import Answer, Attempt

DURATION: Final = "gen_ai.client.operation.duration"
TOKENS: Final = "gen_ai.client.token.usage"
DURATION_BUCKETS_S: Final = tuple(0.01 * 2**n for n in range(14))
TOKEN_BUCKETS: Final = tuple(4**n for n in range(14))


class GenAiMetrics:
    """Records what each call took and used."""

    def __init__(self, meter: Meter) -> None:
        self._duration = meter.create_histogram(
            DURATION,
            unit="s",
            description="Duration of one call",
            explicit_bucket_boundaries_advisory=list(DURATION_BUCKETS_S),
        )
        self._tokens = meter.create_histogram(
            TOKENS,
            unit="{token}",
            description="Tokens of one call, as the provider counted them",
            explicit_bucket_boundaries_advisory=list(TOKEN_BUCKETS),
        )

    def called(self, attempts: Iterable[Attempt], answer: Answer | None) -> None:
        """The calls that were made for one request, and what they brought; once, whoever gets it and how often."""
        for attempt in attempts:
            about: dict[str, Any] = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": attempt.provider,
                "gen_ai.request.model": attempt.model,
            }
            if attempt.outcome != "ok":
                about["error.type"] = attempt.outcome
            elif answer is not None:
                about["gen_ai.response.model"] = answer.model or attempt.model
            self._duration.record(attempt.duration_ms / 1000, about)
            if attempt.outcome == "ok" and answer is not None:
                self._tokens.record(answer.usage.input_tokens, about | {"gen_ai.token.type": "input"})
                self._tokens.record(answer.usage.output_tokens, about | {"gen_ai.token.type": "output"})
