"""Products of many rows with one vector, on the thread that asks for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK_NUMBERS = 131_072
"""Numbers in one product (half a megabyte: it stays in a core's cache). OpenBLAS spreads larger ones (from 460,800)
over threads that spin while they wait for each other: 2,000 rows of 384 then take 1,000 us of processor time where one
thread takes 150, and on a machine that is busy with other things 17 ms in the median."""


def products(rows: NDArray[np.float32], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """``rows @ vector``, block by block."""
    count, width = rows.shape
    step = max(1, BLOCK_NUMBERS // max(1, width))
    if count <= step:
        return rows @ vector
    found = np.empty(count, dtype=np.float32)
    for start in range(0, count, step):
        np.dot(rows[start : start + step], vector, out=found[start : start + step])
    return found
