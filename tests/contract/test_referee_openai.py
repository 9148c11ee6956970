"""OpenAI's own client as the referee: the simulator must satisfy it, and it must know every field that we write."""

import contextlib
import json
from collections.abc import Iterable

import numpy as np
import orjson
import pytest
from pydantic import TypeAdapter

from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.providers import create_transport
from stratarouter_runtime.providers.openai import OpenAIAdapter
from stratarouter_runtime.providers.openai_completions import OpenAICompletionsAdapter
from stratarouter_runtime.providers.openai_responses import OpenAIResponsesAdapter
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings
from stratarouter_runtime.testing.simulator_endpoints import embed, expected_answer

openai = pytest.importorskip("openai")

from openai.types.chat import completion_create_params as chat_params  # noqa: E402 - only where the client is installed
from openai.types.responses import response_create_params as responses_params  # noqa: E402 - likewise

MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is my invoice?"}]
ASKED = MESSAGES[1]["content"]
SCHEMA = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
FUNCTION = {"name": "look_up", "description": "Looks an invoice up.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
FLAT_TOOL = {"type": "function", **FUNCTION, "strict": False}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "invoice", "schema": SCHEMA, "strict": True}}
TURN = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"id":"7"}'}}
TOOL_TURNS = [
    *MESSAGES,
    {"role": "assistant", "content": "One moment.", "tool_calls": [TURN]},
    {"role": "tool", "tool_call_id": "c1", "content": "paid"},
]
PICTURES = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
    {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}},
]
WITH_IMAGES = [*MESSAGES, {"role": "user", "content": [{"type": "text", "text": "What?"}, *PICTURES]}]
CONVERSATIONS = {"text": MESSAGES, "tools": TOOL_TURNS, "images": WITH_IMAGES}
BOTH = {
    "temperature": 0.5, "top_p": 0.9, "max_tokens": 64, "tools": [TOOL], "parallel_tool_calls": False, "user": "u",
    "tool_choice": {"type": "function", "function": {"name": "look_up"}}, "response_format": JSON_SCHEMA,
    "reasoning_effort": "low", "verbosity": "low",
}  # fmt: skip
CHAT_ONLY = {"stop": ["END"], "seed": 7, "frequency_penalty": 0.1, "presence_penalty": 0.1}
SHAPES = {
    "chat": (OpenAIAdapter, chat_params.CompletionCreateParamsNonStreaming, chat_params.CompletionCreateParamsStreaming,
             BOTH | CHAT_ONLY),
    "responses": (OpenAIResponsesAdapter, responses_params.ResponseCreateParamsNonStreaming,
                  responses_params.ResponseCreateParamsStreaming, BOTH),
}  # fmt: skip


def provider_call(messages=MESSAGES, **params):
    return ProviderCall(MODEL, tuple(messages), params, "r-1", 60.0)


@contextlib.asynccontextmanager
async def client_of(settings=None):
    """The official client, pointed at a simulator; its own retries are off."""
    async with (
        Simulator(settings) as simulator,
        openai.AsyncOpenAI(base_url=simulator.base_url, api_key="simulated", timeout=60, max_retries=0) as client,
    ):
        yield simulator, client


def tokens(usage):
    """Of the client's usage, whichever endpoint it is from."""
    used = usage.prompt_tokens if hasattr(usage, "prompt_tokens") else usage.input_tokens
    made = usage.completion_tokens if hasattr(usage, "completion_tokens") else usage.output_tokens
    return used, made


def paid(simulator):
    (call,) = simulator.paid_calls
    return call.input_tokens, call.output_tokens


# --- chat completions ----------------------------------------------------------------------------------------------


async def test_the_client_reads_a_whole_completion():
    async with client_of() as (simulator, client):
        reply = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert reply.choices[0].message.content == expected_answer(MODEL, MESSAGES)
    assert reply.choices[0].finish_reason == "stop"
    assert tokens(reply.usage) == paid(simulator)


async def test_the_client_reads_a_streamed_completion():
    options = {"include_usage": True}
    async with client_of() as (simulator, client):
        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
    assert len(chunks) > 3
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == expected_answer(MODEL, MESSAGES)
    assert tokens(chunks[-1].usage) == paid(simulator)


async def test_the_client_reads_a_call_of_a_tool_whole_and_streamed():
    asking = {"model": MODEL, "messages": MESSAGES, "tools": [TOOL], "tool_choice": "required"}
    async with client_of() as (_, client):
        reply = await client.chat.completions.create(**asking)
        async with client.chat.completions.stream(**asking) as stream:
            streamed = await stream.get_final_completion()
    for completion in (reply, streamed):
        (call,) = completion.choices[0].message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("look_up", {"id": ASKED})
        assert completion.choices[0].finish_reason == "tool_calls"


