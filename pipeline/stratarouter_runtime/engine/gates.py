"""What a call has to pass on its way to a provider: a bulkhead, the circuit breaker of its target, a key with room
under its rate limits. One ``Gates`` for each process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from statistics import quantiles

from stratarouter_runtime.engine.places import Hold, Places
from stratarouter_runtime.errors import (
    ProviderAuthError,
    ProviderConnectionError,
    ProviderError,
    ProviderInterruptedError,
    ProviderRateLimitedError,
    ProviderUnavailableError,
)
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.ports import Clock
from stratarouter_runtime.records import Answer, Target
from stratarouter_runtime.state.breaker import Breaker
from stratarouter_runtime.state.limiter import Booking, RateHint, RateLimiter
from stratarouter_runtime.telemetry.metrics import Metrics

KEY_OUT_S = 300.0
"""A key that was refused (401, 403) is left out for so long, where the provider has another one."""
DEFAULT_PENALTY_S = 1.0
"""After a 429 that names no time."""
PROBE_POLL_S, MAX_PROBE_POLL_S = 0.1, 1.0
"""Between two looks at what has become of another call's probe, more of it the longer it takes: thousands may look."""
LATENCIES = 200
"""Of a target's last calls, for its p95; fewer than ``MIN_LATENCIES`` say nothing."""
MIN_LATENCIES = 20
MAX_TARGETS = 10_000
"""Breakers and latencies kept; a record may name its own model, so the number of targets is not ours to bound."""
ILL = (ProviderUnavailableError, ProviderConnectionError, ProviderInterruptedError)
"""Failures that say that the target is ill. A 429 says that we are too fast; a 400 that the request is wrong."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one provider, for one process."""

    max_concurrency: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(slots=True)
class _Key:
    number: int
    limiter: RateLimiter
    out_until: float = 0.0


@dataclass(slots=True)
class _Health:
    breaker: Breaker = field(default_factory=Breaker)
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES))
    calls: int = 0
    hedges: int = 0


@dataclass(slots=True)
class Passage:
    """One call under way, to be given back with ``Gates.leave``, or ``Gates.turn_back`` where nothing was sent."""

    target: Target
    key: int
    booking: Booking
    began: float


