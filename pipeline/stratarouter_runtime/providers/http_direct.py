"""HTTP/1.1 straight on asyncio's protocols, parsed by httptools (llhttp): the transport of the hot path.

Whole replies alone; those that are read as they come go over aiohttp. What it saves: see ``providers/__init__.py``.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import re
import ssl
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote, urlsplit

import httptools

from stratarouter_runtime.deadlines import Deadlines
from stratarouter_runtime.errors import ProviderBadReplyError
from stratarouter_runtime.port_values import HttpCall, HttpReply
from stratarouter_runtime.providers.addresses import open_connection
from stratarouter_runtime.providers.http import (
    KEEPALIVE_S,
    MAX_CONNECTIONS,
    MAX_REPLY_BYTES,
    BrokenReplyError,
    CallProgress,
    StreamedReply,
    UnopenedError,
    interruption,
    not_started,
    too_large,
)
from stratarouter_runtime.providers.http_aiohttp_later import AiohttpLater
from stratarouter_runtime.providers.http_encoded import decoded

PROMISED = re.compile(r"\btimeout=([0-9]{1,6})\b")
"""In a reply's Keep-Alive header: the seconds for which the server keeps the connection."""
PROMISE_MARGIN_S = 1.0
"""A call must have reached the server by then."""
PROMISED_MOST_S = 60.0
"""Whatever was promised: what lies between may forget a silent connection within minutes, and tell nobody."""
SWEEP_S = 1.0
"""How often idle connections are looked through."""
USER_AGENT = "stratarouter-runtime"
FRAMING = frozenset({"content-length", "transfer-encoding"})
MAX_HEAD_CHARS = 64 * 1024
"""Of a reply's headers together; and of reads that bring neither a head's end nor a piece of body: the parser holds a
line until it ends, and copies it with each of its pieces."""
BRACE = ord("{")
"""Begins every answer, and nothing that gzip or deflate made of one: what begins so is as it was."""
PORTS = {"http": 80, "https": 443}
FAILURES = (OSError, ValueError, httptools.HttpParserError)
"""What a call can end in; ValueError is for a header or URL that cannot be sent."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a URL leads. ``path`` is ready to be sent, ``host`` is the header's."""

    scheme: str
    address: str
    port: int
    path: str
    host: str

    @property
    def server(self) -> tuple[str, str, int]:
        """What connections are shared by."""
        return self.scheme, self.address, self.port


