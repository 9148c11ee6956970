"""How alike two questions must be for one answer to serve both, learnt so that few hits are wrong. Pure.

Every likeness from which hits could be served is a claim: "at least ``bound`` of them are wrong". Evidence bets against
it: a capital of 1 is put on lower error rates, and grows or shrinks with every answer that was compared with a fresh
one. While the claim holds the capital comes to 1 / ALPHA with a chance of at most ALPHA, however often one looks
(Ville's inequality; betting as in Waudby-Smith and Ramdas, 2024). Only then is the claim given up and hits are served
from there. So without evidence nothing is served by likeness.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.02
"""How likely one threshold is trusted wrongly by a scope's own evidence. With several thresholds at which evidence is
looked at, what is promised is 0.05; ``tests/unit/test_error_bound_simulated.py`` counts. Borrowed evidence (below) is
none of this promise: of a scope near the bound beside much better ones more is trusted."""

BET_SHARES = (0.0, 1 / 8, 1 / 4, 1 / 2)
BET_WEIGHTS = (1 / 2, 1 / 6, 1 / 6, 1 / 6)
"""The error rates bet on, as shares of the bound, and the capital on each. Without one wrong answer a bound of 0.01 is
met after 430 comparisons; each wrong one costs 90 to 180 more."""

BORROWED = 2 / 3
"""Of the evidence asked for, at most so much may be other scopes'. The rest is the scope's own: what holds for the
others need not hold here."""

TAIL = 5
"""Within TAIL_BINS above a threshold at most TAIL times the bound may be wrong, by own evidence: good hits further up
must not pay for bad ones, nor for those that nobody has looked at; these may come to be the most."""
TAIL_BINS = 5
TAIL_ALPHA = 0.05

KEPT = 20
"""Evidence kept, in units of 1 / bound; beyond it all is halved, so that what was learnt long ago gives way."""

PROBATION = 1
"""After a wrong hit so many are executed instead of served, in units of 1 / bound: where the questions have changed,
these say so at once."""

ALARM_WRONG = 4
"""Wrong answers among the last 1 / bound comparisons in what is served, where the bound allows 1: as many come by
chance in 2 % of such stretches. What was learnt before them is forgotten."""
MAX_RECENT = 200

LOWEST = 0.5
BINS = 50
"""Likeness in hundredths from LOWEST to 1; what is below counts with the lowest."""

MAX_SCOPES = 4096
"""About 10 MB; the scope longest without evidence is forgotten first, and learnt anew."""

MAX_CHECKED = 2_000
"""Served answers that the published rate speaks of, the newest."""

STALE = 8
"""Observations of a scope after which its threshold is computed anew (0.1 ms); after a wrong one, or the first under
another bound, at once. Looking at a threshold changes nothing, so everybody who is told the same in the same order
serves the same."""

Z_95 = 1.959964

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Observation:
    """A kept answer held against a fresh one. ``likeness`` of the two questions, ``bound`` on the wrong share.

    ``served`` says that the kept answer was given to the client, and that it was chosen by lot; else it was held back.
    """

    scope: str
    likeness: float
    right: bool
    served: bool
    bound: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Of ``checked`` served answers ``wrong`` were; the share with its 95 % Wilson interval, None before the first."""

    checked: int
    wrong: int
    rate: float | None
    low: float | None
    high: float | None


class _Scope:
    """One scope's evidence, by likeness, and the lowest bin that it trusts under ``bound``."""

    __slots__ = ("bound", "floor", "probation", "recent", "seen", "unread", "wrong")

    def __init__(self, bound: float) -> None:
        self.seen: Counts = np.zeros(BINS)
        self.wrong: Counts = np.zeros(BINS)
        self.recent: deque[tuple[int, bool]] = deque()
        self.probation = 0
        self.unread = 0
        self.floor = BINS
        self.bound = bound


