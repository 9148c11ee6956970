"""What a storm came to: pure counting over what was produced, answered and paid for."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.schedule import Fault

EDGE = 0.1
"""Share of the samples at either end that are taken for the memory before and after."""


@dataclass(slots=True)
class Observed:
    """Everything seen from outside. Times are seconds after the start.

    Attributes:
        on_topic: how often each request id stands on the requests topic.
        answered: how many responses a read_committed reader saw of each.
        failed: responses with an error.
        dead_letters: records that were refused.
        produced_s, first_answer_s: by request id.
        paid: calls that the provider itself counted, by request id.
        ambiguous: calls that the journal counted as started more than once.
        faults: what was done, at the time it was done.
        memory: resident bytes of the spared worker over the last half.
    """

    on_topic: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    dead_letters: int = 0
    produced_s: dict[str, float] = field(default_factory=dict)
    first_answer_s: dict[str, float] = field(default_factory=dict)
    paid: Counter[str | None] = field(default_factory=Counter)
    ambiguous: int = 0
    faults: list[Fault] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)


def recoveries(faults: Sequence[Fault], produced: Mapping[str, float], answered: Mapping[str, float]) -> list[float]:
    """Seconds from each kill to the answer of the last request that was produced before it and open at the time.

    Only kills that no other fault came near: what falls into another recovery is not this one's.
    """
    found = []
    for fault in faults:
        if fault.kind != "kill":
            continue
        open_then = [
            answered[name]
            for name, at in produced.items()
            if at <= fault.at_s and answered.get(name, float("-inf")) > fault.at_s
        ]
        took = max(open_then, default=fault.at_s) - fault.at_s
        others = (other.at_s for other in faults if other is not fault)
        if not any(fault.at_s - ALONE_BEFORE_S <= at <= fault.at_s + took for at in others):
            found.append(took)
    return found


ALONE_BEFORE_S = 8.0
"""A fault so long before a kill may still be recovering from."""


def growth(memory: Sequence[int]) -> float | None:
    """Relative growth from the first to the last tenth of the samples; None for too few to say."""
    edge = int(len(memory) * EDGE)
    if edge < 1:
        return None
    return statistics.median(memory[-edge:]) / statistics.median(memory[:edge]) - 1


def report(seen: Observed, *, seed: int, seconds: float) -> dict[str, Any]:
    """The figures of ``chaos-report.json`` that the storm gives."""
    times = recoveries(seen.faults, seen.produced_s, seen.first_answer_s)
    requests = sum(seen.on_topic.values())
    return {
        "seed": seed,
        "seconds": seconds,
        "requests": requests,
        "responses": sum(min(count, seen.on_topic[name]) for name, count in seen.answered.items()),
        "distinct_responses": len(seen.answered),
        "lost": sum((seen.on_topic - seen.answered).values()),
        "duplicates": sum((seen.answered - seen.on_topic).values()),
        "error_responses": seen.failed,
        "dead_letters": seen.dead_letters,
        "provider_calls": sum(seen.paid.values()),
        "paid_more_than_once": sum(count - 1 for count in seen.paid.values()),
        "ambiguous": seen.ambiguous,
        "kills": sum(fault.kind == "kill" for fault in seen.faults),
        "faults": dict(Counter(fault.kind for fault in seen.faults)),
        "recovery_s": {
            "p50": round(statistics.median(times), 2) if times else None,
            "worst": round(max(times), 2) if times else None,
            "timed_alone": len(times),
        },
        "memory_growth": None if (grown := growth(seen.memory)) is None else round(grown, 4),
        "exit_codes": seen.exit_codes,
    }
