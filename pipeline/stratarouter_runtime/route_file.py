"""Reads and checks a route table's TOML. Every mistake is named at once, each with its line, key and rule.

::

    [providers.openai]                 # name: letters, digits, _ and -
    kind = "openai"                    # "openai": chat completions of any compatible server | "openai-responses" |
                                       # "openai-completions" (several prompts in one call) |
                                       # "anthropic" | "google" | "simulator" (chat completions without a key)
    base_url = "https://api.openai.com/v1"      # default: the vendor's own
    api_key_env = "OPENAI_API_KEY"     # default: the vendor's usual one for its own URL, none for another URL;
                                       # a list of several shares the calls out over their keys
    max_concurrency = 256              # calls at once, for each process
    requests_per_minute = 5000         # for each key and process; what the provider's headers say is learnt besides
    tokens_per_minute = 2_000_000

    [prices]                           # overrides, US dollars a million tokens
    "openai/gpt-4o-mini" = { input = 0.15, output = 0.60 }

    [routes.billing]
    targets = [                        # tried in this order; where a weight is named, it chooses which comes first
      { provider = "openai", model = "gpt-4o-mini", params = { temperature = 0 }, weight = 9 },
      { provider = "openai", model = "gpt-4o", weight = 1 },
    ]
    system_prompt = "You answer questions about invoices."
    params = { max_tokens = 400 }
    min_confidence = 0.5
    cache = { enabled = true, ttl = 3600, threshold = 0.95, share_across_tenants = false, tags = ["handbook-v3"] }
                                       # max_error_rate = 0.01: of its hits by likeness at most 1 % may be wrong
    batch = { enabled = true, threshold = 0.98, spread = 1 }  # spread: partitions that one scope goes to
    hedge = { after_ms = 2000, max_share = 0.05 }   # a second call where the first is slow; no after_ms: its p95

    [budgets.acme]                     # refused with budget_exhausted once spent, across all workers
    tenant = "acme"                    # default "*": each tenant by itself
    route = "*"                        # default "*": all routes together; "default": what [default] serves
    window = "1d"                      # "1h" | "1d" | any number with s, m, h or d; aligned to the epoch
    usd = 50.0
    tokens = 10_000_000

    [default]                          # optional: for route ids named nowhere; the keys of a route
    targets = [{ provider = "openai", model = "gpt-4o-mini" }]
"""

from __future__ import annotations

import math
import os
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from stratarouter_runtime.config import MAX_TTL_S
from stratarouter_runtime.errors import RouteTableError
from stratarouter_runtime.records import Target
from stratarouter_runtime.toml_table import NAME, Path, TomlTable, located
from stratarouter_runtime.usage_deltas import nano

