"""The comparer that is used where nobody brings another: the same words, or near enough by the embedder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import reduce
from importlib import import_module
from itertools import pairwise
from textwrap import wrap
from typing import Any

import numpy as np

from stratarouter_runtime.cache.normalise import normalise_messages
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.ports import Comparer, Embedder
from stratarouter_runtime.records import Answer

LEAST_COSINE = 0.9
"""Of two answers. What all-MiniLM-L6-v2 blurs (numbers, denials, directions, names) is compared by itself: of forty
pairs of short answers that contradict each other 24 were above it, of forty that say the same in other words 22."""
PIECE_CHARS = 600
"""Of an answer that becomes one vector: 150 tokens of English, so that a model that reads 256 reads all of it."""
MAX_PIECES = 32
"""Longer answers, of 19,000 characters and more, are not compared: 63 vectors take half a second of the local model."""

Contradiction = Callable[[str, str], str | None]
"""Why two texts cannot both be right, or None."""

FIGURE = re.compile(r"(?:(?<!\w)[-\N{MINUS SIGN}])?\d[\d.,]*")
"""A number; what stands before it is its sign, unless that is a dash between two."""


class AnswerComparer:
    """Deterministic. Two answers are the same where their texts are, but for what normalisation folds, and their calls
    of tools; or where an embedder is configured, the cosine of the texts is at least LEAST_COSINE, both hold the same
    figures, and no sentence of one contradicts the other.

    Without an embedder, answers in other words count as wrong, so a model that never says the same twice gets no hits
    by likeness. It cannot tell a fact that changed from one that was wrong.

    Args:
        embedder: None where there is none.
        contradiction: what finds one (``cache.statements``); None where nothing is in other words anyway.
    """

    def __init__(self, embedder: Embedder | None, contradiction: Contradiction | None = None) -> None:
        self._embedder = embedder
        self._contradiction = contradiction

    async def same(self, question: str, kept: Answer, fresh: Answer) -> bool | None:  # noqa: ARG002 - as the port
        """As the port says; None for answers too long to be compared. Raises EmbedderError."""
        if kept.tool_calls or fresh.tool_calls:
            return kept.called == fresh.called and _words(kept) == _words(fresh)
        if _words(kept) == _words(fresh):
            return True
        if self._embedder is None or _figures(kept.text) != _figures(fresh.text):
            return False
        ours, theirs = _pieces(kept.text), _pieces(fresh.text)
        if max(len(ours), len(theirs)) > MAX_PIECES:
            return None
        if self._contradiction is not None and self._contradiction(kept.text, fresh.text) is not None:
            return False
        return await _likeness(self._embedder, ours, theirs) >= LEAST_COSINE


async def _likeness(embedder: Embedder, ours: Sequence[str], theirs: Sequence[str]) -> float:
    """How much of each text is in the other: of every piece the cosine with what is nearest to it there, in the mean.

    Where a sentence more in front moves all ends, a piece lies across two of the other's; so these are asked too.
    """
    kept, fresh = _with_seams(ours), _with_seams(theirs)
    vectors = np.asarray(await embedder.embed([*kept, *fresh]))
    cosines = vectors[: len(kept)] @ vectors[len(kept) :].T
    there, back = cosines[: len(ours)].max(axis=1).mean(), cosines[:, : len(theirs)].max(axis=0).mean()
    return float(min(there, back))


def _pieces(text: str) -> list[str]:
    """``text`` in pieces of about one length, PIECE_CHARS at most, at ends of words."""
    width = math.ceil(len(text) / math.ceil((len(text) + 1) / PIECE_CHARS)) + PIECE_CHARS // 10
    return wrap(text, min(width, PIECE_CHARS), break_on_hyphens=False) or [text]


def _with_seams(pieces: Sequence[str]) -> list[str]:
    """``pieces``, and what reaches from the middle of each to the middle of the next."""
    halves = [_halves(piece) for piece in pieces]
    return [*pieces, *(f"{one} {other}" for (_, one), (other, _) in pairwise(halves))]


def _halves(text: str) -> tuple[str, str]:
    middle = text.find(" ", len(text) // 2)
    middle = middle if middle >= 0 else len(text) // 2
    return text[:middle], text[middle:].lstrip()


def load(config: RuntimeConfig) -> Comparer:
    """What ``config.cache_comparer`` names, called with ``config``. Raises ConfigurationError."""
    assert config.cache_comparer is not None
    module, _, name = config.cache_comparer.partition(":")
    try:
        found: Any = import_module(module)
        comparer: Comparer = reduce(getattr, name.split("."), found)(config)
    except Exception as exc:
        problem = f"cache_comparer = {config.cache_comparer!r} cannot be made: {type(exc).__name__}: {exc}"
        raise ConfigurationError(problem, remedy="name a class or function that takes the configuration") from exc
    if not callable(getattr(comparer, "same", None)):
        raise ConfigurationError(
            f"cache_comparer = {config.cache_comparer!r} has no method 'same'", remedy="see ports.Comparer"
        )
    return comparer


def _words(answer: Answer) -> str:
    return normalise_messages([{"role": "assistant", "content": answer.text}])


def _figures(text: str) -> list[str]:
    """In their order and with their signs: from 3 to 5 is not from 5 to 3, and -5 not 5."""
    return [found[0].replace("\N{MINUS SIGN}", "-").rstrip(".,") for found in FIGURE.finditer(text)]
