"""OpenAI's responses shape: what we ask, what we read, whole and streamed."""

import orjson
import pytest
from pydantic import SecretStr

from stratarouter_runtime.errors import (
    ProviderAuthError,
    ProviderBadReplyError,
    ProviderError,
    ProviderQuotaError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
    UnsupportedParameterError,
)
from stratarouter_runtime.port_values import HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.openai_responses import OpenAIResponsesAdapter
from stratarouter_runtime.records import Usage
from stratarouter_runtime.testing.scripted import error_reply

KEY = "canary-key-5f2c"
HI = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"id": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "Does f.", "parameters": SCHEMA}}


def adapter(base_url="http://127.0.0.1:1/v1"):
    return OpenAIResponsesAdapter("openai", base_url, SecretStr(KEY))


def call(*messages, **params):
    return ProviderCall("gpt-5-mini", messages or (HI,), params, "r-1", 30.0)


def body_of(*messages, **params):
    return orjson.loads(adapter().to_http(call(*messages, **params)).body)


def response(*output, status="completed", **extra):
    return {"object": "response", "status": status, "output": list(output), **extra}


def message(*parts):
    return {"type": "message", "role": "assistant", "content": list(parts)}


def text_part(text):
    return {"type": "output_text", "text": text, "annotations": []}


def read(body):
    return adapter().from_http(HttpReply(200, {}, orjson.dumps(body)), call())


def error_of(reply):
    with pytest.raises(ProviderError) as caught:
        adapter().from_http(reply, call())
    return caught.value


# --- what is asked -------------------------------------------------------------------------------------------------


def test_call_goes_to_its_address_with_its_key_and_leaves_nothing_stored():
    http = adapter("https://n.openai.azure.com/openai/v1").to_http(call())
    assert (http.method, http.url) == ("POST", "https://n.openai.azure.com/openai/v1/responses")
    assert (http.headers["api-key"], http.timeout_s) == (KEY, 30.0)
    assert http.headers["x-stratarouter-request-id"] == "r-1"
    assert orjson.loads(http.body) == {"model": "gpt-5-mini", "store": False, "input": [HI]}


@pytest.mark.parametrize("role", ["system", "developer"])
def test_first_system_message_is_the_instructions_and_a_later_one_stays_in_its_place(role):
    later = {"role": "system", "content": "In French."}
    body = body_of({"role": role, "content": "Be brief."}, HI, later)
    assert (body["instructions"], body["input"]) == ("Be brief.", [HI, later])


def test_system_message_alone_is_the_input():
    alone = {"role": "system", "content": "Say hello."}
    body = body_of(alone)
    assert body["input"] == [alone]
    assert "instructions" not in body


def test_parts_and_images_become_input_parts():
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
    ]
    assert body_of({"role": "user", "content": parts})["input"][0]["content"] == [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "https://x.example/a.png", "detail": "low"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"},
    ]


def test_tool_calls_and_their_results_become_items():
    turn = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"id":"7"}'}}
    foreign = {**turn, "id": "c2", "extra_content": {"google": {"thought_signature": "s"}}}
    body = body_of(
        HI,
        {"role": "assistant", "content": "One moment.", "tool_calls": [turn, foreign]},
        {"role": "tool", "tool_call_id": "c1", "content": "paid"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "open"}]},
    )
    called = {"type": "function_call", "name": "f", "arguments": '{"id":"7"}'}
    assert body["input"] == [
        HI,
        {"role": "assistant", "content": "One moment."},
        {**called, "call_id": "c1"},
        {**called, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "paid"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "open"}]},
    ]


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ({"content": "Yes?"}, "Yes?"),
        ({"content": [{"type": "text", "text": "Y"}, {"type": "text", "text": "es?"}]}, "Yes?"),
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": "Yes?", "tool_calls": None}, "Yes?"),
        ({"content": ""}, ""),
    ],
)
def test_what_the_assistant_said_is_one_text(said, sent):
    assert body_of(HI, {"role": "assistant", **said}, HI)["input"][1] == {"role": "assistant", "content": sent}


