"""One promise list for every transport, held against the simulator over real sockets."""

import asyncio
import contextlib
import gzip
import inspect
import socket
import zlib
from dataclasses import replace

import aiohttp
import httptools
import httpx
import orjson
import pytest

from stratarouter_runtime.errors import (
    ConfigurationError,
    ProviderBadReplyError,
    ProviderConnectionError,
    ProviderInterruptedError,
    RuntimeSystemError,
)
from stratarouter_runtime.port_values import HttpCall
from stratarouter_runtime.providers import create_transport, http, http_aiohttp, http_direct, http_httpx
from stratarouter_runtime.providers.http_aiohttp import AiohttpTransport
from stratarouter_runtime.providers.http_direct import DirectTransport
from stratarouter_runtime.providers.http_httpx import HttpxTransport
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings
from stratarouter_runtime.testing.simulator_endpoints import expected_answer
from support.addresses import dead_address

KEY = "canary-key-91d0"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
MAKERS = {
    "direct": DirectTransport,
    "aiohttp": AiohttpTransport,
    "httpx": HttpxTransport,
}


@pytest.fixture(params=MAKERS)
async def transport(request):
    made = MAKERS[request.param]()
    await made.start()
    yield made
    await made.stop()


def call_to(base_url, *, timeout_s=10.0, path="/chat/completions", content="Hi"):
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": content}]})
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    return HttpCall("POST", base_url + path, headers, body, timeout_s)


async def failure(transport, call):
    with pytest.raises(RuntimeSystemError) as caught:
        await transport.send(call)
    assert_no_key(caught.value)
    return caught.value


def assert_no_key(error):
    chain = []
    while error is not None:
        chain.append(f"{error} {error!r}")
        error = error.__cause__ or error.__context__
    assert KEY not in " ".join(chain)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class OneReply:
    """A server that answers every connection with the same bytes, then closes."""

    def __init__(self, reply, port=0):
        self._reply = reply
        self._port = port
        self.connections = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self._port)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *exc_info):
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, reader, writer):
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._reply)
        await writer.drain()
        writer.close()


async def test_whole_reply_comes_back_with_lower_case_headers(transport):
    async with Simulator() as simulator:
        reply = await transport.send(call_to(simulator.base_url))
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert orjson.loads(reply.body)["object"] == "chat.completion"


async def test_error_status_is_a_reply_and_no_exception(transport):
    settings = SimulatorSettings(faults=[FaultRule("status", status=429, retry_after="seconds")])
    async with Simulator(settings) as simulator:
        reply = await transport.send(call_to(simulator.base_url))
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")


@pytest.mark.parametrize("effect", ["reset", "truncate"])
async def test_broken_reply_is_ambiguous(transport, effect):
    async with Simulator(SimulatorSettings(faults=[FaultRule(effect, first=1)])) as simulator:
        error = await failure(transport, call_to(simulator.base_url))
        assert isinstance(error, ProviderInterruptedError)
        assert error.maybe_paid
        # The broken connection is not used again.
        assert (await transport.send(call_to(simulator.base_url))).status == 200


async def test_closed_without_a_word_is_ambiguous_and_not_sent_twice(transport):
    server = OneReply(b"")
    async with server as base_url:
        error = await failure(transport, call_to(base_url))
    assert isinstance(error, ProviderInterruptedError)
    assert server.connections == 1


async def test_hang_ends_at_the_calls_deadline_and_is_ambiguous(transport):
    async with Simulator(SimulatorSettings(faults=[FaultRule("hang")])) as simulator:
        error = await failure(transport, call_to(simulator.base_url, timeout_s=0.2))
        assert isinstance(error, ProviderInterruptedError)
        assert error.maybe_paid
        assert len(simulator.paid_calls) == 1


async def test_refused_connection_is_not_paid(transport):
    error = await failure(transport, call_to(f"http://127.0.0.1:{free_port()}/v1"))
    assert isinstance(error, ProviderConnectionError)
    assert not error.maybe_paid


@pytest.mark.parametrize("url", ["http://[", "nonsense", "ftp://127.0.0.1/", "http://no-such-host.invalid"])
async def test_address_that_leads_nowhere_is_not_paid(transport, url):
    error = await failure(transport, call_to(url, path="/x", timeout_s=5))
    assert isinstance(error, ProviderConnectionError)


