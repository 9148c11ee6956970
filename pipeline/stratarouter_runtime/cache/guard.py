"""Judges whether two texts ask the same, by what embeddings blur. Deterministic, no input or output.

``rules`` refuse what must not differ; ``wording`` weighs what may. English; texts in other languages are judged by
their numbers, names, operators and changed words alone, and must be the same in scripts that write no blanks.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from stratarouter_runtime.cache.features import Features, features
from stratarouter_runtime.cache.rules import refusal
from stratarouter_runtime.cache.wording import doubt

MAX_CHARS = 8_000
"""Longer texts are only served exactly: embedding models read the first 256 to 8,192 tokens, and the likeness of two
texts says nothing about what stands behind them. Also bounds the guard's time (10 ms for prose of this length, 20 ms
where no rule refuses it, 50 ms for the worst text tried)."""
KEPT_CHARS = 500_000
"""How much text the guard keeps features for: 150 bytes a character in short texts, less in long ones, so 75 MB."""
ASSUMED = 0.90
"""The similarity of texts whose vectors are not at hand: near, and not so near that words may be put in."""


@dataclass(frozen=True, slots=True)
class Setting:
    """An operating point of the guarded cache.

    Attributes:
        name: what the command line calls it.
        floor: cosine similarity below which nothing is served: the threshold to search with.
        demand: what must be left of the similarity once the differing words have cost theirs (``wording_cost``).
    """

    name: str
    floor: float
    demand: float


STRICT = Setting("strict", floor=0.55, demand=0.64)
"""The default. On the held-out labelled pairs of tests/contract/test_cache_quality.py 2 hits in 138 are wrong."""
LENIENT = Setting("lenient", floor=0.55, demand=0.56)
"""More hits: 0.82 of the same pairs are served there instead of 0.76, and 6 hits in 152 are wrong."""
SETTINGS = {setting.name: setting for setting in (STRICT, LENIENT)}


class RuleGuard:
    """The guard: all rules, with the features of recent texts kept. Not safe across threads."""

    def __init__(self, setting: Setting = STRICT, *, kept_chars: int = KEPT_CHARS) -> None:
        self._setting = setting
        self._kept: OrderedDict[str, tuple[Features, ...]] = OrderedDict()
        self._room = kept_chars

    def differs(self, asked: str, stored: str, similarity: float = ASSUMED) -> str | None:
        """The reason (``guard:number``, ...) why an answer to ``stored`` must not serve ``asked``, or None.

        ``similarity``: cosine of their vectors. The more the words differ, the higher it must be.
        """
        if asked == stored:
            return None
        if max(len(asked), len(stored)) > MAX_CHARS:
            return "guard:length"
        ours, theirs = self._features(asked), self._features(stored)
        return refusal(ours, theirs) or doubt(ours[-1], theirs[-1], similarity - self._setting.demand)

    def _features(self, text: str) -> tuple[Features, ...]:
        found = self._kept.get(text)
        if found is not None:
            self._kept.move_to_end(text)
            return found
        made = features(text)
        self._kept[text] = made
        self._room -= len(text)
        while self._room < 0 and self._kept:
            self._room += len(self._kept.popitem(last=False)[0])
        return made


def create_guard(setting: Setting = STRICT) -> RuleGuard:
    """The guard with its usual room; one for each thread."""
    return RuleGuard(setting)
