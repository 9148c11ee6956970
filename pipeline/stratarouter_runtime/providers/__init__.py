"""The providers: pure adapters for the wire shapes, one HTTP path under all of them, a price for every answer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Literal, get_args

from pydantic import SecretStr

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError, ProviderError, RouteTableError
from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.ports import ProviderAdapter, Transport
from stratarouter_runtime.providers.anthropic import AnthropicAdapter
from stratarouter_runtime.providers.google import GoogleAdapter
from stratarouter_runtime.providers.openai import OpenAIAdapter
from stratarouter_runtime.providers.openai_completions import OpenAICompletionsAdapter
from stratarouter_runtime.providers.openai_responses import OpenAIResponsesAdapter
from stratarouter_runtime.providers.pricing import Pricer, Rates
from stratarouter_runtime.providers.provider_set import Adapters, ProviderSet
from stratarouter_runtime.records import Target
from stratarouter_runtime.routes import ProviderSpec, Route, RouteTable, api_keys, params_over

__all__ = [
    "ADAPTERS",
    "Pricer",
    "ProviderSet",
    "Rates",
    "check_targets",
    "create_adapter",
    "create_adapters",
    "create_pricer",
    "create_providers",
    "create_transport",
]

ADAPTERS: dict[str, Callable[[str, str, SecretStr | None], ProviderAdapter]] = {
    "openai": OpenAIAdapter,
    "openai-responses": OpenAIResponsesAdapter,
    "openai-completions": OpenAICompletionsAdapter,
    "simulator": OpenAIAdapter,
    "anthropic": AnthropicAdapter,
    "google": GoogleAdapter,
}
"""By the kind that a route table names."""

MIN_CONNECTIONS = 1024
"""Room for a route table that is changed while the process runs; beyond it, as many as the bulkheads let through."""

TransportKind = Literal["auto", "direct", "aiohttp", "httpx"]


def create_transport(kind: TransportKind = "auto", *, max_connections: int | None = None) -> Transport:
    """The HTTP path: ``auto`` takes the first of ``direct``, ``aiohttp`` and ``httpx`` that is installed.

    Measured against the simulator with 200 calls at once on two shared cores, in calls a second: direct 23,800 (36 us
    of processor time each), aiohttp 9,000 (110 us); on an earlier, slower day aiohttp 6,100 and httpx in 1, 8, 32 and
    128 shards 70, 440, 990 and 1,100.

    Args:
        kind: which client.
        max_connections: open at once; None for the client's default of 1,024.
    """
    if kind not in get_args(TransportKind):
        raise ConfigurationError(f"transport kind {kind!r} is none of {', '.join(get_args(TransportKind))}")
    bounds = {} if max_connections is None else {"max_connections": max_connections}
    there = {name for name in ("aiohttp", "httptools") if importlib.util.find_spec(name) is not None}
    if kind == "direct" or (kind == "auto" and there == {"aiohttp", "httptools"}):
        from stratarouter_runtime.providers.http_direct import DirectTransport  # noqa: PLC0415 - may be absent

        return DirectTransport(**bounds)
    if kind == "aiohttp" or (kind == "auto" and "aiohttp" in there):
        from stratarouter_runtime.providers.http_aiohttp import AiohttpTransport  # noqa: PLC0415 - may be absent

        return AiohttpTransport(**bounds)
    from stratarouter_runtime.providers.http_httpx import HttpxTransport  # noqa: PLC0415 - slow import

    return HttpxTransport(**bounds)


def create_providers(config: RuntimeConfig, routes: RouteTable, transport: Transport | None = None) -> ProviderSet:
    """The providers of ``routes``, with keys from ``config`` or the environment and prices from table and library."""
    at_once = sum(spec.max_concurrency or config.provider_concurrency for spec in routes.providers.values())
    transport = transport or create_transport(max_connections=max(at_once, MIN_CONNECTIONS))
    return ProviderSet(lambda: create_adapters(config, routes), transport, create_pricer(routes))


def create_adapters(config: RuntimeConfig, routes: RouteTable) -> Adapters:
    """An adapter for each key of each provider. Raises ConfigurationError where a key is missing."""
    return {
        name: tuple(create_adapter(spec, key) for key in api_keys(spec, config))
        for name, spec in routes.providers.items()
    }


def create_adapter(spec: ProviderSpec, key: SecretStr | None) -> ProviderAdapter:
    """The adapter for one provider and one of its keys. Raises ConfigurationError where no header can carry the key."""
    return ADAPTERS[spec.kind](spec.name, spec.base_url, key)


def check_targets(routes: RouteTable) -> None:
    """Raises RouteTableError where a target would refuse every request for what the table itself asks of it: its
    parameters, or a system prompt that its wire shape has no place for.
    """
    adapters = {name: create_adapter(spec, None) for name, spec in routes.providers.items()}
    tables = {f"routes.{route_id}": route for route_id, route in routes.routes.items()}
    if routes.fallback is not None:
        tables["default"] = routes.fallback
    for where, route in tables.items():
        for number, target in enumerate(route.targets):
            try:
                adapters[target.provider].to_http(_trial(route, target))
            except ProviderError as exc:
                raise RouteTableError(
                    f"{where}.targets[{number}] ({target.provider}/{target.model}) would refuse every request: {exc}",
                    remedy=f"correct params of {where} or of the target; {exc.remedy}",
                ) from exc


def _trial(route: Route, target: Target) -> ProviderCall:
    prompt = ({"role": "system", "content": route.system_prompt},) if route.system_prompt else ()
    messages = (*prompt, {"role": "user", "content": "hello"})
    return ProviderCall(target.model, messages, params_over(route.params, target.params), "trial", 1.0)


def create_pricer(routes: RouteTable) -> Pricer:
    """Prices from the route table, else from the library."""
    return Pricer(
        {key: Rates(price.input_usd, price.output_usd) for key, price in routes.prices.items()},
        {name: spec.base_url for name, spec in routes.providers.items()},
    )
