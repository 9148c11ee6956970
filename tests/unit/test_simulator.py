"""The simulator is a referee of other tests, so it is held to its own promises first."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings
from stratarouter_runtime.testing.simulator_endpoints import embed, expected_answer, in_pieces, value_for
from stratarouter_runtime.testing.simulator_faults import FaultBook
from stratarouter_runtime.testing.simulator_http import MAX_BODY_BYTES, UnreadableRequestError, parse_head
from stratarouter_runtime.testing.simulator_limits import RateLimits, duration
from stratarouter_runtime.testing.simulator_routes import ENDPOINTS, find_endpoint

MESSAGES = [{"role": "user", "content": "Where is my invoice?"}]
DEADLINE_S = 60
ASK_FOR_STREAM = {"model": "m", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
GEMINI = "/v1beta/models/g-1:generateContent"
GEMINI_STREAM = "/v1beta/models/g-1:streamGenerateContent?alt=sse"


class Client:
    """One raw connection: what a client library would hide stays visible."""

    def __init__(self, base_url):
        self.port = int(base_url.rpartition(":")[2].partition("/")[0])

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *exc_info):
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)

    def write(self, method, path, body=b"", headers=()):
        lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def read(self):
        async with asyncio.timeout(DEADLINE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split(" ")[1]), headers, body

    async def chunks(self):
        """Status, headers and an iterator over the chunks of a streamed reply."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)

        async def rest():
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)

        return int(head[0].split(" ")[1]), headers, rest()

    async def stream(self, path="/v1/chat/completions", **body):
        """Every chunk of a streamed reply; appends to ``self.seen`` as they come, so that a break leaves them."""
        self.seen = []
        self.write("POST", path, json.dumps(body or ASK_FOR_STREAM).encode())
        async with asyncio.timeout(DEADLINE_S):
            status, headers, chunks = await self.chunks()
            async for chunk in chunks:
                self.seen.append(chunk)
        return status, headers, self.seen

    async def chat(self, messages=MESSAGES, headers=(), **extra):
        body = json.dumps({"model": "m", "messages": messages, **extra}).encode()
        self.write("POST", "/v1/chat/completions", body, headers)
        status, head, reply = await self.read()
        return status, head, json.loads(reply)


async def served(settings, **extra):
    async with Simulator(settings) as simulator, Client(simulator.base_url) as client:
        return simulator, await client.chat(**extra)


async def test_answer_is_a_function_of_the_messages():
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        first, again = await client.chat(), await client.chat()
        other = await client.chat([{"role": "user", "content": "Where is my parcel?"}])
    text = first[2]["choices"][0]["message"]["content"]
    assert text == expected_answer("m", MESSAGES)
    assert "You asked: Where is my invoice?" in text
    assert first[2] == again[2]
    assert other[2]["choices"][0]["message"]["content"] != text


async def test_every_completion_is_a_paid_call_with_its_request_id():
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        await client.chat(headers=["x-stratarouter-request-id: r%2F1%C3%A4"])
        await client.chat(headers=["X-Request-Id: r-2"])
    assert [call.request_id for call in simulator.paid_calls] == ["r/1ä", "r-2"]
    assert simulator.paid_by_request_id == {"r/1ä": 1, "r-2": 1}


async def test_usage_is_about_a_quarter_of_the_characters():
    _, (_, _, reply) = await served(SimulatorSettings(output_tokens=100))
    assert reply["usage"]["prompt_tokens"] == 5
    assert reply["usage"]["completion_tokens"] == 100


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_limit_on_tokens_cuts_the_answer(name):
    _, (_, _, reply) = await served(SimulatorSettings(), **{name: 3})
    assert len(reply["choices"][0]["message"]["content"]) == 12
    assert reply["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "extra", [{"messages": []}, {"messages": ["hi"]}, {"model": ""}, {"stream": "yes"}, {"n": 2}, {"max_tokens": 0}]
)
async def test_malformed_call_is_refused_unpaid(extra):
    simulator, (status, _, reply) = await served(SimulatorSettings(), **extra)
    assert status == 400
    assert reply["error"]["code"] == "invalid_request_error"
    assert simulator.paid_calls == []


