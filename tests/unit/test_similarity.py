"""Rows against one vector."""

from __future__ import annotations

import numpy as np
import pytest

from stratarouter_runtime.similarity import BLOCK_NUMBERS, products


@pytest.mark.parametrize("count", [0, 1, BLOCK_NUMBERS // 384, BLOCK_NUMBERS // 384 + 1, 5 * BLOCK_NUMBERS // 384])
def test_products_are_those_of_the_whole_matrix(count: int) -> None:
    chance = np.random.default_rng(3)
    rows = chance.standard_normal((count, 384)).astype(np.float32)
    vector = chance.standard_normal(384).astype(np.float32)
    np.testing.assert_allclose(products(rows, vector), rows @ vector, rtol=1e-4, atol=1e-4)


def test_a_row_wider_than_a_block_is_a_block() -> None:
    rows = np.ones((3, BLOCK_NUMBERS + 1), dtype=np.float32)
    assert products(rows, rows[0]).tolist() == pytest.approx([BLOCK_NUMBERS + 1] * 3, rel=1e-3)
