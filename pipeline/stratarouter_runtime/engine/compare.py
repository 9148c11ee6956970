"""The comparer that is used where nobody brings another: the same words, or near enough by the embedder."""

from __future__ import annotations

import re
from functools import reduce
from importlib import import_module
from typing import Any

import numpy as np

from stratarouter_runtime.cache.normalise import normalise_messages
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.ports import Comparer, Embedder
from stratarouter_runtime.records import Answer

LEAST_COSINE = 0.9
"""Of two answers. Numbers all-MiniLM-L6-v2 blurs, so these are compared by themselves. What else it blurs counts as the
same here: of ten pairs of one or two sentences that contradict each other (can and cannot, before and after, from and
to) seven were above it; and of a long answer it reads the first 256 tokens alone."""


FIGURE = re.compile(r"(?:(?<!\w)[-\N{MINUS SIGN}])?\d[\d.,]*")
"""A number; what stands before it is its sign, unless that is a dash between two."""


class AnswerComparer:
    """Deterministic. Two answers are the same where their texts are, but for what normalisation folds, and their calls
    of tools; or where an embedder is configured, the cosine of the texts is at least LEAST_COSINE, and both hold the
    same figures.

    Without an embedder, answers in other words count as wrong, so a model that never says the same twice gets no hits
    by likeness. It cannot tell a fact that changed from one that was wrong.
    """

    def __init__(self, embedder: Embedder | None) -> None:
        self._embedder = embedder

    async def same(self, question: str, kept: Answer, fresh: Answer) -> bool | None:  # noqa: ARG002 - as the port
        """As the port says; never None. Raises EmbedderError."""
        if kept.tool_calls or fresh.tool_calls:
            return kept.called == fresh.called and _words(kept) == _words(fresh)
        if _words(kept) == _words(fresh):
            return True
        if self._embedder is None or _figures(kept.text) != _figures(fresh.text):
            return False
        one, other = await self._embedder.embed([kept.text, fresh.text])
        return bool(np.dot(one, other) >= LEAST_COSINE)


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