def test_parameters_are_said_as_the_shape_says_them():
    body = body_of(
        temperature=0, top_p=0.5, max_completion_tokens=64, parallel_tool_calls=False, user="u", verbosity="low",
        reasoning_effort="high", response_format={"type": "json_object"}, seed=None,
    )  # fmt: skip
    del body["model"], body["store"], body["input"]
    assert body == {
        "temperature": 0, "top_p": 0.5, "max_output_tokens": 64, "parallel_tool_calls": False, "user": "u",
        "reasoning": {"effort": "high"}, "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    }  # fmt: skip


@pytest.mark.parametrize(("given", "sent"), [({}, False), ({"strict": None}, False), ({"strict": True}, True)])
def test_strictness_is_said_in_any_case(given, sent):
    described = {"name": "x", "schema": SCHEMA, **given}
    body = body_of(
        response_format={"type": "json_schema", "json_schema": described},
        tools=[{"type": "function", "function": {"name": "f", **given}}],
    )
    assert body["text"]["format"] == {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": sent}
    nothing = {"type": "object", "properties": {}}
    assert body["tools"] == [{"type": "function", "name": "f", "parameters": nothing, "strict": sent}]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("none", "none"),
        ("auto", "auto"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "f"}),
    ],
)
def test_tools_and_choice_are_flat(choice, sent):
    body = body_of(tools=[TOOL], tool_choice=choice)
    assert body["tools"][0] == {"type": "function", **TOOL["function"], "strict": False}
    assert body["tool_choice"] == sent


@pytest.mark.parametrize("name", ["stop", "seed", "frequency_penalty", "presence_penalty", "logit_bias", "n", "store"])
def test_parameter_that_the_shape_lacks_is_an_error_that_names_it(name):
    with pytest.raises(UnsupportedParameterError, match=repr(name)):
        body_of(**{name: 1})


@pytest.mark.parametrize(
    "lacking", [{"name": "Ann"}, {"content": [{"type": "input_audio", "input_audio": {}}]}, {"audio": {"id": "a"}}]
)
def test_part_of_a_message_that_the_shape_lacks_is_an_error_that_names_it(lacking):
    with pytest.raises(UnsupportedParameterError, match=r"'name'|'input_audio'|'audio'"):
        body_of({**HI, **lacking})


# --- what is answered ----------------------------------------------------------------------------------------------


def test_answer_holds_text_and_usage_and_skips_the_thoughts():
    usage = {"input_tokens": 100, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 64},
             "output_tokens_details": {"reasoning_tokens": 8}}  # fmt: skip
    thoughts = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    answer = read(response(thoughts, message(text_part("Hel"), text_part("lo")), message(text_part("!")), usage=usage))
    assert (answer.text, answer.finish_reason, answer.tool_calls) == ("Hello!", "stop", ())
    assert (answer.provider, answer.model) == ("openai", "gpt-5-mini")
    assert answer.usage == Usage(100, 20, 64, 8)


@pytest.mark.parametrize("usage", [None, "many", {}, {"input_tokens": -1, "output_tokens": True}])
def test_unreadable_usage_does_not_lose_a_paid_answer(usage):
    assert read(response(message(text_part("Hi")), usage=usage)).usage == Usage()


