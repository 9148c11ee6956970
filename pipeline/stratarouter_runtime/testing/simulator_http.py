"""HTTP/1.1 for the simulator: keep-alive, bounded sizes, one request at a time a connection. Requests and whole
replies come with a Content-Length, streamed replies in chunks.

Written on ``asyncio.Protocol`` because a provider's stand-in must never be the slow part of a measurement.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import field
from functools import lru_cache
from http import HTTPStatus
from typing import cast

from stratarouter_runtime.plain import dataclass

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers; real servers stop at 8 to 64 KiB."""
MAX_BODY_BYTES = 32 * 1024 * 1024
"""A request body. Vendors stop at about 32 MB with a 413, as this does."""
MAX_BUFFER_BYTES = MAX_HEAD_BYTES + MAX_BODY_BYTES
"""Unparsed input of one connection; beyond it the socket is not read."""
BREAK_DELAY_S = 0.005
"""Between the partial reply and the end of the connection: uvloop writes at the end of an iteration."""

Headers = tuple[tuple[str, str], ...]
OVERLOADED_STATUS = 529
REASONS = {status.value: status.phrase for status in HTTPStatus} | {OVERLOADED_STATUS: "Overloaded"}


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """One request as it came; ``headers`` have lower-case names."""

    method: str
    path: str
    query: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class UnreadableRequestError(Exception):
    """The bytes are no HTTP request that this server takes; answered with ``status``, then closed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request; ``length`` is its body's in bytes, ``query`` what follows the path's question mark."""

    method: str
    path: str
    query: str
    headers: dict[str, str] = field(repr=False)
    length: int = 0


def parse_head(head: bytes) -> Head:
    """Read a request's head.

    Raises:
        UnreadableRequestError: 400 for a malformed head, 411 for a body of unsaid length, 413 for one too long.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise UnreadableRequestError(400, "the request line is not HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, value = _header(line)
        headers[name] = value
    if "transfer-encoding" in headers:
        raise UnreadableRequestError(411, "send Content-Length; chunked bodies are not taken")
    path, _, query = parts[1].partition("?")
    return Head(parts[0], path, query, headers, _body_length(headers.get("content-length", "0")))


@lru_cache(1024)
def _header(line: str) -> tuple[str, str]:
    """Name in lower case and value; most lines of a client are the same in all of its requests."""
    name, colon, value = line.partition(":")
    if not colon:
        raise UnreadableRequestError(400, "a header has no colon")
    return name.lower(), value.strip()


def _body_length(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise UnreadableRequestError(400, "Content-Length is no number")
    if len(text) > 12 or int(text) > MAX_BODY_BYTES:
        raise UnreadableRequestError(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return int(text)


def render(status: int, body: bytes, headers: Headers = (), *, close: bool = False) -> bytes:
    """A whole reply as bytes."""
    return b"%scontent-length: %d\r\n\r\n%s" % (_head_but_length(status, headers, close=close), len(body), body)


@lru_cache(64)
def _head_but_length(status: int, headers: Headers, *, close: bool) -> bytes:
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
    connection = "close" if close else "keep-alive"
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\ncontent-type: application/json\r\n"
        f"connection: {connection}\r\n{extra}"
    )
    return head.encode("latin-1")


def render_stream_head(status: int, headers: Headers = ()) -> bytes:
    """The head of a reply of server-sent events, whose body follows in chunks."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        f"cache-control: no-cache\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n{extra}\r\n"
    )
    return head.encode("latin-1")


class Connection(asyncio.Protocol):
    """One client's connection. ``serve`` gets each request and answers it by ``reply``, by a stream (``begin_stream``,
    ``send_piece``, ``end_stream``) or by one of the breaks.

    Args:
        serve: called with the request and this connection; must not block.
        living: every open connection; this one adds and removes itself.
    """

    def __init__(self, serve: Callable[[SimulatedRequest, Connection], None], living: set[Connection]) -> None:
        self._serve = serve
        self._living = living
        self._buffer = bytearray()
        self._head: Head | None = None
        self._busy = False
        self._paused = False
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether the client is still there."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register."""
        # A cast, as uvloop's transport is no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._living.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; a reply under way goes nowhere."""
        del exc
        self._transport = None
        self._living.discard(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes; serves a request once it is whole."""
        self._buffer += data
        if len(self._buffer) > MAX_BUFFER_BYTES and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._advance()

    def reply(self, status: int, body: bytes, headers: Headers = (), *, close: bool = False) -> None:
        """Answer the request being served, then take the next."""
        if self._transport is None:
            return
        self._transport.write(render(status, body, headers, close=close))
        if close:
            self._busy = False
            self._transport.close()
            return
        self._take_next()

    def begin_stream(self, status: int, headers: Headers = ()) -> None:
        """Begin a reply of server-sent events."""
        if self._transport is not None:
            self._transport.write(render_stream_head(status, headers))

    def send_piece(self, piece: bytes) -> None:
        """Send one chunk of the stream; an empty one, which would end it, is left out."""
        if self._transport is not None and piece:
            self._transport.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    def end_stream(self) -> None:
        """End the stream in good order, then take the next request."""
        if self._transport is not None:
            self._transport.write(b"0\r\n\r\n")
            self._take_next()

    def truncate(self, status: int, body: bytes) -> None:
        """Promise the whole body, send half of it, end the connection in good order."""
        self._send_half(status, body)
        self.break_off()

    def reset(self, status: int, body: bytes) -> None:
        """Promise the whole body, send half of it, end the connection with a TCP reset."""
        self._send_half(status, body)
        self.break_off(reset=True)

    def break_off(self, *, reset: bool = False) -> None:
        """End the connection, in good order or with a TCP reset, once what was written has left."""
        asyncio.get_running_loop().call_later(BREAK_DELAY_S, self._send_reset if reset else self.close)

    def close(self) -> None:
        """End the connection in good order."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def _take_next(self) -> None:
        self._busy = False
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        if self._buffer:
            asyncio.get_running_loop().call_soon(self._advance)

    def _send_half(self, status: int, body: bytes) -> None:
        if self._transport is not None:
            whole = render(status, body)
            self._transport.write(whole[: len(whole) - len(body) + len(body) // 2])

    def _send_reset(self) -> None:
        if self._transport is not None:
            # Linger of zero seconds makes close() send RST instead of FIN.
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()

    def _advance(self) -> None:
        if self._busy or self._transport is None:
            return
        try:
            request = self._next_request()
        except UnreadableRequestError as exc:
            self._busy = True
            self.reply(exc.status, f'{{"error": {{"message": "{exc}"}}}}'.encode(), close=True)
            return
        if request is not None:
            self._busy = True
            self._serve(request, self)

    def _next_request(self) -> SimulatedRequest | None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):
                raise UnreadableRequestError(431, f"the head is larger than {MAX_HEAD_BYTES} bytes")
            if end < 0:
                return None
            self._head = parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if self._head.headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = self._head
        if len(self._buffer) < head.length:
            return None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        self._head = None
        return SimulatedRequest(head.method, head.path, head.query, head.headers, body)
