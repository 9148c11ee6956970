"""The OpenAI shape: what we ask, what we read, and what each refusal becomes."""

from email.utils import formatdate

import orjson
import pytest
from pydantic import SecretStr

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import (
    ConfigurationError,
    ProviderAuthError,
    ProviderBadReplyError,
    ProviderError,
    ProviderQuotaError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
    UnknownProviderError,
    UnsupportedParameterError,
)
from stratarouter_runtime.port_values import HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers import create_providers
from stratarouter_runtime.providers.http_errors import retry_after_s
from stratarouter_runtime.providers.openai import OpenAIAdapter
from stratarouter_runtime.providers.server import count
from stratarouter_runtime.records import Usage
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.testing.scripted import ScriptedTransport, ScriptExhaustedError, chat_reply, error_reply

KEY = "canary-key-5f2c"
NOW = 1_800_000_000.0


def adapter(base_url="http://127.0.0.1:1/v1", **extra):
    return OpenAIAdapter("local", base_url, SecretStr(KEY), wall=lambda: NOW, **extra)


def call(request_id="r-1", **params):
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    return ProviderCall("gpt-4o-mini", messages, params, request_id, 30.0)


def body_of(**params):
    return orjson.loads(adapter().to_http(call(**params)).body)


def reply_with(message, finish="stop", **extra):
    body = {"choices": [{"message": message, "finish_reason": finish}], **extra}
    return HttpReply(200, {}, orjson.dumps(body))


def read(reply):
    return adapter().from_http(reply, call())


def error_of(reply):
    with pytest.raises(ProviderError) as caught:
        read(reply)
    return caught.value


def test_call_carries_model_messages_parameters_and_deadline():
    params = {"temperature": 0, "top_p": 0.5, "stop": ["\n"], "seed": 7, "response_format": {"type": "json_object"}}
    http = adapter().to_http(call(**params))
    assert (http.method, http.url) == ("POST", "http://127.0.0.1:1/v1/chat/completions")
    assert http.timeout_s == 30.0
    assert http.headers["authorization"] == f"Bearer {KEY}"
    expected = {"model": "gpt-4o-mini", "messages": list(call().messages), **params}
    assert orjson.loads(http.body) == expected


def test_request_id_travels_percent_encoded():
    headers = adapter().to_http(call("r/1 ä\x7f")).headers
    assert headers["x-stratarouter-request-id"] == "r/1%20%C3%A4%7F"


def test_server_without_a_key_gets_no_authorization():
    assert "authorization" not in OpenAIAdapter("local", "http://x/v1").to_http(call()).headers


def test_key_that_no_header_takes_is_refused_without_showing_it():
    with pytest.raises(ConfigurationError) as caught:
        OpenAIAdapter("local", "http://x/v1", SecretStr(KEY + "\nX"))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("name", ["stream", "n", "service_tier", "temprature"])
def test_unknown_parameter_is_an_error_that_names_it(name):
    with pytest.raises(UnsupportedParameterError, match=repr(name)):
        body_of(**{name: 1})


def test_parameter_of_none_counts_as_not_given():
    assert "temperature" not in body_of(temperature=None, stream=None)


@pytest.mark.parametrize("given", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    ("base_url", "sent"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("http://localhost:8000/v1", "max_tokens"),
        ("https://api.openai.com.evil.example/v1", "max_tokens"),
    ],
)
def test_limit_is_sent_under_the_name_the_server_knows(given, base_url, sent):
    body = orjson.loads(adapter(base_url).to_http(call(**{given: 9})).body)
    assert {name: body[name] for name in body if name.startswith("max")} == {sent: 9}


def test_two_limits_that_differ_are_refused():
    with pytest.raises(UnsupportedParameterError, match="differ"):
        body_of(max_tokens=1, max_completion_tokens=2)


def test_value_that_is_no_json_is_refused():
    with pytest.raises(ProviderRejectedError, match="no JSON"):
        body_of(temperature={1, 2})


def test_a_count_of_tokens_that_no_answer_has_is_nonsense():
    for said in (2**64 - 1, 2**31, -1, 1.5, True, "9"):
        assert count({"prompt_tokens": said}, "prompt_tokens") == 0
    assert count({"prompt_tokens": 2**31 - 1}, "prompt_tokens") == 2**31 - 1


def test_stop_that_is_neither_text_nor_texts_is_refused():
    with pytest.raises(ProviderRejectedError, match="'stop'"):
        body_of(stop={1, 2})


