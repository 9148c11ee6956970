"""What differing words cost: the less two texts agree in their words, the nearer their vectors must be. Pure.

The costs are in cosine similarity of all-MiniLM-L6-v2, fitted by ops/train_guard.py.
"""

from __future__ import annotations

from stratarouter_runtime.cache.align import Difference, denies, difference, is_empty, is_one_root
from stratarouter_runtime.cache.features import Features
from stratarouter_runtime.cache.likeness import are_free, middles

ANCHORS = 2
"""Numbers that long texts share from which their words may differ freely: chance shares one."""
MAX_PHRASE = 3
"""Content words of a phrase that stands in the place of another."""
COST_DIFFERENT = 0.19
"""For any words without a counterpart."""
COST_EMPTY = 0.12
"""For words without a counterpart that say nothing of their own."""
COST_RELATED = 0.11
"""For one word standing in the place of one that means about the same, between the same words."""
COST_INSERTION = 0.42
"""For one text being the other with content words put in."""
COST_PHRASE = 0.48
"""For a few content words standing in the place of others, between the same words."""
COST_SUBSTITUTION = 0.71
"""For one content word standing in the place of another, between the same words."""
COST_NAMED = 0.13
"""For a name among the words without a counterpart, on top of the others."""
COST_UNSHARED = 0.20
"""For what the content words in common fall short of half."""
COST_LONE = 0.12
"""For a text of one content word: that two questions share it says little ("where can I use my card", "where can I get
my card")."""
KINDS = {
    "same": ("guard:wording", 0.0),
    "different": ("guard:wording", COST_DIFFERENT),
    "empty": ("guard:wording", COST_EMPTY),
    "related": ("guard:substitution", COST_RELATED),
    "insertion": ("guard:insertion", COST_INSERTION),
    "phrase": ("guard:substitution", COST_PHRASE),
    "substitution": ("guard:substitution", COST_SUBSTITUTION),
}
"""Each kind of difference with its reason and what it costs."""


def doubt(asked: Features, stored: Features, margin: float) -> str | None:
    """The reason where the words of two questions differ by more than ``margin``, the similarity to spare."""
    free = are_free(asked, stored)
    if free and _anchored(asked, stored):
        return None
    if margin < 0:
        return "guard:wording"
    left = difference(asked, stored)
    if not free and (reason := _opposed(asked, stored, left)) is not None:
        return reason
    reason, cost = wording_cost(asked, stored, left)
    return reason if cost > margin else None


def opposed(asked: Features, stored: Features) -> str | None:
    """The reason why no likeness makes up for the words that differ, or None."""
    return None if are_free(asked, stored) else _opposed(asked, stored, difference(asked, stored))


def _opposed(asked: Features, stored: Features, left: Difference) -> str | None:
    """A word against its denial ("formal", "informal"), or one name in each text that the other does not mention."""
    denied = (asked.negations > 0) != (stored.negations > 0)
    if not denied and any(denies(one, other) or denies(other, one) for one in left.ours for other in left.theirs):
        return "guard:polarity"
    named = not asked.entities.isdisjoint(left.ours) and not stored.entities.isdisjoint(left.theirs)
    return "guard:entity" if named else None


def _anchored(asked: Features, stored: Features) -> bool:
    """Whether both texts give the same several numbers, as the statements of one problem do."""
    return len(set(asked.numbers) & set(stored.numbers)) >= ANCHORS


def wording_cost(asked: Features, stored: Features, left: Difference) -> tuple[str, float]:
    """What the differing words (``left``) cost in similarity, and the reason that says most of it."""
    reason, cost = KINDS[kind_of(asked, stored, left)]
    cost += COST_NAMED * is_named(asked, stored, left) + COST_UNSHARED * unshared(left)
    return reason, cost + COST_LONE * is_lone(asked, stored)


def kind_of(asked: Features, stored: Features, left: Difference) -> str:
    """Which of ``KINDS`` the difference is."""
    ours, theirs = middles(asked.content, stored.content)
    single = len(ours) == len(theirs) == 1
    if not (left.ours or left.theirs):
        return "related" if single and ours != theirs and not is_one_root(ours[0], theirs[0]) else "same"
    if is_empty(left):
        return "empty"
    if single and left.swapped == 1:
        return "substitution"
    if left.swapped and _is_phrase(ours, left.ours, asked) and _is_phrase(theirs, left.theirs, stored):
        return "phrase"
    put_in = not (ours and theirs) or is_named(asked, stored, left)
    return "insertion" if put_in and not left.swapped and left.added else "different"


def _is_phrase(middle: tuple[str, ...], left: tuple[str, ...], features: Features) -> bool:
    """Whether just the words of ``middle``, a part of the text, have no counterpart."""
    return 1 <= len(middle) == len(left) <= MAX_PHRASE and len(middle) < len(features.content)


def unshared(left: Difference) -> float:
    """By how much the content words in common fall short of half."""
    return max(0.0, 0.5 - left.shared)


def is_named(asked: Features, stored: Features, left: Difference) -> bool:
    """Whether a name is among the words without a counterpart."""
    return not asked.entities.isdisjoint(left.ours) or not stored.entities.isdisjoint(left.theirs)


def is_lone(asked: Features, stored: Features) -> bool:
    """Whether one of the texts has a single content word, or none."""
    return min(len(asked.content), len(stored.content)) <= 1