# --- responses -----------------------------------------------------------------------------------------------------


async def test_the_client_reads_a_whole_response():
    async with client_of() as (simulator, client):
        reply = await client.responses.create(model=MODEL, instructions="Be brief.", input=ASKED)
    assert reply.output_text == expected_answer(MODEL, MESSAGES)
    assert (reply.status, reply.error) == ("completed", None)
    assert tokens(reply.usage) == paid(simulator)


async def test_the_client_reads_a_streamed_response():
    asking = {"model": MODEL, "instructions": "Be brief.", "input": ASKED}
    async with client_of() as (simulator, client), client.responses.stream(**asking) as stream:
        events = [event async for event in stream]
        reply = await stream.get_final_response()
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == reply.output_text == expected_answer(MODEL, MESSAGES)
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert tokens(reply.usage) == paid(simulator)


async def test_the_client_reads_a_function_call_whole_and_streamed_and_sends_its_result():
    asking = {"model": MODEL, "instructions": "Be brief.", "tools": [FLAT_TOOL]}
    async with client_of() as (_, client):
        reply = await client.responses.create(**asking, input=ASKED, tool_choice="required")
        async with client.responses.stream(**asking, input=ASKED, tool_choice="required") as stream:
            streamed = await stream.get_final_response()
        (call,) = reply.output
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "paid"}
        turns = [{"role": "user", "content": ASKED}, call.to_dict(), result]
        answered = await client.responses.create(**asking, input=turns)
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "look_up", {"id": ASKED})
    assert [item.to_dict() for item in streamed.output] == [item.to_dict() | {"parsed_arguments": None}
                                                            for item in reply.output]  # fmt: skip
    function = {"name": "look_up", "arguments": call.arguments}
    turn = {"id": call.call_id, "type": "function", "function": function}
    told = {"role": "tool", "tool_call_id": call.call_id, "content": "paid"}
    assert answered.output_text == expected_answer(
        MODEL, [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [turn]}, told]
    )


async def test_the_client_reads_a_response_that_the_limit_cut_whole_and_streamed():
    asking = {"model": MODEL, "input": ASKED, "max_output_tokens": 16}
    async with client_of() as (_, client):
        reply = await client.responses.create(**asking)
        stream = await client.responses.create(**asking, stream=True)
        last = [event async for event in stream][-1]
    assert last.type == "response.incomplete"
    for response in (reply, last.response):
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert response.usage.output_tokens == 16


async def test_the_client_reads_json_by_its_schema():
    wanted = {"type": "json_schema", "name": "invoice", "schema": SCHEMA, "strict": True}
    async with client_of() as (_, client):
        chat = await client.chat.completions.create(model=MODEL, messages=MESSAGES, response_format=JSON_SCHEMA)
        response = await client.responses.create(model=MODEL, input=ASKED, text={"format": wanted})
    for text in (chat.choices[0].message.content, response.output_text):
        assert set(json.loads(text)) == {"id"}


# --- embeddings and refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}])
async def test_the_client_reads_embeddings(form):
    async with client_of() as (_, client):
        reply = await client.embeddings.create(model="m", input=["one", "two"], dimensions=8, **form)
    for text, item in zip(["one", "two"], reply.data, strict=True):
        assert np.allclose(item.embedding, embed(text, 8))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "BadRequestError"), (401, "AuthenticationError"), (429, "RateLimitError"), (503, "InternalServerError")],
)
async def test_the_client_reads_a_refusal(status, kind):
    async with client_of(SimulatorSettings(faults=[FaultRule("status", status=status)])) as (simulator, client):
        for asking in (
            client.chat.completions.create(model=MODEL, messages=MESSAGES),
            client.responses.create(model=MODEL, input=ASKED),
            client.responses.create(model=MODEL, input=ASKED, stream=True),
        ):
            with pytest.raises(getattr(openai, kind)) as caught:
                await asking
            assert (caught.value.status_code, caught.value.type) == (status, caught.value.code)
    assert simulator.paid_calls == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"input": []}, "'input'"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "call_id"),
        ({"input": [{"role": "robot", "content": "Hi"}]}, r"input\[0\]"),
        ({"input": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}, "'text'"),
        ({"max_output_tokens": 15}, "max_output_tokens"),
        ({"tools": [TOOL]}, r"tools\[0\]\.name"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"extra_body": {"seed": 7}}, "'seed'"),
    ],
)
async def test_the_simulator_refuses_what_the_responses_shape_lacks(asked, words):
    async with client_of() as (simulator, client):
        with pytest.raises(openai.BadRequestError, match=words):
            await client.responses.create(**{"model": MODEL, "input": ASKED, **asked})
    assert simulator.paid_calls == []