def test_answer_holds_text_usage_and_the_model_asked_for():
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 8},
    }
    answer = read(chat_reply("Hello", model="gpt-4o-mini-2024-07-18", usage=usage))
    assert (answer.text, answer.provider, answer.model) == ("Hello", "local", "gpt-4o-mini")
    assert answer.usage == Usage(100, 20, 64, 8)
    assert answer.cost_usd is None


@pytest.mark.parametrize("usage", [None, "many", {}, {"prompt_tokens": -1, "completion_tokens": True}])
def test_unreadable_usage_does_not_lose_a_paid_answer(usage):
    assert read(reply_with({"content": "Hi"}, usage=usage)).usage == Usage()


@pytest.mark.parametrize(
    ("said", "ours"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"), ("function_call", "tool_calls"),
     ("brand_new", "other"), (None, "other"), ({}, "other")],
)  # fmt: skip
def test_finish_reason_is_one_of_ours(said, ours):
    assert read(reply_with({"content": "Hi"}, said)).finish_reason == ours


def test_tool_calls_need_no_text():
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    answer = read(reply_with({"content": None, "tool_calls": calls}, "stop"))
    assert (answer.text, answer.finish_reason, answer.tool_calls) == ("", "tool_calls", tuple(calls))


def test_refusal_is_an_answer_that_says_so():
    answer = read(reply_with({"content": None, "refusal": "I cannot help."}))
    assert (answer.text, answer.finish_reason) == ("I cannot help.", "content_filter")


def test_text_beside_a_refusal_is_the_answer_heard_and_read():
    answer = read(reply_with({"content": "Half of it.", "refusal": "I cannot go on."}))
    assert (answer.text, answer.finish_reason) == ("Half of it.", "stop")
    added, stream = feed(chunk({"content": "Half of it."}), chunk({"refusal": "I cannot go on."}), chunk({}, "stop"))
    assert "".join(added) == stream.answer().text == "Half of it."


def test_tool_call_cut_by_the_limit_is_told_from_a_whole_one():
    cut = {"content": None, "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": '{"a'}}]}
    assert read(reply_with(cut, "length")).finish_reason == "length"


def test_text_in_parts_is_joined():
    assert read(reply_with({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})).text == "ab"


def test_limit_spent_on_reasoning_is_an_empty_answer():
    assert read(reply_with({"content": None}, "length")).finish_reason == "length"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"choices": [', b"[]", b"{}", b'{"choices": "none"}', b'{"choices": []}', b'{"choices": [1]}',
     b'{"choices": [{"message": "hi"}]}', b'{"choices": [{"message": {"content": 5}}]}',
     b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'],
)  # fmt: skip
def test_unreadable_success_is_paid_and_not_tried_again(body):
    error = error_of(HttpReply(200, {}, body))
    assert isinstance(error, ProviderBadReplyError)
    assert (error.retryable, error.maybe_paid, error.status) == (False, True, 200)


def test_error_inside_a_success_keeps_its_words():
    error = error_of(HttpReply(200, {}, b'{"error": {"message": "upstream is down", "code": 502}}'))
    assert isinstance(error, ProviderBadReplyError)
    assert "upstream is down" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, ProviderRejectedError), (401, ProviderAuthError), (402, ProviderQuotaError), (403, ProviderAuthError),
     (404, ProviderRejectedError), (408, ProviderUnavailableError), (409, ProviderUnavailableError),
     (413, ProviderRejectedError), (422, ProviderRejectedError), (429, ProviderRateLimitedError),
     (500, ProviderUnavailableError), (503, ProviderUnavailableError), (529, ProviderUnavailableError),
     (302, ProviderRejectedError)],
)  # fmt: skip
def test_status_becomes_its_error(status, kind):
    error = error_of(error_reply(status, message="the reason"))
    assert type(error) is kind
    assert (error.status, error.maybe_paid) == (status, False)
    assert "the reason" in str(error)


@pytest.mark.parametrize("status", [502, 504, 520, 524])
def test_reply_lost_behind_a_gateway_may_have_been_paid(status):
    assert error_of(error_reply(status)).maybe_paid


def test_spent_quota_is_not_waited_for():
    error = error_of(
        error_reply(429, code="insufficient_quota", headers={"retry-after": "1", "x-should-retry": "true"})
    )
    assert isinstance(error, ProviderQuotaError)
    assert (error.retryable, error.retry_after_s) == (False, None)


