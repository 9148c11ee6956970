"""What a simulated provider can do wrong, as rules: which call a rule meets, and what happens to it.

Pure: chance and time are arguments.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from email.utils import formatdate
from typing import Any, Literal, get_args

from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.testing.simulator_http import Headers

Effect = Literal["status", "hang", "reset", "truncate", "invalid_json", "wrong_shape", "slow"]
RetryAfterForm = Literal["seconds", "ms", "date", "garbage", "huge"]

HUGE_RETRY_AFTER_S = 10**9
"""About thirty years: nobody may wait that long."""
ERROR_CODES = {
    400: "invalid_request_error",
    401: "invalid_api_key",
    403: "permission_denied",
    404: "model_not_found",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "service_unavailable",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One kind of trouble and the calls it meets. Every condition that is set must hold.

    Attributes:
        effect: ``status`` refuses the call unpaid; the others break a call that was paid for (``slow`` only delays).
        status: the HTTP status of ``status``.
        code: the error's code in the body, such as ``insufficient_quota``; by default the status's usual one.
        retry_after: how the time to wait is written, or None for no such header.
        retry_after_s: the time to wait in seconds (>= 0).
        slow_ms: what ``slow`` adds to the latency, in milliseconds.
        model: meets calls to this model.
        prompt: meets calls whose messages match this regular expression somewhere.
        probability: share of the calls met, 0 to 1.
        nth: meets only the nth of the calls that model and prompt let through, from 1.
        first: meets only the first so many of them.
    """

    effect: Effect
    status: int = 500
    code: str | None = None
    retry_after: RetryAfterForm | None = None
    retry_after_s: float = 1.0
    slow_ms: float = 0.0
    model: str | None = None
    prompt: str | None = None
    probability: float = 1.0
    nth: int | None = None
    first: int | None = None

    def __post_init__(self) -> None:
        if self.effect not in get_args(Effect):
            raise ConfigurationError(f"fault effect {self.effect!r} is none of {', '.join(get_args(Effect))}")
        if self.retry_after is not None and self.retry_after not in get_args(RetryAfterForm):
            forms = ", ".join(get_args(RetryAfterForm))
            raise ConfigurationError(f"fault retry_after {self.retry_after!r} is none of {forms}")
        if not 400 <= self.status <= 599:
            raise ConfigurationError(f"fault status {self.status!r} is not within 400 to 599")
        if not 0 <= self.probability <= 1:
            raise ConfigurationError(f"fault probability {self.probability!r} is not within 0 to 1")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FaultRule:
        """Build from JSON. Raises ConfigurationError naming what is wrong."""
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigurationError(f"fault rule has unknown keys: {', '.join(unknown)}")
        try:
            return cls(**values)
        except TypeError as exc:
            raise ConfigurationError(f"fault rule {dict(values)!r} is wrong: {exc}") from exc

    def error_code(self) -> str:
        """The code in the error's body."""
        return self.code or ERROR_CODES.get(self.status, "server_error")

    def headers(self, now: float) -> Headers:
        """The headers of a refusal at ``now`` (epoch seconds)."""
        forms: dict[str, tuple[str, str]] = {
            "seconds": ("retry-after", f"{self.retry_after_s:g}"),
            "ms": ("retry-after-ms", f"{self.retry_after_s * 1000:g}"),
            "date": ("retry-after", formatdate(now + self.retry_after_s, usegmt=True)),
            "garbage": ("retry-after", "when the moon is full"),
            "huge": ("retry-after", str(HUGE_RETRY_AFTER_S)),
        }
        return () if self.retry_after is None else (forms[self.retry_after],)


class FaultBook:
    """The rules in order, with how many calls each has seen. The first rule that meets a call decides."""

    def __init__(self, rules: Sequence[FaultRule]) -> None:
        self._rules = [(rule, re.compile(rule.prompt) if rule.prompt else None) for rule in rules]
        self._seen = [0] * len(self._rules)

    def pick(self, model: str, prompt: str, chance: random.Random) -> FaultRule | None:
        """The rule that meets this call, or None."""
        for index, (rule, pattern) in enumerate(self._rules):
            if rule.model is not None and rule.model != model:
                continue
            if pattern is not None and pattern.search(prompt) is None:
                continue
            self._seen[index] += 1
            if _is_met(rule, self._seen[index]) and (rule.probability >= 1 or chance.random() < rule.probability):
                return rule
        return None


def _is_met(rule: FaultRule, seen: int) -> bool:
    return (rule.nth is None or seen == rule.nth) and (rule.first is None or seen <= rule.first)
