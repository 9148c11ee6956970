"""The simulator is a referee of other tests, so it is held to its own promises first."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings
from stratarouter_runtime.testing.simulator_endpoints import embed, expected_answer
from stratarouter_runtime.testing.simulator_faults import FaultBook
from stratarouter_runtime.testing.simulator_http import MAX_BODY_BYTES, UnreadableRequestError, parse_head

MESSAGES = [{"role": "user", "content": "Where is my invoice?"}]
DEADLINE_S = 10


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
    "extra", [{"messages": []}, {"messages": ["hi"]}, {"model": ""}, {"stream": True}, {"n": 2}, {"max_tokens": 0}]
)
async def test_malformed_call_is_refused_unpaid(extra):
    simulator, (status, _, reply) = await served(SimulatorSettings(), **extra)
    assert status == 400
    assert reply["error"]["code"] == "invalid_request_error"
    assert simulator.paid_calls == []


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
