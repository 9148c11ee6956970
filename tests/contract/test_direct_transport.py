"""What the transport of the hot path does with connections: when one is used again, and when it must not be."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import socket
import ssl
import threading
import time
import weakref
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from stratarouter_runtime import deadlines
from stratarouter_runtime.errors import ProviderBadReplyError, ProviderConnectionError, ProviderInterruptedError
from stratarouter_runtime.port_values import HttpCall, HttpReply
from stratarouter_runtime.providers import addresses, http_direct, http_encoded
from stratarouter_runtime.providers.http_direct import DirectTransport
from support.addresses import dead_address
from support.tls import Authority

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Script:
    """A server that answers the requests of a connection with ``replies`` in turn, the last one for ever."""

    replies: list[bytes]
    then_close: bool = False
    delay_s: float = 0.0
    requests: list[bytes] = field(default_factory=list)
    opened: int = 0
    open_now: int = 0
    most_open: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        self.writers.append(writer)
        try:
            for number in range(1_000_000):
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(size))
                await asyncio.sleep(self.delay_s)
                writer.write(self.replies[min(number, len(self.replies) - 1)])
                if self.then_close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open_now -= 1
            writer.close()


@asynccontextmanager
async def serving(script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    server = await asyncio.start_server(script, "127.0.0.1", 0, ssl=context)
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in script.writers:
            writer.close()


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def sending(answer: Answer) -> AsyncIterator[str]:
    """A server that does ``answer`` on each connection until the other side is gone, and ends with the last of them."""
    running = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running
        running += 1
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            running -= 1

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await until(lambda: running == 0)
    server.close()


@pytest.fixture
async def transport() -> AsyncIterator[DirectTransport]:
    made = DirectTransport()
    await made.start()
    yield made
    await made.stop()


def call(base_url: str, path: str = "/v1/chat", body: bytes = b"{}", timeout_s: float = 5.0) -> HttpCall:
    return HttpCall(
        "POST", base_url + path, {"Authorization": "Bearer k", "content-type": "text/plain"}, body, timeout_s
    )


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


async def test_what_is_sent_is_one_request_and_the_connection_is_used_again(transport: DirectTransport) -> None:
    script = Script([OK])
    async with serving(script) as url:
        for body in (b"one", "zwölf".encode(), b""):
            assert (await transport.send(call(url, "/a b?x=1&y=%20", body))).body == b"ok"
    assert script.opened == 1
    assert [request.partition(b"\r\n\r\n")[2] for request in script.requests] == [b"one", "zwölf".encode(), b""]
    lines = script.requests[0].decode().split("\r\n")
    assert lines[0] == "POST /a%20b?x=1&y=%20 HTTP/1.1"
    assert f"host: {url.removeprefix('http://')}" in lines
    # Names in whatever case: they are the same to a server.
    said = {f"{name.lower()}:{value}" for name, _, value in (line.partition(":") for line in lines[1:])}
    assert {"authorization: Bearer k", "content-type: text/plain", "content-length: 3"} <= said
    assert "accept-encoding: identity" in lines


async def test_a_connection_keeps_nothing_of_the_call_that_opened_it(transport: DirectTransport) -> None:
    class Asked:
        pass

    current: ContextVar[Asked] = ContextVar("current")
    script = Script([OK])
    async with serving(script) as url:

        async def send() -> weakref.ref[Asked]:
            asked = Asked()
            current.set(asked)
            assert (await transport.send(call(url))).body == b"ok"
            return weakref.ref(asked)

        asked = await asyncio.create_task(send())
        await asyncio.sleep(0.01)
        gc.collect()
        assert script.open_now == 1
        assert asked() is None


async def test_a_connection_that_is_open_when_its_call_gives_up_is_closed(transport: DirectTransport) -> None:
    script = Script([OK])
    async with serving(script) as url:
        for turns in range(30):
            task = asyncio.create_task(transport.send(call(url, timeout_s=20)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # What the server has open is known here: idle, after a call that ended in time.
            await until(lambda: script.open_now == len(transport._open))
            assert transport._room == http_direct.MAX_CONNECTIONS - len(transport._open)


@pytest.mark.parametrize(
    ("reply", "body"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nx-sum: 1\r\n\r\n", b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", b""),
    ],
    ids=["early-hints", "continue", "chunked", "no-content", "empty"],
)
async def test_replies_of_every_framing_are_whole_and_free_their_connection(
    transport: DirectTransport, reply: bytes, body: bytes
) -> None:
    script = Script([reply])
    async with serving(script) as url:
        assert [(await transport.send(call(url))).body for _ in range(3)] == [body] * 3
    assert script.opened == 1


async def test_a_reply_without_a_length_ends_with_its_connection(transport: DirectTransport) -> None:
    script = Script([b"HTTP/1.1 200 OK\r\n\r\nall of it"], then_close=True)
    async with serving(script) as url:
        assert [(await transport.send(call(url))).body for _ in range(2)] == [b"all of it"] * 2
    assert script.opened == 2


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * (http_direct.MAX_HEAD_CHARS + 1) + b"\r\n\r\n",
    ],
    ids=["length", "chunks", "head", "upgrade", "endless-head"],
)
async def test_a_reply_that_is_not_whole_is_ambiguous(transport: DirectTransport, reply: bytes) -> None:
    script = Script([reply], then_close=True)
    async with serving(script) as url:
        with pytest.raises(ProviderInterruptedError):
            await transport.send(call(url))
    assert len(script.requests) == 1, "it is not sent twice"


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "begins",
    [
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nx: ",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nx: ",
        CHUNKED + b"2\r\nab\r\n0\r\nx: ",
        CHUNKED + b"2\r\nab\r\n2;",
    ],
    ids=["status", "name", "value", "after-another-head", "trailer", "chunk"],
)
async def test_a_line_without_an_end_is_given_up(transport: DirectTransport, begins: bytes) -> None:
    """The parser holds a line until its end, and copies it with each piece that comes."""
    most, sent = 64 * 2**20, 0

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begins)
        while sent < most:
            writer.write(b"y" * 65536)
            sent += 65536
            await writer.drain()

    async with sending(send) as url:
        with pytest.raises(ProviderInterruptedError):
            await transport.send(call(url, timeout_s=60.0))
        await until(lambda: (len(transport._open), transport._room) == (0, http_direct.MAX_CONNECTIONS))
    assert sent < most / 4, "what the sockets' buffers hold is sent, and no more"


HINT = b"HTTP/1.1 103 Early Hints\r\nlink: " + b"y" * 40_000 + b"\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\nx: "


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([HINT, HINT, HINT, OK], b"ok"),
        ([HINT + HINT + HINT + OK], b"ok"),
        ([HEAD, b"y" * 60_000, b"\r\n\r\n", b"z" * 300_000], b"z" * 300_000),
        ([CHUNKED, *[b"1\r\n", b"a", b"\r\n"] * 20, b"0\r\nx: " + b"y" * 60_000, b"\r\n\r\n"], b"a" * 20),
    ],
    ids=["heads-beforehand", "in-one-piece", "long-head", "small-chunks"],
)
async def test_long_heads_and_many_pieces_within_their_bounds_are_read(
    transport: DirectTransport, pieces: list[bytes], body: bytes
) -> None:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n{}"):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.002)

    async with sending(send) as url:
        assert [(await transport.send(call(url))).body for _ in range(2)] == [body] * 2
        assert len(transport._open) == 1
        await transport.stop()


def compressed(encoding: bytes, body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %s\r\ncontent-encoding: %s\r\ncontent-length: %d\r\n\r\n"
    return head % (status, encoding, len(body)) + body


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(b'{"a": ') + gzip.compress(b"1}")),
        (b"deflate, gzip", gzip.compress(zlib.compress(b'{"a": 1}'))),
        (b"x-gzip, identity", gzip.compress(b'{"a": 1}')),
        (b"br", b'{"a": 1}'),
    ],
    ids=["members", "twice", "old-name", "said-and-not-done"],
)
async def test_what_was_compressed_unasked_is_unpacked(
    transport: DirectTransport, encoding: bytes, body: bytes
) -> None:
    async with serving(Script([compressed(encoding, body)])) as url:
        assert [(await transport.send(call(url))).body for _ in range(2)] == [b'{"a": 1}'] * 2
        assert len(transport._open) == 1


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        (b"br", b"\x8b\x02\x80{}\x03", "'br'"),
        (b"gzip", gzip.compress(b'{"a": 1}')[:-6], "'gzip'"),
        (b"gzip", b"no gzip", "'gzip'"),
        (b"gzip", gzip.compress(b"[" + b" " * 5_000), "larger than"),
    ],
    ids=["unknown", "cut-off", "none", "too-large"],
)
async def test_what_cannot_be_unpacked_is_a_paid_reply_that_says_why(
    transport: DirectTransport, monkeypatch: pytest.MonkeyPatch, encoding: bytes, body: bytes, said: str
) -> None:
    monkeypatch.setattr(http_encoded, "MAX_REPLY_BYTES", 5_000)
    async with serving(Script([compressed(encoding, body), OK])) as url:
        with pytest.raises(ProviderBadReplyError, match=said) as caught:
            await transport.send(call(url))
        assert caught.value.maybe_paid
        assert (await transport.send(call(url))).body == b"ok"


async def test_a_refusal_is_its_status_whatever_its_body(transport: DirectTransport) -> None:
    async with serving(Script([compressed(b"br", b"\x8b\x02\x80", b"429 Too Many Requests")])) as url:
        reply = await transport.send(call(url))
    assert (reply.status, reply.body) == (429, b"\x8b\x02\x80")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", "the connection was closed"),
        (b"SSH-2.0-nonsense\r\n\r\n", "no HTTP: HttpParser[A-Za-z]+"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", "its head has no end|what came has no end"),
    ],
    ids=["closed", "other-protocol", "head"],
)
async def test_an_error_says_what_came(transport: DirectTransport, reply: bytes, said: str) -> None:
    async with serving(Script([reply], then_close=True)) as url:
        with pytest.raises(ProviderInterruptedError, match=f"no whole reply from 127.0.0.1:[0-9]+: ({said})"):
            await transport.send(call(url))


async def test_trailers_are_no_headers(transport: DirectTransport) -> None:
    trailers = b"x-id: two\r\nretry-after: 9\r\ncontent-encoding: gzip\r\n"
    whole = CHUNKED.replace(b"\r\n\r\n", b"\r\nx-id: one\r\n\r\n") + b"2\r\nok\r\n0\r\n" + trailers + b"\r\n"
    async with serving(Script([whole, OK])) as url:
        replies = [await transport.send(call(url)) for _ in range(2)]
    assert replies[0].headers == {"transfer-encoding": "chunked", "x-id": "one"}
    assert replies[1].headers == {"content-length": "2"}
    assert [reply.body for reply in replies] == [b"ok"] * 2


async def test_a_call_whose_time_is_over_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline is noticed late, and the connection that was waited for may come before that."""
    monkeypatch.setattr(deadlines, "EXACT_BELOW_S", 0.0)
    monkeypatch.setattr(deadlines, "TICK_S", 30.0)
    transport = DirectTransport(max_connections=1)
    await transport.start()
    script = Script([OK], delay_s=0.3)
    async with serving(script) as url:
        first = asyncio.create_task(transport.send(call(url, timeout_s=60.0)))
        await until(lambda: len(script.requests) == 1)
        with pytest.raises(ProviderConnectionError):
            await transport.send(call(url, timeout_s=0.05))
        assert (await first).body == b"ok"
        with pytest.raises(ProviderConnectionError):
            await transport.send(call(url, timeout_s=0.0))
        assert (await transport.send(call(url, timeout_s=60.0))).body == b"ok"
    assert len(script.requests) == 2
    assert script.opened == 1, "its connection went on to the next"
    await transport.stop()


