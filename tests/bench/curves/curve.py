"""What something costs as work grows: points, the steepest step between them, and whether that is worse than linear."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

TOLERANCE = 0.3
"""Of an exponent: what a shared machine's noise adds between two neighbours a factor of ten apart."""
FLAT, LINEAR = 0.0, 1.0


@dataclass(frozen=True, slots=True)
class Point:
    """``value`` (a median, with the lowest and highest of its rounds) at ``x``."""

    x: float
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, x: float, found: Sequence[float]) -> Point:
        """The point of some rounds."""
        return cls(x, statistics.median(found), min(found), max(found))


@dataclass(frozen=True, slots=True)
class Curve:
    """``unit`` against ``along``.

    Attributes:
        is_rate: larger is better, and the cost of one piece of work is one over it.
        at_most: the exponent that the cost of one piece may have: FLAT where twice the work should cost twice, LINEAR
            where one piece of work is itself made larger.
        note: what the points do not say.
    """

    name: str
    along: str
    unit: str
    points: list[Point]
    is_rate: bool
    at_most: float
    note: str = ""
    steps: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps.extend(self._exponent(*pair) for pair in pairwise(self.points))

    def _exponent(self, left: Point, right: Point) -> float:
        """Of the cost of one piece of work, by ``along``, between two neighbours."""
        growth = left.value / right.value if self.is_rate else right.value / left.value
        return math.log(max(growth, 1e-9)) / math.log(right.x / left.x)

    @property
    def cliff(self) -> str:
        """The steepest step that is worse than allowed, in words; empty where there is none."""
        steps = zip(self.steps, pairwise(self.points), strict=True)
        worst = max(steps, key=lambda step: step[0], default=None)
        if worst is None or worst[0] <= self.at_most + TOLERANCE:
            return ""
        exponent, (left, right) = worst
        step = f"from {left.x:g} to {right.x:g} {self.along}"
        return f"{step}: {left.value:.4g} to {right.value:.4g} {self.unit} (exponent {exponent:.2f})"

    @property
    def held(self) -> bool:
        """Nothing is worse than linear."""
        return not self.cliff
