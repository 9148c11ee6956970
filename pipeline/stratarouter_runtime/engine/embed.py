"""Fills in the vectors that requests did not bring. A failing embedder costs likeness, not the request."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from stratarouter_runtime.engine.lookup import query
from stratarouter_runtime.ports import Embedder
from stratarouter_runtime.records import Execution
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.embed")

BATCH = 64
"""Texts in one call of the embedder: about 0.3 s of the local model, well within its deadline."""


def lacks_vector(embedder: Embedder | None, execution: Execution) -> bool:
    """Whether ``embedder`` has something to do for ``execution``."""
    return embedder is not None and execution.request.embedding is None


async def with_vectors(embedder: Embedder | None, executions: Sequence[Execution]) -> list[Execution]:
    """``executions`` in their order, those without a vector given one where the embedder can."""
    filled = list(executions)
    missing = [index for index, execution in enumerate(filled) if lacks_vector(embedder, execution)]
    for start in range(0, len(missing), BATCH):
        assert embedder is not None
        await _fill(embedder, filled, missing[start : start + BATCH])
    return filled


async def _fill(embedder: Embedder, filled: list[Execution], places: list[int]) -> None:
    try:
        vectors = await embedder.embed([query(filled[place]).text for place in places])
    except Exception as exc:  # noqa: BLE001
        # Whatever befalls the embedder, these requests are executed without a vector.
        event(log, logging.WARNING, "embedder failed", cause=repr(exc), requests=len(places))
        return
    for place, vector in zip(places, vectors, strict=True):
        request = replace(filled[place].request, embedding=vector)
        filled[place] = replace(filled[place], request=request)