@pytest.mark.parametrize(("status", "told", "retryable"), [(500, "false", False), (429, "false", False),
                                                           (400, "true", True), (500, "maybe", True)])  # fmt: skip
def test_x_should_retry_overrules_the_status(status, told, retryable):
    assert error_of(error_reply(status, headers={"x-should-retry": told})).retryable is retryable


@pytest.mark.parametrize(("status", "told", "kind"), [(429, "true", ProviderRateLimitedError),
                                                     (401, "false", ProviderAuthError)])  # fmt: skip
def test_x_should_retry_that_says_what_the_status_says_changes_nothing(status, told, kind):
    """Else a rate limit would close no key, and a key that is refused would be asked again and again."""
    assert type(error_of(error_reply(status, headers={"x-should-retry": told}))) is kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after": formatdate(1030, usegmt=True), "date": formatdate(1000, usegmt=True)}, 30.0),
        ({"retry-after": "86400000"}, 86_400_000.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "when the moon is full"}, None),
        ({"retry-after": "Wed, 99 Foo 2026 99:99:99 GMT"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form_and_garbage_is_none(headers, seconds):
    assert retry_after_s(headers, lambda: NOW) == seconds


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps({"error": {"message": f"Incorrect API key provided: {KEY}."}}),
        orjson.dumps({"error": f"bad key {KEY}"}),
        orjson.dumps({"detail": f"bad key {KEY}"}),
        orjson.dumps([KEY]),
        f"<html>{'x' * 290} {KEY}</html>".encode(),
    ],
)
def test_key_echoed_by_the_server_stands_in_no_error(body):
    error = error_of(HttpReply(401, {}, body))
    assert KEY not in f"{error} {error!r} {error.remedy}"
    assert KEY[:8] not in str(error)


def test_masked_key_is_taken_out_too():
    error = error_of(error_reply(401, message="Incorrect API key provided: sk-abcd***************wxyz."))
    assert "wxyz" not in str(error)


def test_key_is_in_no_repr():
    assert KEY not in repr(adapter()) + repr(adapter().to_http(call()))


@pytest.mark.parametrize(
    "body", [b"null", b'"text"', b"{}", b'{"error": null}', b'{"error": {"code": 5}}', b"\xff\xfe"]
)
def test_error_without_readable_reason_is_still_an_error(body):
    assert isinstance(error_of(HttpReply(503, {}, body)), ProviderUnavailableError)


# --- compatible servers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base_url", "url", "header"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions", "authorization"),
        ("https://n.openai.azure.com/openai/v1/", "https://n.openai.azure.com/openai/v1/chat/completions", "api-key"),
        ("https://n.openai.azure.com/openai/v1?api-version=preview",
         "https://n.openai.azure.com/openai/v1/chat/completions?api-version=preview", "api-key"),
        ("https://n.services.ai.azure.com/openai/v1", "https://n.services.ai.azure.com/openai/v1/chat/completions",
         "api-key"),
        ("https://openai.azure.com.evil.example/v1", "https://openai.azure.com.evil.example/v1/chat/completions",
         "authorization"),
        ("http://localhost:11434/v1", "http://localhost:11434/v1/chat/completions", "authorization"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1/chat/completions", "authorization"),
    ],
)  # fmt: skip
def test_address_and_key_are_as_the_server_wants_them(base_url, url, header):
    http = adapter(base_url).to_http(call())
    assert http.url == url
    held = {name: value for name, value in http.headers.items() if KEY in value}
    assert held == {header: KEY if header == "api-key" else f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("base_url", "kept"), [("https://api.openai.com/v1", False), ("https://generativelanguage.example/v1", True)]
)
def test_signature_of_another_vendors_tool_call_goes_only_where_it_may(base_url, kept):
    turn = {
        "id": "c1",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": "s"}},
    }
    messages = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [turn]})
    http = adapter(base_url).to_http(ProviderCall("m", messages, {}, "r-1", 30.0))
    assert ("extra_content" in orjson.loads(http.body)["messages"][1]["tool_calls"][0]) is kept
    assert "extra_content" in turn


def test_tool_call_of_a_loose_server_is_made_whole():
    loose = [{"function": {"name": "f", "arguments": {"a": 1}}}, {"function": {"name": "g"}}]
    first, second = read(reply_with({"tool_calls": loose})).tool_calls
    assert (first["type"], first["function"]) == ("function", {"name": "f", "arguments": '{"a":1}'})
    assert second["function"]["arguments"] == ""
    assert first["id"].startswith("call_")
    assert first["id"] != second["id"]
    assert read(reply_with({"tool_calls": loose})).tool_calls[0]["id"] == first["id"]