@pytest.mark.parametrize(
    "reply",
    [
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ],
    ids=["more-than-asked-for", "close", "http-1.0"],
)
async def test_such_a_connection_is_not_used_again(transport: DirectTransport, reply: bytes) -> None:
    script = Script([reply])
    async with serving(script) as url:
        assert [(await transport.send(call(url))).body for _ in range(2)] == [b"ok"] * 2
    assert script.opened == 2


async def test_what_comes_unasked_is_nobodys_reply(transport: DirectTransport) -> None:
    script = Script([OK])
    async with serving(script) as url:
        await transport.send(call(url))
        script.writers[0].write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")
        await until(lambda: not transport._open)
        assert (await transport.send(call(url))).body == b"ok"
    assert script.opened == 2


async def test_headers_of_what_nobody_asked_for_stand_in_no_reply(transport: DirectTransport) -> None:
    asked_for = OK.replace(b"\r\n\r\n", b"\r\nx-id: one\r\n\r\n")
    unasked = b"HTTP/1.1 429 Oh\r\ncontent-length: 0\r\nx-id: two\r\nretry-after: 9\r\n\r\n"
    async with serving(Script([asked_for + unasked])) as url:
        reply = await transport.send(call(url))
    assert (reply.status, reply.headers) == (200, {"content-length": "2", "x-id": "one"})


