"""The route table: which targets, prompt and limits a decision's route stands for. Reads no record and calls nobody."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from pydantic import SecretStr

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError, LowConfidenceError, UnknownRouteError
from stratarouter_runtime.records import Decision, Target
from stratarouter_runtime.route_file import (
    DEFAULT_ROUTE_ID,
    VENDORS,
    Budget,
    ParsedTable,
    Price,
    ProviderSpec,
    Route,
    RouteBatch,
    RouteCache,
    RouteHedge,
    parse_mapping,
    parse_toml,
    read_text,
)

__all__ = [
    "DEFAULT_MODELS",
    "DEFAULT_ROUTE_ID",
    "LIMIT_NAMES",
    "Budget",
    "Price",
    "ProviderSpec",
    "Route",
    "RouteBatch",
    "RouteCache",
    "RouteHedge",
    "RouteTable",
    "api_keys",
    "check_confidence",
    "chooses_a_model",
    "order_targets",
    "params_over",
]

LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
"""Of the tokens of an answer: OpenAI has renamed it, and both are in use."""

DEFAULT_MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5", "google": "gemini-2.5-flash"}
"""By vendor, in the order in which the built-in table's default route would rather have them."""


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Routes by id, providers by name, price overrides by (provider, model), budgets.

    ``fallback`` serves unknown route ids.
    """

    providers: dict[str, ProviderSpec]
    routes: dict[str, Route] = field(default_factory=dict)
    fallback: Route | None = None
    prices: dict[tuple[str, str], Price] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a TOML file (its format: ``route_file``). Raises RouteTableError naming file, line, key and rule."""
        return cls._of(parse_toml(read_text(path), str(path)))

    @classmethod
    def from_toml(cls, text: str, source: str = "route table") -> Self:
        """Read TOML text; ``source`` names it in messages. Raises RouteTableError."""
        return cls._of(parse_toml(text, source))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from a mapping of the file's shape. Raises RouteTableError."""
        return cls._of(parse_mapping(data))

    @classmethod
    def for_config(cls, config: RuntimeConfig) -> Self:
        """The table in ``config.routes_file``, or the built-in one. Raises RouteTableError."""
        return cls.default(config) if config.routes_file is None else cls.load(config.routes_file)

    @classmethod
    def default(cls, config: RuntimeConfig) -> Self:
        """The built-in table: each vendor of ``DEFAULT_MODELS`` whose key is there, else OpenAI, whose key ``api_keys``
        then asks for. Every route goes to the first one's model; a decision may name any of them.
        """
        vendors = [vendor for vendor in DEFAULT_MODELS if _key(VENDORS[vendor][1], config)] or ["openai"]
        providers = {
            name: ProviderSpec(name, name, VENDORS[name][0], (VENDORS[name][1],), config.provider_concurrency)
            for name in vendors
        }
        return cls(providers, fallback=Route(DEFAULT_ROUTE_ID, (Target(vendors[0], DEFAULT_MODELS[vendors[0]]),)))

    @classmethod
    def _of(cls, parsed: ParsedTable) -> Self:
        return cls(parsed.providers, parsed.routes, parsed.default, parsed.prices, parsed.budgets)

    def resolve(self, decision: Decision) -> Route:
        """The route for ``decision``; one that names provider and model itself gets that target alone.

        Raises UnknownRouteError where neither the table nor the decision says what to call.
        """
        route = self.routes.get(decision.route_id, self.fallback)
        if decision.provider is not None or decision.model is not None:
            target = self._own_target(decision)
            if route is None:
                return Route(decision.route_id, (target,))
            return replace(route, targets=(target,), weighted=False)
        if route is None:
            raise UnknownRouteError(f"decision.route_id = {decision.route_id!r} is in no route table")
        return route

    def hedge_of(self, route_id: str) -> RouteHedge | None:
        """How slow calls of a route are hedged; None for not at all."""
        route = self.routes.get(route_id, self.fallback)
        return None if route is None else route.hedge

    def is_bounded(self, config: RuntimeConfig) -> bool:
        """Whether the share of wrong hits is bounded anywhere."""
        routes = (*self.routes.values(), *(() if self.fallback is None else (self.fallback,)))
        bounds = (config.cache_max_error_rate, *(route.cache.max_error_rate for route in routes))
        return any(bound is not None for bound in bounds)

    def _own_target(self, decision: Decision) -> Target:
        if decision.provider is None or decision.model is None:
            raise UnknownRouteError("decision.provider and decision.model must be named together")
        if decision.provider not in self.providers:
            known = ", ".join(self.providers) or "none"
            raise UnknownRouteError(
                f"decision.provider = {decision.provider!r} is no configured provider (there are: {known})"
            )
        return Target(decision.provider, decision.model)


def check_confidence(route: Route, decision: Decision) -> None:
    """Raise LowConfidenceError where the decision's confidence is below ``route.min_confidence``.

    A decision without a confidence passes: somebody chose the route, nothing estimated it.
    """
    if decision.confidence is not None and decision.confidence < route.min_confidence:
        raise LowConfidenceError(
            f"decision.confidence = {decision.confidence:g} is below min_confidence = {route.min_confidence:g} "
            f"of route {route.route_id!r}"
        )


def order_targets(route: Route, request_id: str) -> tuple[Target, ...]:
    """The order in which to try ``route``'s targets: the file's, or, where weights are named, a weighted first one.

    The choice hangs on ``request_id`` alone, so a redelivered request goes to the same target.
    """
    if not route.weighted or len(route.targets) == 1:
        return route.targets
    total = sum(target.weight for target in route.targets)
    digest = hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    point = int.from_bytes(digest, "big") / 2**64 * total
    for first in route.targets:
        if point < first.weight:
            return (first, *(target for target in route.targets if target is not first))
        point -= first.weight
    return route.targets


def chooses_a_model(route: Route) -> bool:
    """Whether ``route``'s weights choose among models or parameters, not only among providers of one model."""
    if not route.weighted:
        return False
    one = route.targets[0]
    return any(target.model != one.model or target.params != one.params for target in route.targets)


def api_keys(spec: ProviderSpec, config: RuntimeConfig) -> tuple[SecretStr | None, ...]:
    """The provider's keys: the configuration's own for OPENAI_API_KEY and ANTHROPIC_API_KEY, else the environment's.

    ``(None,)`` for a provider that takes none. Raises ConfigurationError where a variable is unset.
    """
    return tuple(_api_key(name, spec, config) for name in spec.api_key_env) or (None,)


def _api_key(variable: str, spec: ProviderSpec, config: RuntimeConfig) -> SecretStr:
    key = _key(variable, config)
    if not key:
        raise ConfigurationError(f"provider {spec.name!r} needs the environment variable {variable}")
    return SecretStr(key)


def _key(variable: str, config: RuntimeConfig) -> str:
    """What stands for a variable, in the configuration or in the environment; empty for nothing."""
    own = {"OPENAI_API_KEY": config.openai_api_key, "ANTHROPIC_API_KEY": config.anthropic_api_key}.get(variable)
    return os.environ.get(variable, "").strip() if own is None else own.get_secret_value()


def params_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` before ``below``, each parameter for itself; a limit stands before one by its other name too."""
    if any(above.get(name) is not None for name in LIMIT_NAMES):
        below = {name: value for name, value in below.items() if name not in LIMIT_NAMES}
    return {**below, **above}
