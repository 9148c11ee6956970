"""Finds the last answers out of the cache: they are in no journal, so the responses topic is read back."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.tools.ranges import RangeReader

MAX_OFFSETS = 8000
"""Read back at most, shared among the partitions: some 15 MB, and a few tenths of a second."""
KINDS = ("exact", "semantic")


@dataclass(frozen=True, slots=True)
class Hits:
    """Which hits: a request id's beginning, a tenant, a route; None stands for any."""

    prefix: str = ""
    tenant: str | None = None
    route: str | None = None

    def takes(self, said: dict[str, Any]) -> bool:
        """Whether the response ``said`` is one of them; what a replay wrote again is none."""
        cache = said.get("cache")
        return (
            isinstance(cache, dict)
            and cache.get("kind") in KINDS
            and said.get("replay_id") is None
            and str(said.get("request_id")).startswith(self.prefix)
            and self.tenant in {None, said.get("tenant")}
            and self.route in {None, said.get("route_id")}
        )


async def find_hits(config: RuntimeConfig, wish: Hits, limit: int) -> tuple[list[dict[str, Any]], int]:
    """The newest ``limit`` hits among the last responses, as rows, the newest first; and how many were looked at.

    Raises BrokerError.
    """
    newest: list[tuple[int, int, int, dict[str, Any]]] = []
    searched = 0
    async with RangeReader(config, config.topic(config.responses_topic)) as reader:
        spans = await reader.spans()
        share = MAX_OFFSETS // max(1, len(spans))
        last = [replace(span, begin=max(span.begin, span.end - share)) for span in spans]
        async for records in reader.read(last):
            searched += len(records)
            for record in records:
                said = _said(record)
                if not wish.takes(said):
                    continue
                place = (record.timestamp, record.partition, record.offset)
                heapq.heappush(newest, (*place, _row(said, record.timestamp)))
                if len(newest) > limit:
                    heapq.heappop(newest)
    return [row for *_, row in sorted(newest, key=lambda one: one[:3], reverse=True)], searched


def _said(record: Record) -> dict[str, Any]:
    """The response, unchecked: workers wrote it; a foreign record is none."""
    try:
        said = orjson.loads(record.value or b"null")
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _row(said: dict[str, Any], at_ms: int) -> dict[str, Any]:
    """As a row of the journal looks."""
    source = said.get("source")
    place = [source.get(name) for name in ("topic", "partition", "offset")] if isinstance(source, dict) else [None]
    return {
        "tenant": said.get("tenant"),
        "request_id": said.get("request_id"),
        "route_id": said.get("route_id"),
        "state": said["cache"]["kind"],
        "source": None if None in place else "{}-{}@{}".format(*place),
        "finished_at": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(),
        "model": said.get("model"),
        "cost_usd": 0.0,
    }