# --- what we write -------------------------------------------------------------------------------------------------


def plain(value):
    """``value`` with the lazy iterables of pydantic's validators drawn into lists."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


def as_the_client_reads(kind, body):
    """``body`` after the client's own type has taken what it knows of it: fields that it does not know are gone."""
    # Held in a name: the lazy iterables need the adapter alive until they are drawn.
    adapter = TypeAdapter(kind)
    return plain(adapter.validate_python(body))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("base_url", ["https://api.openai.com/v1", "http://127.0.0.1:1/v1"])
def test_the_client_knows_every_field_that_we_write(shape, conversation, base_url):
    make, whole, streamed, params = SHAPES[shape]
    for given in ({}, params):
        call = provider_call(CONVERSATIONS[conversation], **given)
        for kind, stream in ((whole, False), (streamed, True)):
            body = orjson.loads(make("p", base_url).to_http(call, stream=stream).body)
            assert as_the_client_reads(kind, body) == body


def test_a_field_that_the_client_does_not_know_would_show():
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi", "mood": "good"}], "temprature": 1}
    known = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    assert as_the_client_reads(chat_params.CompletionCreateParamsNonStreaming, body) == known


# --- our adapters against the simulator ----------------------------------------------------------------------------


@pytest.fixture
async def transport():
    made = create_transport()
    await made.start()
    yield made
    await made.stop()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "given",
    [{}, {"max_tokens": 16}, {"tools": [TOOL], "tool_choice": "required"}, {"response_format": JSON_SCHEMA}],
    ids=["text", "cut", "tool", "schema"],
)
async def test_our_adapter_reads_the_same_answer_whole_and_streamed(shape, given, transport):
    async with Simulator() as simulator:
        adapter = SHAPES[shape][0]("p", simulator.base_url)
        call = provider_call(TOOL_TURNS, **given)
        whole = adapter.from_http(await transport.send(adapter.to_http(call)), call)
        reader = adapter.read_stream(call)
        async with transport.stream(adapter.to_http(call, stream=True)) as reply:
            text = "".join([reader.feed(event) async for event in reply.events()])
    assert reader.answer() == whole
    assert text == whole.text
    assert whole.finish_reason == ("length" if "max_tokens" in given else "tool_calls" if "tools" in given else "stop")
    assert whole.text == ("" if "tools" in given else whole.text)
    if not given:
        assert whole.text == expected_answer(MODEL, TOOL_TURNS)
    assert [(each.input_tokens, each.output_tokens) for each in simulator.paid_calls] == [
        (whole.usage.input_tokens, whole.usage.output_tokens)
    ] * 2


@pytest.mark.parametrize("given", [{}, {"tools": [TOOL], "tool_choice": "required"}], ids=["text", "tool"])
async def test_both_shapes_are_answered_alike(given, transport):
    answers = []
    async with Simulator() as simulator:
        for make, *_ in SHAPES.values():
            adapter, call = make("p", simulator.base_url), provider_call(**given)
            answers.append(adapter.from_http(await transport.send(adapter.to_http(call)), call))
    assert answers[0] == answers[1]


async def test_the_official_client_reads_completions_of_several_prompts_and_streams():
    async with client_of(SimulatorSettings(output_tokens=20)) as (_, client):
        whole = await client.completions.create(model=MODEL, prompt=["first?", "second?"], max_tokens=500)
        assert [choice.index for choice in whole.choices] == [0, 1]
        for choice, prompt in zip(whole.choices, ["first?", "second?"], strict=True):
            assert choice.text == expected_answer(MODEL, [{"role": "user", "content": prompt}], 20)
            assert choice.finish_reason == "stop"
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
        stream = await client.completions.create(model=MODEL, prompt="first?", stream=True)
        assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text


def test_the_official_types_know_every_field_of_a_completions_call():
    from openai.types import completion_create_params as params

    adapter = OpenAICompletionsAdapter("vllm", "http://localhost/v1")
    given = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 64, "user": "u", **CHAT_ONLY}
    call = provider_call(**given)
    for shape, sent in (
        (params.CompletionCreateParamsNonStreaming, adapter.to_http(call)),
        (params.CompletionCreateParamsNonStreaming, adapter.to_http_many([call, call])),
        (params.CompletionCreateParamsStreaming, adapter.to_http(call, stream=True)),
    ):
        body = orjson.loads(sent.body)
        assert set(body) <= set(shape.__annotations__) | set(params.CompletionCreateParamsBase.__annotations__)
        assert TypeAdapter(shape).validate_python(body) == body
