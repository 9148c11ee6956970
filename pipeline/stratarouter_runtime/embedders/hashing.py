"""A deterministic embedder for tests: hashed character n-grams, no model, no server."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from stratarouter_runtime.embedders.vectors import unit_vectors
from stratarouter_runtime.records import Vector

NGRAM_SIZES = (3, 4, 5)
"""Characters a feature; shorter ones occur in every text and make all texts alike."""


class HashingEmbedder:
    """Texts that share spelling get near vectors. It is not semantic: "cheap" and "inexpensive" are strangers to it.

    For tests that need vectors at once and the same ones everywhere; never for answering real requests.
    """

    def __init__(self, dimension: int = 384) -> None:
        """Make vectors of ``dimension`` (>= 1) floats."""
        self._dimension = dimension

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self._dimension

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to release."""

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """One unit vector a text; case and spacing do not matter."""
        if not texts:
            return []
        return unit_vectors(np.stack([self._counts(text) for text in texts]))

    def _counts(self, text: str) -> Vector:
        row = np.zeros(self._dimension, dtype=np.float32)
        for feature in _features(text):
            digest = zlib.crc32(feature.encode("utf-8", "surrogatepass"))
            # The top bit gives the sign, so that collisions cancel out instead of adding up.
            row[(digest & 0x7FFFFFFF) % self._dimension] += 1.0 if digest >> 31 else -1.0
        if not row.any():
            row[0] = 1.0
        return row


def _features(text: str) -> list[str]:
    padded = f" {' '.join(text.casefold().split())} "
    return [padded[at : at + size] for size in NGRAM_SIZES for at in range(len(padded) - size + 1)]