@pytest.mark.parametrize("latency_ms", [0, 5])
@pytest.mark.parametrize("streamed", [False, True])
async def test_call_that_cannot_be_answered_is_refused_and_frees_its_place(latency_ms, streamed):
    async with Simulator(SimulatorSettings(latency_ms=latency_ms, max_concurrency=1)) as simulator:
        async with Client(simulator.base_url) as client:
            status, _, reply = await client.chat(response_format={"type": "json_schema"}, stream=streamed)
            assert (status, reply["error"]["code"]) == (400, "invalid_request_error")
            assert (await client.chat())[0] == 200
        assert simulator.active == 0
        assert len(simulator.paid_calls) == 1


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]")]
)
async def test_simulator_says_where_it_is_reached(host, shown):
    try:
        simulator = Simulator()
        base_url = await simulator.start(0, host)
    except ConfigurationError:
        if ":" in host:
            pytest.skip("no IPv6 here")
        raise
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{base_url}/models")).status_code == 200
    finally:
        await simulator.stop()
    assert base_url.startswith(f"http://{shown}:")


async def test_simulator_that_cannot_start_says_why(tmp_path):
    async with Simulator() as first:
        port = int(first.base_url.rpartition(":")[2].partition("/")[0])
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}"):
            await Simulator().start(port)
    with pytest.raises(ConfigurationError, match="No such file"):
        await Simulator(SimulatorSettings(log_path=tmp_path / "no" / "log")).start()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500, 503, 529])
async def test_refusal_is_not_paid(status):
    simulator, (got, _, _) = await served(SimulatorSettings(faults=[FaultRule("status", status=status)]))
    assert got == status
    assert simulator.log.summary()["by_status"] == {str(status): 1}
    assert simulator.paid_calls == []


@pytest.mark.parametrize(
    ("form", "header", "value"),
    [
        ("seconds", "retry-after", "2"),
        ("ms", "retry-after-ms", "2000"),
        ("date", "retry-after", None),
        ("garbage", "retry-after", "when the moon is full"),
        ("huge", "retry-after", "1000000000"),
    ],
)
async def test_each_form_of_retry_after_is_sent(form, header, value):
    rule = FaultRule("status", status=429, retry_after=form, retry_after_s=2)
    _, (_, headers, _) = await served(SimulatorSettings(faults=[rule]))
    assert headers[header] == value or (value is None and headers[header].endswith("gmt"))


@pytest.mark.parametrize("effect", ["truncate", "reset"])
async def test_broken_reply_is_paid_for(effect):
    async with Simulator(SimulatorSettings(faults=[FaultRule(effect)])) as simulator:
        async with Client(simulator.base_url) as client:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await client.chat()
        assert [(call.effect, call.status) for call in simulator.paid_calls] == [(effect, 200)]


async def test_reset_is_a_reset_and_no_orderly_end():
    async with (
        Simulator(SimulatorSettings(faults=[FaultRule("reset")])) as simulator,
        Client(simulator.base_url) as client,
    ):
        with pytest.raises(ConnectionResetError):
            await client.chat()


async def test_hung_call_is_paid_for_and_never_answered():
    async with Simulator(SimulatorSettings(faults=[FaultRule("hang")])) as simulator:
        async with Client(simulator.base_url) as hung, Client(simulator.base_url) as other:
            hung.write("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": MESSAGES}).encode())
            await hung.writer.drain()
            # Only a later page on another connection proves that the call has been decided: ask until it has.
            while not simulator.paid_calls:
                other.write("GET", "/sim/calls")
                await other.read()
        assert simulator.paid_calls[0].effect == "hang"
        assert not hung.reader._buffer


async def test_unreadable_replies_are_paid_for_and_keep_the_connection():
    rules = [FaultRule("invalid_json", nth=1), FaultRule("wrong_shape", first=1)]
    async with Simulator(SimulatorSettings(faults=rules)) as simulator, Client(simulator.base_url) as client:
        with pytest.raises(json.JSONDecodeError):
            await client.chat()
        assert (await client.chat())[2]["choices"] == "none"
        assert (await client.chat())[0] == 200
        assert len(simulator.paid_calls) == 3


