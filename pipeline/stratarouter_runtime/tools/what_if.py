"""What a range of requests would have come to under other settings. Reads what is recorded; pays for nothing."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import orjson
from pydantic import ValidationError

from stratarouter_runtime import wire
from stratarouter_runtime.cache import votes
from stratarouter_runtime.cache.normalise import conversation_text
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError, InvalidRecordError
from stratarouter_runtime.plain import field_names
from stratarouter_runtime.port_values import JournalKey
from stratarouter_runtime.ports import Embedder
from stratarouter_runtime.processors.kafka_client import Record
from stratarouter_runtime.processors.publish import coordinates
from stratarouter_runtime.providers import create_pricer
from stratarouter_runtime.records import Answer, Usage
from stratarouter_runtime.route_file import read_text, read_toml
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.tools.ranges import RangeReader, Span
from stratarouter_runtime.tools.replay import HEADER
from stratarouter_runtime.tools.what_if_model import Kind, Observed, Pair, Sums, World, without_deadline
from stratarouter_runtime.usage_deltas import kind_of_answer

SETTINGS = (
    "cache_enabled",
    "cache_ttl",
    "cache_similarity_threshold",
    "cache_guard",
    "cache_max_entries",
    "cache_max_bytes",
    "cache_eviction",
    "batch_enabled",
    "batch_similarity_threshold",
)
"""What a model can show the effect of, besides ``routes.*``."""
UNKNOWN_S = 1.0
"""How long a call takes where none of its model is known."""
RISKS = 50
"""Pairs that a report lists, the most frequent first."""
MAX_REQUESTS = 1_000_000
"""Requests that are held at once: about 4 kB each."""
AFTER_MS = 3_600_000
"""How long after the range its responses are looked for."""
EMBEDDED = 64


@dataclass(frozen=True, slots=True)
class Risk:
    """A pair of questions that would newly share an answer, and how often."""

    pair: Pair
    times: int


@dataclass(slots=True)
class Report:
    """What was, what the model makes of the same settings, and what it makes of the others.

    ``modelled`` beside ``was`` shows how far the model is to be trusted. ``unknown``: requests without a known
    response; ``without_vector``: requests judged by their exact words alone; ``refused``: records that were none.
    """

    was: Sums
    modelled: Sums
    what_if: Sums
    risks: list[Risk] = field(default_factory=list)
    new_pairs: int = 0
    unknown: int = 0
    without_vector: int = 0
    refused: int = 0


def with_settings(config: RuntimeConfig, changes: Mapping[str, Any]) -> tuple[RuntimeConfig, RouteTable]:
    """``config`` and its route table with ``changes``: ``cache_ttl``, ``routes.billing.targets``, ...

    Raises ConfigurationError for a name that has no effect here, RouteTableError for a table that is none.
    """
    own = {name: value for name, value in changes.items() if not name.startswith("routes.")}
    for name in own:
        if name not in SETTINGS:
            raise ConfigurationError(
                f"--set {name}: a model cannot show its effect", remedy=f"set routes.* or one of {', '.join(SETTINGS)}"
            )
    try:
        # Checked as when they are read from a file. What nobody set stays so: some settings depend on whether it was.
        # Its file is named again: the environment may name another one, which would be read.
        changed = RuntimeConfig(**{**config.model_dump(include=config.model_fields_set), **own})
    except ValidationError as exc:
        raise ConfigurationError(f"--set {', '.join(own)}: {exc.errors()[0]['msg']}") from exc
    routed = {name: value for name, value in changes.items() if name.startswith("routes.")}
    return changed, _routes(config, routed) if routed else RouteTable.for_config(config)


def _routes(config: RuntimeConfig, changes: Mapping[str, Any]) -> RouteTable:
    if config.routes_file is None:
        raise ConfigurationError("--set routes.*: there is no route table to change", remedy="name --routes-file")
    table = read_toml(read_text(config.routes_file), str(config.routes_file))
    for name, value in changes.items():
        *path, last = name.split(".")
        inner = table
        for part in path:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigurationError(f"--set {name}: {part!r} is no table")
        inner[last] = _targets(value) if last == "targets" else value
    return RouteTable.from_dict(table)


def _targets(value: Any) -> Any:
    """``openai/gpt-4o-mini`` (several by comma) as a list of targets; what is a list already stays one."""
    if not isinstance(value, str):
        return value
    pairs = [name.strip().partition("/") for name in value.split(",")]
    return [{"provider": provider, "model": model} for provider, _, model in pairs]


async def compare(
    config: RuntimeConfig,
    changed: tuple[RuntimeConfig, RouteTable],
    spans: Sequence[Span],
    *,
    warm: Sequence[Span] = (),
    embedder: Embedder | None = None,
    heard: Callable[[str, int], None] = lambda _what, _done: None,
) -> Report:
    """Read ``spans`` of the requests topic and what came of them, and run both worlds over them.

    ``warm`` are spans before them that only fill the caches. ``embedder`` gives vectors to requests without one;
    None: they are judged by their exact words. ``heard`` is told the step and how many requests it has done.
    """
    report = Report(Sums(), Sums(), Sums())
    seen = await _observed(config, [(span, False) for span in warm] + [(span, True) for span in spans], report, heard)
    if embedder is not None:
        await _embed(embedder, seen, heard)
    report.without_vector = sum(one.request.embedding is None for one in seen if one.counts)
    report.was, report.unknown = _was(seen)
    routes = RouteTable.for_config(config)
    duration_s = _durations(seen)
    pricer = create_pricer(changed[1])
    worlds = [
        World(config, routes, create_pricer(routes).cost_usd, duration_s),
        World(*changed, pricer.cost_usd, duration_s),
    ]
    for number, one in enumerate(seen):
        for world in worlds:
            await world.take(one)
        if number % 1000 == 0:
            heard("model", number)
    report.modelled, report.what_if = worlds[0].sums, worlds[1].sums
    _compare_pairs(report, *worlds)
    return report


def _compare_pairs(report: Report, before: World, after: World) -> None:
    fresh = {pair: times for pair, times in after.pairs.items() if pair not in before.pairs}
    report.new_pairs = len(fresh)
    # The least alike first among those that come as often: they are the ones to look at.
    order = sorted(fresh, key=lambda pair: (-fresh[pair], after.shown[pair].similarity))
    report.risks = [Risk(after.shown[pair], fresh[pair]) for pair in order[:RISKS]]


# -- what is recorded ------------------------------------------------------------------------------------------------


async def _observed(
    config: RuntimeConfig, spans: Sequence[tuple[Span, bool]], report: Report, heard: Callable[[str, int], None]
) -> list[Observed]:
    """The requests in the order of their times, each with what came of it."""
    limits = wire.Limits.of(config)
    found: dict[tuple[str, int, int], tuple[Any, float, bool]] = {}
    async with RangeReader(config, config.topic(config.requests_topic)) as reader:
        for counts in (False, True):
            chosen = [span for span, counting in spans if counting is counts]
            async for records in reader.read(chosen):
                for record in records:
                    _take(record, limits, found, report, counts=counts)
                heard("requests", len(found))
                if len(found) > MAX_REQUESTS:
                    raise ConfigurationError(f"the range holds more than {MAX_REQUESTS} requests", remedy="shorten it")
    outcomes = await _outcomes(config, found, heard) if found else {}
    seen = [
        Observed(request, at_s, counts=counts, **outcomes.get(place, {}))
        for place, (request, at_s, counts) in found.items()
    ]
    return sorted(seen, key=lambda one: one.at_s)


def _take(
    record: Record, limits: wire.Limits, found: dict[tuple[str, int, int], Any], report: Report, *, counts: bool
) -> None:
    if any(name == HEADER for name, _ in record.headers):
        return  # a replay's own request
    try:
        request = wire.decode_request(record.value, headers=record.headers, limits=limits, source=coordinates(record))
    except InvalidRecordError:
        report.refused += counts
        return
    place = record.topic, record.partition, record.offset
    found[place] = (without_deadline(request), record.timestamp / 1000, counts)


async def _outcomes(
    config: RuntimeConfig, found: Mapping[tuple[str, int, int], Any], heard: Callable[[str, int], None]
) -> dict[tuple[str, int, int], dict[str, Any]]:
    """What the responses topic says of the requests, by their coordinates."""
    times = [at_s for _, at_s, _ in found.values()]
    outcomes: dict[tuple[str, int, int], dict[str, Any]] = {}
    # A record without a time says -1: then a response may stand anywhere.
    since_ms, last_ms = max(0, int(min(times) * 1000)), int(max(times) * 1000)
    async with RangeReader(config, config.topic(config.responses_topic)) as reader:
        spans = await reader.spans(since_ms=since_ms, until_ms=last_ms + AFTER_MS if last_ms >= 0 else None)
        async for records in reader.read(spans):
            for record in records:
                said = _parsed(record)
                place = _place(said.get("source"))
                if place is None or place not in found or place in outcomes:
                    continue
                if (outcome := _read(said)) is not None:
                    outcomes[place] = outcome
            heard("responses", len(outcomes))
    return outcomes


def _parsed(record: Record) -> dict[str, Any]:
    """The response, unchecked: half of the time of this reading would be the checks, of what workers wrote."""
    if any(name == HEADER for name, _ in record.headers):
        return {}
    try:
        said = orjson.loads(record.value or b"{}")
    except orjson.JSONDecodeError:
        return {}  # a foreign record is no response
    return said if isinstance(said, dict) else {}


def _place(source: object) -> tuple[str, int, int] | None:
    """The coordinates of the request; None for what is none of ours."""
    if not isinstance(source, dict):
        return None
    partition, offset = source.get("partition"), source.get("offset")
    return (str(source.get("topic")), partition, offset) if type(partition) is type(offset) is int else None


def _read(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """The outcome; None where a foreign record only looks like a response: its request has no known one."""
    try:
        return _outcome(said)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _outcome(said: Mapping[str, Any]) -> dict[str, Any]:
    usage = said.get("usage") or {}
    kind = _kind(said)
    cost = said.get("cost_usd" if kind == "paid" else "saved_usd")
    took_ms = [one["duration_ms"] + one.get("waited_ms", 0) for one in said.get("attempts") or []]
    return {
        "kind": kind,
        "provider": said.get("provider") or "",
        "model": said.get("model") or "",
        "usage": Usage(**{name: int(usage.get(name) or 0) for name in field_names(Usage)}),
        "cost_usd": None if cost is None else float(cost),
        "duration_s": sum(took_ms) / 1000 if took_ms else None,
        "says": votes.said(Answer(said.get("text") or "", "", "", tool_calls=tuple(said.get("tool_calls") or ()))),
    }


def _kind(said: Mapping[str, Any]) -> Kind:
    if said.get("status") != "ok":
        return "refused"
    kind = kind_of_answer(
        (said.get("cache") or {}).get("kind", ""),
        (said.get("batch") or {}).get("role", ""),
        attempted=bool(said.get("attempts")),
        from_journal=bool(said.get("from_journal")),
    )
    return cast("Kind", kind)


def _was(seen: Sequence[Observed]) -> tuple[Sums, int]:
    sums, unknown, answered = Sums(), 0, set[JournalKey]()
    for one in seen:
        kind = one.kind
        if kind in {"paid", "coalesced"}:
            # As in the accounts an id's money counts once; what came again is out of the journal.
            known = JournalKey.of(one.request)
            kind = "replayed" if known in answered else kind
            answered.add(known)
        if not one.counts:
            continue
        if kind is None:
            unknown += 1
        else:
            sums.add(kind, f"{one.provider}/{one.model}", one.cost_usd)
    return sums, unknown


def _durations(seen: Sequence[Observed]) -> Callable[[str], float]:
    known: dict[str, list[float]] = defaultdict(list)
    for one in seen:
        if one.duration_s is not None:
            known[f"{one.provider}/{one.model}"].append(one.duration_s)
    medians = {name: statistics.median(durations) for name, durations in known.items()}
    usual = statistics.median(medians.values()) if medians else UNKNOWN_S
    return lambda name: medians.get(name, usual)


async def _embed(embedder: Embedder, seen: list[Observed], heard: Callable[[str, int], None]) -> None:
    """Give a vector to every request that brought none."""
    places = [place for place, one in enumerate(seen) if one.request.embedding is None]
    for start in range(0, len(places), EMBEDDED):
        some = places[start : start + EMBEDDED]
        vectors = await embedder.embed([conversation_text(seen[place].request.messages) for place in some])
        for place, vector in zip(some, vectors, strict=True):
            request = replace(seen[place].request, embedding=vector)
            seen[place] = replace(seen[place], request=request)
        heard("vectors", start + len(some))
