"""Reads and checks a route table's TOML. Every mistake is named at once, each with its line, key and rule.

::

    [providers.openai]                 # name: letters, digits, _ and -
    kind = "openai"                    # "openai" (any OpenAI-compatible server) | "simulator" (the same, no key)
    base_url = "https://api.openai.com/v1"
    api_key_env = "OPENAI_API_KEY"     # default: OPENAI_API_KEY for OpenAI's own URL, none for another
    max_concurrency = 256              # calls at once, for each process

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
    cache = { enabled = true, ttl = 3600, threshold = 0.95, share_across_tenants = false }
    batch = { enabled = true, threshold = 0.98 }

    [default]                          # optional: for route ids named nowhere; the keys of a route
    targets = [{ provider = "openai", model = "gpt-4o-mini" }]
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from stratarouter_runtime.errors import RouteTableError
from stratarouter_runtime.records import Target

OPENAI_BASE_URL = "https://api.openai.com/v1"
PROVIDER_KINDS = ("openai", "simulator")
DEFAULT_ROUTE_ID = "default"
"""The id of the route that stands under ``[default]``."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER = re.compile(r"\s*(\[{1,2})(.+?)\]{1,2}\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=""")
_KEY_PART = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)""")

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input_usd: float
    output_usd: float


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """A provider to call. ``max_concurrency`` bounds the calls at once in one process; None: the configuration's."""

    name: str
    kind: str = "openai"
    base_url: str = OPENAI_BASE_URL
    api_key_env: str | None = None
    max_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class RouteCache:
    """A route's say on the cache; None leaves a value to the configuration. ``ttl`` in seconds."""

    enabled: bool = True
    ttl: int | None = None
    threshold: float | None = None
    share_across_tenants: bool = False


@dataclass(frozen=True, slots=True)
class RouteBatch:
    """A route's say on batching; None leaves the threshold to the configuration."""

    enabled: bool = True
    threshold: float | None = None


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


@dataclass(frozen=True, slots=True)
class ParsedTable:
    """A checked table: providers and routes by name, prices by (provider, model)."""

    providers: dict[str, ProviderSpec]
    routes: dict[str, Route]
    default: Route | None
    prices: dict[tuple[str, str], Price]


def parse_toml(text: str, source: str) -> ParsedTable:
    """Parse ``text``; ``source`` names it in messages. Raises RouteTableError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise RouteTableError(f"{source} is not TOML: {exc}") from exc
    return parse_mapping(data, source, text)


def parse_mapping(data: Mapping[str, Any], source: str = "route table", text: str = "") -> ParsedTable:
    """Check ``data`` (the TOML's shape); ``text`` gives the lines for messages. Raises RouteTableError."""
    problems: list[tuple[Path, str]] = []
    root = _Section(data, (), problems)
    table = ParsedTable(
        providers={name: _provider(str(name), section) for name, section in root.sections("providers")},
        routes={name: _route(str(name), section) for name, section in root.sections("routes")},
        default=_route(DEFAULT_ROUTE_ID, root.section("default")) if "default" in data else None,
        prices=dict(_prices(root)),
    )
    root.close()
    _cross_check(table, problems)
    if problems:
        raise RouteTableError("\n".join(_located(source, text, path, rule) for path, rule in problems))
    return table


class _Section:
    """One table of the file: typed reads that note a problem and go on, and an account of which keys were read."""

    def __init__(self, data: Mapping[str, Any], path: Path, problems: list[tuple[Path, str]]) -> None:
        self.data = data
        self.path = path
        self._problems = problems
        self._read: set[str] = set()

    def problem(self, key: str | None, rule: str) -> None:
        self._problems.append((self.path if key is None else (*self.path, key), rule))

    def text(self, key: str, default: str | None = None, *, required: bool = False) -> str | None:
        self._read.add(key)
        value = self.data.get(key)
        if value is None:
            if required:
                self.problem(None, f"needs {key!r}")
            return default
        if not isinstance(value, str) or not value.strip():
            self.problem(key, f"= {_short(value)} must be a non-empty string")
            return default
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        self._read.add(key)
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            self.problem(key, f"= {_short(value)} must be true or false")
            return default
        return value

    def number(self, key: str, rule: str, low: float, high: float, *, open_low: bool = False) -> float | None:
        self._read.add(key)
        value = self.data.get(key)
        if value is None:
            return None
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not (low < value if open_low else low <= value) or value > high:
            self.problem(key, f"= {_short(value)} must be {rule}")
            return None
        return float(value)

    def count(self, key: str) -> int | None:
        self._read.add(key)
        value = self.data.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            self.problem(key, f"= {_short(value)} must be a whole number above 0")
            return None
        return value

    def section(self, key: str) -> _Section:
        self._read.add(key)
        value = self.data.get(key, {})
        if not isinstance(value, Mapping):
            self.problem(key, f"= {_short(value)} must be a table")
            value = {}
        return _Section(value, (*self.path, key), self._problems)

    def sections(self, key: str) -> Iterator[tuple[str, _Section]]:
        parent = self.section(key)
        for name in parent.data:
            if not str(name).strip():
                parent.problem(name, "needs a name")
            yield name, parent.section(name)

    def items(self, key: str) -> list[_Section]:
        self._read.add(key)
        value = self.data.get(key)
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            self.problem(None if value is None else key, f"needs {key!r}, a list of at least one table")
            return []
        found = []
        for index, item in enumerate(value):
            path = (*self.path, key, index)
            if isinstance(item, Mapping):
                found.append(_Section(item, path, self._problems))
            else:
                self._problems.append((path, f"= {_short(item)} must be a table"))
        return found

    def close(self) -> None:
        """Note every key that nobody read."""
        for key in self.data:
            if key not in self._read:
                near = difflib.get_close_matches(str(key), self._read, n=1)
                self.problem(key, "is unknown" + (f"; did you mean {near[0]!r}?" if near else ""))


def _provider(name: str, section: _Section) -> ProviderSpec:
    if not _NAME.fullmatch(name):
        section.problem(None, "must be named by 1 to 64 letters, digits, _ or -")
    kind = section.text("kind", "openai") or "openai"
    if kind not in PROVIDER_KINDS:
        section.problem("kind", f"= {kind!r} must be one of {', '.join(PROVIDER_KINDS)}")
    base_url = section.text("base_url", OPENAI_BASE_URL, required=kind == "simulator") or OPENAI_BASE_URL
    if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).netloc:
        section.problem("base_url", f"= {base_url!r} must be an http:// or https:// URL")
    key_env = section.text("api_key_env", "OPENAI_API_KEY" if base_url == OPENAI_BASE_URL else None)
    if kind == "simulator" and "api_key_env" in section.data:
        section.problem("api_key_env", "must not be set for a simulator, which takes no key")
    spec = ProviderSpec(
        name, kind, base_url.rstrip("/"), None if kind == "simulator" else key_env, section.count("max_concurrency")
    )
    section.close()
    return spec