@functools.lru_cache(maxsize=256)
def _place(url: str) -> _Place:
    """Raises ValueError where no call can go there."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None:
        raise ValueError("not an http or https URL with a host and without a user")
    address = parts.hostname.encode("idna").decode() if not parts.hostname.isascii() else parts.hostname
    port = parts.port or PORTS[parts.scheme]
    name = f"[{address}]" if ":" in address else address
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(sign <= " " for sign in path):
        raise ValueError("a query that cannot be sent")
    return _Place(parts.scheme, address, port, path, name if port == PORTS[parts.scheme] else f"{name}:{port}")


def _head(call: HttpCall, place: _Place) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in call.headers.items()])
    count = len(call.headers)
    if "\0" in lines or lines.count("\n") != count or lines.count("\r") != count:
        raise ValueError("a header that cannot be sent")
    ours = _our_headers(place.host, tuple(call.headers))
    return f"{call.method} {place.path} HTTP/1.1\r\n{ours}{lines}content-length: {len(call.body)}\r\n\r\n".encode()


@functools.lru_cache(maxsize=256)
def _our_headers(host: str, theirs: tuple[str, ...]) -> str:
    """The lines that a call with headers of these names lacks. Raises ValueError for one that is ours alone."""
    ours = {"host": host, "user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}
    given = {name.lower() for name in theirs}
    if given & FRAMING:
        raise ValueError(f"a header that the body decides: {', '.join(sorted(given & FRAMING))}")
    return "".join([f"{name}: {value}\r\n" for name, value in ours.items() if name not in given])


class _Connection(asyncio.Protocol):
    """One connection: one call at a time."""

    def __init__(self, pool: DirectTransport, server: tuple[str, str, int]) -> None:
        self.server = server
        self.idle_until = 0.0
        self.alive = False
        self.whole = True  # nothing was asked yet
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[HttpReply] | None = None
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._head_room = self._unread_room = MAX_HEAD_CHARS
        self._in_body = False

    @property
    def is_open(self) -> bool:
        """Whether it can be written to: nobody has said its end, and none is on its way."""
        return self.alive and self._transport is not None and not self._transport.is_closing()

    def check_open(self) -> None:
        """Raise UnopenedError where it ended as it was opened: uvloop says so before the opener goes on."""
        if not self.is_open:
            raise UnopenedError("the server closed the connection as it was opened")

    def ask(self, request: bytes) -> asyncio.Future[HttpReply]:
        """Send ``request``; the future has the whole reply or what it broke off with."""
        assert self._transport is not None
        self._waiter = self._pool.loop.create_future()
        self._headers, self._body, self._in_body, self.whole = {}, [], False, False
        self._size = 0
        self._head_room = self._unread_room = MAX_HEAD_CHARS
        self._transport.write(request)
        return self._waiter

    def rest(self) -> None:
        """Keep it for as long as its server does: what that promised with its last reply, or KEEPALIVE_S."""
        promise = PROMISED.search(self._headers.get("keep-alive", ""))
        kept_s = KEEPALIVE_S if promise is None else min(int(promise[1]) - PROMISE_MARGIN_S, PROMISED_MOST_S)
        self.idle_until = self._pool.loop.time() + kept_s

    def abort(self) -> None:
        """Nothing of what is on its way is wanted."""
        self.alive = False
        self._end(BrokenReplyError("the connection was given up"))
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not to be asked for its class: uvloop's is no asyncio.Transport.
        self._transport, self.alive = cast("asyncio.Transport", transport), True

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.abort()  # nobody asked: what follows would be taken for the next call's reply
            return
        self._unread_room -= len(data)  # before it is read: what is found in it makes room anew
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._end(BrokenReplyError(f"no HTTP: {type(exc).__name__}"))
        if self._unread_room < 0:
            self._give_up("what came has no end")

    def connection_lost(self, exc: Exception | None) -> None:
        self.alive = False
        until_the_end = self._in_body and not {"content-length", "transfer-encoding"} & self._headers.keys()
        if exc is None and until_the_end:
            self._end(None)
        else:
            self._end(BrokenReplyError("the connection was closed") if exc is None else exc)
        self._pool.lost(self)

    # -- httptools ---------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_room -= len(name) + len(value)
        if self._head_room >= 0:
            self._headers[name.lower().decode("latin-1")] = value.decode("latin-1")
        elif not self._in_body:
            self._give_up("its head has no end")

    def on_headers_complete(self) -> None:
        self._in_body = True
        self._head_room = 0  # what comes after the body is no header of the reply
        self._unread_room = MAX_HEAD_CHARS

    def on_body(self, piece: bytes) -> None:
        self._unread_room = MAX_HEAD_CHARS
        self._body.append(piece)
        self._size += len(piece)
        if self._size > MAX_REPLY_BYTES:
            self._end(too_large(self._parser.get_status_code()))

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            self._headers, self._in_body = {}, False  # told beforehand: the reply is still to come
            self._head_room = MAX_HEAD_CHARS
            return
        if self._waiter is not None:
            self.whole = self._parser.should_keep_alive()
        self._end(None)

    def on_message_begin(self) -> None:
        self.whole = False  # more than was asked for
        self._headers = {}  # those of the reply before are its caller's

    def _give_up(self, why: str) -> None:
        self._end(BrokenReplyError(why))
        self.abort()

    def _end(self, problem: Exception | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if problem is not None:
            waiter.set_exception(problem)
            return
        body = b"".join(self._body)
        if body and body[0] != BRACE and "content-encoding" in self._headers:
            try:
                body = decoded(self._parser.get_status_code(), self._headers, body)
            except ProviderBadReplyError as exc:
                waiter.set_exception(exc)
                return
        waiter.set_result(HttpReply(self._parser.get_status_code(), self._headers, body))


Handed = _Connection | None
"""What a call that waited is given: a connection to its server, or room to open one."""


class DirectTransport:
    """Sends calls through one pool. Follows no redirect, keeps no cookie, takes no proxy from the process.

    Args:
        max_connections: open at once for whole replies, and as many again for those read as they come; a call beyond
            it waits, within its own deadline.
    """

    def __init__(self, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self._room = max_connections
        self._over_aiohttp = AiohttpLater(max_connections=max_connections)
        self._idle: dict[tuple[str, str, int], deque[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._waiting: OrderedDict[asyncio.Future[Handed], tuple[str, str, int]] = OrderedDict()
        self._tls: ssl.SSLContext | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._started = False

    async def start(self) -> None:
        """Open the pool. Idempotent."""
        # Asked for once: Python 3.11 asks the system each time which process it is in.
        self.loop = asyncio.get_running_loop()
        self._deadlines = Deadlines()
        await self._over_aiohttp.start()
        self._started = True

    async def stop(self) -> None:
        """Close the pool. Idempotent."""
        self._started = False
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
        await self._over_aiohttp.stop()

    async def send(self, call: HttpCall) -> HttpReply:
        """Send one call and read its whole reply within ``call.timeout_s``. Raises as ``ports.Transport`` says."""
        if not self._started:
            raise not_started()
        if "@" in call.url:
            return await self._over_aiohttp.send(call)  # a user in the URL, which aiohttp makes a header of
        progress = CallProgress()
        try:
            return await self._exchange(call, progress)
        except FAILURES as exc:
            problem = interruption(call, progress, exc)
        raise problem

    def stream(self, call: HttpCall) -> AbstractAsyncContextManager[StreamedReply]:
        """Send one call and read its reply as it comes, within ``call.timeout_s``. Raises as ``send`` does."""
        return self._over_aiohttp.stream(call)

    async def _exchange(self, call: HttpCall, progress: CallProgress) -> HttpReply:
        place = _place(call.url)
        request = _head(call, place) + call.body
        remaining_s = call.timeout_s
        connection = None if self._waiting else self._idle_to(place.server)
        if connection is None:
            deadline = self.loop.time() + call.timeout_s
            connection = await self._take(place, deadline)
            remaining_s = deadline - self.loop.time()
        try:
            if remaining_s <= 0.0:
                raise TimeoutError  # its turn came late: it would be given up as it is sent, and perhaps paid for
            # From here on something of it may have left.
            progress.sent = True
            return await self._deadlines.wait(connection.ask(request), remaining_s)
        finally:
            self._give_back(connection)

    # -- the pool ----------------------------------------------------------------------------------------------

    async def _take(self, place: _Place, deadline: float) -> _Connection:
        """A connection of the call's own, an idle one or a new one. Raises TimeoutError at ``deadline``."""
        while True:
            if not self._waiting:
                connection = self._idle_to(place.server)
                if connection is not None:
                    return connection
                if self._room <= 0:
                    self._close_an_idle_one()
                if self._room > 0:
                    self._room -= 1
                    return await self._connect(place, deadline)
            handed = await self._wait(place.server, deadline)
            if handed is None:
                return await self._connect(place, deadline)
            if handed.is_open:
                return handed

    def _idle_to(self, server: tuple[str, str, int]) -> _Connection | None:
        idle, now = self._idle.get(server), self.loop.time()
        while idle:
            connection = idle.pop()
            if connection.is_open and now < connection.idle_until:
                return connection
            connection.abort()
        return None

    def _close_an_idle_one(self) -> None:
        """Make room for another server. One that died before gave its room back then: it makes none."""
        for idle in self._idle.values():
            while idle:
                connection = idle.popleft()
                held_room = connection in self._open
                connection.abort()
                self.lost(connection)
                if held_room:
                    return

    async def _wait(self, server: tuple[str, str, int], deadline: float) -> Handed:
        turn: asyncio.Future[Handed] = self.loop.create_future()
        self._waiting[turn] = server
        try:
            return await self._deadlines.wait(turn, deadline - self.loop.time())
        except (asyncio.CancelledError, TimeoutError):
            self._waiting.pop(turn, None)
            if not turn.cancelled() and turn.exception() is None:
                handed = turn.result()
                if handed is None:
                    self._hand_room_on()
                elif handed in self._open:  # else it died since, and its room went to another
                    self._hand_on(handed)
            raise

    async def _connect(self, place: _Place, deadline: float) -> _Connection:
        """Room for it was taken; it is given back where nothing comes of it. Raises TimeoutError at ``deadline``."""
        opening: asyncio.Task[tuple[object, _Connection]] | None = None
        try:
            self._check_started()
            if place.scheme == "https" and self._tls is None:
                self._tls = await asyncio.to_thread(ssl.create_default_context)
            tls = self._tls if place.scheme == "https" else None
            # A connection keeps the context it was opened in: not its first call's, with all of that request.
            opened = open_connection(self.loop, lambda: _Connection(self, place.server), place.address, place.port, tls)
            opening = asyncio.create_task(opened, context=contextvars.Context())
            async with asyncio.timeout_at(deadline):
                _, connection = await opening
            connection.check_open()
        except BaseException:
            if opening is not None and opening.done() and not opening.cancelled() and opening.exception() is None:
                opening.result()[1].abort()  # it was open in the very moment that it was given up
            self._hand_room_on()
            raise
        self._open.add(connection)
        return connection

    def _check_started(self) -> None:
        if not self._started:
            raise UnopenedError("the transport was stopped")

    def _give_back(self, connection: _Connection) -> None:
        if connection.alive and connection.whole and self._started:
            self._hand_on(connection)
        elif connection.alive:
            connection.abort()

    def _hand_on(self, connection: _Connection) -> None:
        """To the first that waits, as it is or as room for another; else it is idle."""
        for server, turn in self._turns():
            if server == connection.server and connection.alive:
                turn.set_result(connection)
            else:
                self._open.discard(connection)
                connection.abort()
                turn.set_result(None)
            return
        connection.rest()
        self._idle.setdefault(connection.server, deque()).append(connection)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(SWEEP_S, self._sweep, context=contextvars.Context())

    def _hand_room_on(self) -> None:
        for _, turn in self._turns():
            turn.set_result(None)
            return
        self._room += 1

    def _turns(self) -> Iterator[tuple[tuple[str, str, int], asyncio.Future[Handed]]]:
        while self._waiting:
            turn, server = self._waiting.popitem(last=False)
            if not turn.done():
                yield server, turn

    def lost(self, connection: _Connection) -> None:
        """Its end came, from either side."""
        if connection in self._open:
            self._open.discard(connection)
            self._hand_room_on()

    def _sweep(self) -> None:
        """Close what has been idle for long, before the other side does."""
        for server, idle in list(self._idle.items()):
            while idle and (not idle[0].alive or self.loop.time() >= idle[0].idle_until):
                idle.popleft().abort()
            if not idle:
                del self._idle[server]
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep) if self._idle else None
