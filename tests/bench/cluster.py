"""A cluster as a model: what one worker does with its processor and its room, and how many of them a rate takes.

A worker is one processor, which serves records one after the other, and room for so many in flight. A miss takes the
processor before and after its call; meanwhile the processor serves others. Calls that come back go first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

BEFORE_CALL = 0.6
"""Share of a miss's processor time that comes before its call: reading, looking up, journal, sending."""


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """Seconds of processor a hit and a miss take, and how many misses are in flight at most."""

    hit_s: float
    miss_s: float
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rate takes."""

    workers: int
    partitions: int
    calls_in_flight: float
    calls_in_flight_per_worker: float
    busy: float


def finish_times(worker: WorkerModel, arrivals: Sequence[float], calls_s: Sequence[float]) -> list[float]:
    """When each record is answered, in seconds, in the order of answers.

    Args:
        worker: the model.
        arrivals: in seconds, ascending.
        calls_s: what each record's call takes, in seconds; negative for a hit.
    """
    finished: list[float] = []
    returning: list[float] = []
    now, place, in_flight = 0.0, 0, 0
    while place < len(arrivals) or returning:
        due = place < len(arrivals) and in_flight < worker.max_in_flight
        if returning and returning[0] <= now:
            heapq.heappop(returning)
            now += worker.miss_s * (1 - BEFORE_CALL)
            in_flight -= 1
            finished.append(now)
        elif due and arrivals[place] <= now:
            if calls_s[place] < 0:
                now += worker.hit_s
                finished.append(now)
            else:
                now += worker.miss_s * BEFORE_CALL
                in_flight += 1
                heapq.heappush(returning, now + calls_s[place])
            place += 1
        else:
            now = min(returning[0] if returning else math.inf, arrivals[place] if due else math.inf)
    return finished


def plan(worker: WorkerModel, rate_per_s: float, hit_share: float, mean_call_s: float, busy: float) -> Plan:
    """How many workers ``rate_per_s`` takes, each ``busy`` (0 to 1) at most, and what they hold in flight.

    A worker owns whole partitions, and each partition has one owner: there must be one for each worker at least; of
    that the next power of two, so that workers can be added without moving keys.
    """
    seconds = rate_per_s * (hit_share * worker.hit_s + (1 - hit_share) * worker.miss_s)
    calls = rate_per_s * (1 - hit_share) * mean_call_s
    workers = max(math.ceil(seconds / busy), math.ceil(calls / (worker.max_in_flight * busy)))
    return Plan(workers, 2 ** math.ceil(math.log2(workers)), calls, calls / workers, seconds / workers)
