"""The simulated provider's limits on requests and tokens a minute, and how its headers tell of them. Pure.

A limit is a bucket that fills evenly and holds one minute's worth, as the vendor describes its own:
https://platform.openai.com/docs/guides/rate-limits.
"""

from __future__ import annotations

from dataclasses import dataclass

from stratarouter_runtime.testing.simulator_http import Headers

MINUTE_S = 60.0


@dataclass(slots=True)
class _Bucket:
    name: str
    per_minute: int
    level: float
    filled_at: float

    def fill(self, now: float) -> None:
        self.level = min(self.per_minute, self.level + (now - self.filled_at) * self.per_minute / MINUTE_S)
        self.filled_at = now

    def wait_s(self, amount: float) -> float:
        """Until ``amount`` is there; what is more than a minute's worth is taken from a full bucket."""
        return max(0.0, min(amount, self.per_minute) - self.level) * MINUTE_S / self.per_minute

    def headers(self) -> Headers:
        return (
            (f"x-ratelimit-limit-{self.name}", str(self.per_minute)),
            (f"x-ratelimit-remaining-{self.name}", str(max(0, int(self.level)))),
            (f"x-ratelimit-reset-{self.name}", duration(self.wait_s(self.per_minute))),
        )


class RateLimits:
    """Both limits, either of them None for none. ``now`` is in seconds that never jump, from one clock."""

    def __init__(self, rpm: int | None, tpm: int | None, now: float) -> None:
        self._requests = None if rpm is None else _Bucket("requests", rpm, rpm, now)
        self._tokens = None if tpm is None else _Bucket("tokens", tpm, tpm, now)

    def take(self, tokens: int, now: float) -> float:
        """Admit a call of so many tokens: 0.0, or the seconds to wait, and then nothing is taken."""
        if self._requests is None and self._tokens is None:
            return 0.0
        wanted = [(bucket, amount) for bucket, amount in ((self._requests, 1), (self._tokens, tokens)) if bucket]
        for bucket, _ in wanted:
            bucket.fill(now)
        wait_s = max((bucket.wait_s(amount) for bucket, amount in wanted), default=0.0)
        if wait_s == 0:
            for bucket, amount in wanted:
                bucket.level -= min(amount, bucket.per_minute)
        return wait_s

    def headers(self) -> Headers:
        """How things stand since the last ``take``; () where nothing is limited."""
        return tuple(pair for bucket in (self._requests, self._tokens) if bucket for pair in bucket.headers())


def duration(seconds: float) -> str:
    """Seconds as the vendor writes them: ``0s``, ``120ms``, ``6s``, ``6m0s``."""
    if 0 < seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    minutes, rest = divmod(round(seconds), int(MINUTE_S))
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
