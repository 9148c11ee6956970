"""Reads a provider's refusal: status, headers and body become one of our errors, with how long to wait.

Pure. The rules are those of the vendors' own clients: 408, 409, 429 and 5xx are tried again, ``x-should-retry``
overrules the status, a spent quota is never waited for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import orjson

from stratarouter_runtime.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderQuotaError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from stratarouter_runtime.ports import HttpReply

MAX_REASON_CHARACTERS = 300
"""Of the provider's words in our message: enough to act on, short enough for a log line and a dead letter."""
QUOTA_CODES = frozenset({
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "quota_exceeded",
    "insufficient_balance",
})  # fmt: skip
"""Error codes and types by which OpenAI-compatible servers say that money is gone, not that calls are too fast."""
GATEWAY_STATUSES = frozenset({502, 504, 520, 524})
"""A gateway passed the call on and lost the reply, so the model behind it may have answered and charged."""


@dataclass(frozen=True, slots=True)
class Reason:
    """What an error's body says: a code (or type), and the provider's words."""

    code: str
    text: str


def error_of_reply(
    reply: HttpReply, provider: str, *, scrub: Callable[[str], str] = str, wall: Callable[[], float] = time.time
) -> ProviderError:
    """The error that a reply with a status other than 2xx stands for.

    Args:
        reply: the whole reply.
        provider: its name in the route table, for the message.
        scrub: takes keys out of the provider's words.
        wall: epoch seconds, for a date in ``retry-after`` where the reply has no ``date`` of its own.
    """
    reason = reason_of(reply.body)
    kind = _error_class(reply, reason)
    words = scrub(reason.text)[:MAX_REASON_CHARACTERS]
    message = f"provider {provider!r} answered {reply.status}: {words or 'no reason given'}"
    return kind(
        message,
        status=reply.status,
        retry_after_s=retry_after_s(reply.headers, wall) if kind.retryable else None,
        maybe_paid=reply.status in GATEWAY_STATUSES,
    )


def _error_class(reply: HttpReply, reason: Reason) -> type[ProviderError]:
    status = reply.status
    if status == 402 or (status in (403, 429) and reason.code in QUOTA_CODES):
        return ProviderQuotaError
    by_status = _class_of_status(status)
    told = reply.headers.get("x-should-retry", "").strip().lower()
    if told == "false" and by_status.retryable:
        return ProviderRejectedError
    if told == "true" and not by_status.retryable:
        return ProviderUnavailableError
    return by_status


def _class_of_status(status: int) -> type[ProviderError]:
    if status == 429:
        return ProviderRateLimitedError
    if status in (408, 409) or status >= 500:
        return ProviderUnavailableError
    if status in (401, 403):
        return ProviderAuthError
    return ProviderRejectedError


def reason_of(body: bytes) -> Reason:
    """What an error's body says, in any of the shapes that OpenAI-compatible servers use; never raises."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Reason("", body[: MAX_REASON_CHARACTERS * 4].decode("utf-8", "replace").strip())
    found = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(found, dict):
        return Reason("", str(found))
    code = found.get("code") if isinstance(found.get("code"), str) else found.get("type")
    text = next((found[key] for key in ("message", "detail", "error") if found.get(key)), "")
    return Reason(code if isinstance(code, str) else "", str(text))


def retry_after_s(headers: Mapping[str, str], wall: Callable[[], float] = time.time) -> float | None:
    """Seconds that a reply asks to wait: ``retry-after-ms``, else ``retry-after`` in seconds or as a date.

    A date is compared with the reply's own ``date``, so that a skewed clock does no harm; one in the past is 0.
    None for anything unreadable, negative or infinite. Not bounded here: what is too long is the retry policy's say.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or text is None:
        return seconds
    then = _epoch_s(text)
    if then is None:
        return None
    sent = _epoch_s(headers.get("date", ""))
    return max(0.0, then - (wall() if sent is None else sent))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _epoch_s(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        # The parser's own ways of saying that this is no date.
        return None