async def test_calls_beyond_the_concurrency_wait_or_are_refused():
    async def race(on_overload):
        settings = SimulatorSettings(latency_ms=20, max_concurrency=1, on_overload=on_overload)
        async with Simulator(settings) as simulator:
            async with (
                Client(simulator.base_url) as a,
                Client(simulator.base_url) as b,
                Client(simulator.base_url) as c,
            ):
                replies = await asyncio.gather(a.chat(), b.chat(), c.chat())
            return sorted(status for status, _, _ in replies), simulator

    assert (await race("queue"))[0] == [200, 200, 200]
    statuses, simulator = await race("reject")
    assert statuses == [200, 429, 429]
    assert len(simulator.paid_calls) == 1
    assert simulator.active == 0


async def test_long_queue_without_latency_is_served():
    async with Simulator(SimulatorSettings(max_concurrency=1)) as simulator, Client(simulator.base_url) as client:
        for _ in range(2000):
            client.write("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": MESSAGES}).encode())
        statuses = {(await client.read())[0] for _ in range(2000)}
        assert statuses == {200}
        assert len(simulator.paid_calls) == 2000


async def test_call_is_paid_for_when_its_client_has_left():
    async with Simulator(SimulatorSettings(latency_ms=20)) as simulator:
        async with Client(simulator.base_url) as gone:
            gone.write("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": MESSAGES}).encode())
            await gone.writer.drain()
            async with asyncio.timeout(DEADLINE_S):
                while simulator.active == 0:
                    await asyncio.sleep(0)
        async with Client(simulator.base_url) as other:
            await other.chat()
        assert [call.client_gone for call in simulator.paid_calls] == [True, False]


async def test_paid_log_file_holds_each_paid_call_and_is_appended_to(tmp_path):
    path = tmp_path / "paid.jsonl"
    for _ in range(2):
        await served(SimulatorSettings(log_path=path, faults=[FaultRule("status", nth=2)]))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["paid"] for line in lines] == [True, True]
    assert lines[0]["messages_sha256"] == lines[1]["messages_sha256"]


async def test_pages_show_the_calls():
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        await client.chat()
        client.write("GET", "/sim/calls")
        summary = json.loads((await client.read())[2])
        client.write("GET", "/sim/calls.jsonl")
        line = json.loads((await client.read())[2])
        client.write("GET", "/v1/models")
        models = json.loads((await client.read())[2])
        client.write("GET", "/elsewhere")
        status = (await client.read())[0]
    assert (summary["paid_calls"], summary["paid_by_model"]) == (1, {"m": 1})
    assert line["status"] == 200
    assert models["data"][0]["id"] == "gpt-4o-mini"
    assert status == 404


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings_are_unit_vectors_of_the_text(encoding):
    body = {"model": "e", "input": ["a", "b"], "dimensions": 8, "encoding_format": encoding}
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        client.write("POST", "/v1/embeddings", json.dumps(body).encode())
        data = json.loads((await client.read())[2])["data"]
    first = data[0]["embedding"]
    if encoding == "base64":
        import base64

        first = np.frombuffer(base64.b64decode(first), "<f4")
    np.testing.assert_allclose(first, embed("a", 8), rtol=1e-6)
    assert np.linalg.norm(first) == pytest.approx(1)
    assert data[0] != data[1]


def test_fault_rules_meet_what_they_name():
    rules = [
        FaultRule("hang", model="big"),
        FaultRule("status", prompt="bad+", nth=2),
        FaultRule("slow", probability=0),
    ]
    book, chance = FaultBook(rules), __import__("random").Random(1)
    assert book.pick("big", "", chance) is rules[0]
    assert book.pick("small", "baddd", chance) is None
    assert book.pick("small", "baddd", chance) is rules[1]
    assert book.pick("small", "good", chance) is None


