"""HTTP over aiohttp: the transport of the hot path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp

from stratarouter_runtime.port_values import HttpCall, HttpReply
from stratarouter_runtime.providers.http import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE_S,
    MAX_CONNECTIONS,
    MAX_REPLY_BYTES,
    CallProgress,
    StreamedReply,
    interruption,
    not_started,
    too_large,
)

DNS_CACHE_S = 60
"""How long an address is trusted: vendors move traffic by DNS within minutes."""
FAILURES = (aiohttp.ClientError, OSError, ValueError)
"""What a call over aiohttp can end in; ValueError is for a header or URL that cannot be sent."""


class AiohttpTransport:
    """Sends calls through one pool. Follows no redirect, keeps no cookie, takes no proxy from the process.

    Args:
        max_connections: open at once; a call beyond it waits, within its own deadline.
    """

    def __init__(self, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool. Idempotent."""
        if self._session is not None:
            return
        connector = aiohttp.TCPConnector(
            limit=self._max_connections, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=DNS_CACHE_S
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            # No total timeout here: the whole call is bounded in `stream`.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            trace_configs=[_trace()],
        )

    async def stop(self) -> None:
        """Close the pool. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def send(self, call: HttpCall) -> HttpReply:
        """Send one call and read its whole reply within ``call.timeout_s``. Raises as ``ports.Transport`` says.

        Not by way of ``stream``, whose deadline for every read costs an eighth of the calls a second.
        """
        if self._session is None:
            raise not_started()
        progress = CallProgress()
        try:
            async with asyncio.timeout(call.timeout_s):
                return await _exchange(self._session, call, progress)
        except FAILURES as exc:
            problem = interruption(call, progress, exc)
        raise problem

    @asynccontextmanager
    async def stream(self, call: HttpCall) -> AsyncIterator[StreamedReply]:
        """Send one call and read its reply as it comes, within ``call.timeout_s``. Raises as ``send`` does."""
        if self._session is None:
            raise not_started()
        deadline = asyncio.get_running_loop().time() + call.timeout_s
        progress = CallProgress()
        reply = await _open(self._session, call, progress, deadline)
        try:
            chunks = reply.content.iter_any()
            yield StreamedReply(call, progress, reply.status, _headers(reply), chunks, FAILURES, deadline)
        finally:
            # Of a reply that was read to its end the connection is back in the pool, and this closes nothing.
            reply.close()


async def _exchange(session: aiohttp.ClientSession, call: HttpCall, progress: CallProgress) -> HttpReply:
    async with session.request(call.method, call.url, **_options(call, progress)) as reply:
        body = bytearray()
        async for chunk in reply.content.iter_any():
            body += chunk
            if len(body) > MAX_REPLY_BYTES:
                raise too_large(reply.status)
        return HttpReply(reply.status, _headers(reply), bytes(body))


async def _open(
    session: aiohttp.ClientSession, call: HttpCall, progress: CallProgress, deadline: float
) -> aiohttp.ClientResponse:
    try:
        async with asyncio.timeout_at(deadline):
            return await session.request(call.method, call.url, **_options(call, progress))
    except FAILURES as exc:
        problem = interruption(call, progress, exc)
    raise problem


def _options(call: HttpCall, progress: CallProgress) -> dict[str, Any]:
    headers = {"accept-encoding": "identity", **call.headers}
    return {"headers": headers, "data": call.body, "allow_redirects": False, "trace_request_ctx": progress}


def _headers(reply: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in reply.headers.items()}


def _trace() -> aiohttp.TraceConfig:
    """Marks a call as sent just before its head is written."""

    async def mark(
        session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        del session, params
        context.trace_request_ctx.sent = True

    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(mark)
    return config
