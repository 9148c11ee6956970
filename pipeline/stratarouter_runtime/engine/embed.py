"""Fills in the vectors that requests did not bring. A failing embedder costs likeness, not the request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from stratarouter_runtime.engine.lookup import query
from stratarouter_runtime.errors import EmbedderError
from stratarouter_runtime.ports import Embedder
from stratarouter_runtime.records import Execution, Vector
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.embed")

BATCH = 64
"""Texts in one call of the embedder: about 0.3 s of the local model, well within its deadline."""

SHARE = 1 / 4
"""Of the time that a request has left, what its vector may take: the rest is for the answer."""


def lacks_vector(embedder: Embedder | None, execution: Execution) -> bool:
    """Whether ``embedder`` has something to do for ``execution``."""
    return embedder is not None and execution.request.embedding is None


async def with_vectors(
    embedder: Embedder | None, executions: Sequence[Execution], left_s: float | None = None
) -> list[Execution]:
    """``executions`` in their order, those without a vector given one where the embedder can.

    ``left_s``: how long somebody waits for all that is to be done for them, where that is known.
    """
    wait_s = None if left_s is None else SHARE * left_s
    filled = list(executions)
    # The same text is embedded once, however many ask it.
    places: dict[str, list[int]] = {}
    for place, execution in enumerate(filled):
        if lacks_vector(embedder, execution):
            places.setdefault(query(execution).text, []).append(place)
    texts = list(places)
    for start in range(0, len(texts), BATCH):
        assert embedder is not None
        some = texts[start : start + BATCH]
        for text, vector in zip(some, await _embedded(embedder, some, wait_s), strict=False):
            for place in places[text] if vector is not None else ():
                request = replace(filled[place].request, embedding=vector)
                filled[place] = replace(filled[place], request=request)
    return filled


async def _embedded(embedder: Embedder, texts: list[str], wait_s: float | None) -> Sequence[Vector | None]:
    """A vector for each of ``texts`` where there is one; nothing where all have none."""
    some: Sequence[Vector | None] = ()
    try:
        async with asyncio.timeout(wait_s):
            vectors = await embedder.embed(texts)
    except EmbedderError as exc:
        cause = repr(exc)
        if len(exc.vectors) == len(texts):
            some = exc.vectors
    except TimeoutError:
        cause = "no answer in the time that is there for it"
    except Exception as exc:  # noqa: BLE001
        # Whatever befalls the embedder, these requests are executed without a vector.
        cause = repr(exc)
    else:
        if len(vectors) == len(texts):
            return vectors
        cause = f"{len(vectors)} vectors for {len(texts)} texts"
    event(
        log,
        logging.WARNING,
        "embedder failed",
        cause=cause,
        texts=len(texts) - sum(vector is not None for vector in some),
    )
    return some