def test_probability_is_repeatable_by_seed():
    def drawn(seed):
        chance = __import__("random").Random(seed)
        book = FaultBook([FaultRule("hang", probability=0.5)])
        return [book.pick("m", "", chance) is not None for _ in range(64)]

    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_lognormal_latency_meets_its_percentiles():
    settings, chance = SimulatorSettings(latency_ms=30, latency_p99_ms=120), __import__("random").Random(3)
    drawn = sorted(settings.draw_latency_s(chance) for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(0.030, rel=0.05)
    assert drawn[19_800] == pytest.approx(0.120, rel=0.1)


@pytest.mark.parametrize(
    "wrong",
    [{"effect": "explode"}, {"effect": "status", "status": 200}, {"effect": "hang", "probability": 2},
     {"effect": "hang", "chance": 1}, {}, {"effect": "status", "retry_after": "soon"}],
)  # fmt: skip
def test_wrong_fault_rule_is_refused(wrong):
    with pytest.raises(ConfigurationError):
        FaultRule.from_mapping(wrong)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GARBAGE", 400),
        (b"GET / HTTP/2", 400),
        (b"GET / HTTP/1.1\r\nno colon", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked", 411),
        (b"POST / HTTP/1.1\r\ncontent-length: %d" % (MAX_BODY_BYTES + 1), 413),
    ],
)
def test_unreadable_head_is_refused(head, status):
    with pytest.raises(UnreadableRequestError) as caught:
        parse_head(head)
    assert caught.value.status == status


async def test_endless_head_is_refused_and_the_connection_closed():
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        client.writer.write(b"GET /" + b"x" * 100_000)
        assert (await client.read())[0] == 431
        assert await client.reader.read() == b""


async def test_runs_as_a_process_and_ends_on_sigterm(tmp_path):
    path = tmp_path / "paid.jsonl"
    source = str(Path(__file__).parents[2] / "pipeline")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stratarouter_runtime.testing.simulator", "--log-path", str(path), "--latency-ms", "1",
        "--fault", '{"effect": "status", "status": 529, "nth": 2}',
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": source},
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            ready = json.loads(await process.stdout.readline())
            async with Client(ready["base_url"]) as client:
                statuses = [(await client.chat())[0], (await client.chat())[0]]
            process.send_signal(signal.SIGTERM)
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert ready["pid"] == process.pid
    assert statuses == [200, 529]
    assert code == 0
    assert len(path.read_text().splitlines()) == 1


# --- streams ---------------------------------------------------------------------------------------------------


def events(chunks):
    """The data of each event, a piece of the stream holding one; the mark of the end as it is."""
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    return [chunk[6:-2] if chunk == b"data: [DONE]\n\n" else json.loads(chunk[6:-2]) for chunk in chunks]


async def streamed(settings, **body):
    async with Simulator(settings) as simulator, Client(simulator.base_url) as client:
        return simulator, await client.stream(**body)


async def test_stream_says_the_same_as_the_whole_reply_and_is_paid_once():
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        status, headers, chunks = await client.stream()
        whole = (await client.chat())[2]
    *parts, usage, done = events(chunks)
    text = "".join(part["choices"][0]["delta"].get("content") or "" for part in parts)
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert text == whole["choices"][0]["message"]["content"] == expected_answer("m", MESSAGES)
    assert parts[-1]["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"], done) == ([], whole["usage"], b"[DONE]")
    first, second = simulator.paid_calls
    assert (first.input_tokens, first.output_tokens) == (second.input_tokens, second.output_tokens)


async def test_stream_without_include_usage_counts_nothing():
    _, (_, _, chunks) = await streamed(None, model="m", messages=MESSAGES, stream=True)
    assert all("usage" not in event for event in events(chunks)[:-1])


async def test_first_piece_comes_after_half_of_the_latency_and_the_rest_evenly():
    async with Simulator(SimulatorSettings(latency_ms=400)) as simulator, Client(simulator.base_url) as client:
        clock = asyncio.get_running_loop().time
        begun = clock()
        client.write("POST", "/v1/chat/completions", json.dumps(ASK_FOR_STREAM).encode())
        async with asyncio.timeout(DEADLINE_S):
            times = [clock() - begun async for _ in (await client.chunks())[2]]
    # Only lower bounds: a busy machine is late, it is never early (a timer may be, by the clock's resolution).
    gap = 0.2 / (len(times) - 1)
    assert all(time >= 0.19 + index * gap * 0.95 for index, time in enumerate(times))