class Gates:
    """Every provider's gates.

    Args:
        keys: how many keys a provider has.
        limits: by provider; ``default`` for the others.
        seats: how many prompts a provider takes in one call: the bulkhead has room for so many in each of its calls.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        metrics: Metrics,
        keys: Callable[[str], int],
        limits: Mapping[str, Limits],
        default: Limits,
        seats: Callable[[str], int] = lambda _: 1,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._count_keys = keys
        self._limits = dict(limits)
        self._default = default
        self._seats = seats
        self._places: dict[str, Places] = {}
        self._keys: dict[str, list[_Key]] = {}
        self._health: dict[tuple[str, str], _Health] = {}

    def update(self, limits: Mapping[str, Limits]) -> None:
        """Take changed limits and keys up. Calls under way keep their places; newcomers meet the new bulkhead."""
        for name, changed in limits.items():
            if self._limits.get(name) != changed:
                self._places.pop(name, None)
                self._keys.pop(name, None)
            elif len(self._keys.get(name, ())) != self._count_keys(name):
                self._keys.pop(name, None)
        self._limits.update(limits)

    # -- the bulkhead ------------------------------------------------------------------------------------------

    def hold(self, provider: str) -> Hold:
        """What one request has of ``provider``, first come, first served: nothing yet."""
        return Hold(self._places_of, provider)

    def has_place(self, provider: str) -> bool:
        """Whether a call to ``provider`` would not have to wait for a place, nor take another's."""
        return self._places_of(provider).has_room

    def _places_of(self, provider: str) -> Places:
        places = self._places.get(provider)
        if places is None:
            places = self._places[provider] = Places(self.max_calls(provider) * self._seats(provider))
        return places

    def max_calls(self, provider: str) -> int:
        """Calls of ``provider`` at once."""
        return self._limits.get(provider, self._default).max_concurrency

    # -- one call ----------------------------------------------------------------------------------------------

    def open_in_s(self, target: Target) -> float:
        """Seconds until ``target``'s breaker lets a call through; 0 for now."""
        health = self._health.get((target.provider, target.model))
        return 0.0 if health is None else health.breaker.wait_s(self._clock.monotonic())

    def room_in_s(self, target: Target, tokens: Callable[[], int]) -> float:
        """Seconds until a key of ``target``'s provider has room under its rate limits; ``tokens`` as for ``enter``."""
        now = self._clock.monotonic()
        keys = self._usable(target.provider, now)
        needed = _needed(keys, tokens)
        return min(key.limiter.wait_s(now, needed) for key in keys)

    async def enter(
        self, target: Target, tokens: Callable[[], int], remaining_s: float, *, patient: bool = False
    ) -> Passage:
        """Pass the breaker and book a key's rate; waits for its turn.

        Who waits when its key is closed or refused books anew, at another key where there is one. ``tokens`` says about
        how many the call will take; it is asked only where a limit on them is known. ``patient``: there is no other
        target, so while another call is the probe of an ill one, what comes of it is waited for.

        Raises ProviderRateLimitedError where the turn comes later than in ``remaining_s`` seconds, and
        ProviderUnavailableError where the breaker lets no call through, or has opened meanwhile.
        """
        until = self._clock.monotonic() + remaining_s
        while True:
            if patient:
                await self.until_probed(target, until)
            # Whatever its caller asked before: others may have failed since, as while prompts waited for company.
            self.check_breaker(target)
            now = self._clock.monotonic()
            key, booking = self._book(target, tokens, now, until - now)
            if booking.wait_s <= 0:
                break
            now = await self._turn(target, booking, patient=patient)
            if self._may_leave(target, key, now):
                break
            booking.release()
        health = self._health_of(target)
        health.breaker.begin(now)
        health.calls += 1
        return Passage(target, key.number, booking, now)

    def _book(self, target: Target, tokens: Callable[[], int], now: float, remaining_s: float) -> tuple[_Key, Booking]:
        keys = self._keys_of(target.provider)
        needed = _needed(keys, tokens)
        key = keys[0]
        if len(keys) > 1:
            key = min(self._usable(target.provider, now), key=lambda one: one.limiter.wait_s(now, needed))
        if key.limiter.wait_s(now, needed) >= remaining_s:
            raise ProviderRateLimitedError(
                f"provider {target.provider!r} has no room under its rate limits within {remaining_s:.1f} s"
            )
        booking = key.limiter.reserve(now, needed)
        if len(keys) > 1:
            # The next call finds this key at the end of its own queue: with equal waits the keys take turns.
            keys.remove(key)
            keys.append(key)
        return key, booking

    def _may_leave(self, target: Target, key: _Key, now: float) -> bool:
        """Whether ``key``, whose turn was waited for, is still one to call with, and nobody probes."""
        usable = any(one is key for one in self._usable(target.provider, now))
        return usable and not key.limiter.is_closed(now) and self.open_in_s(target) == 0

    async def until_probed(self, target: Target, until: float) -> None:
        """Wait while another call is ``target``'s probe, until ``until`` (monotonic seconds) at most."""
        began = self._clock.monotonic()
        while self.is_probed(target) and (left_s := until - self._clock.monotonic()) > 0:
            pause_s = max(PROBE_POLL_S, (self._clock.monotonic() - began) / 10)
            await self._clock.sleep(min(pause_s, MAX_PROBE_POLL_S, left_s))

    def is_probed(self, target: Target) -> bool:
        """Whether a call is under way as the probe of ``target``, which was ill."""
        health = self._health.get((target.provider, target.model))
        now = self._clock.monotonic()
        return health is not None and health.breaker.state(now) == "half_open" and health.breaker.wait_s(now) > 0

    async def _turn(self, target: Target, booking: Booking, *, patient: bool) -> float:
        """When the booked place is there, monotonic seconds; the place is left to others where it is not taken."""
        self._metrics.rate_limit_wait_seconds.labels(target.provider).observe(booking.wait_s)
        try:
            await self._clock.sleep(booking.wait_s)
            self.check_breaker(target, patient=patient)
        except BaseException:
            booking.release()
            raise
        return self._clock.monotonic()

    def check_breaker(self, target: Target, *, patient: bool = False) -> None:
        """Raise ProviderUnavailableError where ``target``'s breaker lets no call through; of who is ``patient`` not for
        the probe of another one.
        """
        open_in_s = self.open_in_s(target)
        if open_in_s > 0 and not (patient and self.is_probed(target)):
            raise circuit_open(target, open_in_s)

    def leave(self, passage: Passage, outcome: Answer | ProviderError | None) -> None:
        """The call has ended; None: it was given up, which says nothing of the target."""
        now = self._clock.monotonic()
        health = self._health_of(passage.target)
        before = health.breaker.state(now)
        if isinstance(outcome, Answer):
            health.breaker.end(now, ok=True, began=passage.began)
            health.latencies_s.append(now - passage.began)
        else:
            health.breaker.end(now, ok=False if isinstance(outcome, ILL) else None, began=passage.began)
        if health.breaker.state(now) == "open" and before != "open":
            self._metrics.breaker_openings_total.labels(passage.target.provider).inc()
        self._settle(passage, outcome, now)

    def turn_back(self, passage: Passage) -> None:
        """Nothing was sent after all: the call has taken nothing from its key's limits."""
        self.leave(passage, None)
        passage.booking.release()

    def _settle(self, passage: Passage, outcome: Answer | ProviderError | None, now: float) -> None:
        if isinstance(outcome, Answer):
            used = outcome.usage.input_tokens + outcome.usage.output_tokens
            # A server that counts nothing has not answered for nothing: what was booked stands.
            if used > 0:
                passage.booking.settle(used)
            return
        if outcome is not None and not outcome.maybe_paid:
            passage.booking.settle(0)
        key = self._key(passage)
        if key is None:
            return
        match outcome:
            case ProviderRateLimitedError():
                wait = outcome.retry_after_s
                key.limiter.penalise(now, DEFAULT_PENALTY_S if wait is None else wait)
            case ProviderAuthError():
                key.out_until = now + KEY_OUT_S

    def learn(self, passage: Passage, hint: RateHint) -> None:
        """Take up what a reply's headers say of the limits."""
        key = self._key(passage)
        if key is not None:
            key.limiter.learn(self._clock.monotonic(), hint)

    def has_another_key(self, provider: str) -> bool:
        """Whether a key is left that was not refused lately."""
        now = self._clock.monotonic()
        return any(key.out_until <= now for key in self._keys_of(provider))

    # -- hedging -----------------------------------------------------------------------------------------------

    def p95_s(self, target: Target) -> float | None:
        """The 95th percentile of ``target``'s last answers, in seconds; None where too few are known."""
        latencies = self._health_of(target).latencies_s
        return quantiles(latencies, n=20)[-1] if len(latencies) >= MIN_LATENCIES else None

    def may_hedge(self, target: Target, max_share: float) -> bool:
        """Whether a second call beside one to ``target`` stays within the share; counts it where it does."""
        health = self._health_of(target)
        if health.hedges + 1 > max(1.0, health.calls * max_share):
            return False
        health.hedges += 1
        return True

    # -- state -------------------------------------------------------------------------------------------------

    def breakers(self) -> Iterable[tuple[Target, str]]:
        """Every target that was called and its breaker's state."""
        now = self._clock.monotonic()
        return [(Target(*name), health.breaker.state(now)) for name, health in self._health.items()]

    def _health_of(self, target: Target) -> _Health:
        name = (target.provider, target.model)
        health = self._health.get(name)
        if health is None:
            if len(self._health) >= MAX_TARGETS:
                self._health.pop(next(iter(self._health)))
            health = self._health[name] = _Health()
        return health

    def _keys_of(self, provider: str) -> list[_Key]:
        keys = self._keys.get(provider)
        if keys is None:
            limits = self._limits.get(provider, self._default)
            count = max(1, self._count_keys(provider))
            rates = (limits.requests_per_minute, limits.tokens_per_minute)
            keys = self._keys[provider] = [_Key(number, RateLimiter(*rates)) for number in range(count)]
        return keys

    def _usable(self, provider: str, now: float) -> list[_Key]:
        """The keys that were not refused lately; all of them where every one was."""
        keys = self._keys_of(provider)
        return [key for key in keys if key.out_until <= now] or keys

    def _key(self, passage: Passage) -> _Key | None:
        keys = self._keys_of(passage.target.provider)
        if keys[0].number == passage.key:
            return keys[0]
        return next((key for key in keys if key.number == passage.key), None)


def _needed(keys: Iterable[_Key], tokens: Callable[[], int]) -> int:
    """How many ``tokens`` a call may take, where any of ``keys`` has a limit on them."""
    return tokens() if any(key.limiter.counts_tokens for key in keys) else 0


def circuit_open(target: Target, open_in_s: float) -> ProviderUnavailableError:
    """Why ``target`` is not called for ``open_in_s`` seconds."""
    return ProviderUnavailableError(
        f"{target.provider}/{target.model} has failed too often lately; the next call goes in {open_in_s:.1f} s",
        retry_after_s=open_in_s,
    )