class ErrorBound:
    """What is known of every scope. One for each process."""

    def __init__(self, *, max_scopes: int = MAX_SCOPES) -> None:
        """``max_scopes``: how many are remembered."""
        self._max_scopes = max_scopes
        self._scopes: OrderedDict[str, _Scope] = OrderedDict()
        self._pool_seen: Counts = np.zeros(BINS)
        self._pool_wrong: Counts = np.zeros(BINS)
        self._checked: deque[bool] = deque(maxlen=MAX_CHECKED)

    def __len__(self) -> int:
        """Scopes remembered."""
        return len(self._scopes)

    # -- what is learnt ----------------------------------------------------------------------------------------

    def observe(self, seen: Observation) -> None:
        """Take one comparison in."""
        scope, place = self._touched(seen.scope, seen.bound), _bin(seen.likeness)
        trusted = place >= self._floor(scope, seen.bound)
        if scope.bound != seen.bound:
            # Its route was changed: what was learnt for the other bound says nothing of this one.
            scope.bound, scope.unread = seen.bound, STALE
        if seen.served:
            self._checked.append(seen.right)
        scope.probation = max(0, scope.probation - 1)
        self._count(scope, place, seen.right)
        if trusted:
            scope.recent.append((place, seen.right))
            if seen.served and not seen.right:
                scope.probation = math.ceil(PROBATION / seen.bound)
            self._watch(scope)
        if scope.seen.sum() > KEPT / seen.bound:
            self._become(scope, scope.seen / 2, scope.wrong / 2)
        if not seen.right or scope.unread >= STALE:
            scope.floor, scope.unread = self._learnt(scope, scope.bound), 0

    def _count(self, scope: _Scope, place: int, right: bool) -> None:
        scope.unread += 1
        scope.seen[place] += 1
        self._pool_seen[place] += 1
        if not right:
            scope.wrong[place] += 1
            self._pool_wrong[place] += 1

    def _watch(self, scope: _Scope) -> None:
        """Where the newest comparisons contradict what was learnt, they are all that is known."""
        while len(scope.recent) > min(MAX_RECENT, math.ceil(1 / scope.bound)):
            scope.recent.popleft()
        if sum(not right for _, right in scope.recent) < ALARM_WRONG:
            return
        seen, wrong = np.zeros(BINS), np.zeros(BINS)
        for place, right in scope.recent:
            seen[place] += 1
            wrong[place] += not right
        scope.recent.clear()
        self._become(scope, seen, wrong)

    def _become(self, scope: _Scope, seen: Counts, wrong: Counts) -> None:
        """Put other evidence in place of a scope's, here and in the pool."""
        self._pool_seen += seen - scope.seen
        self._pool_wrong += wrong - scope.wrong
        scope.seen, scope.wrong, scope.unread = seen, wrong, STALE

    def _touched(self, name: str, bound: float) -> _Scope:
        scope = self._scopes.get(name)
        if scope is None:
            scope = self._scopes[name] = _Scope(bound)
            if len(self._scopes) > self._max_scopes:
                _, gone = self._scopes.popitem(last=False)
                self._become(gone, np.zeros(BINS), np.zeros(BINS))
        else:
            self._scopes.move_to_end(name)
        return scope

    # -- what follows from it ----------------------------------------------------------------------------------

    def trusts(self, name: str, likeness: float, bound: float) -> bool:
        """Whether an answer may be served to a question that is so alike."""
        scope = self._scopes.get(name)
        return scope is not None and scope.probation == 0 and _bin(likeness) >= self._floor(scope, bound)

    def floor(self, name: str, bound: float) -> float:
        """The likeness from which hits are served now; infinite where none are."""
        scope = self._scopes.get(name)
        if scope is None or scope.probation > 0:
            return math.inf
        floor = self._floor(scope, bound)
        return math.inf if floor == BINS else LOWEST + floor / 100 if floor else 0.0

    def measured(self) -> Measured:
        """The share of wrong ones among the served answers that were checked last."""
        checked = len(self._checked)
        wrong = checked - sum(self._checked)
        return Measured(checked, wrong, *(wilson(wrong, checked) if checked else (None, None, None)))

    def _floor(self, scope: _Scope, bound: float) -> int:
        # Another bound than the last one: its route was changed, or what is asked is what would be.
        return scope.floor if bound == scope.bound else self._learnt(scope, bound)

    def _learnt(self, scope: _Scope, bound: float) -> int:
        """The lowest bin from which hits may be served; BINS where there is none."""
        asked = math.log(1 / ALPHA)
        if scope.seen.sum() * -math.log1p(-bound) < (1 - BORROWED) * asked:
            return BINS
        own = _log_capital(_from_above(scope.seen), _from_above(scope.wrong), bound)
        others_seen = _from_above(self._pool_seen - scope.seen)
        others_wrong = _from_above(self._pool_wrong - scope.wrong)
        others = _log_capital(np.maximum(others_seen, others_wrong), others_wrong, bound)
        enough = own + np.clip(others, 0.0, BORROWED * asked) >= asked
        candidates = np.flatnonzero(enough & (scope.seen > 0))
        return next((int(place) for place in candidates if _tail_holds(scope, int(place), bound)), BINS)


def wilson(wrong: int, checked: int) -> tuple[float, float, float]:
    """A share and its 95 % confidence interval (Wilson, 1927). ``checked`` >= 1."""
    rate, spread = wrong / checked, Z_95 * Z_95 / checked
    middle = (rate + spread / 2) / (1 + spread)
    half = math.sqrt(rate * (1 - rate) * spread + spread * spread / 4) / (1 + spread)
    return rate, max(0.0, middle - half), min(1.0, middle + half)


def _bin(likeness: float) -> int:
    # A hundredth above the edge by rounding alone is not above it.
    return min(BINS - 1, max(0, math.floor((likeness - LOWEST) * 100 + 1e-6)))


def _from_above(counts: Counts) -> Counts:
    """For each bin what lies in it and above."""
    return np.asarray(np.cumsum(counts[::-1])[::-1])


def _tail_holds(scope: _Scope, place: int, bound: float) -> bool:
    """Whether what lies just above ``place`` is itself not far beyond the bound."""
    near = slice(place, place + TAIL_BINS)
    seen, wrong = scope.seen[near].sum(keepdims=True), scope.wrong[near].sum(keepdims=True)
    return bool(_log_capital(seen, wrong, min(0.5, TAIL * bound))[0] >= math.log(1 / TAIL_ALPHA))


def _log_capital(seen: Counts, wrong: Counts, bound: float) -> Counts:
    """The logarithm of what the bets against "at least ``bound`` are wrong" have become."""
    right = seen - wrong
    total = np.where(wrong > 0, -np.inf, math.log(BET_WEIGHTS[0]) - right * math.log1p(-bound))
    for share, weight in zip(BET_SHARES[1:], BET_WEIGHTS[1:], strict=True):
        gain = math.log1p(-share * bound) - math.log1p(-bound)
        total = np.logaddexp(total, math.log(weight) + wrong * math.log(share) + right * gain)
    return np.asarray(total)
