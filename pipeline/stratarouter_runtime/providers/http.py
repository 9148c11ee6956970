"""HTTP over httpx: the plain transport, and the one that serves where aiohttp is not installed.

httpx's pool walks over all its requests for each one it assigns, so one pool of a thousand connections spends its time
walking. Several small pools (shards) keep the walk short.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx

from stratarouter_runtime.errors import ProviderBadReplyError, ProviderConnectionError, ProviderInterruptedError
from stratarouter_runtime.ports import HttpCall, HttpReply, ServerSentEvent
from stratarouter_runtime.providers.sse import EventParser

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
FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)
"""What a call over httpx can end in."""


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


class StreamedReply:
    """A reply whose body is read as it comes, for both transports (``ports.HttpStream``).

    An iterator and no generator: one that is left half read holds nothing that would have to be closed.

    Args:
        call: what was sent, for the messages of errors.
        progress: of the call.
        status: of the reply.
        headers: with lower-case names.
        chunks: the body.
        failures: the client library's exceptions that mean a broken reply.
        deadline: of every read, in the running loop's time (seconds).
    """

    def __init__(
        self,
        call: HttpCall,
        progress: CallProgress,
        status: int,
        headers: Mapping[str, str],
        chunks: AsyncIterator[bytes],
        failures: tuple[type[Exception], ...],
        deadline: float,
    ) -> None:
        self.status = status
        self.headers = headers
        self._call = call
        self._progress = progress
        self._chunks = chunks
        self._failures = failures
        self._deadline = deadline
        self._parser = EventParser()
        # Bounded by what one chunk holds: the next is read when it is empty.
        self._ready: deque[ServerSentEvent] = deque()
        self._size = 0

    def events(self) -> AsyncIterator[ServerSentEvent]:
        """The body as server-sent events."""
        return self

    async def body(self) -> bytes:
        """The whole body."""
        whole = bytearray()
        while (chunk := await self._next_chunk()) is not None:
            whole += chunk
        return bytes(whole)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        while not self._ready:
            chunk = await self._next_chunk()
            if chunk is None:
                raise StopAsyncIteration
            self._ready.extend(self._parser.feed(chunk))
        return self._ready.popleft()

    async def _next_chunk(self) -> bytes | None:
        """The next bytes, None at the end."""
        try:
            async with asyncio.timeout_at(self._deadline):
                chunk = await anext(self._chunks, None)
        except self._failures as exc:
            problem = interruption(self._call, self._progress, exc)
        else:
            self._size += len(chunk or b"")
            if self._size > MAX_REPLY_BYTES:
                raise too_large(self.status)
            return chunk
        raise problem


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
            raise ProviderConnectionError("the transport is not started")
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
