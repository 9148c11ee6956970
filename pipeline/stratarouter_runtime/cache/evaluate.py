"""Measures what a semantic cache would serve of labelled pairs, by cosine alone and with the guard. Pure but for time.

A pair labelled as the same is right when served and missed when not; one labelled as different is wrong when served.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stratarouter_runtime.cache.guard import RuleGuard, Setting
from stratarouter_runtime.cache.pairs import Pair, Question
from stratarouter_runtime.records import Vector

THRESHOLDS = tuple(round(0.50 + 0.01 * step, 2) for step in range(50))
"""Where the curve is measured: below 0.50 nothing is worth a look, and 1.0 is the exact match."""

BLOCK = 512
"""Questions compared with all others at once: 512 x 100,000 similarities are 200 MB."""

KEPT_CHARS = 10_000_000
"""Room for features while measuring, so that every text is read once, as in a worker whose entries stay."""


@dataclass(frozen=True, slots=True)
class Score:
    """Counts and shares at one threshold. Shares are None where nothing was served or nothing could be."""

    precision: float | None
    recall: float | None
    right: int
    wrong: int
    missed: int
    threshold: float


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured.

    Attributes:
        plain: cosine alone at the threshold of its best F1 on these very pairs, which favours it.
        guarded: the guarded cache at its setting.
        curve: both at each of ``THRESHOLDS``; the guard's setting stays the same.
        pairs: how many pairs.
        guard_us: microseconds of processor time a candidate that the guard took, in the mean, its texts read before.
        refusals: how many pairs of each label each reason refused, at the guarded threshold.
    """

    plain: Score
    guarded: Score
    curve: list[tuple[Score, Score]]
    pairs: int
    guard_us: float
    refusals: dict[str, tuple[int, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """``{"plain": ..., "guarded": ..., "curve": [...]}``."""
        points = [{"threshold": a.threshold, "plain": asdict(a), "guarded": asdict(b)} for a, b in self.curve]
        return {"plain": asdict(self.plain), "guarded": asdict(self.guarded), "curve": points}


def evaluate(
    pairs: Sequence[Pair], similarities: NDArray[np.float32], setting: Setting, threshold: float | None = None
) -> Report:
    """Measure ``pairs``.

    Args:
        pairs: at least one.
        similarities: their cosines, shape (pairs,).
        setting: the guard's.
        threshold: cosine from which the guarded cache looks; None takes the setting's floor.
    """
    floor = setting.floor if threshold is None else threshold
    same = np.array([pair.same for pair in pairs])
    reasons, guard_us = _judge(pairs, similarities, setting)
    passed = np.array([reason is None for reason in reasons])
    everything = np.ones(len(pairs), dtype=np.bool_)
    plain = [score(similarities, same, everything, at) for at in THRESHOLDS]
    guarded = [score(similarities, same, passed, at) for at in THRESHOLDS]
    refusals: dict[str, tuple[int, int]] = {}
    for reason, is_same, similarity in zip(reasons, same, similarities, strict=True):
        if reason is not None and similarity >= floor:
            different, alike = refusals.get(reason, (0, 0))
            refusals[reason] = (different + (not is_same), alike + bool(is_same))
    return Report(
        plain=max(plain, key=_f1),
        guarded=score(similarities, same, passed, floor),
        curve=list(zip(plain, guarded, strict=True)),
        pairs=len(pairs),
        guard_us=guard_us,
        refusals=refusals,
    )


def score(
    similarities: NDArray[np.float32], same: NDArray[np.bool_], passed: NDArray[np.bool_], threshold: float
) -> Score:
    """The score of serving every pair that ``passed`` and is at or above ``threshold``. All of shape (pairs,)."""
    served = passed & (similarities >= threshold)
    right, wrong = int((served & same).sum()), int((served & ~same).sum())
    wanted = int(same.sum())
    return Score(
        precision=right / (right + wrong) if right + wrong else None,
        recall=right / wanted if wanted else None,
        right=right,
        wrong=wrong,
        missed=wanted - right,
        threshold=threshold,
    )


def _f1(score: Score) -> float:
    return 2 * score.right / max(2 * score.right + score.wrong + score.missed, 1)


def _judge(
    pairs: Sequence[Pair], similarities: NDArray[np.float32], setting: Setting
) -> tuple[list[str | None], float]:
    """The guard's reason for each pair, and its mean time a pair in microseconds, features made before."""
    guard = RuleGuard(setting, kept_chars=KEPT_CHARS)
    floats = [float(similarity) for similarity in similarities]
    for pair, similarity in zip(pairs, floats, strict=True):
        guard.differs(pair.asked, pair.stored, similarity)
    # Processor time: what the machine does beside is no cost of the guard's.
    start = time.thread_time()
    reasons = [guard.differs(pair.asked, pair.stored, value) for pair, value in zip(pairs, floats, strict=True)]
    return reasons, (time.thread_time() - start) / max(len(pairs), 1) * 1e6


def nearest_pairs(
    questions: Sequence[Question], vectors: NDArray[np.float32]
) -> tuple[list[Pair], NDArray[np.float32]]:
    """Each question with its nearest other one; the same where both have one result.

    Args:
        questions: at least two.
        vectors: of unit length, shape (questions, dimension).

    Returns:
        The pairs, and their cosines of shape (questions,).
    """
    pairs: list[Pair] = []
    found = np.zeros(len(questions), dtype=np.float32)
    for start in range(0, len(questions), BLOCK):
        block = vectors[start : start + BLOCK] @ vectors.T
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -1.0
        for offset, other in enumerate(block.argmax(axis=1)):
            asked, stored = questions[start + offset], questions[int(other)]
            pairs.append(Pair(asked.text, stored.text, asked.answer == stored.answer))
            found[start + offset] = block[offset, other]
    return pairs, found


def cosines(asked: Sequence[Vector], stored: Sequence[Vector]) -> NDArray[np.float32]:
    """Cosine of each pair of unit vectors, shape (pairs,)."""
    products: NDArray[np.float32] = (np.asarray(asked, np.float32) * np.asarray(stored, np.float32)).sum(axis=1)
    return products