def named(monkeypatch, name, addresses):
    """Give ``name`` these IPv4 addresses, on the running loop."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def found(host, port, **kwargs):
        if host in {name, name.encode()}:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]
        return await real(host, port, **kwargs)

    monkeypatch.setattr(loop, "getaddrinfo", found)


@pytest.mark.parametrize("addresses", [("dead", "alive"), ("dead", "dead", "refusing", "alive"), ("alive", "dead")])
async def test_a_dead_address_of_a_name_leaves_the_others(transport, monkeypatch, addresses):
    with dead_address() as (dead, port):
        async with OneReply(OK, port):
            place = {"dead": dead, "refusing": "127.0.0.3", "alive": "127.0.0.1"}
            named(monkeypatch, "provider.test", [place[one] for one in addresses])
            reply = await transport.send(call_to(f"http://provider.test:{port}", timeout_s=8.0))
    assert (reply.status, reply.body) == (200, b"ok")


async def test_a_name_whose_addresses_all_refuse_is_not_paid(transport, monkeypatch):
    named(monkeypatch, "provider.test", ["127.0.0.1", "127.0.0.2"])
    error = await failure(transport, call_to(f"http://provider.test:{free_port()}"))
    assert isinstance(error, ProviderConnectionError)
    if isinstance(transport, DirectTransport):
        assert "127.0.0.1 Connection" in str(error)
        assert "; 127.0.0.2 Connection" in str(error)


async def test_waiting_for_a_connection_is_bounded_and_not_paid():
    for made in (
        DirectTransport(max_connections=1),
        AiohttpTransport(max_connections=1),
        HttpxTransport(max_connections=1, shards=1),
    ):
        await made.start()
        async with Simulator(SimulatorSettings(faults=[FaultRule("hang", prompt="hang")])) as simulator:
            first = asyncio.create_task(made.send(call_to(simulator.base_url, content="hang", timeout_s=5)))
            async with asyncio.timeout(5):
                while not simulator.paid_calls:
                    await asyncio.sleep(0)
            error = await failure(made, call_to(simulator.base_url, timeout_s=0.1))
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        await made.stop()
        assert isinstance(error, ProviderConnectionError)
        assert len(simulator.paid_calls) == 1


ANSWER = b'{"choices": [{"message": {"content": "paid for"}}]}'


def packed(wbits, body=ANSWER):
    made = zlib.compressobj(wbits=wbits)
    return made.compress(body) + made.flush()


def encoded(encoding, body, status=b"200 OK"):
    return b"HTTP/1.1 %s\r\ncontent-encoding: %s\r\ncontent-length: %d\r\n\r\n%s" % (status, encoding, len(body), body)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(ANSWER)),
        (b"GZIP", gzip.compress(ANSWER)),
        (b"deflate", packed(zlib.MAX_WBITS)),
        (b"deflate", packed(-zlib.MAX_WBITS)),
        (b"identity", ANSWER),
    ],
    ids=["gzip", "capitals", "deflate", "raw-deflate", "identity"],
)
async def test_an_answer_that_came_compressed_unasked_is_read(transport, encoding, body):
    async with OneReply(encoded(encoding, body)) as base_url:
        assert (await transport.send(call_to(base_url))).body == ANSWER


async def test_redirect_is_a_reply_and_is_not_followed(transport):
    async with Simulator() as target:
        head = f"HTTP/1.1 307 Temporary Redirect\r\nlocation: {target.base_url}/chat/completions\r\n"
        async with OneReply(f"{head}content-length: 0\r\n\r\n".encode()) as base_url:
            reply = await transport.send(call_to(base_url))
        assert reply.status == 307
        assert target.calls == []


async def test_garbage_instead_of_http_is_ambiguous(transport):
    async with OneReply(b"SSH-2.0-nonsense\r\n\r\n") as base_url:
        assert isinstance(await failure(transport, call_to(base_url)), ProviderInterruptedError)


@pytest.mark.parametrize("value", [f"Bearer {KEY}\n", f"Bearer {KEY}\r\nx: y", f"Bearer {KEY}\x00"])
async def test_header_that_cannot_be_sent_does_not_show_its_value(transport, value):
    async with Simulator() as simulator:
        call = replace(call_to(simulator.base_url), headers={"authorization": value})
        error = await failure(transport, call)
        assert isinstance(error, (ProviderConnectionError, ProviderInterruptedError))
        assert simulator.paid_calls == []


async def test_oversized_reply_is_given_up(transport, monkeypatch):
    for module in (http, http_aiohttp, http_direct):
        monkeypatch.setattr(module, "MAX_REPLY_BYTES", 100)
    async with Simulator() as simulator:
        error = await failure(transport, call_to(simulator.base_url))
    assert isinstance(error, ProviderBadReplyError)
    assert error.maybe_paid


async def test_thousand_calls_at_once_all_get_their_own_answer(transport):
    async with Simulator(SimulatorSettings(latency_ms=20)) as simulator:
        calls = [call_to(simulator.base_url, content=f"question {n}", timeout_s=60) for n in range(1000)]
        replies = await asyncio.gather(*(transport.send(call) for call in calls))
        assert len(simulator.paid_calls) == 1000
    for number, reply in enumerate(replies):
        text = orjson.loads(reply.body)["choices"][0]["message"]["content"]
        assert f"You asked: question {number} " in text + " "


async def test_cancelled_call_stays_cancelled_and_frees_its_connection(transport):
    async with Simulator(SimulatorSettings(faults=[FaultRule("hang", first=1)])) as simulator:
        task = asyncio.create_task(transport.send(call_to(simulator.base_url)))
        async with asyncio.timeout(5):
            while not simulator.paid_calls:
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await transport.send(call_to(simulator.base_url))).status == 200


async def test_start_and_stop_may_be_repeated_and_a_stopped_one_sends_nothing(transport):
    await transport.start()
    await transport.stop()
    await transport.stop()
    assert isinstance(await failure(transport, call_to("http://127.0.0.1:1")), ProviderConnectionError)


async def test_proxy_of_the_process_is_not_used(transport, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with Simulator() as simulator:
        assert (await transport.send(call_to(simulator.base_url))).status == 200


# --- streams -----------------------------------------------------------------------------------------------------


def streamed(base_url, **extra):
    call = call_to(base_url, **extra)
    return replace(call, body=orjson.dumps({**orjson.loads(call.body), "stream": True}))


async def stream_failure(transport, call):
    """The error that a stream ends in, and the events that came before it."""
    events = []
    with pytest.raises(RuntimeSystemError) as caught:
        await read_events(transport, call, events.append)
    assert_no_key(caught.value)
    return caught.value, events


async def read_events(transport, call, take):
    async with transport.stream(call) as reply:
        async for event in reply.events():
            take(event)


class EndlessStream:
    """A server that sends an event to each client, then nothing, and says when the client has left."""

    def __init__(self):
        self.left = asyncio.Event()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *exc_info):
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        event = b"data: one\n\n"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await writer.drain()
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(65536):
                continue
        self.left.set()
        writer.close()


async def test_stream_gives_its_events_in_order_and_its_connection_back(transport):
    async with Simulator(SimulatorSettings(latency_ms=20)) as simulator:
        for _ in range(2):
            async with transport.stream(streamed(simulator.base_url)) as reply:
                assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
                data = [event.data async for event in reply.events()]
            chunks = [orjson.loads(each) for each in data[:-1]]
            text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
            assert text == expected_answer("m", [{"role": "user", "content": "Hi"}])
            assert data[-1] == "[DONE]"
        assert len(simulator._connections) == 1


async def test_piece_is_there_before_the_stream_ends_and_leaving_early_closes_the_connection(transport):
    server = EndlessStream()
    async with server as base_url, asyncio.timeout(60):
        async with transport.stream(call_to(base_url, timeout_s=60)) as reply:
            assert (await anext(reply.events())).data == "one"
            assert not server.left.is_set()
        await server.left.wait()


async def test_cancelled_reader_stays_cancelled_and_closes_the_connection(transport):
    server, begun = EndlessStream(), asyncio.Event()
    async with server as base_url, asyncio.timeout(60):
        call = call_to(base_url, timeout_s=60)
        task = asyncio.create_task(read_events(transport, call, lambda _event: begun.set()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.left.wait()


@pytest.mark.parametrize("mine", [ValueError("mine"), OSError("mine"), TimeoutError("mine")])
async def test_error_of_the_reader_is_not_taken_for_the_providers(transport, mine):
    def fail(_event):
        raise mine

    server = EndlessStream()
    async with server as base_url, asyncio.timeout(60):
        with pytest.raises(type(mine)) as caught:
            await read_events(transport, call_to(base_url, timeout_s=60), fail)
        assert caught.value is mine
        await server.left.wait()


@pytest.mark.parametrize("effect", ["reset", "truncate"])
async def test_stream_cut_in_the_middle_is_ambiguous(transport, effect):
    async with Simulator(SimulatorSettings(faults=[FaultRule(effect, first=1)])) as simulator:
        error, events = await stream_failure(transport, streamed(simulator.base_url))
        assert isinstance(error, ProviderInterruptedError)
        assert error.maybe_paid
        # A reset may drop what was on its way; what came is whole.
        assert all(orjson.loads(event.data)["object"] == "chat.completion.chunk" for event in events)
        assert len(simulator.paid_calls) == 1
        # The broken connection is not used again.
        assert (await transport.send(call_to(simulator.base_url))).status == 200


async def test_stream_that_falls_silent_ends_at_the_calls_deadline(transport):
    async with Simulator(SimulatorSettings(faults=[FaultRule("hang")])) as simulator:
        error, events = await stream_failure(transport, streamed(simulator.base_url, timeout_s=1))
    assert isinstance(error, ProviderInterruptedError)
    assert "within 1 s" in str(error)
    assert events


async def test_stream_whose_head_never_comes_ends_at_the_calls_deadline(transport):
    async with Simulator(SimulatorSettings(faults=[FaultRule("hang")])) as simulator:
        error, _ = await stream_failure(transport, call_to(simulator.base_url, timeout_s=0.2))
    assert isinstance(error, ProviderInterruptedError)
    assert error.maybe_paid


async def test_refused_stream_is_a_status_with_a_body(transport):
    settings = SimulatorSettings(faults=[FaultRule("status", status=429, retry_after="seconds")])
    async with Simulator(settings) as simulator, transport.stream(streamed(simulator.base_url)) as reply:
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        assert orjson.loads(await reply.body())["error"]["code"] == "rate_limit_exceeded"


async def test_server_that_does_not_stream_can_be_read_as_a_whole(transport):
    async with Simulator() as simulator, transport.stream(call_to(simulator.base_url)) as reply:
        assert reply.headers["content-type"] == "application/json"
        assert orjson.loads(await reply.body())["object"] == "chat.completion"


async def test_stream_without_a_connection_is_not_paid(transport):
    error, _ = await stream_failure(transport, call_to(f"http://127.0.0.1:{free_port()}/v1"))
    assert isinstance(error, ProviderConnectionError)
    await transport.stop()
    error, _ = await stream_failure(transport, call_to("http://127.0.0.1:1"))
    assert isinstance(error, ProviderConnectionError)


async def test_oversized_stream_is_given_up(transport, monkeypatch):
    monkeypatch.setattr(http, "MAX_REPLY_BYTES", 100)
    async with Simulator() as simulator:
        error, _ = await stream_failure(transport, streamed(simulator.base_url))
    assert isinstance(error, ProviderBadReplyError)
    assert error.maybe_paid


async def test_hundred_streams_at_once_all_get_their_own_text(transport):
    async def read(base_url, number):
        async with transport.stream(streamed(base_url, content=f"question {number}", timeout_s=60)) as reply:
            return "".join([event.data async for event in reply.events()])

    async with Simulator(SimulatorSettings(latency_ms=20)) as simulator:
        replies = await asyncio.gather(*(read(simulator.base_url, number) for number in range(100)))
        assert len(simulator.paid_calls) == 100
    digests = {reply.partition("chatcmpl-")[2][:24] for reply in replies}
    assert len(digests) == 100
    assert all(reply.endswith("[DONE]") for reply in replies)


# --- the clients ---------------------------------------------------------------------------------------------------


def test_every_error_of_the_clients_is_mapped():
    """Fails when a client library grows an exception outside the families that the transports catch."""
    families = {
        httpx: http_httpx.FAILURES,
        aiohttp: http_aiohttp.FAILURES,
        httptools: (*http_direct.FAILURES, httptools.HttpParserUpgrade),
    }
    # Not raised by a plain call: cookies are not kept, and the rest belong to WebSockets, multipart bodies and streams
    # read by hand.
    exempt = {
        "BadContentDispositionHeader",
        "BadContentDispositionParam",
        "CookieConflict",
        "EofStream",
        "WSMessageTypeError",
        "WebSocketError",
    }
    for library, caught in families.items():
        raised = [item for _, item in inspect.getmembers(library, inspect.isclass) if issubclass(item, Exception)]
        outside = [item.__name__ for item in raised if not issubclass(item, caught) and item.__name__ not in exempt]
        assert outside == []


def test_auto_takes_the_faster_client_and_httpx_where_it_is_missing(monkeypatch):
    assert isinstance(create_transport(), DirectTransport)
    assert type(create_transport("aiohttp")) is AiohttpTransport
    assert isinstance(create_transport("httpx"), HttpxTransport)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name == "aiohttp" else None)
    assert type(create_transport("auto")) is AiohttpTransport
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert isinstance(create_transport("auto"), HttpxTransport)
    with pytest.raises(ConfigurationError):
        create_transport("carrier pigeon")
