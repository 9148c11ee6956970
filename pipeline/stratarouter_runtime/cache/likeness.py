"""How alike two texts are as texts: what rules and costs both ask. Pure."""

from __future__ import annotations

from stratarouter_runtime.cache.features import Features

SHORT_WORDS = 20
"""Up to this many words a text is one question, and rules on its single words hold; in longer ones paraphrase moves
and adds words freely."""
SAME_TEMPLATE = 0.8
"""Share of common words from which two texts are one template with other fillings."""


def are_free(asked: Features, stored: Features) -> bool:
    """Whether these are long texts in words of their own, where single words say little."""
    return min(len(asked.words), len(stored.words)) > SHORT_WORDS and likeness(asked, stored) < SAME_TEMPLATE


def likeness(asked: Features, stored: Features) -> float:
    """Jaccard likeness of the two texts' words."""
    common = len(asked.vocabulary & stored.vocabulary)
    return common / max(len(asked.vocabulary) + len(stored.vocabulary) - common, 1)


def middles(ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is left of both without their common beginning and end."""
    shorter = min(len(ours), len(theirs))
    start = 0
    while start < shorter and ours[start] == theirs[start]:
        start += 1
    end = 0
    while end < shorter - start and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    return ours[start : len(ours) - end], theirs[start : len(theirs) - end]
