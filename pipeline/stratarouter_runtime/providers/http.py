"""What every HTTP transport shares: bounds, how far a call has come, its errors, a reply that is read as it comes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Self
from urllib.parse import urlsplit

from stratarouter_runtime.errors import ProviderBadReplyError, ProviderConnectionError, ProviderInterruptedError
from stratarouter_runtime.port_values import HttpCall, ServerSentEvent
from stratarouter_runtime.providers.sse import EventParser

CONNECT_TIMEOUT_S = 10.0
"""To open a connection with TLS; beyond it the address is taken for dead. The vendors' own clients take 5."""
KEEPALIVE_S = 4.0
"""An idle connection's life where its server promises none: below the 5 s after which uvicorn, behind most local ones,
closes it. A call sent into a closing connection is ambiguous, and perhaps paid for twice."""
MAX_CONNECTIONS = 1024
MAX_REPLY_BYTES = 32 * 1024 * 1024
"""A reply larger than this is no chat completion."""


class BrokenReplyError(ConnectionError):
    """The connection ended before the reply did, or what came is no HTTP. The text is ours."""


class UnopenedError(ConnectionError):
    """No connection came about. The text is ours."""


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
    over = type(exc) is TimeoutError and not exc.args  # with arguments it is the system's, and no deadline of ours
    why = f"nothing whole within {call.timeout_s:g} s" if over else cause(exc)
    where = _server(call.url) or "the provider's URL"
    if progress.sent:
        return ProviderInterruptedError(f"no whole reply from {where}: {why}", maybe_paid=True)
    return ProviderConnectionError(f"no connection to {where}: {why}")


def not_started() -> ProviderConnectionError:
    """The error of a call before the start of its transport, or after its end."""
    return ProviderConnectionError("the transport is not started")


def too_large(status: int) -> ProviderBadReplyError:
    """The error of a reply beyond MAX_REPLY_BYTES."""
    return ProviderBadReplyError(f"the reply is larger than {MAX_REPLY_BYTES} bytes", status=status, maybe_paid=True)


def cause(exc: BaseException) -> str:
    """Why, without a word that a client may have put its request into: the system's own, or ours."""
    if isinstance(exc, (BrokenReplyError, UnopenedError)):
        return str(exc)
    # aiohttp's errors hold the system's, and their own words name more than that.
    inner = getattr(exc, "os_error", exc)
    system = inner.strerror if isinstance(inner, OSError) else None
    if system is None and type(inner) is OSError and len(inner.args) == 1:
        system = inner.args[0]  # several addresses were tried: what each attempt ended in
    return f"{type(exc).__name__}: {system}" if isinstance(system, str) else type(exc).__name__


def _server(url: str) -> str:
    """Host and port of ``url``, never its user; empty where it has none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] if urlsplit(url).hostname else ""
    except ValueError:
        return ""


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