def test_function_calls_are_tool_calls_in_our_form():
    called = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"}
    answer = read(response(called))
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")
    assert answer.tool_calls == ({"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},)


@pytest.mark.parametrize(
    ("details", "ours"),
    [({"reason": "max_output_tokens"}, "length"), ({"reason": "content_filter"}, "content_filter"),
     ({"reason": "brand_new"}, "other"), (None, "other"), ({"reason": {}}, "other")],
)  # fmt: skip
def test_answer_that_is_not_whole_says_why(details, ours):
    body = response(message(text_part("Hel")), status="incomplete", incomplete_details=details)
    assert (read(body).text, read(body).finish_reason) == ("Hel", ours)


def test_limit_spent_on_reasoning_is_an_empty_answer():
    body = response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert (read(body).text, read(body).finish_reason) == ("", "length")


def test_refusal_is_an_answer_that_says_so():
    answer = read(response(message({"type": "refusal", "refusal": "I cannot."})))
    assert (answer.text, answer.finish_reason) == ("I cannot.", "content_filter")


@pytest.mark.parametrize(
    "body",
    [[], {}, {"output": "none", "status": "completed"}, response(), response(message()), response(5),
     response(message(text_part("Hi")), status="queued"), response(message(text_part("Hi")), status=None),
     response({"type": "function_call", "name": "f"})],
)  # fmt: skip
def test_unreadable_success_is_paid_and_not_tried_again(body):
    error = error_of(HttpReply(200, {}, orjson.dumps(body)))
    assert isinstance(error, ProviderBadReplyError)
    assert (error.retryable, error.maybe_paid, error.status) == (False, True, 200)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"output": ['])
def test_success_that_is_no_json_is_unreadable(body):
    assert isinstance(error_of(HttpReply(200, {}, body)), ProviderBadReplyError)


@pytest.mark.parametrize(
    ("code", "kind"),
    [("server_error", ProviderUnavailableError), ("rate_limit_exceeded", ProviderRateLimitedError),
     ("invalid_prompt", ProviderRejectedError), ("image_too_large", ProviderRejectedError),
     (None, ProviderUnavailableError)],
)  # fmt: skip
def test_response_that_failed_is_the_error_it_names(code, kind):
    failed = response(status="failed", error={"code": code, "message": f"the reason {KEY}"})
    whole = error_of(HttpReply(200, {}, orjson.dumps(failed)))
    with pytest.raises(ProviderError) as caught:
        feed({"type": "response.failed", "response": failed})
    for error in (whole, caught.value):
        assert type(error) is kind
        assert error.maybe_paid
        assert "the reason" in str(error)
        assert KEY not in str(error)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(400, "invalid_request_error", ProviderRejectedError), (401, "invalid_api_key", ProviderAuthError),
     (404, "model_not_found", ProviderRejectedError), (429, "rate_limit_exceeded", ProviderRateLimitedError),
     (429, "insufficient_quota", ProviderQuotaError), (500, "server_error", ProviderUnavailableError)],
)  # fmt: skip
def test_status_becomes_its_error(status, code, kind):
    error = error_of(error_reply(status, code=code, message=f"the reason {KEY}", headers={"retry-after": "2"}))
    assert type(error) is kind
    assert error.retry_after_s == (2.0 if error.retryable else None)
    assert KEY not in f"{error} {error!r}"


def test_key_is_in_no_repr():
    assert KEY not in repr(adapter()) + repr(adapter().to_http(call()))


# --- streams -------------------------------------------------------------------------------------------------------


def feed(*bodies):
    """What each event adds, and the stream."""
    stream = adapter().read_stream(call())
    events = [ServerSentEvent(orjson.dumps(body).decode(), body.get("type")) for body in bodies]
    return [stream.feed(each) for each in events], stream


def delta(text, kind="output_text"):
    return {"type": f"response.{kind}.delta", "delta": text, "item_id": "msg_1", "output_index": 0}


def test_stream_adds_up_to_its_answer():
    usage = {"input_tokens": 3, "output_tokens": 2}
    whole = response(message(text_part("Hello")), usage=usage)
    added, stream = feed(
        {"type": "response.created", "response": response(status="in_progress")},
        delta("Hm.", "reasoning_summary_text"), delta("Hel"), delta("lo"),
        {"type": "response.output_text.done", "text": "Hello"},
        {"type": "response.completed", "response": whole},
    )  # fmt: skip
    assert added == ["", "", "Hel", "lo", "", ""]
    assert stream.answer() == read(whole)
    assert stream.feed(ServerSentEvent("[DONE]")) == ""


def test_stream_that_is_cut_by_its_limit_says_so():
    whole = response(message(text_part("Hel")), status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    _, stream = feed(delta("Hel"), {"type": "response.incomplete", "response": whole})
    assert stream.answer().finish_reason == "length"


def test_streamed_function_call_comes_with_the_end():
    called = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"}
    added, stream = feed(
        {"type": "response.output_item.added", "item": {**called, "arguments": ""}},
        delta("{}", "function_call_arguments"),
        {"type": "response.completed", "response": response(called)},
    )
    assert added == ["", "", ""]
    assert stream.answer().tool_calls[0]["id"] == "c1"


def test_streamed_refusal_is_the_text():
    whole = response(message({"type": "refusal", "refusal": "I cannot."}))
    added, stream = feed(
        delta("I ca", "refusal"), delta("nnot.", "refusal"), {"type": "response.completed", "response": whole}
    )
    assert "".join(added) == stream.answer().text == "I cannot."


@pytest.mark.parametrize("bodies", [[], [delta("Hel")], [{"type": "response.output_text.done", "text": "Hello"}]])
def test_stream_without_an_end_is_no_answer(bodies):
    _, stream = feed(*bodies)
    with pytest.raises(ProviderBadReplyError, match="broke off") as caught:
        stream.answer()
    assert caught.value.maybe_paid


@pytest.mark.parametrize(
    "data", ["", "{", "[1]", '{"type": "response.completed"}', '{"type": "response.completed", "response": {}}']
)
def test_unreadable_event_is_paid_and_not_tried_again(data):
    with pytest.raises(ProviderBadReplyError) as caught:
        adapter().read_stream(call()).feed(ServerSentEvent(data))
    assert (caught.value.maybe_paid, caught.value.retryable) == (True, False)


@pytest.mark.parametrize(
    "body",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": None},
        {"type": "error", "error": {"type": "rate_limit_error", "code": None, "message": "slow down"}},
        {"error": {"code": "rate_limit_exceeded", "message": "slow down"}},
    ],
)
def test_error_within_the_stream_is_raised(body):
    with pytest.raises(ProviderRateLimitedError, match="slow down") as caught:
        feed(delta("Hel"), body)
    assert caught.value.maybe_paid
