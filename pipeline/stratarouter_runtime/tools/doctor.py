"""Checks everything a worker needs, each by itself and bounded, and says what to do about what is wrong."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from stratarouter_runtime import topics
from stratarouter_runtime.cache.probe import probe
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.embedders import create_embedder
from stratarouter_runtime.errors import ConfigurationError, RuntimeSystemError
from stratarouter_runtime.journal.reader import JournalReader
from stratarouter_runtime.processors import admin_client
from stratarouter_runtime.providers import check_targets, create_adapter
from stratarouter_runtime.providers.rate_headers import epoch_s
from stratarouter_runtime.providers.reach import reach
from stratarouter_runtime.route_file import ProviderSpec
from stratarouter_runtime.routes import RouteTable, api_keys

log = logging.getLogger("stratarouter.doctor")

State = Literal["ok", "warning", "failed", "skipped"]

CHECK_TIMEOUT_S = 30.0
SKEW_S = 2.0
"""Clocks further apart than this make deadlines and windows lie."""
MIN_REDIS = (6, 2)
MIN_POSTGRES = 14


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, how it is, what was seen, and what to do where it is not well."""

    name: str
    state: State
    detail: str
    remedy: str = ""


async def examine(config: RuntimeConfig) -> list[Check]:
    """All checks, in the order in which a worker meets them. Raises nothing that belongs to a check."""
    checks: list[tuple[str, Callable[[RuntimeConfig], Awaitable[list[Check]]]]] = [
        ("routes", _routes),
        ("broker", _broker),
        ("topics", _topics),
        ("journal", _journal),
        ("cache", _cache),
        ("embedder", _embedder),
        ("providers", _providers),
    ]
    found = await asyncio.gather(*(_bounded(name, check(config)) for name, check in checks))
    return [one for some in found for one in some]


async def _bounded(name: str, work: Awaitable[list[Check]]) -> list[Check]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await work
    except TimeoutError:
        return [Check(name, "failed", f"no answer within {CHECK_TIMEOUT_S:.0f} s", "is the address right, and open?")]
    except RuntimeSystemError as exc:
        return [Check(name, "failed", exc.message, exc.remedy)]
    except Exception as exc:
        # One check that breaks must not hide the others' findings. The type alone: a message may quote a secret.
        log.exception("check failed", extra={"fields": {"check": name}})
        return [Check(name, "failed", f"the check itself broke: {type(exc).__name__}", "report it with its traceback")]


async def _routes(config: RuntimeConfig) -> list[Check]:
    table = RouteTable.for_config(config)
    check_targets(table)
    where = "the built-in table" if config.routes_file is None else str(config.routes_file)
    found = [Check("routes", "ok", f"{where}: {len(table.providers)} providers")]
    for spec in table.providers.values():
        try:
            keys = api_keys(spec, config)
        except ConfigurationError as exc:
            found.append(Check(f"key of {spec.name}", "failed", exc.message, exc.remedy))
        else:
            said = "wants none" if keys == (None,) else f"{len(keys)} in the environment"
            found.append(Check(f"key of {spec.name}", "ok", said))
    return found


async def _broker(config: RuntimeConfig) -> list[Check]:
    began = time.monotonic()
    async with admin_client.connected(config, "asking for the brokers", CHECK_TIMEOUT_S) as client:
        cluster = await client.describe_cluster()
    took = (time.monotonic() - began) * 1000
    brokers = cluster.get("brokers", [])
    return [Check("broker", "ok", f"{config.bootstrap_servers}: {len(brokers)} brokers, connected in {took:.0f} ms")]


async def _topics(config: RuntimeConfig) -> list[Check]:
    differences = await topics.check(config)
    if not differences:
        return [Check("topics", "ok", "as declared")]
    shown = "; ".join(str(one) for one in differences[:3])
    more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
    if all(one.is_choice for one in differences):
        remedy = "more partitions let more workers share the work: `stratarouter-runtime topics apply`"
        return [Check("topics", "warning", shown + more, remedy)]
    return [Check("topics", "failed", shown + more, "run `stratarouter-runtime topics apply`")]