async def test_an_idle_connection_is_closed_before_the_other_side_does(
    transport: DirectTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_direct, "KEEPALIVE_S", 0.05)
    monkeypatch.setattr(http_direct, "SWEEP_S", 0.02)
    script = Script([OK])
    async with serving(script) as url:
        await transport.send(call(url))
        await until(lambda: script.open_now == 0)
        await until(lambda: transport._sweeper is None)
        assert (await transport.send(call(url))).body == b"ok"
    assert script.opened == 2


@pytest.mark.parametrize(("said", "kept"), [("timeout=2, max=100", True), ("timeout=1", False), ("timeout=x", False)])
async def test_an_idle_connection_is_kept_as_long_as_its_server_promises(
    transport: DirectTransport, monkeypatch: pytest.MonkeyPatch, said: str, *, kept: bool
) -> None:
    monkeypatch.setattr(http_direct, "KEEPALIVE_S", 0.0)
    script = Script([OK.replace(b"\r\n\r\n", f"\r\nKeep-Alive: {said}\r\n\r\n".encode())])
    async with serving(script) as url:
        for _ in range(2):
            assert (await transport.send(call(url))).body == b"ok"
    assert script.opened == (1 if kept else 2)


async def test_a_promise_is_trusted_for_a_minute_at_the_most(transport: DirectTransport) -> None:
    script = Script([OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: timeout=7200\r\n\r\n")])
    async with serving(script) as url:
        await transport.send(call(url))
        [connection] = transport._open
        assert 50 < connection.idle_until - asyncio.get_running_loop().time() <= 60


async def test_no_more_connections_than_allowed_are_open_whoever_they_lead_to() -> None:
    transport = DirectTransport(max_connections=3)
    await transport.start()
    scripts = [Script([OK], delay_s=0.01) for _ in range(3)]
    async with serving(scripts[0]) as a, serving(scripts[1]) as b, serving(scripts[2]) as c:
        urls = [a, b, c]
        replies = await asyncio.gather(*(transport.send(call(urls[n % 3], timeout_s=20)) for n in range(60)))
        assert [reply.body for reply in replies] == [b"ok"] * 60
        assert max(script.most_open for script in scripts) <= 3
        assert len(transport._open) <= 3
        assert len(transport._open) + transport._room == 3
        # Room that idle connections hold is there for another server.
        assert (await transport.send(call(c))).body == b"ok"
        await transport.stop()
        assert sum(len(script.requests) for script in scripts) == 61


async def test_room_is_made_by_closing_what_is_open_not_what_died_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to another server stood and waited, with an idle connection there to be closed for it."""
    monkeypatch.setattr(http_direct, "KEEPALIVE_S", 60.0)  # else that makes the room, late
    transport = DirectTransport(max_connections=2)
    await transport.start()
    a, b = Script([OK]), Script([OK], delay_s=30)
    async with serving(a) as to_a, serving(b) as to_b:
        await asyncio.gather(transport.send(call(to_a)), transport.send(call(to_a)))
        [idle] = transport._idle.values()
        idle[0].abort()
        await until(lambda: transport._room == 1)
        assert len(idle) == 2
        tasks = [asyncio.create_task(transport.send(call(to_b, timeout_s=20))) for _ in range(2)]
        await until(lambda: len(b.requests) == 2)
        await until(lambda: a.open_now == 0)
        assert (len(transport._open), transport._room) == (2, 0)
        await transport.stop()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in ended] == [ProviderInterruptedError] * 2


async def test_room_of_a_connection_that_dies_as_it_is_handed_on_is_given_away_once() -> None:
    transport = DirectTransport(max_connections=1)
    await transport.start()
    async with serving(Script([OK])) as url:
        await transport.send(call(url))
        [connection] = transport._open
        [idle] = transport._idle.values()
        idle.clear()
        deadline = asyncio.get_running_loop().time() + 5.0
        first, second, third = (asyncio.create_task(transport._wait(connection.server, deadline)) for _ in range(3))
        await until(lambda: len(transport._waiting) == 3)
        transport._hand_on(connection)
        connection.connection_lost(None)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await second is None
        assert len(transport._waiting) == 1, "the one room was the second's"
        transport._hand_room_on()
        assert await third is None
        transport._hand_room_on()
        assert (len(transport._open), transport._room) == (0, 1)
        connection.abort()
        await transport.stop()


@pytest.mark.parametrize("exact_below_s", [deadlines.EXACT_BELOW_S, 0.0], ids=["own timer", "shared timer"])
async def test_calls_that_give_up_waiting_take_no_room_with_them(
    exact_below_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "EXACT_BELOW_S", exact_below_s)
    transport = DirectTransport(max_connections=1)
    await transport.start()
    script = Script([OK], delay_s=0.2)
    async with serving(script) as url:
        tasks = [asyncio.create_task(transport.send(call(url))) for _ in range(8)]
        await until(lambda: len(script.requests) == 1)
        for task in (tasks[0], tasks[2], tasks[5]):
            task.cancel()
        ended: list[HttpReply | BaseException] = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in ended] == [n in {0, 2, 5} for n in range(8)]
        script.delay_s = 1.0
        # The first has the only room for as long as the second waits for it.
        late = [transport.send(call(url, timeout_s=timeout_s)) for timeout_s in (0.5, 0.02)]
        problems = await asyncio.gather(*late, return_exceptions=True)
        assert [type(one) for one in problems] == [ProviderInterruptedError, ProviderConnectionError]
        asked = len(script.requests)
        under_way = asyncio.create_task(transport.send(call(url)))
        await until(lambda: len(script.requests) > asked)
        with pytest.raises(ProviderConnectionError):
            await transport.send(call(url, timeout_s=0.02))
        assert not transport._waiting, "it has given up and stands in the queue"
        assert (await under_way).body == b"ok"
        await until(lambda: len(transport._open) + transport._room == 1)
        await transport.stop()


async def test_stopping_breaks_off_what_is_under_way_and_what_waits() -> None:
    transport = DirectTransport(max_connections=1)
    await transport.start()
    script = Script([OK], delay_s=30)
    async with serving(script) as url:
        tasks = [asyncio.create_task(transport.send(call(url, timeout_s=20))) for _ in range(3)]
        await until(lambda: len(script.requests) == 1)
        await transport.stop()
        async with asyncio.timeout(2):
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(ended[0], ProviderInterruptedError)
    assert all(isinstance(one, ProviderConnectionError) for one in ended[1:])


async def test_tls_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted, other = Authority.make(tmp_path / "a"), Authority.make(tmp_path / "b", "another")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted.cert))
    transport = DirectTransport()
    await transport.start()

    async def ask(pem: Path) -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        async with serving(Script([OK]), context) as url:
            return await transport.send(call(url))

    assert (await ask(trusted.issue("127.0.0.1"))).body == b"ok"
    for wrong in (trusted.issue("elsewhere.test", name="elsewhere"), other.issue("127.0.0.1")):
        with pytest.raises(ProviderConnectionError):
            await ask(wrong)
    await transport.stop()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02])
def test_what_another_address_was_faster_than_is_closed(
    run: Callable[[Any], tuple[int, int]], after_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both addresses answer; the second is tried while the first is under way."""
    monkeypatch.setattr(addresses, "NEXT_ADDRESS_S", after_s)

    async def both(*_: Any) -> list[str]:
        return ["127.0.0.1", "127.0.0.2"]

    monkeypatch.setattr(addresses, "_addresses", both)

    async def calls() -> tuple[int, int]:
        script = Script([OK])
        transport = DirectTransport(max_connections=2)
        await transport.start()
        server = await asyncio.start_server(script, "0.0.0.0", 0)
        url = f"http://provider.test:{server.sockets[0].getsockname()[1]}"
        replies = await asyncio.gather(*(transport.send(call(url)) for _ in range(10)))
        assert [reply.body for reply in replies] == [b"ok"] * 10
        await until(lambda: script.open_now == len(transport._open))
        held = len(transport._open) + transport._room
        await transport.stop()
        await until(lambda: script.open_now == 0)
        server.close()
        return len(script.requests), held

    assert run(calls()) == (10, 2)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_name_of_which_no_address_answers_is_given_up(
    run: Callable[[Any], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the time to connect, and it is said; or as the call's own time is over."""
    monkeypatch.setattr(addresses, "CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setattr(addresses, "NEXT_ADDRESS_S", 0.05)

    async def both(*_: Any) -> list[str]:
        return ["127.0.0.2", "127.0.0.2"]

    monkeypatch.setattr(addresses, "_addresses", both)

    async def calls(timeout_s: float, port: int) -> Exception:
        transport = DirectTransport(max_connections=1)
        await transport.start()
        with pytest.raises(ProviderConnectionError) as caught:
            await transport.send(call(f"http://provider.test:{port}", timeout_s=timeout_s))
        assert (len(transport._open), transport._room) == (0, 1)
        await transport.stop()
        return caught.value

    with dead_address() as (_, port):
        assert "no address of it answered within 0.2 s" in str(run(calls(30.0, port)))
        assert "nothing whole within 0.1 s" in str(run(calls(0.1, port)))


@pytest.mark.parametrize(
    ("found", "addresses_"),
    [
        ([(4, "1.1.1.1"), (4, "1.0.0.1"), (4, "1.1.1.1")], ["1.1.1.1", "1.0.0.1"]),
        ([(6, "::2"), (6, "::3"), (6, "::4"), (4, "1.1.1.1")], ["::2", "1.1.1.1", "::3", "::4"]),
        ([(6, "fe80::1")], ["fe80::1%7"]),
    ],
    ids=["repeated", "families-in-turn", "scope"],
)
async def test_addresses_are_tried_in_the_systems_order_but_the_families_in_turn(
    monkeypatch: pytest.MonkeyPatch, found: list[tuple[int, str]], addresses_: list[str]
) -> None:
    async def places(_host: str, port: int, **_: Any) -> list[Any]:
        kinds = {4: socket.AF_INET, 6: socket.AF_INET6}
        rest = {4: (port,), 6: (port, 0, 7 if len(found) == 1 else 0)}
        return [(kinds[kind], socket.SOCK_STREAM, 6, "", (address, *rest[kind])) for kind, address in found]

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", places)
    assert await addresses._addresses(loop, "provider.test", 443) == addresses_
    assert await addresses._addresses(loop, "127.0.0.1", 443) == ["127.0.0.1"]


def test_a_connection_lost_as_it_opens_is_a_failure_to_connect_and_leaves_its_room() -> None:
    """uvloop tells a connection's end before whoever opened it goes on, above all where the loop is busy."""
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                listening.accept()[0].close()

    async def calls() -> list[BaseException | HttpReply]:
        transport = DirectTransport(max_connections=2)
        await transport.start()

        async def busy() -> None:
            while True:
                time.sleep(0.003)  # noqa: ASYNC251 - a turn of work that keeps the loop
                await asyncio.sleep(0)

        keeping_busy = asyncio.create_task(busy())
        try:
            async with serving(Script([OK])) as good:
                url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
                gone = [transport.send(HttpCall("POST", url, {}, b"{}", 3.0)) for _ in range(20)]
                failed = await asyncio.gather(*gone, return_exceptions=True)
                return [*failed, await transport.send(HttpCall("POST", good, {}, b"{}", 3.0))]
        finally:
            keeping_busy.cancel()
            await transport.stop()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        *failed, answered = uvloop.run(calls())
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5.0)
    assert {type(one) for one in failed} <= {ProviderConnectionError, ProviderInterruptedError}, failed
    assert isinstance(answered, HttpReply), answered
    assert answered.status == 200