def _route(route_id: str, section: _Section) -> Route:
    items = section.items("targets")
    route = Route(
        route_id=route_id,
        targets=tuple(_target(item) for item in items),
        system_prompt=section.text("system_prompt"),
        params=dict(section.section("params").data),
        min_confidence=section.number("min_confidence", "a number from 0 to 1", 0, 1) or 0.0,
        cache=_cache(section.section("cache")),
        batch=_batch(section.section("batch")),
        weighted=any("weight" in item.data for item in items),
    )
    if route.weighted and not any(target.weight > 0 for target in route.targets):
        section.problem("targets", "need a weight above 0 in at least one of them")
    section.close()
    return route


def _target(section: _Section) -> Target:
    weight = section.number("weight", "a finite number of at least 0", 0, math.inf)
    target = Target(
        provider=section.text("provider", required=True) or "",
        model=section.text("model", required=True) or "",
        params=dict(section.section("params").data),
        weight=1.0 if weight is None else weight,
    )
    section.close()
    return target


def _cache(section: _Section) -> RouteCache:
    cache = RouteCache(
        enabled=section.flag("enabled", default=True),
        ttl=section.count("ttl"),
        threshold=section.number("threshold", "a number above 0, at most 1", 0, 1, open_low=True),
        share_across_tenants=section.flag("share_across_tenants", default=False),
    )
    section.close()
    return cache


def _batch(section: _Section) -> RouteBatch:
    batch = RouteBatch(
        enabled=section.flag("enabled", default=True),
        threshold=section.number("threshold", "a number above 0, at most 1", 0, 1, open_low=True),
    )
    section.close()
    return batch


def _prices(root: _Section) -> Iterator[tuple[tuple[str, str], Price]]:
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
    for provider, model in table.prices:
        if provider and provider not in table.providers:
            problems.append((("prices", f"{provider}/{model}"), f"names no configured provider ({provider!r})"))


def _located(source: str, text: str, path: Path, rule: str) -> str:
    line = line_of(text, path)
    where = source if line is None else f"{source}, line {line}"
    return f"{where}: {_dotted(path)} {rule}".replace(":  ", ": ")


def _dotted(path: Path) -> str:
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += ("." if shown else "") + (part if _NAME.fullmatch(part) else f'"{part}"')
    return shown


def line_of(text: str, path: Path) -> int | None:
    """The line (from 1) of the key at ``path`` in a TOML text, or of its nearest table; None where none is found."""
    best, best_depth = None, 0
    for number, here in _keys_by_line(text):
        shared = _shared_depth(here, path)
        if shared == len(here) and shared > best_depth:
            best, best_depth = number, shared
    return best


def _shared_depth(here: Path, path: Path) -> int:
    for depth, (one, other) in enumerate(zip(here, path, strict=False)):
        if one != other:
            return depth
    return min(len(here), len(path))


def _keys_by_line(text: str) -> Iterator[tuple[int, Path]]:
    """Each line's key as a path, by headers, keys at the line's start and inline tables that begin a line."""
    header: Path = ()
    key: Path = ()
    counts: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if (match := _HEADER.match(line)) and not line.lstrip().startswith("[{"):
            header, key = _parts(match[2]), ()
            if match[1] == "[[":
                counts[header] = counts.get(header, -1) + 1
                header = (*header, counts[header])
            yield number, header
        elif match := _KEY.match(line):
            key = (*header, *_parts(match[1]))
            counts.pop(key, None)
            yield number, key
        if key:
            yield from _inline_items(number, line, key, counts)


def _inline_items(number: int, line: str, key: Path, counts: dict[Path, int]) -> Iterator[tuple[int, Path]]:
    if line.lstrip().startswith("{"):
        counts[key] = counts.get(key, -1) + 1
        yield number, (*key, counts[key])


def _parts(dotted: str) -> Path:
    return tuple(match[1] or match[2] or match[3] or "" for match in _KEY_PART.finditer(dotted))


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
