"""Arithmetic that all embedders share. Pure; knows no model and no server."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stratarouter_runtime.errors import EmbedderError
from stratarouter_runtime.records import Vector

MIN_NORM = 1e-12
"""Below this length a vector has no direction worth keeping in float32."""


def unit_vectors(rows: NDArray[np.floating]) -> list[Vector]:
    """Each row of ``rows``, shape (texts, dimension), scaled to length one.

    Raises EmbedderError where a row holds NaN or infinity, or is all zeros.
    """
    wide = rows.astype(np.float64)
    norms = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    wrong = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > MIN_NORM)))
    if wrong.size:
        raise EmbedderError(f"the vector of text {int(wrong[0])} is all zeros or not finite")
    return list((wide / norms).astype(np.float32))


def mean_pool(hidden: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean of the tokens that ``mask`` (texts, tokens) keeps of ``hidden`` (texts, tokens, dimension)."""
    weights = mask[:, :, None].astype(np.float32)
    pooled: NDArray[np.float32] = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
    return pooled


def batches_by_length(lengths: Sequence[int], max_size: int) -> list[list[int]]:
    """Indices of ``lengths`` in batches of neighbours in length, so that little of a batch is padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + max_size] for start in range(0, len(order), max_size)]


def well_formed(text: str) -> str:
    """``text`` with lone surrogates replaced: they have no UTF-8 form, so neither a tokenizer nor JSON takes them."""
    return text.encode("utf-8", "replace").decode("utf-8")