@pytest.mark.parametrize("item", ["f", {}, {"function": "f"}, {"function": {"arguments": "{}"}}])
def test_tool_call_that_names_no_function_is_unreadable(item):
    assert isinstance(error_of(reply_with({"tool_calls": [item]})), ProviderBadReplyError)


# --- streams -------------------------------------------------------------------------------------------------------

DONE = ServerSentEvent("[DONE]")
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def event(body, name=None):
    return ServerSentEvent(orjson.dumps(body).decode(), name)


def chunk(delta, finish=None, **extra):
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **extra})


def feed(*events):
    """What each event adds, and the stream."""
    stream = adapter().read_stream(call())
    return [stream.feed(each) for each in events], stream


def test_streamed_call_asks_for_usage():
    http = adapter().to_http(call(temperature=0), stream=True)
    body = orjson.loads(http.body)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    assert body["temperature"] == 0
    assert http.headers["accept"] == "text/event-stream"


def test_stream_adds_up_to_its_answer():
    added, stream = feed(
        chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"}),
        chunk({}, "length"), event(USAGE), DONE,
    )  # fmt: skip
    assert added == ["", "Hel", "lo", "", "", ""]
    answer = stream.answer()
    assert (answer.text, answer.finish_reason, answer.usage) == ("Hello", "length", Usage(3, 2))
    assert (answer.provider, answer.model) == ("local", "gpt-4o-mini")


def test_usage_may_come_with_the_last_choice_and_no_done():
    _, stream = feed(chunk({"content": "Hi"}), chunk({}, "stop", usage=USAGE["usage"]))
    assert stream.answer().usage == Usage(3, 2)


def test_usage_and_end_once_said_stand_whatever_comes_after_them():
    _, stream = feed(chunk({"content": "Hi"}), chunk({}, "length", usage=USAGE["usage"]), chunk({"content": ""}), DONE)
    assert (stream.answer().usage, stream.answer().finish_reason) == (Usage(3, 2), "length")


def piece(function, **extra):
    return {"tool_calls": [{"function": function, **extra}]}


@pytest.mark.parametrize("second_index", [{"index": 1}, {"index": 0}, {}])
def test_tool_calls_are_put_together_from_their_pieces(second_index):
    first_index = second_index and {"index": 0}
    _, stream = feed(
        chunk(piece({"name": "f", "arguments": ""}, id="c1", type="function", **first_index)),
        chunk(piece({"arguments": '{"a"'}, **first_index)),
        chunk(piece({"arguments": ":1}"}, **first_index)),
        chunk(piece({"name": "g", "arguments": "{"}, id="c2", type="function", **second_index)),
        chunk(piece({"arguments": "}"}, **second_index)),
        chunk({}, "tool_calls"),
        DONE,
    )
    answer = stream.answer()
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")
    assert answer.tool_calls == (
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    )


@pytest.mark.parametrize("says_all", [False, True])
def test_pieces_of_several_tool_calls_may_come_by_turns_with_id_and_name_or_without(says_all):
    named = [({"name": name}, {"id": call_id, "index": index}) for index, (name, call_id) in enumerate(("fx", "gy"))]
    brief = named if says_all else [({}, {"index": 0}), ({}, {"index": 1})]
    texts = [("", ""), ('{"a"', '{"b"'), (":1}", ":2}")]
    _, stream = feed(*(
        chunk(piece({**function, "arguments": text}, **extra))
        for number, pair in enumerate(texts)
        for text, (function, extra) in zip(pair, brief if number else named, strict=True)
    ), DONE)  # fmt: skip
    calls = [(each["id"], each["function"]) for each in stream.answer().tool_calls]
    assert calls == [("x", {"name": "f", "arguments": '{"a":1}'}), ("y", {"name": "g", "arguments": '{"b":2}'})]


def test_id_that_changes_within_a_call_begins_no_other():
    _, stream = feed(
        chunk(piece({"name": "f", "arguments": "{"}, id="c1", index=0)),
        chunk(piece({"arguments": "}"}, id="c2", index=0)),
        DONE,
    )
    (called,) = stream.answer().tool_calls
    assert (called["id"], called["function"]) == ("c1", {"name": "f", "arguments": "{}"})


