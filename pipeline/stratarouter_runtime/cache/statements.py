"""Whether two answers contradict each other: the guard's rules, sentence by sentence. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stratarouter_runtime.cache import rules
from stratarouter_runtime.cache.features import Features

ALIKE = 0.5
"""Of the words of two sentences the share (Jaccard) that they have in common where one is held against the other; the
rest of an answer says something else, which its vector tells. Two answers of one sentence each always are."""
MAX_SENTENCES = 64
"""Of each answer, from its beginning: 4,096 pairs take 2 ms, and reading the sentences 6 ms."""
MAX_CHARS = 1_000
"""Of one sentence: what is longer is a table or code."""

_ENDS = re.compile(r"(?<=[.!?。！？])\s+|\n+|(?<=[。！？])")  # noqa: RUF001 - full-width
_WORDS = re.compile(r"\w+")


def sentences(text: str) -> list[str]:
    """The sentences and lines of ``text``, without the empty ones."""
    return [sentence for part in _ENDS.split(text) if (sentence := part.strip())]


def contradiction(kept: str, fresh: str) -> str | None:
    """Why the answers ``kept`` and ``fresh`` cannot both be right (``guard:polarity``, ...), or None.

    Each sentence is held against the one of the other answer that it shares most words with.
    """
    ours, theirs = _statements(kept), _statements(fresh)
    if len(ours) == len(theirs) == 1:
        return _between(ours[0], theirs[0])
    for one in ours:
        other = max(theirs, key=lambda statement: _shared(one.words, statement.words), default=None)
        if other is None or one.text == other.text or _shared(one.words, other.words) < ALIKE:
            continue
        reason = _between(one, other)
        if reason is not None:
            return reason
    return None


@dataclass(frozen=True, slots=True)
class _Statement:
    text: str
    words: frozenset[str]


def _between(one: _Statement, other: _Statement) -> str | None:
    ours, theirs = Features("", one.text), Features("", other.text)
    reason = rules.contradiction(ours, theirs)
    if reason is None and ours.entities.difference(theirs.content) and theirs.entities.difference(ours.content):
        return "guard:entity"  # each names something that the other does not: Canberra, Sydney
    return reason


def _statements(text: str) -> list[_Statement]:
    found = sentences(text)[:MAX_SENTENCES]
    return [_Statement(one, frozenset(_WORDS.findall(one.lower()))) for one in found if len(one) <= MAX_CHARS]


def _shared(ours: frozenset[str], theirs: frozenset[str]) -> float:
    return len(ours & theirs) / max(1, len(ours | theirs))
