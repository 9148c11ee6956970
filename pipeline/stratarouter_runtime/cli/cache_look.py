"""``cache stats``, ``cache find`` and ``cache explain``: what is kept, and what would happen to a question and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import typer
from rich.console import Console

from stratarouter_runtime.cli.cache_control import samples
from stratarouter_runtime.cli.common import ConfigOption, configure, run
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import CacheUnavailableError, ConfigurationError, InfrastructureError

if TYPE_CHECKING:
    from stratarouter_runtime.cache.redis import RedisCache
    from stratarouter_runtime.cache.sweep import Kept
    from stratarouter_runtime.records import Execution
    from stratarouter_runtime.state.cache_control import CacheControl

SHOWN_METRICS = ("stratarouter_cache_", "stratarouter_guard_", "stratarouter_saved_usd")
TIMEOUT_S = 5.0
"""Of one step in Redis: nobody waits behind it."""
IN_MEMORY = "give --worker with a worker's HTTP address: with cache_backend = 'memory' the entries are in its memory"

BootstrapOption = typer.Option(None, help="Kafka's bootstrap servers.")
RedisOption = typer.Option(None, help="Redis's URL.")
JsonOption = typer.Option(False, "--json", help="Print the result as JSON.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(stats)
    app.command()(find)
    app.command()(explain)


def stats(
    config: Path | None = ConfigOption,
    redis_url: str | None = RedisOption,
    worker: str | None = typer.Option(None, help="A worker's HTTP address, for what it has counted."),
    as_json: bool = JsonOption,
) -> None:
    """Count what is kept in Redis, or show what one worker has counted."""
    settings = configure(config, redis_url=redis_url)
    if worker is not None:
        counted = {name: value for name, value in run(samples(worker)).items() if name.startswith(SHOWN_METRICS)}
        found: dict[str, Any] = {"worker": worker, "metrics": counted}
    else:
        found = run(_count(settings))
    if as_json:
        typer.echo(orjson.dumps(found))
        return
    console = Console(soft_wrap=True)
    for name, value in found.items():
        inner = value.items() if isinstance(value, dict) else None
        console.print(name if inner is not None else f"{name}: {value}", highlight=False, markup=False)
        for part, count in inner or ():
            console.print(f"  {part}: {count:g}", highlight=False, markup=False)


async def _count(settings: RuntimeConfig) -> dict[str, Any]:
    tenants: Counter[str] = Counter()
    routes: Counter[str] = Counter()
    keys: set[tuple[str, str]] = set()
    size = aliases = 0
    async with _redis(settings) as cache:
        async for kept in cache.kept():
            if kept.place in keys:
                continue
            keys.add(kept.place)
            tenants[kept.tenant] += 1
            routes[kept.route_id] += 1
            size += kept.size_bytes
            aliases += kept.entry_id != kept.key
    return {
        "backend": "redis",
        "entries": len(keys),
        "aliases": aliases,
        "answer_bytes": size,
        "tenants": dict(tenants.most_common()),
        "routes": dict(routes.most_common()),
    }


def find(
    text: str | None = typer.Argument(None, help="Words of the question; by default any."),
    config: Path | None = ConfigOption,
    redis_url: str | None = RedisOption,
    key: str | None = typer.Option(None, help="Only the entry of this key."),
    tag: str | None = typer.Option(None, help="Only entries with this tag."),
    route: str | None = typer.Option(None, help="Only entries of this route."),
    tenant: str | None = typer.Option(None, help="Only entries of this tenant."),
    limit: int = typer.Option(20, min=1, help="Entries shown at most."),
    answers: bool = typer.Option(False, "--answers", help="Show the answers too."),
    as_json: bool = JsonOption,
) -> None:
    """Show entries in Redis: their key, tenant, route, tags, seconds left, question."""
    wanted = {"key": key, "tag": tag, "route_id": route, "tenant": tenant}

    def fits(kept: Kept) -> bool:
        if text is not None and text.casefold() not in kept.text.casefold():
            return False
        return all(value is None or value in _values(kept, name) for name, value in wanted.items())

    found = [_shown(kept, answers=answers) for kept in run(_find(configure(config, redis_url=redis_url), fits, limit))]
    if as_json:
        typer.echo(orjson.dumps(found))
        return
    console = Console(soft_wrap=True)
    for entry in found:
        tags = f" [{', '.join(entry['tags'])}]" if entry["tags"] else ""
        line = f"{entry['key']} {entry['tenant']}/{entry['route_id']}{tags} {entry['ttl_s']} s: {entry['text']}"
        console.print(line, highlight=False, markup=False)
        if answers:
            console.print(f"  {entry['answer']}", highlight=False, markup=False)
    if not found:
        console.print("nothing of that kind is kept")


def _values(kept: Kept, name: str) -> tuple[str, ...]:
    """What ``kept`` has for a criterion: its own values and, for an alias, those of its source."""
    kind = {"key": "key", "tag": "tag", "route_id": "route", "tenant": "tenant"}[name]
    return tuple(one.split("\x1f", 1)[1] for one in kept.origin.labels if one.startswith(f"{kind}\x1f"))


def _shown(kept: Kept, *, answers: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "key": kept.key,
        "answered_by": kept.entry_id,
        "tenant": kept.tenant,
        "route_id": kept.route_id,
        "tags": list(kept.tags),
        "position": kept.origin.begun,
        "ttl_s": kept.ttl_ms // 1000,
        "text": kept.text,
    }
    return shown | {"answer": kept.answer} if answers else shown


async def _find(settings: RuntimeConfig, fits: Any, limit: int) -> list[Kept]:
    found: dict[tuple[str, str], Kept] = {}
    async with _redis(settings) as cache:
        async for kept in cache.kept():
            if fits(kept):
                found[kept.place] = kept
                if len(found) >= limit:
                    break
    return list(found.values())


@asynccontextmanager
async def _redis(settings: RuntimeConfig) -> AsyncIterator[RedisCache]:
    """The shared cache to look into. Raises ConfigurationError for another backend, CacheUnavailableError."""
    from stratarouter_runtime.cache import create_cache
    from stratarouter_runtime.cache.redis import RedisCache

    cache = create_cache(settings, timeout_s=TIMEOUT_S)
    if not isinstance(cache, RedisCache):
        raise ConfigurationError("the cache is in the workers' memory", remedy=IN_MEMORY)
    await cache.start()
    try:
        yield cache
        if cache.counters.failures:
            raise CacheUnavailableError("Redis did not answer", remedy="check redis_url and the server")
    finally:
        await cache.stop()


def explain(
    asked: str = typer.Argument(help="The question that would be asked."),
    stored: str = typer.Argument(help="The question whose answer would be kept."),
    config: Path | None = ConfigOption,
    routes_file: Path | None = typer.Option(None, help="The route table (TOML)."),
    route: str = typer.Option("default", help="The route of both."),
    tenant: str = typer.Option("default", help="The tenant of both."),
    stored_route: str | None = typer.Option(None, help="The route of the second, where it is another one."),
    stored_tenant: str | None = typer.Option(None, help="The tenant of the second, where it is another one."),
    threshold: float | None = typer.Option(None, min=0.0, max=1.0, help="The request's own threshold."),
    bootstrap_servers: str | None = BootstrapOption,
    topic: bool = typer.Option(True, help="Read the cache-control topic for counter-examples."),
    as_json: bool = JsonOption,
) -> None:
    """Say whether an answer to STORED would be served to ASKED, and why."""
    settings = configure(config, bootstrap_servers=bootstrap_servers, routes_file=routes_file)
    ours = _execution(settings, asked, route, tenant, threshold)
    theirs = _execution(settings, stored, stored_route or route, stored_tenant or tenant, threshold)
    control, silent = run(_known(settings)) if topic else (None, "not read (--no-topic)")
    found = run(_explain(settings, ours, theirs, control))
    if silent is not None:
        found["topic"] = silent
    if as_json:
        typer.echo(orjson.dumps(found))
        return
    console = Console(soft_wrap=True)
    for name, value in found.items():
        console.print(f"{name}: {'-' if value is None else value}", highlight=False, markup=False)


def _execution(settings: RuntimeConfig, text: str, route: str, tenant: str, threshold: float | None) -> Execution:
    from stratarouter_runtime.engine.accept import Acceptor
    from stratarouter_runtime.records import CacheOptions, Context, Decision, Request
    from stratarouter_runtime.routes import RouteTable

    messages = ({"role": "user", "content": text},)
    options = CacheOptions(threshold=threshold or None)
    request = Request("explain", Decision(route), messages, context=Context(tenant), cache=options)
    return Acceptor(settings, RouteTable.for_config(settings)).accept(request, None)


async def _explain(
    settings: RuntimeConfig, ours: Execution, theirs: Execution, control: CacheControl | None
) -> dict[str, Any]:
    """Every judgement a lookup would make, and what comes of them."""
    from stratarouter_runtime.cache.guard import create_guard
    from stratarouter_runtime.cli.cache import _embed
    from stratarouter_runtime.engine.lookup import query

    asked, stored = query(ours), query(theirs)
    vectors = await _embed(settings, [asked.text, stored.text])
    cosine = min(1.0, float(vectors[asked.text] @ vectors[stored.text]))
    guard = create_guard().differs(asked.text, stored.text, cosine)
    marked = None if control is None else stored.content_hash in control.vetoed(asked.content_hash)
    same_scope, same_words = asked.scope == stored.scope, asked.content_hash == stored.content_hash
    refusals = (
        ("disabled", ours.cache_ttl == 0),
        ("scope", not same_scope),
        ("below_threshold", not same_words and cosine < asked.threshold),
        ("guard:marked_wrong", not same_words and bool(marked)),
        (guard or "", not same_words and guard is not None),
    )
    reason = next((name for name, holds in refusals if holds), None)
    would = "miss" if reason else "exact" if same_words else "semantic"
    if reason == "disabled":
        would = "bypass"
    return {
        "would": would,
        "reason": reason,
        "same_scope": same_scope,
        "same_words": same_words,
        "cosine": round(cosine, 4),
        "threshold": asked.threshold,
        "guard": guard,
        "counter_example": marked,
        "asked_key": asked.content_hash,
        "stored_key": stored.content_hash,
    }


async def _known(settings: RuntimeConfig) -> tuple[CacheControl | None, str | None]:
    """What the topic says, or why it cannot be known."""
    from stratarouter_runtime.cache.controlled import ControlledCache
    from stratarouter_runtime.cache.guard import create_guard
    from stratarouter_runtime.cache.memory import MemoryCache
    from stratarouter_runtime.clock import SystemClock
    from stratarouter_runtime.processors.cache_control import ControlReader
    from stratarouter_runtime.state.cache_control import CacheControl
    from stratarouter_runtime.telemetry.metrics import Metrics

    clock, control = SystemClock(), CacheControl()
    cache = ControlledCache(MemoryCache(clock=clock, guard=create_guard()), control, clock)
    reader = ControlReader(settings, control=control, cache=cache, clock=clock, metrics=Metrics())
    try:
        await reader.start()
    except InfrastructureError as exc:
        return None, f"not read: {exc.message}"
    await reader.stop()
    return control, None
