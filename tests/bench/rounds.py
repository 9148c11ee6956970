"""Contenders measured in turns: each round all of them, every other round in reverse; none has the warm seat always."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from bench.peers import PeerError
from bench.result import NotRun, Outcome, compare

Measure = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Rounds:
    """What was found by contender, one figure a round; and why peers that are not in it are missing."""

    found: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def against(
        self,
        peer: str,
        name: str,
        *,
        unit: str,
        at_least: float | None,
        ours: str = "ours",
        lower_is_better: bool = False,
        note: str = "",
    ) -> Outcome:
        """``ours`` compared with ``peer``, or why it cannot be."""
        if peer in self.missing:
            return NotRun(name, self.missing[peer])
        return compare(
            name,
            self.found[ours],
            self.found[peer],
            unit=unit,
            at_least=at_least,
            lower_is_better=lower_is_better,
            note=note,
        )


async def alternate(contenders: Mapping[str, Measure], rounds: int, missing: Mapping[str, str] | None = None) -> Rounds:
    """Measure all in turns. A peer that fails leaves, with its reason; anything else that fails is raised."""
    done = Rounds({name: [] for name in contenders}, dict(missing or {}))
    for number in range(rounds):
        for name in list(contenders) if number % 2 == 0 else list(reversed(contenders)):
            if name in done.missing:
                continue
            try:
                done.found[name].append(await contenders[name]())
            except PeerError as exc:
                done.missing[name] = str(exc)
    return done