async def _journal(config: RuntimeConfig) -> list[Check]:
    if config.state_backend != "postgresql":
        return [Check("journal", "warning", "in memory: nothing survives a crash", 'set state_backend = "postgresql"')]
    reader = JournalReader(config.database_url)
    await reader.start()
    try:
        version, now_s = await reader.health()
        found = [_postgres(version), _clock("clock of the journal", now_s)]
        await reader.check_schema()
        return [*found, Check("schema", "ok", "this version's")]
    finally:
        await reader.stop()


def _postgres(version: str) -> Check:
    digits = re.match(r"\d+", version)
    if digits is None or int(digits[0]) < MIN_POSTGRES:
        return Check("journal", "warning", f"PostgreSQL {version}", f"its makers support {MIN_POSTGRES} and newer")
    return Check("journal", "ok", f"PostgreSQL {version}")


async def _cache(config: RuntimeConfig) -> list[Check]:
    if not config.cache_enabled:
        return [Check("cache", "skipped", "cache_enabled is false")]
    if config.cache_backend == "memory":
        return [Check("cache", "ok", "in each worker's memory")]
    health = await probe(config.redis_url)
    found = [Check("cache", "ok", f"Redis {health.version or '(version not shown to this user)'}")]
    if health.version:
        numbers = tuple(int(part) for part in health.version.split(".")[:2])
        if numbers < MIN_REDIS:
            found = [Check("cache", "failed", f"Redis {health.version}", "6.2 or newer is needed")]
    if health.now_s is not None:
        found.append(_clock("clock of the cache", health.now_s))
    return found


async def _embedder(config: RuntimeConfig) -> list[Check]:
    embedder = create_embedder(config)
    if embedder is None:
        said = "none: requests without a vector are matched by their exact words alone"
        return [Check("embedder", "ok", said, "set embedder, or send vectors")]
    if config.embedder != "local":
        return [Check("embedder", "skipped", f"{config.embedder}: every call of it costs")]
    await embedder.start()
    try:
        began = time.monotonic()
        [vector] = await embedder.embed(["how are you?"])
        took = (time.monotonic() - began) * 1000
    finally:
        await embedder.stop()
    size = len(vector)
    if config.embedding_dimension is not None and size != config.embedding_dimension:
        wrong = f"{config.embedder} gives {size} numbers, embedding_dimension is {config.embedding_dimension}"
        return [Check("embedder", "failed", wrong, "make them agree")]
    return [Check("embedder", "ok", f"{config.embedder}: {size} numbers in {took:.0f} ms")]


async def _providers(config: RuntimeConfig) -> list[Check]:
    table = RouteTable.for_config(config)
    found = await asyncio.gather(*(_provider(spec, config) for spec in table.providers.values()))
    return [one for some in found for one in some]


async def _provider(spec: ProviderSpec, config: RuntimeConfig) -> list[Check]:
    name = f"provider {spec.name}"
    try:
        keys = api_keys(spec, config)
    except ConfigurationError:
        return [Check(name, "skipped", "its key is missing")]
    found = []
    for number, key in enumerate(keys):
        which = f"{name}, key {number + 1}" if len(keys) > 1 else name
        try:
            reached = await reach(create_adapter(spec, key).models())
        except ConfigurationError as exc:
            found.append(Check(which, "failed", exc.message, exc.remedy))
            continue
        if reached.status is None:
            found.append(Check(which, "failed", f"{spec.base_url}: {reached.said}", "is base_url right?"))
        elif reached.key_refused:
            found.append(Check(which, "failed", f"answers {reached.status}", "put a valid key into its variable"))
        else:
            said = f"answers {reached.status} to the question for its models"
            if reached.is_well:
                found.append(Check(which, "ok", f"{said}; nothing was paid"))
            else:
                found.append(Check(which, "warning", said, "is base_url right? Some servers have no such list"))
            theirs_s = epoch_s(reached.date)
            if theirs_s is not None:
                found.append(_clock(f"clock of {spec.name}", theirs_s, 1.0))
    return found


def _clock(name: str, theirs_s: float, resolution_s: float = 0.0) -> Check:
    """How far another clock is from ours; ``resolution_s`` for one that shows whole seconds."""
    skew = theirs_s - time.time()
    if abs(skew) <= SKEW_S + resolution_s:
        return Check(name, "ok", f"{skew:+.1f} s from ours")
    return Check(name, "warning", f"{skew:+.1f} s from ours", "keep the clocks in step (NTP): deadlines are wall time")
