"""The vendor's own client as referee: it works against the simulator, and what we write is valid by its types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import orjson
import pytest

anthropic = pytest.importorskip("anthropic")

from pydantic import TypeAdapter, ValidationError  # noqa: E402 - after the check that the client is there

from stratarouter_runtime.port_values import ProviderCall  # noqa: E402
from stratarouter_runtime.providers.anthropic import AnthropicAdapter  # noqa: E402
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings  # noqa: E402

TOOL = {
    "name": "find",
    "description": "Find.",
    "input_schema": {"type": "object", "properties": {"n": {"type": "string"}}},
}


@pytest.fixture
async def client() -> AsyncIterator[Any]:
    async with Simulator(SimulatorSettings()) as simulator:
        base_url = simulator.base_url.removesuffix("/v1")
        async with anthropic.AsyncAnthropic(api_key="k", base_url=base_url, max_retries=0) as made:
            yield made


async def test_the_client_gets_an_answer_and_its_tokens(client: Any) -> None:
    message = await client.messages.create(
        model="m", max_tokens=100, system="be brief", messages=[{"role": "user", "content": "where is 7?"}]
    )
    assert "where is 7?" in message.content[0].text
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0


async def test_the_client_streams(client: Any) -> None:
    async with client.messages.stream(
        model="m", max_tokens=100, messages=[{"role": "user", "content": "where is 7?"}]
    ) as stream:
        heard = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert len(heard) > 1
    assert "".join(heard) == final.content[0].text
    assert final.stop_reason == "end_turn"


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_client_is_asked_to_call_a_tool(client: Any, *, streamed: bool) -> None:
    asked = {
        "model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "find 7"}], "tools": [TOOL],
        "tool_choice": {"type": "tool", "name": "find"},
    }  # fmt: skip
    if streamed:
        async with client.messages.stream(**asked) as stream:
            message = await stream.get_final_message()
    else:
        message = await client.messages.create(**asked)
    assert message.stop_reason == "tool_use"
    assert message.content[0].name == "find"
    assert isinstance(message.content[0].input, dict)


async def test_the_client_reads_refusals_as_its_own_errors() -> None:
    async with Simulator(SimulatorSettings(rate_limit_rpm=1)) as simulator:
        base_url = simulator.base_url.removesuffix("/v1")
        async with anthropic.AsyncAnthropic(api_key="k", base_url=base_url, max_retries=0) as client:
            asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
            await client.messages.create(**asked)
            with pytest.raises(anthropic.RateLimitError):
                await client.messages.create(**asked)


def test_what_we_write_is_valid_by_the_clients_types() -> None:
    function = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    arguments = {"name": "f", "arguments": "{}"}
    messages = (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        ]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "t", "type": "function", "function": arguments}]},
        {"role": "tool", "tool_call_id": "t", "content": "done"},
    )  # fmt: skip
    params = {
        "max_tokens": 9, "stop": ["x"], "user": "u", "tools": [{"type": "function", "function": function}],
        "tool_choice": "auto", "parallel_tool_calls": False, "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    }  # fmt: skip
    for stream, kind in (
        (False, anthropic.types.message_create_params.MessageCreateParamsNonStreaming),
        (True, anthropic.types.message_create_params.MessageCreateParamsStreaming),
    ):
        http = AnthropicAdapter("claude").to_http(ProviderCall("m", messages, params, "r", 5.0), stream=stream)
        body = orjson.loads(http.body)
        # The adapter is held in a name: the lazy iterables need it alive until they are drawn.
        types = TypeAdapter(kind)
        # Fields that the types do not know are dropped, at any depth: what comes back must be all of it.
        assert _drawn(types.validate_python(body)) == body


def _drawn(value: Any) -> Any:
    """``value`` with its lazy iterables as lists: they are checked only as they are drawn."""
    if isinstance(value, dict):
        return {name: _drawn(each) for name, each in value.items()}
    return [_drawn(each) for each in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": [1]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "colour": 1}]}]},
        {"tools": [{"nme": 5}]},
        {"output_config": {"efort": "low"}},
        {"seed": 1},
    ],
)
def test_the_check_by_the_clients_types_finds_what_they_lack(wrong: dict[str, Any]) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [], **wrong}
    types = TypeAdapter(anthropic.types.message_create_params.MessageCreateParamsNonStreaming)
    try:
        known = _drawn(types.validate_python(body)) == body
    except ValidationError:
        known = False
    assert not known
