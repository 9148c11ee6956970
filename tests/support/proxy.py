"""A TCP proxy before one broker that reads Kafka's framing, so that single requests and replies can be lost or late.

A frame is 4 bytes of length and a body. A request's body begins with api key (2 bytes), api version (2) and
correlation id (4); a reply's with the correlation id (Apache Kafka protocol guide). Replies keep the order of requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

INIT_PRODUCER_ID, END_TXN = 22, 26
"""Api keys (Apache Kafka protocol guide)."""
Action = Literal["silence", "reset", "delay", "hold"]
Direction = Literal["to_broker", "to_client"]
MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Far above any frame of a test; beyond it the framing is lost."""
LAST_REPLIES_S = 10.0
"""How long a connection to the broker outlives its client for replies that are still due."""
_LENGTH = struct.Struct(">i")
_REQUEST = struct.Struct(">hhi")
_REPLY = struct.Struct(">i")
_GONE = (ConnectionError, asyncio.IncompleteReadError, OSError)


@dataclass
class Trouble:
    """What befalls the ``nth`` request with ``api_key`` whose bytes hold ``containing``.

    Attributes:
        action: ``silence``: its reply is lost, and with it all that this connection would bring later, as TCP would
            not skip over it. ``reset``: in place of the reply the connection breaks. ``delay``: the reply comes
            ``delay_s`` later. ``hold``: the request reaches the broker once ``released`` is set, even if its client
            has gone by then.
        met: set when the request came.
        answered: set when the broker has answered it.
        reply: the body of that answer, without the correlation id.
    """

    api_key: int
    action: Action
    nth: int = 1
    containing: bytes = b""
    delay_s: float = 0.0
    met: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    reply: bytes = b""
    seen: int = 0

    def meets(self, api_key: int, frame: bytes) -> bool:
        """Count ``frame``; True for the one that is meant."""
        if api_key != self.api_key or self.containing not in frame:
            return False
        self.seen += 1
        return self.seen == self.nth


class Proxy:
    """An async context manager; listens on a free loopback ``port`` and passes on to ``broker_port``."""

    def __init__(self, broker_port: int) -> None:
        self.broker_port = broker_port
        self.port = 0
        self.requests: Counter[int] = Counter()
        """Requests passed on to the broker, by api key."""
        self.replies: Counter[int] = Counter()
        """Replies passed on to clients, by api key."""
        self._troubles: list[Trouble] = []
        self._gates: dict[Direction, asyncio.Event] = {"to_broker": asyncio.Event(), "to_client": asyncio.Event()}
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.heal()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def add(self, trouble: Trouble) -> Trouble:
        """From now on, ``trouble`` counts requests."""
        self._troubles.append(trouble)
        return trouble

    def cut(self, directions: Iterable[Direction]) -> None:
        """Let nothing through any more, as a network that drops packets: connections stay, what is sent waits."""
        for direction in directions:
            self._gates[direction].clear()

    def heal(self) -> None:
        """Let everything through, what waited first."""
        for gate in self._gates.values():
            gate.set()

    async def passed(self, direction: Direction, trouble: Trouble | None) -> None:
        """Wait until a frame may go on in ``direction``; the proxy's own end ends every wait."""
        if trouble is not None:
            await trouble.released.wait()
        await self._gates[direction].wait()

    def trouble_for(self, api_key: int, frame: bytes) -> Trouble | None:
        """What befalls this request; every trouble counts it."""
        found = [trouble for trouble in self._troubles if trouble.meets(api_key, frame)]
        return found[0] if found else None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            to_broker = await asyncio.open_connection("127.0.0.1", self.broker_port)
            await _Connection(self, (reader, writer), to_broker).run()
        except OSError:
            # The broker is away: its clients see just that.
            writer.transport.abort()
        except asyncio.CancelledError:
            # Only the proxy's own end cancels; the stream server would report it as an error.
            writer.transport.abort()
        finally:
            self._connections.discard(task)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """One client's connection and its twin to the broker."""

    def __init__(self, proxy: Proxy, client: Streams, broker: Streams) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_broker, self._to_broker = broker
        self._due: dict[int, tuple[int, Trouble | None]] = {}
        self._none_due = asyncio.Event()
        self._none_due.set()
        self._silent = False

    async def run(self) -> None:
        back = asyncio.create_task(self._carry_replies())
        try:
            await self._carry_requests()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._none_due.wait(), LAST_REPLIES_S)
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            self._to_broker.transport.abort()
            self._to_client.transport.abort()

    async def _carry_requests(self) -> None:
        """Until the client has gone, or the broker."""
        with contextlib.suppress(*_GONE):
            while True:
                frame = await _read_frame(self._from_client)
                api_key, _, correlation_id = _REQUEST.unpack_from(frame)
                trouble = self._proxy.trouble_for(api_key, frame)
                if trouble is not None:
                    trouble.met.set()
                await self._proxy.passed(
                    "to_broker", trouble if trouble is not None and trouble.action == "hold" else None
                )
                self._due[correlation_id] = (api_key, trouble)
                self._none_due.clear()
                await _write_frame(self._to_broker, frame)
                self._proxy.requests[api_key] += 1

    async def _carry_replies(self) -> None:
        """Until the broker has gone; what the client does not take any more is still read."""
        try:
            while True:
                frame = await _read_frame(self._from_broker)
                api_key, trouble = self._due.pop(_REPLY.unpack_from(frame)[0])
                if trouble is not None:
                    trouble.reply = frame[_REPLY.size :]
                    trouble.answered.set()
                if not self._due:
                    self._none_due.set()
                await self._pass_on(frame, api_key, trouble)
        except _GONE:
            self._to_client.transport.abort()

    async def _pass_on(self, frame: bytes, api_key: int, trouble: Trouble | None) -> None:
        if trouble is not None and trouble.action == "reset":
            self._to_client.transport.abort()
        if trouble is not None and trouble.action == "silence":
            self._silent = True
        if trouble is not None and trouble.action == "delay":
            await asyncio.sleep(trouble.delay_s)
        await self._proxy.passed("to_client", None)
        if self._silent or self._to_client.is_closing():
            return
        with contextlib.suppress(*_GONE):
            await _write_frame(self._to_client, frame)
            self._proxy.replies[api_key] += 1


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    """The body of the next frame. Raises ConnectionError where the framing is lost."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if not 0 <= length <= MAX_FRAME_BYTES:
        raise ConnectionError(f"a frame of {length} bytes")
    return await reader.readexactly(length)


async def _write_frame(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(_LENGTH.pack(len(frame)) + frame)
    await writer.drain()
