"""A small HTTP/1.1 server for Prometheus and for health checks. GET and HEAD only, one request a connection.

It stands on the worker's own event loop on purpose: a blocked loop fails ``/healthz``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics

log = logging.getLogger("stratarouter.http")

MAX_HEAD_BYTES = 8192
"""Request line and headers; a scraper sends a few hundred bytes."""
MAX_CONNECTIONS = 64
"""Open at once; more are cut off, so that a scan cannot take the process's file descriptors."""
TIMEOUT_S = 5.0
"""For reading a request, and again for writing the reply."""
STOP_TIMEOUT_S = 2.0

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered: status, body and its content type."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE

    def encode(self, *, head: bool = False) -> bytes:
        """The reply as it goes over the wire; without its body for HEAD."""
        lines = [
            f"HTTP/1.1 {self.status} {REASONS[self.status]}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        if self.status == 405:
            lines.append("Allow: GET, HEAD")
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if head else self.body)


def problem(status: int, message: str) -> Reply:
    """A JSON reply that says what was wrong."""
    return Reply(status, orjson.dumps({"error": message}))


def request_target(head: bytes) -> tuple[str, str] | Reply:
    """Method and path (without its query) of a request's head, or the refusal."""
    parts = head.split(b"\r\n", 1)[0].split(b" ")
    if len(parts) != 3 or not parts[2].startswith(b"HTTP/1.") or not parts[1].startswith(b"/"):
        return problem(400, "not an HTTP/1.x request")
    method = parts[0].decode("latin-1")
    if method not in {"GET", "HEAD"}:
        return problem(405, "only GET and HEAD")
    return method, parts[1].split(b"?", 1)[0].decode("latin-1")


class HttpEndpoint:
    """Serves ``/metrics``, ``/healthz`` and ``/readyz``.

    Args:
        host: the address to bind.
        port: the port; 0 takes a free one, which ``port`` then tells.
        metrics: what ``/metrics`` shows.
        health: the body of ``/healthz``; answering at all is the health.
        ready: whether ``/readyz`` is 200 or 503, and the reasons that it shows.
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        health: Callable[[], dict[str, Any]],
        ready: Callable[[], tuple[bool, dict[str, Any]]],
    ) -> None:
        self.host = host
        self.port = port
        self._metrics = metrics
        self._health = health
        self._ready = ready
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen. Raises OSError where the port is taken."""
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=MAX_HEAD_BYTES)
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
            async with asyncio.timeout(2 * TIMEOUT_S):
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
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return "GET", problem(431, f"the request's head is larger than {MAX_HEAD_BYTES} bytes")
        except asyncio.IncompleteReadError:
            return "GET", problem(400, "the request ended before its head did")
        target = request_target(head)
        if isinstance(target, Reply):
            return "GET", target
        method, path = target
        return method, self._reply(path)

    def _reply(self, path: str) -> Reply:
        try:
            return self._route(path)
        except Exception as exc:  # noqa: BLE001 - a wrong check must answer 500, not close the connection
            event(log, logging.ERROR, "endpoint failed", path=path, cause=repr(exc))
            return problem(500, f"{path} failed: {type(exc).__name__}; the log has more")

    def _route(self, path: str) -> Reply:
        if path == "/metrics":
            return Reply(200, generate_latest(self._metrics.registry), CONTENT_TYPE_LATEST)
        if path == "/healthz":
            return Reply(200, _json(self._health()))
        if path == "/readyz":
            ok, reasons = self._ready()
            return Reply(200 if ok else 503, _json({"ready": ok, "reasons": reasons}))
        return problem(404, "try /metrics, /healthz or /readyz")


async def _close(writer: asyncio.StreamWriter) -> None:
    """Flush and close; a client that does not read is cut off after ``TIMEOUT_S`` seconds."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), TIMEOUT_S)
    except (OSError, TimeoutError) as exc:
        event(log, logging.DEBUG, "connection aborted", cause=repr(exc))
        writer.transport.abort()


def _json(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
