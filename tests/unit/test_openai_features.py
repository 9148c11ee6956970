"""The tables of what OpenAI's two wire shapes carry, against what their adapters really do; what both refuse."""

import orjson
import pytest

from stratarouter_runtime.errors import ProviderRejectedError, UnsupportedParameterError
from stratarouter_runtime.port_values import HttpReply, ProviderCall
from stratarouter_runtime.providers import openai, openai_responses
from stratarouter_runtime.providers.features import FEATURES
from stratarouter_runtime.providers.openai import OpenAIAdapter
from stratarouter_runtime.providers.openai_responses import OpenAIResponsesAdapter

HI = ({"role": "user", "content": "Hi"},)
PIXEL = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"id": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}
TURN = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
NAMED = {"type": "function", "function": {"name": "look_up"}}


def image(url):
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"messages": ({"role": "user", "content": [{"type": "text", "text": "Hi"}, part]},)}


ASKED = {
    "system prompt": {"messages": ({"role": "system", "content": "Be brief."}, *HI)},
    "multi-turn messages": {"messages": (*HI, {"role": "assistant", "content": "Yes?"}, *HI)},
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.5},
    "max_tokens": {"max_tokens": 20},
    "stop": {"stop": ["x"]},
    "seed": {"seed": 7},
    "frequency_penalty, presence_penalty": {"frequency_penalty": 0.5, "presence_penalty": 0.5},
    "JSON mode": {"response_format": {"type": "json_object"}},
    "JSON schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    "tools": {"tools": [TOOL]},
    "tool_choice": {"tools": [TOOL], "tool_choice": NAMED},
    "parallel_tool_calls": {"tools": [TOOL], "parallel_tool_calls": False},
    "images by URL": image("https://x.example/a.png"),
    "images in base64": image(PIXEL),
    "reasoning_effort": {"reasoning_effort": "low"},
}
CHAT_REPLY = {
    "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3},
              "completion_tokens_details": {"reasoning_tokens": 2}},
}  # fmt: skip
RESPONSE = {
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}],
    "usage": {"input_tokens": 9, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 3},
              "output_tokens_details": {"reasoning_tokens": 2}},
}  # fmt: skip
SHAPES = {
    "chat": (OpenAIAdapter("p", "http://127.0.0.1:1/v1"), openai.SUPPORT, CHAT_REPLY),
    "responses": (OpenAIResponsesAdapter("p", "http://127.0.0.1:1/v1"), openai_responses.SUPPORT, RESPONSE),
}


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def call(messages=HI, **params):
    return ProviderCall("m", messages, params, "r-1", 30.0)


def body_of(adapter, *, stream=False, **asked):
    return orjson.loads(adapter.to_http(call(**asked), stream=stream).body)


def test_table_has_every_feature(shape):
    _, support, _ = shape
    assert list(support) == list(FEATURES)
    assert all(said in ("yes", "no", "error") or said.startswith("yes, ") for said in support.values())


@pytest.mark.parametrize("feature", ASKED)
def test_table_says_what_asking_does(shape, feature):
    adapter, support, _ = shape
    if support[feature] == "error":
        with pytest.raises(UnsupportedParameterError, match="'p'"):
            body_of(adapter, **ASKED[feature])
    else:
        assert body_of(adapter, **ASKED[feature]) != body_of(adapter)


def test_table_says_that_it_streams(shape):
    adapter, support, _ = shape
    assert support["streaming"] == "yes"
    assert body_of(adapter, stream=True)["stream"] is True
    assert adapter.to_http(call(), stream=True).headers["accept"] == "text/event-stream"
    assert "stream" not in body_of(adapter)


def test_table_says_what_usage_holds(shape):
    adapter, support, reply = shape
    usage = adapter.from_http(HttpReply(200, {}, orjson.dumps(reply)), call()).usage
    assert support["cached tokens in usage"] == support["reasoning tokens in usage"] == "yes"
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens) == (9, 3, 5, 2)


# --- malformed calls -----------------------------------------------------------------------------------------------


def said(content, role="user", **extra):
    return {"messages": ({"role": role, "content": content, **extra},)}


MALFORMED = [
    ({"messages": ()}, "no messages"),
    ({"messages": ("Hi",)}, r"messages\[0\] has the role None"),
    (said("Hi", role="robot"), "the role 'robot'"),
    (said("Hi", role=["user"]), r"the role \['user'\]"),
    (said(None), "neither a text nor a list"),
    (said(5), "neither a text nor a list"),
    (said([]), "neither a text nor a list"),
    (said(["Hi"]), r"content\[0\] is no object with a type"),
    (said([{"type": "text"}]), "has no text"),
    (said([{"type": "image_url", "image_url": "https://x.example/a.png"}]), r"no image_url\.url"),
    (said([{"type": "image_url"}]), r"no image_url\.url"),
    (image("data:image/png,raw"), "data URL"),
    (image("data:image/png;base64,not base64!"), "data URL"),
    (said(None, role="assistant"), "neither a text nor a list"),
    (said("ok", role="tool"), "tool_call_id"),
    (said("ok", role="tool", tool_call_id=""), "tool_call_id"),
    (said("ok", role="user", tool_calls=[TURN]), "its role is 'user'"),
    (said(None, role="assistant", tool_calls="c1"), "no list"),
    (said(None, role="assistant", tool_calls=["c1"]), "names no function"),
    (said(None, role="assistant", tool_calls=[{**TURN, "function": {"arguments": "{}"}}]), "names no function"),
    (said(None, role="assistant", tool_calls=[{**TURN, "id": None}]), "has no id"),
    (said(None, role="assistant", tool_calls=[{**TURN, "function": {"name": "f", "arguments": {}}}]), "no JSON text"),
    ({"tools": "look_up"}, "'tools' is no list"),
    ({"tools": [{"type": "function"}]}, "no function with a name"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": "none"}}]}, "no JSON schema"),
    ({"tool_choice": "required"}, "'tools' has none"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "'other'"),
    ({"response_format": {"type": "json_schema"}}, "json_schema.name"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "json_schema.schema"),
    ({"temperature": {1, 2}}, "no JSON"),
]
UNSUPPORTED = [
    (image("ftp://x.example/a.png"), "URL other than"),
    (image("/tmp/a.png"), "URL other than"),
    (said([{"type": "hologram"}]), "'hologram'"),
    ({"messages": ({"role": "system", "content": image(PIXEL)["messages"][0]["content"]}, *HI)}, "'image_url'"),
    (said(None, role="assistant", tool_calls=[{**TURN, "type": "custom"}]), "'custom'"),
    ({"tools": [{"type": "web_search"}]}, "'web_search'"),
    ({"tool_choice": "sometimes"}, "'sometimes'"),
    ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "'allowed_tools'"),
    ({"response_format": {"type": "grammar"}}, "'grammar'"),
    ({"response_format": "json"}, "of type None"),
    ({"top_k": 5}, "'top_k'"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "differ"),
]


@pytest.mark.parametrize(("asked", "words"), MALFORMED)
def test_malformed_call_is_refused_and_says_where(shape, asked, words):
    with pytest.raises(ProviderRejectedError, match=words):
        body_of(shape[0], **asked)


@pytest.mark.parametrize(("asked", "words"), UNSUPPORTED)
def test_what_the_shape_lacks_is_named(shape, asked, words):
    with pytest.raises(UnsupportedParameterError, match=words):
        body_of(shape[0], **asked)