async def test_refused_stream_gets_a_plain_error_and_is_not_paid():
    rule = FaultRule("status", status=503)
    async with Simulator(SimulatorSettings(faults=[rule])) as simulator, Client(simulator.base_url) as client:
        client.write("POST", "/v1/chat/completions", json.dumps(ASK_FOR_STREAM).encode())
        status, headers, body = await client.read()
    assert (status, headers["content-type"]) == (503, "application/json")
    assert json.loads(body)["error"]["code"] == "service_unavailable"
    assert simulator.paid_calls == []


@pytest.mark.parametrize(
    ("effect", "error"), [("truncate", asyncio.IncompleteReadError), ("reset", ConnectionResetError)]
)
async def test_stream_that_breaks_in_the_middle_is_paid_once(effect, error):
    async with Simulator(SimulatorSettings(faults=[FaultRule(effect)])) as simulator:
        async with Client(simulator.base_url) as client:
            with pytest.raises(error):
                await client.stream()
        assert [call.effect for call in simulator.paid_calls] == [effect]
        assert simulator.active == 0
    if effect == "truncate":
        assert 0 < len(events(client.seen)) < 10
        assert b"[DONE]" not in events(client.seen)


async def test_stream_that_hangs_falls_silent_in_the_middle_and_frees_its_slot():
    settings = SimulatorSettings(max_concurrency=1, faults=[FaultRule("hang", nth=1)])
    async with Simulator(settings) as simulator:
        async with Client(simulator.base_url) as hung, Client(simulator.base_url) as other:
            hung.write("POST", "/v1/chat/completions", json.dumps(ASK_FOR_STREAM).encode())
            chunks = (await hung.chunks())[2]
            assert (await anext(chunks)).startswith(b"data: ")
            assert (await other.chat())[0] == 200
            assert b"0\r\n\r\n" not in bytes(hung.reader._buffer)
        assert [call.effect for call in simulator.paid_calls] == ["hang", "ok"]


async def test_unreadable_streams_end_in_order_and_keep_the_connection():
    rules = [FaultRule("invalid_json", nth=1), FaultRule("wrong_shape", first=1)]
    async with Simulator(SimulatorSettings(faults=rules)) as simulator, Client(simulator.base_url) as client:
        broken = (await client.stream())[2]
        with pytest.raises(json.JSONDecodeError):
            json.loads(broken[-1][6:])
        assert events((await client.stream())[2]) == [{"object": "chat.completion", "choices": "none"}]
        assert (await client.chat())[0] == 200
        assert len(simulator.paid_calls) == 3


async def test_client_that_leaves_a_stream_frees_its_slot():
    async with Simulator(SimulatorSettings(latency_ms=200, max_concurrency=1)) as simulator:
        async with Client(simulator.base_url) as gone:
            gone.write("POST", "/v1/chat/completions", json.dumps(ASK_FOR_STREAM).encode())
            await anext((await gone.chunks())[2])
        async with Client(simulator.base_url) as other:
            assert (await other.chat())[0] == 200
        assert len(simulator.paid_calls) == 2


async def test_streams_and_whole_replies_share_one_connection():
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        for _ in range(50):
            assert events((await client.stream())[2])[-1] == b"[DONE]"
            assert (await client.chat())[0] == 200
        assert len(simulator.paid_calls) == 100


TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in [
        ("look_up", {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}),
        ("count", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
    ]
]


@pytest.mark.parametrize(
    ("choice", "name", "arguments"),
    [
        ("required", "look_up", {"id": "Where is my invoice?"}),
        ({"type": "function", "function": {"name": "count"}}, "count", {"n": 20}),
    ],
)
async def test_demanded_tool_is_called_whole_and_streamed(choice, name, arguments):
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        whole = (await client.chat(tools=TOOLS, tool_choice=choice))[2]["choices"][0]
        chunks = (await client.stream(**ASK_FOR_STREAM, tools=TOOLS, tool_choice=choice))[2]
    call = whole["message"]["tool_calls"][0]["function"]
    assert (whole["finish_reason"], call["name"], json.loads(call["arguments"])) == ("tool_calls", name, arguments)
    deltas = [event["choices"][0]["delta"] for event in events(chunks)[:-2]]
    pieces = [delta["tool_calls"][0]["function"] for delta in deltas if "tool_calls" in delta]
    assert pieces[0]["name"] == name
    assert "".join(piece["arguments"] for piece in pieces) == call["arguments"]


