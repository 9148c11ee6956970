"""The first stream processor on an assembly of this process, and records for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka import ConsumerRecord

from stratarouter_runtime.assembly import Assembly
from stratarouter_runtime.ports import Embedder
from stratarouter_runtime.processors.enrich import Enrich


def enrich_of(assembly: Assembly, embedder: Embedder | None = None) -> Enrich:
    """It knows of no reply topic."""
    return Enrich(
        assembly.config,
        acceptor=assembly.acceptor,
        cache=assembly.cache,
        embedder=embedder,
        metrics=assembly.metrics,
        list_topics=_no_topics,
    )


def records(values: Sequence[bytes]) -> list[Any]:
    """One poll of one partition, from offset 0 on."""
    return [ConsumerRecord("t", 0, n, 1, 0, b"k", value, None, 1, len(value), ()) for n, value in enumerate(values)]


async def _no_topics() -> frozenset[str]:
    return frozenset()
