"""HTTP over httpx: the plain transport, and the one that serves where aiohttp is not installed.

httpx's pool walks over all its requests for each one it assigns, so one pool of a thousand connections spends its time
walking. Several small pools (shards) keep the walk short.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from stratarouter_runtime.errors import ProviderBadReplyError, ProviderConnectionError, ProviderInterruptedError
from stratarouter_runtime.ports import HttpCall, HttpReply

CONNECT_TIMEOUT_S = 10.0
"""To open a connection with TLS; beyond it the address is taken for dead. The vendors' own clients take 5."""
KEEPALIVE_S = 4.0
"""An idle connection's life here: below the 5 s after which uvicorn, behind most local servers, closes it. A call sent
into a closing connection is ambiguous, and perhaps paid for twice."""
MAX_CONNECTIONS = 1024
MAX_REPLY_BYTES = 32 * 1024 * 1024
"""A reply larger than this is no chat completion."""
DEFAULT_SHARDS = 32
"""Measured at 200 calls at once: see ``providers/__init__.py``."""


class CallProgress:
    """How far a call has come: ``sent`` once any byte of it may have left, which is what makes a failure ambiguous."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False


def interruption(
    call: HttpCall, progress: CallProgress, exc: Exception
) -> ProviderConnectionError | ProviderInterruptedError:
    """The error of a call that ended in ``exc`` without a whole reply.

    To be raised outside the ``except`` block: a client's own exception can hold the request with its key
    (``repr`` of aiohttp's ClientResponseError, ``str`` of httpx's LocalProtocolError), so it is neither quoted
    nor chained.
    """
    cause = f"nothing whole within {call.timeout_s:g} s" if type(exc) is TimeoutError else _cause(exc)
    where = httpx.URL(call.url).netloc.decode() if _is_url(call.url) else "the provider's URL"
    if progress.sent:
        return ProviderInterruptedError(f"no whole reply from {where}: {cause}", maybe_paid=True)
    return ProviderConnectionError(f"no connection to {where}: {cause}")


def too_large(status: int) -> ProviderBadReplyError:
    """The error of a reply beyond MAX_REPLY_BYTES."""
    return ProviderBadReplyError(f"the reply is larger than {MAX_REPLY_BYTES} bytes", status=status, maybe_paid=True)


def _cause(exc: Exception) -> str:
    system = exc.strerror if isinstance(exc, OSError) else None
    return f"{type(exc).__name__}: {system}" if isinstance(system, str) else type(exc).__name__


def _is_url(text: str) -> bool:
    try:
        return bool(httpx.URL(text).host)
    except httpx.InvalidURL:
        return False


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
        if not self._clients:
            raise ProviderConnectionError("the transport is not started")
        shard = min(range(self._shards), key=self._in_flight.__getitem__)
        self._in_flight[shard] += 1
        progress = CallProgress()
        try:
            async with asyncio.timeout(call.timeout_s):
                return await _exchange(self._clients[shard], call, progress)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as exc:
            problem = interruption(call, progress, exc)
        finally:
            self._in_flight[shard] -= 1
        raise problem

    def _client(self, context: Any) -> httpx.AsyncClient:
        # No total timeout here: the whole call is bounded in `send`. Neither proxy nor netrc is taken from the process.
        timeout = httpx.Timeout(None, connect=CONNECT_TIMEOUT_S)
        return httpx.AsyncClient(
            limits=self._limits, timeout=timeout, verify=context, follow_redirects=False, trust_env=False
        )


async def _exchange(client: httpx.AsyncClient, call: HttpCall, progress: CallProgress) -> HttpReply:
    async def trace(name: str, info: dict[str, Any]) -> None:
        del info
        if name.endswith("send_request_headers.started"):
            progress.sent = True

    headers = {"accept-encoding": "identity", **call.headers}
    request = client.build_request(
        call.method, call.url, headers=headers, content=call.body, extensions={"trace": trace}
    )
    reply = await client.send(request, stream=True)
    try:
        body = bytearray()
        async for chunk in reply.aiter_bytes():
            body += chunk
            if len(body) > MAX_REPLY_BYTES:
                raise too_large(reply.status_code)
        return HttpReply(reply.status_code, dict(reply.headers.items()), bytes(body))
    finally:
        await reply.aclose()