async def test_tool_that_may_be_called_is_answered_in_words():
    _, (_, _, reply) = await served(SimulatorSettings(), tools=TOOLS, tool_choice="auto")
    assert reply["choices"][0]["message"]["content"] == expected_answer("m", MESSAGES)


async def test_wanted_json_is_json():
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    _, (_, _, plain) = await served(SimulatorSettings(), response_format={"type": "json_object"})
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    _, (_, _, shaped) = await served(SimulatorSettings(), response_format=wanted)
    assert json.loads(plain["choices"][0]["message"]["content"]) == {"answer": expected_answer("m", MESSAGES)}
    assert isinstance(json.loads(shaped["choices"][0]["message"]["content"])["n"], int)


def test_value_for_keeps_to_the_schema():
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "tags": {"type": "array", "items": {"type": "number"}},
            "deep": {"type": "object", "properties": {"on": {"type": "boolean"}}},
            "spare": {"type": "string"},
        },
        "required": ["kind", "tags", "deep"],
    }
    assert value_for(schema, "four") == {"kind": "a", "tags": [2.0], "deep": {"on": True}}


@pytest.mark.parametrize("length", [0, 1, 16, 17, 5000, 100_000])
def test_pieces_are_the_text_and_few(length):
    text = "x" * length
    assert "".join(in_pieces(text)) == text
    assert len(in_pieces(text)) <= 64


# --- paths -----------------------------------------------------------------------------------------------------


def test_path_tells_its_model_and_its_query():
    _, named = find_endpoint("POST", "/v1beta/models/gemini%2D3.1-flash:streamGenerateContent", "alt=sse")
    assert named == {"model": "gemini-3.1-flash", "alt": "sse"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/embeddings"), ("POST", "/v1/embeddings/x"), ("POST", "/v1beta/models/a/b:generateContent"),
     ("POST", "/v1beta/models/:generateContent"), ("POST", "/v1beta/models/a:b:generateContent")],
)  # fmt: skip
def test_other_paths_lead_nowhere(method, path):
    assert find_endpoint(method, path) is None


def test_every_row_is_found_by_its_own_path():
    for template, endpoint in ENDPOINTS.items():
        assert find_endpoint("POST", template.replace("{model}", "m"))[0] is endpoint


async def ask_gemini(client, path=GEMINI, **body):
    contents = [{"role": "user", "parts": [{"text": MESSAGES[0]["content"]}]}]
    client.write("POST", path, json.dumps({"contents": contents, **body}).encode())
    status, _, reply = await client.read()
    return status, json.loads(reply)


