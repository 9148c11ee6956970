"""Reads a provider's refusal: status, headers and body become one of our errors, with how long to wait.

Pure. The rules are those of the vendors' own clients: 408, 409, 429 and 5xx are tried again, ``x-should-retry``
overrules the status, a spent quota is never waited for. Reads the shapes of OpenAI and the servers that speak like it
(``{"error": {"message", "type", "code"}}``), of Anthropic (``{"type": "error", "error": {"type", "message"}}``) and of
Google (``{"error": {"code", "message", "status", "details"}}``, at times within a list).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from stratarouter_runtime.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderQuotaError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from stratarouter_runtime.port_values import HttpReply
from stratarouter_runtime.providers.rate_headers import epoch_s, span_s

MAX_REASON_CHARACTERS = 300
"""Of the provider's words in our message: enough to act on, short enough for a log line and a dead letter."""
QUOTA_CODES = frozenset({
    "insufficient_quota",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "quota_exceeded",
    "insufficient_balance",
    "contract_spend_limit_reached",
    "enforced_spend_limit_reached",
})  # fmt: skip
"""Error codes and types by which servers say that money is gone, not that calls are too fast."""
DAILY_QUOTA = "PerDay"
"""Within the id of a Google quota that comes back only at midnight, whatever its ``retryDelay`` says (read in Google's
own gemini-cli, ``googleQuotaErrors.ts``)."""
SPENT_WORDS = ("credit balance is too low", "reached your specified api usage limits")
"""How Anthropic says so, with status 400: https://github.com/anthropics/anthropic-sdk-typescript/issues/618 and
https://github.com/anthropics/claude-code/issues/38035. Its codes for the rest stand in ``details.error_code``."""
KEY_CODES = frozenset({"API_KEY_INVALID"})
"""Reasons by which Google says with status 400 that the key is wrong:
https://ai.google.dev/gemini-api/docs/troubleshooting."""
STATUS_OF_CODE = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "billing_error": 402,
    "overloaded_error": 529,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "context_length_exceeded": 400,
    "bio_policy": 400,
    "misalignment_policy_violation": 400,
    "data_residency_mismatch": 400,
    "empty_image_file": 400,
    "failed_to_download_image": 400,
    "unsupported_image_media_type": 400,
}
"""What the vendors' codes stand for where an error comes within a stream, after the status 200. Besides these, every
code that begins with ``invalid_`` or ``image_`` is a 400; the rest is a 500."""
GATEWAY_STATUSES = frozenset({502, 504, 520, 524})
"""A gateway passed the call on and lost the reply, so the model behind it may have answered and charged."""


@dataclass(frozen=True, slots=True)
class Reason:
    """What an error's body says: the provider's words, every code it gives, and seconds to wait where it says them."""

    text: str
    codes: frozenset[str] = frozenset()
    retry_after_s: float | None = None


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
    wait_s = retry_after_s(reply.headers, wall)
    return kind(
        message,
        status=reply.status,
        retry_after_s=(reason.retry_after_s if wait_s is None else wait_s) if kind.retryable else None,
        maybe_paid=reply.status in GATEWAY_STATUSES,
    )


def error_of_event(data: bytes, provider: str, *, scrub: Callable[[str], str] = str) -> ProviderError:
    """The error that came after a good status, such as within a stream. The model had begun: it may have been paid for.

    Args:
        data: the event's or the body's, an error in one of the shapes that bodies have.
        provider: its name in the route table, for the message.
        scrub: takes keys out of the provider's words.
    """
    reason = reason_of(data)
    status = _status_of(reason)
    kind = _error_class(HttpReply(status, {}, data), reason)
    words = scrub(reason.text)[:MAX_REASON_CHARACTERS]
    message = f"provider {provider!r} began its answer and failed: {words or 'no reason given'}"
    wait_s = reason.retry_after_s if kind.retryable else None
    return kind(message, status=status, retry_after_s=wait_s, maybe_paid=True)


def _status_of(reason: Reason) -> int:
    for code in sorted(reason.codes):
        if re.fullmatch(r"[45]\d\d", code):
            return int(code)
        if code in STATUS_OF_CODE:
            return STATUS_OF_CODE[code]
    refused = any(code.startswith(("invalid_", "image_")) for code in reason.codes)
    return 400 if refused else 500


def _error_class(reply: HttpReply, reason: Reason) -> type[ProviderError]:
    status = reply.status
    if _is_spent(status, reason):
        return ProviderQuotaError
    if status == 400 and not KEY_CODES.isdisjoint(reason.codes):
        return ProviderAuthError
    by_status = _class_of_status(status)
    told = reply.headers.get("x-should-retry", "").strip().lower()
    if told == "false" and by_status.retryable:
        return ProviderRejectedError
    if told == "true" and not by_status.retryable:
        return ProviderUnavailableError
    return by_status


def _is_spent(status: int, reason: Reason) -> bool:
    if status == 400:
        return any(words in reason.text.lower() for words in SPENT_WORDS)
    named = not QUOTA_CODES.isdisjoint(reason.codes) or any(DAILY_QUOTA in code for code in reason.codes)
    return status == 402 or (status in (403, 429) and named)


def _class_of_status(status: int) -> type[ProviderError]:
    if status == 429:
        return ProviderRateLimitedError
    if status in (408, 409) or status >= 500:
        return ProviderUnavailableError
    if status in (401, 403):
        return ProviderAuthError
    return ProviderRejectedError


def reason_of(body: bytes) -> Reason:
    """What an error's body says, in any of the shapes above; never raises."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Reason(body[: MAX_REASON_CHARACTERS * 4].decode("utf-8", "replace").strip())
    if isinstance(parsed, list) and len(parsed) == 1:
        parsed = parsed[0]
    found = (parsed.get("error") or parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(found, dict):
        return Reason(str(found))
    text = next((found[key] for key in ("message", "detail", "error") if found.get(key)), "")
    details = [each for each in _list(found.get("details")) if isinstance(each, dict)]
    codes = [found.get("code"), found.get("type"), found.get("status"), *_codes_of(details)]
    if isinstance(found.get("details"), dict):
        codes.append(found["details"].get("error_code"))
    delays = [each["retryDelay"] for each in details if isinstance(each.get("retryDelay"), str)]
    wait_s = span_s(delays[0]) if delays else None
    return Reason(str(text), frozenset(str(code) for code in codes if isinstance(code, str | int)), wait_s)


def _codes_of(details: list[dict[str, Any]]) -> Iterator[object]:
    """Reasons and ids of quotas in Google's details (https://cloud.google.com/apis/design/errors#error_details)."""
    for detail in details:
        yield detail.get("reason")
        yield from (each.get("quotaId") for each in _list(detail.get("violations")) if isinstance(each, dict))


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


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
    then = epoch_s(text)
    if then is None:
        return None
    sent = epoch_s(headers.get("date", ""))
    return max(0.0, then - (wall() if sent is None else sent))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