OPENAI_BASE_URL = "https://api.openai.com/v1"
OPENAI_KEY = "OPENAI_API_KEY"
VENDORS = {
    "openai": (OPENAI_BASE_URL, OPENAI_KEY),
    "openai-responses": (OPENAI_BASE_URL, OPENAI_KEY),
    "openai-completions": (OPENAI_BASE_URL, OPENAI_KEY),
    "anthropic": ("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
    "google": ("https://generativelanguage.googleapis.com", "GEMINI_API_KEY"),
}
"""By kind: the vendor's own address, and the variable its tools take the key from."""
PROVIDER_KINDS = (*VENDORS, "simulator")
WINDOW_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MAX_SPREAD = 1024
MAX_WINDOW_S = 31 * 86_400
MAX_BUDGET_USD = 9e9
"""The journal counts nano-dollars in 64 bits: no more can be spent, so a budget beyond is one that never ends."""
MAX_TAG_CHARS = 256
"""As for the tags of a request."""
_WINDOW = re.compile(r"(\d{1,7})\s*([smhd])")
DEFAULT_ROUTE_ID = "default"
"""The id of the route that stands under ``[default]``."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input_usd: float
    output_usd: float


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """A provider to call. ``max_concurrency`` bounds the calls at once in one process; None: the configuration's.

    ``api_key_env`` are the variables of its keys, none for a server that wants none; the limits a minute hold for each
    key in one process.
    """

    name: str
    kind: str = "openai"
    base_url: str = OPENAI_BASE_URL
    api_key_env: tuple[str, ...] = ()
    max_concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class RouteCache:
    """A route's say on the cache; None leaves a value to the configuration. ``ttl`` in seconds.

    ``tags`` are what its answers can be invalidated by, besides the requests' own; ``max_error_rate`` is the share of
    its hits by likeness that may be wrong.
    """

    enabled: bool = True
    ttl: int | None = None
    threshold: float | None = None
    share_across_tenants: bool = False
    tags: tuple[str, ...] = ()
    max_error_rate: float | None = None


@dataclass(frozen=True, slots=True)
class RouteBatch:
    """A route's say on batching; None leaves the threshold to the configuration.

    ``spread`` is over how many buckets the executions of one scope go, each by likeness; 1: all meet.
    """

    enabled: bool = True
    threshold: float | None = None
    spread: int = 1


@dataclass(frozen=True, slots=True)
class RouteHedge:
    """When a slow call gets a second one beside it: after ``after_ms``, or None: after the target's own p95."""

    after_ms: float | None = None
    max_share: float = 0.05


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent within a window of ``window_s`` seconds, aligned to the epoch. ``*`` stands for every one:
    each tenant by itself, all routes together. ``named`` is set where ``route`` is ``[default]``: the routes of the
    table, whose requests that one does not serve.
    """

    name: str
    tenant: str = "*"
    route: str = "*"
    window_s: int = 86_400
    usd: float | None = None
    tokens: int | None = None
    named: frozenset[str] | None = None

    @property
    def nano_usd(self) -> int | None:
        """``usd`` in whole nano-dollars, one at least: spending is counted in them."""
        return None if self.usd is None else nano(min(self.usd, MAX_BUDGET_USD)) or 1

    def covers(self, tenant: str, route_id: str) -> bool:
        """Whether requests of ``tenant`` whose decision says ``route_id`` are charged to it."""
        served = self.route in {"*", route_id} or (self.named is not None and route_id not in self.named)
        return served and self.tenant in {"*", tenant}


@dataclass(frozen=True, slots=True)
class Route:
    """What a route id stands for. ``targets`` are never empty; ``weighted`` says that one named a weight."""

    route_id: str
    targets: tuple[Target, ...]
    system_prompt: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    min_confidence: float = 0.0
    cache: RouteCache = field(default_factory=RouteCache)
    batch: RouteBatch = field(default_factory=RouteBatch)
    weighted: bool = False
    hedge: RouteHedge | None = None


@dataclass(frozen=True, slots=True)
class ParsedTable:
    """A checked table: providers and routes by name, prices by (provider, model), budgets."""

    providers: dict[str, ProviderSpec]
    routes: dict[str, Route]
    default: Route | None
    prices: dict[tuple[str, str], Price]
    budgets: tuple[Budget, ...] = ()


def read_text(path: str | os.PathLike[str]) -> str:
    """The file's text. Raises RouteTableError."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as exc:
        raise RouteTableError(f"the route table {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise RouteTableError(f"the route table {path} is not UTF-8 text: {exc}") from exc


def read_toml(text: str, source: str) -> dict[str, Any]:
    """``text`` as TOML, unchecked; ``source`` names it in messages. Raises RouteTableError."""
    try:
        return tomllib.loads(text)
    except ValueError as exc:
        # A TOMLDecodeError, or an integer of more digits than Python reads.
        raise RouteTableError(f"{source} is not TOML: {exc}") from exc


def parse_toml(text: str, source: str) -> ParsedTable:
    """Parse ``text``; ``source`` names it in messages. Raises RouteTableError."""
    return parse_mapping(read_toml(text, source), source, text)


def parse_mapping(data: Mapping[str, Any], source: str = "route table", text: str = "") -> ParsedTable:
    """Check ``data`` (the TOML's shape); ``text`` gives the lines for messages. Raises RouteTableError."""
    problems: list[tuple[Path, str]] = []
    root = TomlTable(data, (), problems)
    table = ParsedTable(
        providers={name: _provider(str(name), section) for name, section in root.sections("providers")},
        routes={name: _route(str(name), section) for name, section in root.sections("routes")},
        default=_route(DEFAULT_ROUTE_ID, root.section("default")) if "default" in data else None,
        prices=dict(_prices(root)),
        budgets=tuple(_budget(str(name), section) for name, section in root.sections("budgets")),
    )
    root.close()
    _cross_check(table, problems)
    if problems:
        raise RouteTableError("\n".join(located(source, text, path, rule) for path, rule in problems))
    if table.default is None:
        return table
    named = frozenset(table.routes)
    return replace(
        table, budgets=tuple(replace(b, named=named) if b.route == DEFAULT_ROUTE_ID else b for b in table.budgets)
    )


def _provider(name: str, section: TomlTable) -> ProviderSpec:
    if not NAME.fullmatch(name):
        section.problem(None, "must be named by 1 to 64 letters, digits, _ or -")
    kind = section.text("kind", "openai") or "openai"
    if kind not in PROVIDER_KINDS:
        section.problem("kind", f"= {kind!r} must be one of {', '.join(PROVIDER_KINDS)}")
    own_url, own_key = VENDORS.get(kind, (OPENAI_BASE_URL, OPENAI_KEY))
    base_url = (section.text("base_url", own_url, required=kind == "simulator") or own_url).rstrip("/")
    if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).netloc:
        section.problem("base_url", f"= {base_url!r} must be an http:// or https:// URL")
    key_env = section.texts("api_key_env", (own_key,) if base_url == own_url else ())
    if kind == "simulator" and "api_key_env" in section.data:
        section.problem("api_key_env", "must not be set for a simulator, which takes no key")
    spec = ProviderSpec(
        name,
        kind,
        base_url,
        () if kind == "simulator" else key_env,
        section.count("max_concurrency"),
        section.count("requests_per_minute"),
        section.count("tokens_per_minute"),
    )
    section.close()
    return spec


def _route(route_id: str, section: TomlTable) -> Route:
    items = section.items("targets")
    route = Route(
        route_id=route_id,
        targets=tuple(_target(item) for item in items),
        system_prompt=section.text("system_prompt"),
        params=section.json("params"),
        min_confidence=section.number("min_confidence", "a number from 0 to 1", 0, 1) or 0.0,
        cache=_cache(section.section("cache")),
        batch=_batch(section.section("batch")),
        weighted=any("weight" in item.data for item in items),
        hedge=_hedge(section.section("hedge")) if "hedge" in section.data else None,
    )
    if route.weighted and not any(target.weight > 0 for target in route.targets):
        section.problem("targets", "need a weight above 0 in at least one of them")
    section.close()
    return route


def _target(section: TomlTable) -> Target:
    weight = section.number("weight", "a finite number of at least 0", 0, math.inf)
    target = Target(
        provider=section.text("provider", required=True) or "",
        model=section.text("model", required=True) or "",
        params=section.json("params"),
        weight=1.0 if weight is None else weight,
    )
    section.close()
    return target


def _cache(section: TomlTable) -> RouteCache:
    cache = RouteCache(
        enabled=section.flag("enabled", default=True),
        ttl=section.count("ttl", MAX_TTL_S),
        threshold=section.number("threshold", "a number above 0, at most 1", 0, 1, open_low=True),
        share_across_tenants=section.flag("share_across_tenants", default=False),
        tags=section.texts("tags", ()),
        max_error_rate=section.number("max_error_rate", "a number from 0.001 to 0.5", 0.001, 0.5),
    )
    if any(len(tag) > MAX_TAG_CHARS or not tag.isprintable() for tag in cache.tags):
        section.problem("tags", f"must be at most {MAX_TAG_CHARS} characters each, none of them a control character")
    section.close()
    return cache


def _batch(section: TomlTable) -> RouteBatch:
    spread = section.count("spread") or 1
    if spread > MAX_SPREAD:
        section.problem("spread", f"= {spread} must be at most {MAX_SPREAD}")
    batch = RouteBatch(
        enabled=section.flag("enabled", default=True),
        threshold=section.number("threshold", "a number above 0, at most 1", 0, 1, open_low=True),
        spread=spread,
    )
    section.close()
    return batch


def _hedge(section: TomlTable) -> RouteHedge:
    share = section.number("max_share", "a number above 0, at most 1", 0, 1, open_low=True)
    after = section.number("after_ms", "a finite number of milliseconds above 0", 0, math.inf, open_low=True)
    section.close()
    return RouteHedge(after, 0.05 if share is None else share)


def _budget(name: str, section: TomlTable) -> Budget:
    window = section.text("window", "1d") or "1d"
    match = _WINDOW.fullmatch(window)
    window_s = int(match[1]) * WINDOW_UNITS_S[match[2]] if match else 0
    if not 1 <= window_s <= MAX_WINDOW_S:
        section.problem("window", f"= {window!r} must be a whole number with s, m, h or d, at most 31d")
    budget = Budget(
        name=name,
        tenant=section.text("tenant", "*") or "*",
        route=section.text("route", "*") or "*",
        window_s=window_s,
        usd=section.number("usd", "a finite number of US dollars above 0", 0, math.inf, open_low=True),
        tokens=section.count("tokens"),
    )
    if not section.data.keys() & {"usd", "tokens"}:
        section.problem(None, "needs 'usd' or 'tokens'")
    section.close()
    return budget


def _prices(root: TomlTable) -> Iterator[tuple[tuple[str, str], Price]]:
    for name, section in root.sections("prices"):
        provider, slash, model = str(name).partition("/")
        if not (provider and slash and model):
            section.problem(None, 'must be named "provider/model"')
        rule = "a finite number of US dollars of at least 0"
        prices = [section.number(key, rule, 0, math.inf) for key in ("input", "output")]
        if len(section.data.keys() & {"input", "output"}) < 2:
            section.problem(None, "needs 'input' and 'output', in US dollars a million tokens")
        section.close()
        yield (provider, model), Price(prices[0] or 0.0, prices[1] or 0.0)


def _cross_check(table: ParsedTable, problems: list[tuple[Path, str]]) -> None:
    if table.default is not None and DEFAULT_ROUTE_ID in table.routes:
        problems.append((("default",), "stands beside [routes.default]; keep one of them"))
    if not table.routes and table.default is None:
        problems.append(((), "needs at least one route, or [default]"))
    named: list[tuple[Path, Route]] = [(("routes", name), route) for name, route in table.routes.items()]
    if table.default is not None:
        named.append((("default",), table.default))
    for path, route in named:
        for index, target in enumerate(route.targets):
            if target.provider and target.provider not in table.providers:
                known = ", ".join(table.providers) or "none"
                rule = f"= {target.provider!r} is no configured provider (there are: {known})"
                problems.append(((*path, "targets", index, "provider"), rule))
    served = {"*", *table.routes, *(() if table.default is None else (DEFAULT_ROUTE_ID,))}
    problems += [
        (("budgets", budget.name, "route"), f"= {budget.route!r} is no route of this table")
        for budget in table.budgets
        if budget.route not in served
    ]
    for provider, model in table.prices:
        if provider and provider not in table.providers:
            problems.append((("prices", f"{provider}/{model}"), f"names no configured provider ({provider!r})"))
