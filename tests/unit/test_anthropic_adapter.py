"""Anthropic's messages: what is written, what is read, and what is refused instead of being changed."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from stratarouter_runtime.errors import (
    ConfigurationError,
    ProviderBadReplyError,
    ProviderQuotaError,
    ProviderRejectedError,
    ProviderUnavailableError,
    UnsupportedParameterError,
)
from stratarouter_runtime.port_values import HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.anthropic import SUPPORT, AnthropicAdapter
from stratarouter_runtime.providers.anthropic_request import DEFAULT_MAX_TOKENS
from stratarouter_runtime.providers.features import FEATURES
from stratarouter_runtime.records import Usage
from stratarouter_runtime.testing.simulator_anthropic import read_messages
from stratarouter_runtime.testing.simulator_endpoints import RefusedAskError

KEY = "sk-ant-api03-secret"
ADAPTER = AnthropicAdapter("claude", api_key=SecretStr(KEY))
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
CALL = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def _call(*messages: dict[str, Any], **params: Any) -> ProviderCall:
    return ProviderCall("claude-x", messages or (USER,), params, "r 1", 5.0)


def _body(*messages: dict[str, Any], **params: Any) -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(ADAPTER.to_http(_call(*messages, **params)).body)
    return body


def _reply(*blocks: dict[str, Any], stop: str = "end_turn", usage: dict[str, Any] | None = None) -> HttpReply:
    body = {"type": "message", "content": list(blocks), "stop_reason": stop, "usage": usage or {"input_tokens": 1}}
    return HttpReply(200, {}, orjson.dumps(body))


@pytest.mark.parametrize("base_url", ["https://api.anthropic.com", "https://api.anthropic.com/v1/"])
def test_the_call_goes_to_messages_with_the_key_in_its_header(base_url: str) -> None:
    http = AnthropicAdapter("claude", base_url, SecretStr(KEY)).to_http(_call(), stream=True)
    assert http.url == "https://api.anthropic.com/v1/messages"
    assert http.headers["x-api-key"] == KEY
    assert http.headers["anthropic-version"] == "2023-06-01"
    assert http.headers["x-stratarouter-request-id"] == "r%201"
    assert orjson.loads(http.body)["stream"] is True
    assert KEY not in repr(http)


def test_a_key_that_no_header_takes_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        AnthropicAdapter("claude", api_key=SecretStr("k\nx"))


def test_a_conversation_is_written_as_turns_of_blocks() -> None:
    body = _body(
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": [{"type": "text", "text": "and kind"}]},
        USER,
        {"role": "assistant", "content": "a moment", "tool_calls": [CALL, {**CALL, "id": "t2"}]},
        {"role": "tool", "tool_call_id": "t1", "content": "one"},
        {"role": "tool", "tool_call_id": "t2", "content": "two"},
        {"role": "user", "content": "well?"},
    )
    assert body["system"] == [{"type": "text", "text": "be brief"}, {"type": "text", "text": "and kind"}]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
    assert body["messages"][1]["content"] == [{"type": "text", "text": "a moment"}, use, {**use, "id": "t2"}]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "tool_result", "text"]
    assert body["messages"][2]["content"][1]["tool_use_id"] == "t2"


def test_parameters_are_said_in_the_vendors_words() -> None:
    schema = {"type": "object", "properties": {}}
    body = _body(
        max_completion_tokens=9, temperature=0.5, top_p=0.9, stop="END", user="u1", tools=[TOOL],
        tool_choice="required", parallel_tool_calls=False, reasoning_effort="high", seed=None,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
    )  # fmt: skip
    assert {name: body[name] for name in ("max_tokens", "temperature", "top_p", "stop_sequences", "metadata")} == {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
    }
    assert body["tools"] == [{"name": "f", "description": "d", "input_schema": {"type": "object"}}]
    assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    assert body["output_config"] == {"effort": "high", "format": {"type": "json_schema", "schema": schema}}
    assert _body()["max_tokens"] == DEFAULT_MAX_TOKENS


def test_images_are_sources() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    blocks = _body({"role": "user", "content": parts})["messages"][0]["content"]
    assert [block["source"] for block in blocks] == [
        {"type": "url", "url": "https://a.example/b.png"},
        {"type": "base64", "media_type": "image/png", "data": "AAAA"},
    ]


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"seed": 1}, "'seed'"),
        ({"frequency_penalty": 1}, "'frequency_penalty'"),
        ({"logit_bias": {}}, "'logit_bias'"),
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"reasoning_effort": "minimal"}, "minimal"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "they differ"),
        ({"tools": [{"type": "custom"}]}, "custom"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ],
)
def test_what_the_shape_lacks_is_an_error_that_names_it(params: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedParameterError, match=named):
        ADAPTER.to_http(_call(**params))


@pytest.mark.parametrize(
    "messages",
    [
        [USER, {"role": "system", "content": "late"}],
        [{"role": "user", "content": [{"type": "input_audio"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b.png"}}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AAAA"}}]}],
        [{"role": "user", "content": "x", "name": "bob"}],
    ],
)
def test_messages_that_the_shape_lacks_are_errors(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(UnsupportedParameterError):
        ADAPTER.to_http(_call(*messages))


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "alone"}],
        [USER, {"role": "tool", "tool_call_id": "nobody", "content": "x"}],
        [USER, {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}]}],
        [USER, {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}],
        [{"role": "robot", "content": "x"}],
        [{"role": "user", "content": 7}],
    ],
)
def test_malformed_messages_are_refused(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(ProviderRejectedError, match="malformed"):
        ADAPTER.to_http(_call(*messages))


def test_an_answer_and_its_tokens_are_read_in_our_form() -> None:
    usage = {
        "input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 8,
        "output_tokens_details": {"thinking_tokens": 3},
    }  # fmt: skip
    thinking = {"type": "thinking", "thinking": "hm"}
    answer = ADAPTER.from_http(_reply(thinking, {"type": "text", "text": "yes"}, usage=usage), _call())
    assert (answer.text, answer.finish_reason, answer.model) == ("yes", "stop", "claude-x")
    assert answer.usage == Usage(17, 8, 5, 3)


@pytest.mark.parametrize(
    ("stop", "finish"),
    [("max_tokens", "length"), ("stop_sequence", "stop"), ("refusal", "content_filter"), ("pause_turn", "other")],
)
def test_the_end_is_said_in_our_words(stop: str, finish: str) -> None:
    assert ADAPTER.from_http(_reply({"type": "text", "text": "x"}, stop=stop), _call()).finish_reason == finish


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"content": "x"}', b'{"content": [{"type": "tool_use", "name": "f"}]}']
)
def test_a_body_of_another_shape_is_a_bad_reply_that_may_have_been_paid_for(body: bytes) -> None:
    with pytest.raises(ProviderBadReplyError) as caught:
        ADAPTER.from_http(HttpReply(200, {}, body), _call())
    assert caught.value.maybe_paid


def test_refusals_are_read_and_no_key_is_repeated() -> None:
    said = {"type": "error", "error": {"type": "overloaded_error", "message": f"no {KEY} and sk-ant-other123"}}
    with pytest.raises(ProviderUnavailableError) as caught:
        ADAPTER.from_http(HttpReply(529, {}, orjson.dumps(said)), _call())
    assert "secret" not in str(caught.value)
    assert "other123" not in str(caught.value)
    broke = {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low"}}
    with pytest.raises(ProviderQuotaError):
        ADAPTER.from_http(HttpReply(400, {}, orjson.dumps(broke)), _call())


def _event(body: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(orjson.dumps(body).decode(), body["type"])


def test_a_stream_that_ends_early_or_fails_is_no_answer() -> None:
    stream = ADAPTER.read_stream(_call())
    stream.feed(_event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}))
    delta = {"type": "text_delta", "text": "half"}
    assert stream.feed(_event({"type": "content_block_delta", "index": 0, "delta": delta})) == "half"
    assert stream.feed(_event({"type": "something_new"})) == ""
    with pytest.raises(ProviderBadReplyError, match="broke off"):
        stream.answer()
    with pytest.raises(ProviderUnavailableError) as caught:
        stream.feed(_event({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}))
    assert caught.value.maybe_paid


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "eA=="}


def _use(call_id: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "f", "input": given}


def test_thoughts_before_a_call_go_back_with_it_in_their_order() -> None:
    blocks = [THOUGHT, {"type": "text", "text": "Wait."}, _use("t1", a=1), HIDDEN, _use("t2")]
    answer = ADAPTER.from_http(_reply(*blocks, stop="tool_use"), _call())
    said = {"role": "assistant", "content": answer.text, "tool_calls": list(answer.tool_calls)}
    assert _body(USER, said)["messages"][1]["content"] == blocks


def test_thoughts_of_a_stream_are_those_of_the_whole() -> None:
    whole = ADAPTER.from_http(_reply(THOUGHT, _use("t1", a=1), stop="tool_use"), _call())
    stream = ADAPTER.read_stream(_call())
    for event in (
        _begun({"type": "thinking", "thinking": "", "signature": ""}),
        _grown({"type": "thinking_delta", "thinking": "H"}),
        _grown({"type": "thinking_delta", "thinking": "m."}),
        _grown({"type": "signature_delta", "signature": "c2ln"}),
        _begun(_use("t1"), 1),
        _grown({"type": "input_json_delta", "partial_json": '{"a":1}'}, 1),
        *_ended("tool_use"),
    ):
        assert stream.feed(_event(event)) == ""
    assert stream.answer().tool_calls == whole.tool_calls
    assert whole.tool_calls[0]["extra_content"] == {"anthropic": {"thinking": [THOUGHT]}}


def _begun(block: object, index: object = 0) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _grown(delta: dict[str, Any], index: object = 0) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _ended(stop: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {}}, {"type": "message_stop"}


def test_a_stream_ends_with_its_reason_and_its_last_event_and_only_words_are_heard() -> None:
    blocks = (_begun({"type": "text", "text": "Wait."}), _begun(_use("t1", a=1), 1))
    reason, last = _ended("tool_use")
    for end in ((reason,), (last,)):
        cut = ADAPTER.read_stream(_call())
        assert [cut.feed(_event(event)) for event in (*blocks, *end)] == ["Wait.", "", ""]
        with pytest.raises(ProviderBadReplyError, match="broke off"):
            cut.answer()
    with pytest.raises(ProviderBadReplyError, match="without text"):
        ADAPTER.from_http(_reply(stop="tool_use"), _call())


def test_a_call_that_the_limit_cut_is_kept_as_far_as_it_came() -> None:
    stream = ADAPTER.read_stream(_call())
    piece = {"type": "input_json_delta", "partial_json": '{"a": "b'}
    for event in (_begun(_use("t1")), _grown(piece), *_ended("max_tokens")):
        stream.feed(_event(event))
    answer = stream.answer()
    assert (answer.finish_reason, answer.tool_calls[0]["function"]["arguments"]) == ("length", '{"a": "b')


@pytest.mark.parametrize("block", [{}, {"type": 5}, {"type": "text"}, {"type": "text", "text": 5}, "x"])
def test_a_block_that_cannot_be_read_is_no_empty_answer(block: Any) -> None:
    for read in (
        lambda: ADAPTER.from_http(_reply(block), _call()),
        lambda: ADAPTER.read_stream(_call()).feed(_event(_begun(block))),
    ):
        with pytest.raises(ProviderBadReplyError) as caught:
            read()
        assert caught.value.maybe_paid


@pytest.mark.parametrize(
    "event",
    [
        _begun({"type": "text", "text": ""}, []),
        _grown({"type": "text_delta", "text": "lost"}, 1),
        _grown({"type": "text_delta", "text": "lost"}, []),
        _grown({"type": "text_delta"}),
    ],
)
def test_a_piece_of_no_block_is_a_bad_reply_and_not_lost(event: dict[str, Any]) -> None:
    stream = ADAPTER.read_stream(_call())
    stream.feed(_event(_begun({"type": "text", "text": ""})))
    with pytest.raises(ProviderBadReplyError):
        stream.feed(_event(event))


def test_a_kind_of_piece_that_is_new_is_passed_over() -> None:
    stream = ADAPTER.read_stream(_call())
    stream.feed(_event(_begun({"type": "text", "text": ""})))
    assert stream.feed(_event(_grown({"type": "citations_delta", "citation": {}}))) == ""


def test_an_error_inside_a_success_keeps_its_words_without_the_key() -> None:
    said = {"type": "error", "error": {"type": "api_error", "message": f"upstream is down for {KEY}"}}
    with pytest.raises(ProviderBadReplyError, match="upstream is down") as caught:
        ADAPTER.from_http(HttpReply(200, {}, orjson.dumps(said)), _call())
    assert "secret" not in str(caught.value)


def test_an_id_of_another_vendor_becomes_one_that_this_one_takes() -> None:
    call = CALL | {"id": "functions.f:0"}
    turns = _body(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "x"},
    )["messages"]
    used, answered = turns[1]["content"][0]["id"], turns[2]["content"][0]["tool_use_id"]
    assert used == answered
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", used)


def test_what_is_no_function_is_not_taken_for_one() -> None:
    said = {"role": "assistant", "content": None, "tool_calls": [CALL | {"type": "custom"}]}
    with pytest.raises(UnsupportedParameterError, match="custom"):
        _body(USER, said)
    for params in ({"stop": 5}, {"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]}):
        with pytest.raises(ProviderRejectedError, match="malformed"):
            _body(**params)


@pytest.mark.parametrize(
    "wrong",
    [{"tools": ["x"]}, {"tool_choice": "any"}, {"output_config": "x"}, {"output_config": {"format": "x"}},
     {"output_config": {"format": {"type": "json_schema"}}}],
)  # fmt: skip
def test_the_simulator_refuses_what_it_cannot_read(wrong: dict[str, Any]) -> None:
    with pytest.raises(RefusedAskError):
        read_messages({"model": "m", "max_tokens": 9, "messages": [USER], **wrong})


def test_every_feature_is_said_and_errors_are_errors() -> None:
    assert list(SUPPORT) == list(FEATURES)
    asked = {"seed": {"seed": 1}, "JSON mode": {"response_format": {"type": "json_object"}}}
    asked["frequency_penalty, presence_penalty"] = {"presence_penalty": 1}
    assert {name for name, said in SUPPORT.items() if said == "error"} == set(asked)
    for params in asked.values():
        with pytest.raises(UnsupportedParameterError):
            ADAPTER.to_http(_call(**params))
