"""Answers the console's paths: static files to everybody, data and changes as ``access`` allows."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

import orjson

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.console import api
from stratarouter_runtime.console.access import Access, Need
from stratarouter_runtime.console.api import Asked, Sources
from stratarouter_runtime.errors import (
    ConfigurationError,
    InfrastructureError,
    InvalidRecordError,
    RuntimeSystemError,
)
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.telemetry.http import HttpRequest, Reply, problem
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.console")

SCRIPTS = ("console", "ui", "pipeline", "requests", "letters", "cache", "money")
STATIC = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/console.css": ("console.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in SCRIPTS},
}
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
STATUSES: tuple[tuple[type[RuntimeSystemError], int], ...] = (
    (ConfigurationError, 400),
    (InvalidRecordError, 400),
    (InfrastructureError, 503),
)

Page = Callable[[Sources, Asked], Awaitable[Any]]

READS: dict[str, tuple[Page, Need]] = {
    "/api/pipeline": (api.pipeline, "read"),
    "/api/search": (api.search, "read"),
    "/api/execution": (api.execution, "read"),
    "/api/execution/text": (api.execution_text, "texts"),
    "/api/dead-letters": (api.dead_letters, "read"),
    "/api/dead-letters/record": (api.dead_letter_record, "texts"),
    "/api/cache": (api.cache, "read"),
    "/api/cache/find": (api.cache_find, "texts"),
    "/api/money": (api.money, "read"),
    "/api/ledger": (api.ledger, "read"),
}
CHANGES: dict[str, tuple[Page, Need]] = {
    # It changes nothing; a POST so that questions stand in no log of URLs.
    "/api/cache/explain": (api.cache_explain, "read"),
    "/api/cache/invalidate": (api.cache_invalidate, "change"),
    "/api/dead-letters/resend": (api.resend, "change"),
}


class Console:
    """The pages of one configuration.

    Args:
        config: the settings.
        host: the address it is served at; reading is open on loopback only.
        live: what this process itself knows of lanes, calls in flight and breakers; None where no worker is here.
    """

    def __init__(self, config: RuntimeConfig, host: str, live: Callable[[], dict[str, Any]] | None = None) -> None:
        self._access = Access(host, config.console_token)
        self._sources = Sources(config, live)

    async def stop(self) -> None:
        """Close what was opened. Idempotent."""
        await self._sources.stop()

    async def answer(self, request: HttpRequest) -> Reply | None:
        """The reply to one of the console's paths, None for another one."""
        if request.path in STATIC:
            return _static(request.path)
        if request.path == "/api/session":
            return self._session(request)
        pages = CHANGES if request.method == "POST" else READS
        if request.path not in pages:
            known = request.path in CHANGES or request.path in READS
            return problem(405, "GET reads and POST changes") if known else None
        page, need = pages[request.path]
        refusal = self._access.refuses(request, need)
        if refusal is not None:
            return problem(refusal.status, refusal.message)
        return await self._page(page, request, texts=self._access.refuses(request, "texts") is None)

    async def _page(self, page: Page, request: HttpRequest, *, texts: bool) -> Reply:
        try:
            found = await page(self._sources, Asked(_query(request), _body(request), texts))
        except RuntimeSystemError as exc:
            status = next((status for kind, status in STATUSES if isinstance(exc, kind)), 500)
            said = {"error": exc.message, "code": exc.code, "remedy": exc.remedy}
            return Reply(status, json_bytes(said), headers=SECURITY)
        if request.method == "POST" and request.path != "/api/cache/explain":
            event(log, logging.INFO, "changed from the console", path=request.path)
        return Reply(200, json_bytes(found, default=str), headers=SECURITY)

    def _session(self, request: HttpRequest) -> Reply:
        """What the page may do with what it was given."""
        may = {need: self._access.refuses(request, need) is None for need in ("read", "texts", "change")}
        return Reply(200, json_bytes({"may": may, "has_token": self._access.has_token}), headers=SECURITY)


def _query(request: HttpRequest) -> dict[str, str]:
    """The last value of each name."""
    return {name: values[-1] for name, values in parse_qs(request.query).items()}


def _body(request: HttpRequest) -> Mapping[str, Any]:
    """The JSON object of a POST. Raises InvalidRecordError."""
    if request.method != "POST":
        return {}
    try:
        found = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRecordError("the body is no JSON object", remedy="send what the console's own pages send")
    return found


@cache
def _static(path: str) -> Reply:
    name, content_type = STATIC[path]
    return Reply(200, files(__package__).joinpath("static", name).read_bytes(), content_type, SECURITY)
