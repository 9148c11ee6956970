"""What breaks when: a list of faults drawn from a seed. Pure."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kill", "freeze", "broker_kill", "broker_restart", "postgres_kill", "postgres_restart"]

KILL_EVERY_S = 9.0
"""Mean time between two kills of a worker: 33 in 300 s. Longer than a recovery, so that most can be timed alone."""
OTHER_EVERY_S = 37.0
"""Mean time between two faults of other kinds."""
JITTER = 0.15
CALM_BEFORE_S = 5.0
"""Requests flow before the first fault."""
CALM_AFTER_S = 10.0
"""No fault later than this before the end: the last recovery happens under load."""
SPARED_FROM = 0.2
"""From this share of the time on, the last worker is neither killed nor frozen: its memory is watched over the last
half, before which it is to have met an outage or two. What it loads and keeps for the first one is no leak."""
OTHERS: tuple[Kind, ...] = ("postgres_kill", "broker_kill", "freeze", "postgres_restart", "broker_restart")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault: seconds after the start, what, and which worker (-1 where it is no worker's)."""

    at_s: float
    kind: Kind
    worker: int = -1


def draw(seconds: float, workers: int, seed: int) -> list[Fault]:
    """The faults of a storm of ``seconds`` over ``workers`` workers, in the order of their times."""
    chance = random.Random(seed)
    span = max(0.0, seconds - CALM_BEFORE_S - CALM_AFTER_S)
    faults = [Fault(at, "kill", _victim(chance, at, seconds, workers)) for at in _times(chance, span, KILL_EVERY_S)]
    order = list(OTHERS)
    chance.shuffle(order)
    for index, at in enumerate(_times(chance, span, OTHER_EVERY_S)):
        kind = order[index % len(order)]
        faults.append(Fault(at, kind, _victim(chance, at, seconds, workers) if kind == "freeze" else -1))
    return sorted(faults)


def _times(chance: random.Random, span: float, every_s: float) -> list[float]:
    count = math.ceil(span / every_s)
    gap = span / count if count else 0.0
    return [CALM_BEFORE_S + gap * (index + 0.5 + chance.uniform(-JITTER, JITTER)) for index in range(count)]


def _victim(chance: random.Random, at_s: float, seconds: float, workers: int) -> int:
    return chance.randrange(workers - 1 if at_s >= SPARED_FROM * seconds else workers)