async def test_gemini_answers_as_any_other_model_whole_and_streamed():
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        _, whole = await ask_gemini(client)
        contents = [{"role": "user", "parts": [{"text": MESSAGES[0]["content"]}]}]
        parts = events((await client.stream(GEMINI_STREAM, contents=contents))[2])
    assert whole["candidates"][0]["content"]["parts"][0]["text"] == expected_answer("g-1", MESSAGES)
    text = "".join(part["candidates"][0]["content"]["parts"][0]["text"] for part in parts)
    assert text == expected_answer("g-1", MESSAGES)
    assert parts[-1]["usageMetadata"] == whole["usageMetadata"]
    assert [call.model for call in simulator.paid_calls] == ["g-1", "g-1"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GEMINI, {"contents": []}),
        (GEMINI, {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}),
        (GEMINI, {"contents": [{"parts": "x"}]}),
        (GEMINI, {"temperature": 1}),
        (GEMINI, {"generationConfig": {"max_tokens": 1}}),
        (GEMINI, {"generationConfig": {"maxOutputTokens": 0}}),
        (GEMINI, {"generationConfig": {"candidateCount": 2}}),
        (GEMINI + "?key=secret", {}),
        (GEMINI_STREAM.partition("?")[0], {}),
    ],
)
async def test_malformed_call_of_gemini_is_refused_in_its_own_shape(path, body):
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        status, reply = await ask_gemini(client, path, **body)
    assert (status, reply["error"]["code"], reply["error"]["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert simulator.paid_calls == []


@pytest.mark.parametrize("name", ["generationConfig", "generation_config"])
async def test_gemini_takes_names_in_both_spellings(name):
    async with Simulator() as simulator, Client(simulator.base_url) as client:
        _, reply = await ask_gemini(client, **{name: {"max_output_tokens": 3}})
    assert len(reply["candidates"][0]["content"]["parts"][0]["text"]) == 12
    assert reply["candidates"][0]["finishReason"] == "MAX_TOKENS"


async def test_gemini_says_in_the_body_how_long_to_wait():
    rule = FaultRule("status", status=429, retry_after="seconds", retry_after_s=3)
    async with Simulator(SimulatorSettings(faults=[rule])) as simulator, Client(simulator.base_url) as client:
        _, reply = await ask_gemini(client)
    assert reply["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert reply["error"]["details"][0]["retryDelay"] == "3s"


# --- limits ----------------------------------------------------------------------------------------------------


def test_limits_admit_a_minutes_worth_and_fill_evenly():
    limits = RateLimits(rpm=2, tpm=None, now=0.0)
    assert [limits.take(1, 0.0) for _ in range(2)] == [0.0, 0.0]
    assert limits.take(1, 0.0) == 30.0
    assert dict(limits.headers())["x-ratelimit-remaining-requests"] == "0"
    assert limits.take(1, 30.0) == 0.0
    assert limits.take(1, 30.0) == 30.0


def test_call_that_one_limit_refuses_takes_nothing_of_the_other():
    limits = RateLimits(rpm=10, tpm=100, now=0.0)
    assert limits.take(100, 0.0) == 0.0
    assert limits.take(50, 0.0) == 30.0
    shown = dict(limits.headers())
    assert (shown["x-ratelimit-remaining-requests"], shown["x-ratelimit-remaining-tokens"]) == ("9", "0")
    assert (shown["x-ratelimit-limit-tokens"], shown["x-ratelimit-reset-tokens"]) == ("100", "1m0s")


def test_call_larger_than_a_minutes_worth_waits_for_a_full_bucket():
    limits = RateLimits(rpm=None, tpm=10, now=0.0)
    assert limits.take(1000, 0.0) == 0.0
    assert limits.take(1000, 0.0) == 60.0


def test_without_limits_nothing_is_said():
    limits = RateLimits(None, None, now=0.0)
    assert (limits.take(10**9, 0.0), limits.headers()) == (0.0, ())


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (0.0001, "1ms"), (0.12, "120ms"), (6, "6s"), (60, "1m0s"), (367, "6m7s")]
)
def test_duration_is_written_as_the_vendor_does(seconds, text):
    assert duration(seconds) == text


async def test_calls_beyond_the_limit_are_refused_unpaid_and_told_when_to_come_back():
    async with Simulator(SimulatorSettings(rate_limit_rpm=1)) as simulator, Client(simulator.base_url) as client:
        _, first, _ = await client.chat()
        status, second, reply = await client.chat()
    assert (first["x-ratelimit-limit-requests"], first["x-ratelimit-remaining-requests"]) == ("1", "0")
    assert (status, reply["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 0 < int(second["retry-after-ms"]) <= 60_000
    assert second["x-ratelimit-remaining-requests"] == "0"
    assert len(simulator.paid_calls) == 1


async def test_stream_tells_of_the_limits_too():
    _, (_, headers, _) = await streamed(SimulatorSettings(rate_limit_tpm=1000))
    assert headers["x-ratelimit-limit-tokens"] == "1000"


def test_limit_below_one_is_refused():
    with pytest.raises(ConfigurationError, match="rate_limit_tpm"):
        SimulatorSettings(rate_limit_tpm=0)
