"""A small HTTP/1.1 server for Prometheus, health checks and the console's pages. One request a connection.

GET and HEAD; POST where there are pages. It stands on the worker's own event loop on purpose: a blocked loop fails
``/healthz``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from prometheus_client.exposition import choose_encoder

from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics

log = logging.getLogger("stratarouter.http")

MAX_HEAD_BYTES = 8192
"""Request line and headers; a scraper sends a few hundred bytes."""
MAX_BODY_BYTES = 1024 * 1024
"""Of a POST."""
MAX_LENGTH_DIGITS = 18
PAGE_TIMEOUT_S = 30.0
"""For one page: some of them read from the broker or the database."""
MAX_CONNECTIONS = 64
"""Open at once; more are cut off, so that a scan cannot take the process's file descriptors."""
TIMEOUT_S = 5.0
"""For reading a request, and again for writing the reply."""
STOP_TIMEOUT_S = 2.0

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
PORT_REMEDY = (
    "choose another port or address: a worker's and a bridge's are PROMETHEUS_PORT (0 takes a free one) and "
    "STRATAROUTER_HTTP_HOST"
)
JSON_TYPE = "application/json"
OWN_PATHS = frozenset(("/metrics", "/healthz", "/readyz"))


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered: status, body and its content type."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, *, head: bool = False) -> bytes:
        """The reply as it goes over the wire; without its body for HEAD."""
        lines = [
            f"HTTP/1.1 {self.status} {REASONS[self.status]}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        if self.status == 405:
            lines.append("Allow: GET, HEAD")
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else self.body)


def problem(status: int, message: str) -> Reply:
    """A JSON reply that says what was wrong."""
    return Reply(status, json_bytes({"error": message}))


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request: ``path`` without its query, header names in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


Pages = Callable[[HttpRequest], Awaitable[Reply | None]]
"""Answers what is not the endpoint's own; None for a path that it does not know."""


