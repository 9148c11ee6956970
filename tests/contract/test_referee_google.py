"""Google's own client as the referee: the simulator must satisfy it, and it must know every field that we write."""

import contextlib
import json

import httpx
import orjson
import pytest

from stratarouter_runtime.port_values import HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.google import GoogleAdapter
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings
from stratarouter_runtime.testing.simulator_endpoints import expected_answer
from stratarouter_runtime.testing.simulator_google import camel_case

genai = pytest.importorskip("google.genai")

from google.genai import errors, types  # noqa: E402 - only where the client is installed

# The client's own way of using aiohttp, none of ours.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

MODEL = "gemini-3-flash-preview"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is my invoice?"}]
SCHEMA = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
FUNCTION = {"name": "look_up", "description": "Looks an invoice up.", "parameters": SCHEMA}
PARAMS = {
    "temperature": 0.5, "top_p": 0.9, "max_tokens": 64, "stop": ["END"], "seed": 7, "frequency_penalty": 0.1,
    "presence_penalty": 0.1, "tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "auto",
    "parallel_tool_calls": True, "reasoning_effort": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
}  # fmt: skip


def provider_call(messages=MESSAGES, model=MODEL, **params):
    return ProviderCall(model, tuple(messages), params, "r-1", 60.0)


@contextlib.asynccontextmanager
async def client_of(settings=None):
    """The official client, pointed at a simulator; its own retries are off."""
    async with Simulator(settings) as simulator:
        host = simulator.base_url.removesuffix("/v1")
        options = types.HttpOptions(base_url=host, timeout=60_000, retry_options=types.HttpRetryOptions(attempts=1))
        client = genai.Client(api_key="simulated", http_options=options)
        try:
            yield simulator, client.aio.models
        finally:
            await client.aio.aclose()
            client.close()


def config(**extra):
    return types.GenerateContentConfig(system_instruction="Be brief.", **extra)


ASKED = MESSAGES[1]["content"]
FORCED = types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY"))
DECLARED = types.Tool(function_declarations=[types.FunctionDeclaration(name="look_up", parameters_json_schema=SCHEMA)])
BY_HAND = types.AutomaticFunctionCallingConfig(disable=True)


async def test_the_client_reads_a_whole_reply():
    async with client_of() as (simulator, models):
        reply = await models.generate_content(model=MODEL, contents=ASKED, config=config())
    assert reply.text == expected_answer(MODEL, MESSAGES)
    assert reply.candidates[0].finish_reason == types.FinishReason.STOP
    paid = simulator.paid_calls[0]
    assert (reply.usage_metadata.prompt_token_count, reply.usage_metadata.candidates_token_count) == (
        paid.input_tokens,
        paid.output_tokens,
    )


async def test_the_client_reads_a_stream():
    async with client_of() as (simulator, models):
        stream = await models.generate_content_stream(model=MODEL, contents=ASKED, config=config())
        replies = [reply async for reply in stream]
    assert len(replies) > 2
    assert "".join(reply.text or "" for reply in replies) == expected_answer(MODEL, MESSAGES)
    assert replies[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert replies[-1].usage_metadata.candidates_token_count == simulator.paid_calls[0].output_tokens


async def test_the_client_reads_a_call_of_a_tool_whole_and_streamed():
    asking = config(tools=[DECLARED], tool_config=FORCED, automatic_function_calling=BY_HAND)
    async with client_of() as (_, models):
        reply = await models.generate_content(model=MODEL, contents=ASKED, config=asking)
        stream = await models.generate_content_stream(model=MODEL, contents=ASKED, config=asking)
        streamed = [call async for part in stream for call in part.function_calls or ()]
    for call in (*reply.function_calls, *streamed):
        assert (call.name, call.args) == ("look_up", {"id": ASKED})
    assert len(streamed) == 1


async def test_the_client_sends_a_result_back_and_is_answered():
    async with client_of() as (_, models):
        asking = config(tools=[DECLARED], tool_config=FORCED, automatic_function_calling=BY_HAND)
        called = (await models.generate_content(model=MODEL, contents=ASKED, config=asking)).candidates[0].content
        result = types.Part.from_function_response(name="look_up", response={"output": "paid"})
        turns = [types.UserContent(ASKED), called, types.UserContent([result])]
        reply = await models.generate_content(model=MODEL, contents=turns, config=config(tools=[DECLARED]))
    assert reply.text.startswith(f"[simulated {MODEL}]")


async def test_the_client_reads_json_by_its_schema():
    asking = config(response_mime_type="application/json", response_json_schema=SCHEMA)
    async with client_of() as (_, models):
        reply = await models.generate_content(model=MODEL, contents=ASKED, config=asking)
    assert set(json.loads(reply.text)) == {"id"}


@pytest.mark.parametrize(
    ("status", "name"), [(400, "INVALID_ARGUMENT"), (429, "RESOURCE_EXHAUSTED"), (503, "UNAVAILABLE")]
)
async def test_the_client_reads_a_refusal(status, name):
    rule = FaultRule("status", status=status)
    async with client_of(SimulatorSettings(faults=[rule])) as (simulator, models):
        with pytest.raises(errors.APIError) as caught:
            await models.generate_content(model=MODEL, contents=ASKED)
    assert (caught.value.code, caught.value.status) == (status, name)
    assert simulator.paid_calls == []


# --- what we write ---------------------------------------------------------------------------------------------


def body_of(call):
    return orjson.loads(GoogleAdapter("gemini").to_http(call).body)


def tool_turns():
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"id": "7"}'}}
    result = {"role": "tool", "tool_call_id": "c1", "content": "paid"}
    return [*MESSAGES, {"role": "assistant", "content": None, "tool_calls": [call]}, result]


