"""What a reply's headers say of its provider's limits, in one form. Pure.

OpenAI and those who speak like it: https://platform.openai.com/docs/guides/rate-limits; Anthropic:
https://docs.anthropic.com/en/api/rate-limits. Some servers send -1 or 0 for what they do not count (Azure for the
responses API: https://github.com/openai/openai-dotnet/issues/838), so only what makes sense is taken.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from stratarouter_runtime.state.limiter import RateHint, RateWindow

MAX_RESET_S = 24 * 3600.0
"""A day, the longest window that vendors count in; a longer wait is an epoch or a mistake."""
MAX_COUNT = 10**12
"""Of requests or tokens; more is a mistake."""
SECONDS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}

_COUNT = re.compile(r"[0-9]{1,15}(?:\.0*)?")
_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]*)?")
_SPAN = re.compile(r"([0-9]{1,15}(?:\.[0-9]*)?)(d|h|ms|m|s|us|µs|ns)")


def rate_headers(headers: Mapping[str, str], wall: Callable[[], float] = time.time) -> RateHint | None:
    """What ``headers`` (lower-case names) say of the limits, or None where they say nothing.

    Args:
        headers: of a reply, good or bad.
        wall: epoch seconds, for times of reset where the reply has no ``date`` of its own.
    """
    named = [name for name in headers if "ratelimit-" in name]
    if not named:
        return None
    if any(name.startswith("anthropic-ratelimit-") for name in named):
        hint = _anthropic(headers, wall)
    else:
        hint = RateHint(_openai_window(headers, "requests"), _openai_window(headers, "tokens"))
    return hint if hint.requests.says_something or hint.tokens.says_something else None


def span_s(text: str) -> float | None:
    """Seconds in ``6m0s``, ``120ms``, ``1h2m3.5s`` or a plain number; None for anything else."""
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    found = _SPAN.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        return None
    return sum(float(number) * SECONDS[unit] for number, unit in found)


def epoch_s(text: str) -> float | None:
    """Epoch seconds of an HTTP date, which is in UTC where it names no zone; None for anything else."""
    try:
        then = parsedate_to_datetime(text)
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        # The parser's own ways of saying that this is no date.
        return None


def _openai_window(headers: Mapping[str, str], kind: str) -> RateWindow:
    limit, remaining, reset = (
        headers.get(f"x-ratelimit-{what}-{kind}", "") for what in ("limit", "remaining", "reset")
    )
    return _window(limit, remaining, span_s(reset))


def _anthropic(headers: Mapping[str, str], wall: Callable[[], float]) -> RateHint:
    now = epoch_s(headers.get("date", ""))
    now = wall() if now is None else now

    def window(kind: str) -> RateWindow:
        limit, remaining, reset = (
            headers.get(f"anthropic-ratelimit-{kind}-{what}", "") for what in ("limit", "remaining", "reset")
        )
        return _window(limit, remaining, _until_s(reset, now))

    # ``tokens`` is the vendor's own pick of the tightest; without it, the one with the least left.
    tokens = window("tokens")
    if not tokens.says_something:
        parts = [window("input-tokens"), window("output-tokens")]
        tokens = min(parts, key=lambda part: MAX_COUNT if part.remaining is None else part.remaining)
    return RateHint(window("requests"), tokens)


def _window(limit_text: str, remaining_text: str, reset_s: float | None) -> RateWindow:
    """A limit of 0 or -1 means that nothing is counted: then a remainder of 0 must not stop the traffic."""
    limit, remaining = _count(limit_text), _count(remaining_text)
    if not limit and (limit_text.strip() or not remaining):
        return RateWindow()
    return RateWindow(limit, remaining, reset_s if reset_s is not None and reset_s <= MAX_RESET_S else None)


def _count(text: str) -> int | None:
    text = text.strip()
    value = int(float(text)) if _COUNT.fullmatch(text) else None
    return value if value is not None and value <= MAX_COUNT else None


def _until_s(text: str, now: float) -> float | None:
    """Seconds from ``now`` to an RFC 3339 time; 0 where it has passed."""
    try:
        then = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    seconds = (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now
    return max(0.0, seconds)