def test_streamed_refusal_is_the_text():
    added, stream = feed(chunk({"refusal": "I ca"}), chunk({"refusal": "nnot."}), chunk({}, "stop"), DONE)
    assert "".join(added) == stream.answer().text == "I cannot."
    assert stream.answer().finish_reason == "content_filter"


def test_thoughts_and_foreign_events_add_nothing():
    added, stream = feed(
        event({"choices": [], "prompt_filter_results": []}), chunk({"reasoning_content": "Hm."}), event({"id": 1}),
        chunk({"content": "Hi"}), event({"choices": [{"finish_reason": "stop"}]}),
    )  # fmt: skip
    assert added == ["", "", "", "Hi", ""]
    assert stream.answer().text == "Hi"


@pytest.mark.parametrize("events", [[], [chunk({"content": "Hel"})], [event(USAGE)]])
def test_stream_without_an_end_is_no_answer(events):
    _, stream = feed(*events)
    with pytest.raises(ProviderBadReplyError, match="broke off") as caught:
        stream.answer()
    assert caught.value.maybe_paid


def test_ended_stream_without_text_is_unreadable():
    _, stream = feed(chunk({}, "stop"), DONE)
    with pytest.raises(ProviderBadReplyError, match="no text"):
        stream.answer()


@pytest.mark.parametrize(
    "data",
    ["", "{", "[1]", '"text"', '{"choices": "none"}', '{"choices": [1]}',
     '{"choices": [{"delta": {"tool_calls": [{"id": "c1"}]}}]}', '{"choices": [{"delta": {"tool_calls": [5]}}]}'],
)  # fmt: skip
def test_unreadable_event_is_paid_and_not_tried_again(data):
    with pytest.raises(ProviderBadReplyError) as caught:
        feed(ServerSentEvent(data))
    assert (caught.value.maybe_paid, caught.value.retryable) == (True, False)


@pytest.mark.parametrize(
    "failed",
    [
        event({"error": {"message": f"slow down {KEY}", "code": "rate_limit_exceeded"}}),
        event({"error": {"message": "slow down", "code": 429}, "choices": [{"delta": {}, "finish_reason": "error"}]}),
        event({"object": "error", "message": "slow down", "code": 429}),
        event({"message": "slow down", "code": "429"}, "error"),
    ],
)
def test_error_within_the_stream_is_raised(failed):
    with pytest.raises(ProviderRateLimitedError, match="slow down") as caught:
        feed(chunk({"content": "Hel"}), failed)
    assert caught.value.maybe_paid
    assert KEY not in str(caught.value)


# --- the set of providers ------------------------------------------------------------------------------------------

PROVIDERS = {"providers": {"local": {"kind": "simulator", "base_url": "http://127.0.0.1:1/v1"}},
             "default": {"targets": [{"provider": "local", "model": "m"}]}}  # fmt: skip


async def test_provider_set_prices_its_answers():
    table = RouteTable.from_dict({**PROVIDERS, "prices": {"local/m": {"input": 1.0, "output": 2.0}}})
    transport = ScriptedTransport([chat_reply("Hi")])
    providers = create_providers(RuntimeConfig(), table, transport)
    await providers.start()
    answer = await providers.call("local", ProviderCall("m", call().messages, {}, "r-1", 5.0))
    await providers.stop()
    assert answer.cost_usd == pytest.approx(0.00002)
    assert not transport.running
    assert len(transport.calls) == 1


async def test_unknown_provider_is_rejected_before_anything_is_sent():
    transport = ScriptedTransport()
    providers = create_providers(RuntimeConfig(), RouteTable.from_dict(PROVIDERS), transport)
    await providers.start()
    with pytest.raises(UnknownProviderError, match="'nobody'"):
        await providers.call("nobody", call())
    assert transport.calls == []


async def test_missing_key_is_told_at_start_and_not_before():
    providers = create_providers(RuntimeConfig(), RouteTable.default(RuntimeConfig()), ScriptedTransport())
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        await providers.start()


async def test_scripted_transport_takes_its_steps_in_order_and_no_further():
    async def decide(http):
        return chat_reply(http.url)

    transport = ScriptedTransport([ProviderUnavailableError("no"), decide])
    http = adapter().to_http(call())
    with pytest.raises(ProviderUnavailableError):
        await transport.send(http)
    assert b"127.0.0.1" in (await transport.send(http)).body
    assert transport.steps_left == 0
    with pytest.raises(ScriptExhaustedError):
        await transport.send(http)