def read_head(head: bytes, methods: frozenset[str]) -> HttpRequest | Reply:
    """A request from its head, or the refusal."""
    line, *fields = head.split(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1.") or not parts[1].startswith(b"/"):
        return problem(400, "not an HTTP/1.x request")
    method = parts[0].decode("latin-1")
    if method not in methods:
        return problem(405, f"only {', '.join(sorted(methods))}")
    path, _, query = parts[1].partition(b"?")
    named = (one.decode("latin-1").partition(":") for one in fields if one)
    headers = {name.strip().lower(): value.strip() for name, _, value in named}
    return HttpRequest(method, path.decode("latin-1"), query.decode("latin-1"), headers)


class HttpEndpoint:
    """Serves ``/metrics``, ``/healthz`` and ``/readyz``.

    Args:
        host: the address to bind.
        port: the port; 0 takes a free one, which ``port`` then tells.
        metrics: what ``/metrics`` shows.
        health: the body of ``/healthz``; answering at all is the health.
        ready: whether ``/readyz`` is 200 or 503, and the reasons that it shows.
        pages: what answers every other path.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        health: Callable[[], dict[str, Any]],
        ready: Callable[[], tuple[bool, dict[str, Any]]],
        pages: Pages | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self._metrics = metrics
        self._health = health
        self._ready = ready
        self._pages = pages
        self._methods = frozenset({"GET", "HEAD"} if pages is None else {"GET", "HEAD", "POST"})
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen. Raises ConfigurationError where that cannot be, as where the port is taken."""
        try:
            self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=MAX_HEAD_BYTES)
        except OSError as exc:
            said = f"HTTP on {self.host}:{self.port} cannot be served: {exc.strerror or exc}"
            raise ConfigurationError(said, remedy=PORT_REMEDY) from exc
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening; what is being answered has ``STOP_TIMEOUT_S`` seconds. Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        if self._connections:
            _, late = await asyncio.wait(set(self._connections), timeout=STOP_TIMEOUT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            # A reply would need the request to be read first, which is what there is no room for.
            event(log, logging.WARNING, "too many connections", limit=MAX_CONNECTIONS)
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            async with asyncio.timeout(3 * TIMEOUT_S + PAGE_TIMEOUT_S):
                await self._answer(reader, writer)
        except (OSError, TimeoutError) as exc:
            event(log, logging.DEBUG, "connection broken off", cause=repr(exc))
        finally:
            self._connections.discard(task)
            await _close(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, reply = await self._decide(reader)
        writer.write(reply.encode(head=method == "HEAD"))
        async with asyncio.timeout(TIMEOUT_S):
            await writer.drain()

    async def _decide(self, reader: asyncio.StreamReader) -> tuple[str, Reply]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                request = read_head(await reader.readuntil(b"\r\n\r\n"), self._methods)
                if isinstance(request, HttpRequest) and request.method == "POST":
                    request = await _with_body(request, reader)
        except asyncio.LimitOverrunError:
            return "GET", problem(431, f"the request's head is larger than {MAX_HEAD_BYTES} bytes")
        except asyncio.IncompleteReadError:
            return "GET", problem(400, "the request ended before its head or its body did")
        if isinstance(request, Reply):
            return "GET", request
        if request.path in OWN_PATHS and request.method == "POST":
            return "GET", problem(405, "only GET and HEAD here")
        if request.path in OWN_PATHS or self._pages is None:
            return request.method, self._reply(request.path, request.headers.get("accept", ""))
        return request.method, await self._page(self._pages, request)

    async def _page(self, pages: Pages, request: HttpRequest) -> Reply:
        try:
            async with asyncio.timeout(PAGE_TIMEOUT_S):
                return await pages(request) or problem(404, "there is no such page")
        except TimeoutError:
            return problem(503, f"{request.path} took longer than {PAGE_TIMEOUT_S:.0f} s")
        except Exception as exc:  # noqa: BLE001 - a wrong page must answer 500, not close the connection
            event(log, logging.ERROR, "page failed", path=request.path, cause=repr(exc))
            return problem(500, f"{request.path} failed: {type(exc).__name__}; the log has more")

    def _reply(self, path: str, accept: str) -> Reply:
        try:
            return self._route(path, accept)
        except Exception as exc:  # noqa: BLE001 - a wrong check must answer 500, not close the connection
            event(log, logging.ERROR, "endpoint failed", path=path, cause=repr(exc))
            return problem(500, f"{path} failed: {type(exc).__name__}; the log has more")

    def _route(self, path: str, accept: str) -> Reply:
        if path == "/metrics":
            # OpenMetrics, with its exemplars, for those that ask for it.
            encode, content_type = choose_encoder(accept)
            return Reply(200, encode(self._metrics.registry), content_type)
        if path == "/healthz":
            return Reply(200, _json(self._health()))
        if path == "/readyz":
            ok, reasons = self._ready()
            return Reply(200 if ok else 503, _json({"ready": ok, "reasons": reasons}))
        return problem(404, "try /metrics, /healthz or /readyz")


async def _with_body(request: HttpRequest, reader: asyncio.StreamReader) -> HttpRequest | Reply:
    length = request.headers.get("content-length", "")
    if not length.isascii() or not length.isdigit():
        return problem(411, "a POST needs its Content-Length")
    # Python reads no number of more than 4,300 digits.
    if len(length) > MAX_LENGTH_DIGITS or int(length) > MAX_BODY_BYTES:
        return problem(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return replace(request, body=await reader.readexactly(int(length)))


async def _close(writer: asyncio.StreamWriter) -> None:
    """Flush and close; a client that does not read is cut off after ``TIMEOUT_S`` seconds."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), TIMEOUT_S)
    except (OSError, TimeoutError) as exc:
        event(log, logging.DEBUG, "connection aborted", cause=repr(exc))
        writer.transport.abort()


def _json(value: dict[str, Any]) -> bytes:
    return json_bytes(value, default=str, option=orjson.OPT_NON_STR_KEYS)