def with_images():
    urls = ["data:image/png;base64,iVBORw0KGgo=", "https://x.example/a.png"]
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [*MESSAGES, {"role": "user", "content": [{"type": "text", "text": "What?"}, *pictures]}]


@pytest.mark.parametrize("messages", [MESSAGES, tool_turns(), with_images()], ids=["text", "tools", "images"])
def test_the_client_knows_every_field_of_our_contents(messages):
    body = body_of(provider_call(messages))
    for content in [body["systemInstruction"], *body["contents"]]:
        # The client's types refuse unknown fields.
        assert types.Content.model_validate_json(orjson.dumps(content)).parts
    with pytest.raises(ValueError, match="extra"):
        types.Content.model_validate({"parts": [{"txt": "x"}]})


@pytest.mark.parametrize("model", [MODEL, "gemini-2.5-flash"])
def test_the_client_knows_every_field_of_our_settings_and_tools(model):
    body = body_of(provider_call(model=model, **PARAMS))
    assert types.GenerationConfig.model_validate_json(orjson.dumps(body["generationConfig"]))
    assert types.ToolConfig.model_validate_json(orjson.dumps(body["toolConfig"]))
    assert [types.Tool.model_validate_json(orjson.dumps(each)) for each in body["tools"]]
    assert set(body) == {"contents", "systemInstruction", "generationConfig", "tools", "toolConfig"}


async def test_the_client_would_have_sent_the_same():
    """What the client itself writes for this call, taken from the wire, is what we write."""
    asking = config(
        temperature=0.5, top_p=0.9, max_output_tokens=64, stop_sequences=["END"], seed=7, frequency_penalty=0.1,
        presence_penalty=0.1, response_mime_type="application/json", response_json_schema=SCHEMA,
        thinking_config=types.ThinkingConfig(thinking_level="LOW"),
        tools=[types.Tool(function_declarations=[types.FunctionDeclaration(
            name="look_up", description="Looks an invoice up.", parameters_json_schema=SCHEMA)])],
        tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="AUTO")),
        automatic_function_calling=BY_HAND,
    )  # fmt: skip
    sent = []
    async with client_of() as (simulator, models):
        simulator_serve = simulator._serve
        simulator._serve = lambda request, connection: (sent.append(request), simulator_serve(request, connection))
        await models.generate_content(model=MODEL, contents=ASKED, config=asking)
    theirs, ours = camel_case(orjson.loads(sent[0].body)), body_of(provider_call(**PARAMS))
    theirs["systemInstruction"].pop("role", None)
    assert ours == theirs
    url = GoogleAdapter("gemini", f"{simulator.base_url.removesuffix('/v1')}/v1").to_http(provider_call()).url
    assert url.endswith(sent[0].path)


# --- our adapter against the simulator -------------------------------------------------------------------------


async def test_our_adapter_and_the_client_read_the_same_answer():
    async with client_of() as (simulator, models):
        theirs = await models.generate_content(model=MODEL, contents=ASKED, config=config())
        adapter = GoogleAdapter("gemini", simulator.base_url.removesuffix("/v1"))
        call = provider_call()
        async with httpx.AsyncClient(timeout=60) as http:
            asked = adapter.to_http(call)
            reply = await http.post(asked.url, content=asked.body, headers=dict(asked.headers))
            asked = adapter.to_http(call, stream=True)
            streamed = await http.post(asked.url, content=asked.body, headers=dict(asked.headers))
    whole = adapter.from_http(HttpReply(reply.status_code, {}, reply.content), call)
    reader = adapter.read_stream(call)
    text = "".join(reader.feed(ServerSentEvent(line[6:])) for line in streamed.text.splitlines() if line)
    assert whole.text == text == theirs.text
    assert reader.answer() == whole
    assert whole.usage.output_tokens == theirs.usage_metadata.candidates_token_count
