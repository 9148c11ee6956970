"""HTTP over httpx: the plain transport, and the one that serves where aiohttp is not installed.

httpx's pool walks over all its requests for each one it assigns, so one pool of a thousand connections spends its time
walking. Several small pools (shards) keep the walk short.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from stratarouter_runtime.port_values import HttpCall, HttpReply
from stratarouter_runtime.providers.http import (
    CONNECT_TIMEOUT_S,
    KEEPALIVE_S,
    MAX_CONNECTIONS,
    CallProgress,
    StreamedReply,
    interruption,
    not_started,
)

DEFAULT_SHARDS = 32
"""Measured at 200 calls at once: see ``providers/__init__.py``."""
FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)
"""What a call over httpx can end in."""


class HttpxTransport:
    """Sends calls through ``shards`` pools, each call through the least busy one. Follows no redirect.

    Args:
        max_connections: of all pools together.
        shards: number of pools.
    """

    def __init__(self, *, max_connections: int = MAX_CONNECTIONS, shards: int = DEFAULT_SHARDS) -> None:
        self._limits = httpx.Limits(
            max_connections=max(1, max_connections // shards),
            max_keepalive_connections=max(1, max_connections // shards),
            keepalive_expiry=KEEPALIVE_S,
        )
        self._shards = shards
        self._clients: list[httpx.AsyncClient] = []
        self._in_flight: list[int] = []

    async def start(self) -> None:
        """Open the pools. Idempotent."""
        if self._clients:
            return
        context = httpx.create_ssl_context()
        self._clients = [self._client(context) for _ in range(self._shards)]
        self._in_flight = [0] * self._shards

    async def stop(self) -> None:
        """Close the pools. Idempotent."""
        clients, self._clients = self._clients, []
        for client in clients:
            await client.aclose()

    async def send(self, call: HttpCall) -> HttpReply:
        """Send one call and read its whole reply within ``call.timeout_s``. Raises as ``ports.Transport`` says."""
        async with self.stream(call) as reply:
            return HttpReply(reply.status, reply.headers, await reply.body())

    @asynccontextmanager
    async def stream(self, call: HttpCall) -> AsyncIterator[StreamedReply]:
        """Send one call and read its reply as it comes, within ``call.timeout_s``. Raises as ``send`` does."""
        if not self._clients:
            raise not_started()
        deadline = asyncio.get_running_loop().time() + call.timeout_s
        shard = min(range(self._shards), key=self._in_flight.__getitem__)
        self._in_flight[shard] += 1
        progress = CallProgress()
        try:
            reply = await self._open(self._clients[shard], call, progress, deadline)
            try:
                headers = dict(reply.headers.items())
                yield StreamedReply(call, progress, reply.status_code, headers, reply.aiter_bytes(), FAILURES, deadline)
            finally:
                await reply.aclose()
        finally:
            self._in_flight[shard] -= 1

    async def _open(
        self, client: httpx.AsyncClient, call: HttpCall, progress: CallProgress, deadline: float
    ) -> httpx.Response:
        try:
            async with asyncio.timeout_at(deadline):
                return await client.send(_request(client, call, progress), stream=True)
        except FAILURES as exc:
            problem = interruption(call, progress, exc)
        raise problem

    def _client(self, context: Any) -> httpx.AsyncClient:
        # No total timeout here: `stream` bounds the whole call. Neither proxy nor netrc is taken from the process.
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
        return httpx.AsyncClient(
            limits=self._limits, timeout=timeout, verify=context, follow_redirects=False, trust_env=False
        )


def _request(client: httpx.AsyncClient, call: HttpCall, progress: CallProgress) -> httpx.Request:
    async def trace(name: str, info: dict[str, Any]) -> None:
        del info
        if name.endswith("send_request_headers.started"):
            progress.sent = True

    headers = {"accept-encoding": "identity", **call.headers}
    return client.build_request(call.method, call.url, headers=headers, content=call.body, extensions={"trace": trace})
