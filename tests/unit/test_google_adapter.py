"""The Gemini shape: what we ask, what we read whole and streamed, and what each refusal becomes."""

import orjson
import pytest
from pydantic import SecretStr

from stratarouter_runtime.errors import (
    ConfigurationError,
    ProviderAuthError,
    ProviderBadReplyError,
    ProviderError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
    UnsupportedParameterError,
)
from stratarouter_runtime.port_values import HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.features import FEATURES
from stratarouter_runtime.providers.google import SUPPORT, GoogleAdapter
from stratarouter_runtime.records import Usage

KEY = "canary-key-5f2c"
GEMINI_3 = "gemini-3-flash-preview"
HI = ({"role": "user", "content": "Hi"},)
PIXEL = "iVBORw0KGgo="


def adapter(base_url="http://127.0.0.1:1"):
    return GoogleAdapter("gemini", base_url, SecretStr(KEY), wall=lambda: 1_800_000_000.0)


def call(messages=HI, model=GEMINI_3, **params):
    return ProviderCall(model, tuple(messages), params, "r-1", 30.0)


def body_of(messages=HI, model=GEMINI_3, **params):
    return orjson.loads(adapter().to_http(call(messages, model, **params)).body)


def settings_of(model=GEMINI_3, **params):
    return body_of(model=model, **params).get("generationConfig")


def candidate(*parts, finish="STOP"):
    return {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}


def reply_with(*parts, finish="STOP", status=200, **extra):
    return HttpReply(status, {}, orjson.dumps({"candidates": [candidate(*parts, finish=finish)], **extra}))


def read(reply):
    return adapter().from_http(reply, call())


def error_of(reply):
    with pytest.raises(ProviderError) as caught:
        read(reply)
    return caught.value


def refusal(status, name="INVALID_ARGUMENT", message="the reason", headers=None, **extra):
    error = {"code": status, "message": message, "status": name, **extra}
    return HttpReply(status, headers or {}, orjson.dumps({"error": error}))


# --- what is asked ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base_url", ["https://x.example", "https://x.example/", "https://x.example/v1beta"])
def test_model_stands_in_the_path_and_the_key_in_a_header_only(base_url):
    http = adapter(base_url).to_http(call())
    assert (http.method, http.url) == ("POST", f"https://x.example/v1beta/models/{GEMINI_3}:generateContent")
    assert (http.headers["x-goog-api-key"], http.timeout_s) == (KEY, 30.0)
    assert http.headers["x-stratarouter-request-id"] == "r-1"
    assert "authorization" not in http.headers
    assert KEY.encode() not in http.body


def test_stream_has_a_path_of_its_own():
    http = adapter("https://x.example/v1").to_http(call(), stream=True)
    assert http.url == f"https://x.example/v1/models/{GEMINI_3}:streamGenerateContent?alt=sse"
    assert http.headers["accept"] == "text/event-stream"
    assert http.body == adapter().to_http(call()).body


def test_default_is_the_vendors_own_host():
    assert GoogleAdapter("g").to_http(call()).url.startswith("https://generativelanguage.googleapis.com/v1beta/models/")
    assert "x-goog-api-key" not in GoogleAdapter("g").to_http(call()).headers


def test_tuned_model_keeps_its_collection():
    assert "/v1beta/tunedModels/mine-1:generate" in adapter().to_http(call(model="tunedModels/mine-1")).url


@pytest.mark.parametrize(
    "model", ["", "../files", "models/..", "a/b/c", "m:countTokens?x=", "m?key=1", "m#", "m n", "ä"]
)
def test_model_that_would_lead_elsewhere_is_refused(model):
    with pytest.raises(ProviderRejectedError, match="no model named"):
        adapter().to_http(call(model=model))


def test_key_that_no_header_takes_is_refused_without_showing_it():
    with pytest.raises(ConfigurationError) as caught:
        GoogleAdapter("gemini", "http://x", SecretStr(KEY + "\nX"))
    assert KEY not in str(caught.value)


def test_system_prompts_before_the_first_turn_are_the_instruction():
    system, developer = {"role": "system", "content": "Be brief."}, {"role": "developer", "content": "Be kind."}
    body = body_of([system, developer, *HI])
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]


def test_system_prompt_within_the_conversation_is_an_error():
    with pytest.raises(UnsupportedParameterError, match="after the conversation"):
        body_of([*HI, {"role": "system", "content": "Be brief."}])


def test_turns_are_users_and_models_and_neighbours_are_one():
    body = body_of([*HI, {"role": "assistant", "content": "Ho"}, *HI, {"role": "user", "content": "there"}])
    assert [(turn["role"], len(turn["parts"])) for turn in body["contents"]] == [("user", 1), ("model", 1), ("user", 2)]


def tool_turns(**of_first):
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"id": 7}'}, **of_first},
        {"id": "c2", "type": "function", "function": {"name": "count", "arguments": ""}},
    ]
    return [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c2", "content": "3"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "paid"}]},
    ]


def test_results_name_the_function_that_was_called_and_stand_in_one_turn():
    _, model, results = body_of(tool_turns())["contents"]
    assert [part["functionCall"] for part in model["parts"]] == [
        {"id": "c1", "name": "look_up", "args": {"id": 7}},
        {"id": "c2", "name": "count", "args": {}},
    ]
    assert [part["functionResponse"] for part in results["parts"]] == [
        {"id": "c2", "name": "count", "response": {"output": "3"}},
        {"id": "c1", "name": "look_up", "response": {"output": "paid"}},
    ]
    assert results["role"] == "user"


def test_thought_signature_goes_back_with_its_call():
    turns = tool_turns(extra_content={"google": {"thought_signature": "c2ln"}})
    parts = body_of(turns)["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["c2ln", None]


@pytest.mark.parametrize(
    ("model", "signature"),
    [(GEMINI_3, "skip_thought_signature_validator"), ("gemini-flash-latest", "skip_thought_signature_validator"),
     ("gemini-2.5-pro", None), ("gemini-2.0-flash", None), ("gemini-1.5-pro", None)],
)  # fmt: skip
def test_call_that_another_vendors_model_made_is_marked_where_a_signature_is_demanded(model, signature):
    parts = body_of(tool_turns(), model)["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [signature, None]


def test_images_go_inline_or_by_their_address():
    data = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    web = {"type": "image_url", "image_url": {"url": "https://x.example/a/b.jpg?s=1", "detail": "auto"}}
    bare = {"type": "image_url", "image_url": {"url": "https://x.example/photo"}}
    parts = body_of([{"role": "user", "content": [{"type": "text", "text": "What?"}, data, web, bare]}])["contents"][0]
    assert parts["parts"] == [
        {"text": "What?"},
        {"inlineData": {"mimeType": "image/png", "data": PIXEL}},
        {"fileData": {"fileUri": "https://x.example/a/b.jpg?s=1", "mimeType": "image/jpeg"}},
        {"fileData": {"fileUri": "https://x.example/photo"}},
    ]


def user(part):
    return {"role": "user", "content": [part]}


def image(url, **extra):
    return user({"type": "image_url", "image_url": {"url": url, **extra}})


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([user({"type": "input_audio", "input_audio": {}})], "input_audio"),
        ([user({"type": "file", "file": {}})], "file"),
        ([image("http://x.example/a.png")], "https"),
        ([image("gs://bucket/a.png")], "https"),
        ([image("https://x.example/a.png", detail="high")], "detail"),
        ([{"role": "user", "content": "Hi", "name": "ann"}], "'name'"),
        ([{"role": "system", "content": image("https://x.example/a.png")["content"]}, *HI], "'image_url'"),
        ([*HI, {"role": "assistant", "content": "Ho", "audio": {"id": "a"}}], "'audio'"),
    ],
)
def test_part_that_the_shape_lacks_is_an_error_that_names_it_and_the_provider(messages, named):
    with pytest.raises(UnsupportedParameterError, match=named) as caught:
        body_of(messages)
    assert "'gemini'" in str(caught.value)


def assistant(**function):
    return [*HI, {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]}]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no message"),
        ([{"role": "system", "content": "x"}], "no message"),
        ([{"role": "bot", "content": "x"}], "'bot'"),
        ([{"content": "x"}], "role None"),
        ([{"role": "user", "content": None}], "neither a text nor a list of parts"),
        ([{"role": "user", "content": []}], "neither a text nor a list of parts"),
        ([*HI, {"role": "assistant"}], "neither a text nor a list of parts"),
        ([user("text")], r"messages\[0\].content\[0\] is no object with a type"),
        ([user({"text": "x"})], "no object with a type"),
        ([user({"type": "text"})], "no text"),
        ([user({"type": "image_url", "image_url": "https://x"})], "no image_url.url"),
        ([image("data:image/png,raw")], "base64"),
        ([*HI, {"role": "tool", "content": "x"}], "no tool_call_id"),
        ([*HI, {"role": "assistant", "content": ""}], "neither says nor calls"),
        ([*HI, {"role": "assistant", "tool_calls": 5}], "tool_calls is no list"),
        (["hi"], r"messages\[0\]"),
        ([*HI, {"role": "tool", "content": "x", "tool_call_id": "c9"}], "'c9'"),
        (assistant(arguments="{}"), "names no function"),
        (assistant(name="f", arguments="{"), "no JSON text"),
        (assistant(name="f", arguments={"a": 1}), "no JSON text"),
        (assistant(name="f", arguments="[1]"), "no JSON object"),
        ([*HI, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}], "has no id"),
    ],
)
def test_malformed_message_is_refused_with_its_reason(messages, said):
    with pytest.raises(ProviderRejectedError, match=said) as caught:
        body_of(messages)
    assert not isinstance(caught.value, UnsupportedParameterError)


def test_what_a_call_carries_in_another_form_is_passed_over():
    for carried in ("x", {"google": "x"}, {"google": {"thought_signature": 5}}, None):
        parts = body_of(tool_turns(extra_content=carried), "gemini-2.5-pro")["contents"][1]["parts"]
        assert all("thoughtSignature" not in part for part in parts)


def test_empty_fields_of_an_answer_sent_back_are_no_hindrance():
    answer = {"role": "assistant", "content": "Ho", "refusal": None, "tool_calls": [], "audio": None, "annotations": []}
    assert body_of([*HI, answer])["contents"][1] == {"role": "model", "parts": [{"text": "Ho"}]}


def test_settings_have_the_vendors_names():
    given = {"temperature": 0, "top_p": 0.5, "max_tokens": 9, "stop": "\n", "seed": 7}
    settings = settings_of(**given, frequency_penalty=0.1, presence_penalty=-0.1)
    assert settings == {
        "temperature": 0, "topP": 0.5, "maxOutputTokens": 9, "stopSequences": ["\n"], "seed": 7,
        "frequencyPenalty": 0.1, "presencePenalty": -0.1,
    }  # fmt: skip


def test_parameter_of_none_counts_as_not_given():
    assert settings_of(temperature=None, stream=None, tools=None, response_format=None) is None


def test_two_limits_that_differ_are_refused():
    assert settings_of(max_tokens=2, max_completion_tokens=2) == {"maxOutputTokens": 2}
    with pytest.raises(UnsupportedParameterError, match="differ"):
        body_of(max_tokens=1, max_completion_tokens=2)


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def test_formats_of_the_response():
    shaped = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    assert settings_of(response_format={"type": "text"}) is None
    assert settings_of(response_format={"type": "json_object"}) == {"responseMimeType": "application/json"}
    assert settings_of(response_format=shaped) == {
        "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash", "low", {"thinkingBudget": 1024}),
        ("gemini-2.5-pro", "high", {"thinkingBudget": 24576}),
        (GEMINI_3, "minimal", {"thinkingLevel": "MINIMAL"}),
        (GEMINI_3, "high", {"thinkingLevel": "HIGH"}),
    ],
)
def test_effort_is_a_budget_or_a_level_by_model(model, effort, thinking):
    assert settings_of(model, reasoning_effort=effort) == {"thinkingConfig": thinking}


@pytest.mark.parametrize(
    ("model", "effort"),
    [(GEMINI_3, "none"), ("gemini-2.5-pro", "xhigh"), ("gemini-2.0-flash", "low"), (GEMINI_3, "huge")],
)
def test_effort_that_a_model_lacks_is_an_error(model, effort):
    with pytest.raises(UnsupportedParameterError, match="reasoning_effort"):
        settings_of(model, reasoning_effort=effort)


def tool(name="look_up", **extra):
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **extra}}


def test_tools_are_declarations_with_their_json_schema():
    body = body_of(tools=[tool(description="Looks it up."), {"type": "function", "function": {"name": "now"}}])
    assert body["tools"] == [{
        "functionDeclarations": [
            {"name": "look_up", "description": "Looks it up.", "parametersJsonSchema": SCHEMA},
            {"name": "now"},
        ]
    }]  # fmt: skip
    assert "toolConfig" not in body


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("none", {"mode": "NONE"}),
        ("auto", {"mode": "AUTO"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "look_up"}},
            {"mode": "ANY", "allowedFunctionNames": ["look_up"]},
        ),
    ],
)
def test_choice_of_a_tool_is_a_mode(choice, config):
    body = body_of(tools=[tool()], tool_choice=choice, parallel_tool_calls=True)
    assert body["toolConfig"] == {"functionCallingConfig": config}


@pytest.mark.parametrize(
    ("choice", "mode"), [(None, "VALIDATED"), ("auto", "VALIDATED"), ("required", "ANY"), ("none", "NONE")]
)
def test_strict_tool_is_kept_to_its_schema(choice, mode):
    body = body_of(tools=[tool(strict=True), tool("other")], tool_choice=choice)
    assert body["toolConfig"]["functionCallingConfig"]["mode"] == mode


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"user": "ann"}, "'user'"),
        ({"n": 2}, "'n'"),
        ({"logit_bias": {}, "service_tier": "x"}, "'logit_bias', 'service_tier'"),
        ({"stream": True}, "'stream'"),
        ({"temprature": 1}, "'temprature'"),
        ({"parallel_tool_calls": False, "tools": [tool()]}, "parallel_tool_calls"),
        ({"response_format": {"type": "grammar"}}, "'grammar'"),
        ({"response_format": "json"}, "response_format"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "description": "x"},
                }
            },
            "'description'",
        ),
        ({"tools": [{"type": "web_search"}]}, "'web_search'"),
        ({"tools": [tool(returns={})]}, "'returns'"),
        ({"tools": [tool()], "tool_choice": "maybe"}, "'maybe'"),
        ({"tools": [tool()], "tool_choice": {"type": "allowed_tools"}}, "allowed_tools"),
    ],
)
def test_parameter_that_the_shape_lacks_is_an_error_that_names_it_and_the_provider(params, named):
    with pytest.raises(UnsupportedParameterError, match=named) as caught:
        body_of(**params)
    assert "'gemini'" in str(caught.value)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"tools": "look_up"}, "no list"),
        ({"tools": [{"type": "function"}]}, "with a name"),
        ({"tools": ["look_up"]}, "with a name"),
        ({"tool_choice": "required"}, "'tools' has none"),
        ({"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "'x'"),
        ({"response_format": {"type": "json_schema"}}, "json_schema.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, "json_schema.name"),
        ({"tools": [tool(parameters="none")]}, "no JSON schema"),
        ({"stop": {1, 2}}, "neither a text nor a list"),
        ({"temperature": {1, 2}}, "no JSON"),
    ],
)
def test_malformed_parameter_is_refused_with_its_reason(params, said):
    with pytest.raises(ProviderRejectedError, match=said):
        body_of(**params)


# --- what is read ----------------------------------------------------------------------------------------------

COUNTED = {
    "promptTokenCount": 100,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 8,
    "cachedContentTokenCount": 64,
    "totalTokenCount": 128,
}


def test_answer_holds_text_usage_and_the_model_asked_for():
    answer = read(reply_with({"text": "Hel"}, {"text": "lo"}, usageMetadata=COUNTED, modelVersion="gemini-3-flash-001"))
    assert (answer.text, answer.provider, answer.model, answer.finish_reason) == ("Hello", "gemini", GEMINI_3, "stop")
    assert answer.usage == Usage(input_tokens=100, output_tokens=28, cached_tokens=64, reasoning_tokens=8)
    assert answer.cost_usd is None


@pytest.mark.parametrize("usage", [None, "many", {}, {"promptTokenCount": -1, "candidatesTokenCount": True}])
def test_unreadable_usage_does_not_lose_a_paid_answer(usage):
    assert read(reply_with({"text": "Hi"}, usageMetadata=usage)).usage == Usage()


def test_thoughts_are_no_part_of_the_answer():
    assert read(reply_with({"text": "Hm.", "thought": True}, {"text": "Hi"})).text == "Hi"


@pytest.mark.parametrize(
    ("said", "ours"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter"),
     ("PROHIBITED_CONTENT", "content_filter"), ("LANGUAGE", "other"), ("BRAND_NEW", "other"), (None, "other"),
     ({}, "other")],
)  # fmt: skip
def test_finish_reason_is_one_of_ours(said, ours):
    assert read(reply_with({"text": "Hi"}, finish=said)).finish_reason == ours


def test_tool_calls_are_in_our_form_with_ids_and_signatures():
    first = {"functionCall": {"name": "look_up", "args": {"id": 7}}, "thoughtSignature": "c2ln"}
    second = {"functionCall": {"id": "own-2", "name": "now"}}
    answer = read(reply_with(first, second))
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")
    made_up, own = answer.tool_calls
    assert made_up["function"] == {"name": "look_up", "arguments": '{"id":7}'}
    assert made_up["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert own == {"id": "own-2", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    assert made_up["id"].startswith("call_")
    assert read(reply_with(first, second)).tool_calls == answer.tool_calls


def test_tool_calls_come_back_as_they_went():
    part = {"functionCall": {"id": "own", "name": "look_up", "args": {"id": 7}}, "thoughtSignature": "c2ln"}
    calls = list(read(reply_with(part)).tool_calls)
    assert body_of([*HI, {"role": "assistant", "content": None, "tool_calls": calls}])["contents"][1]["parts"] == [part]


def test_blocked_prompt_is_an_empty_answer_that_says_so():
    body = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
    answer = read(HttpReply(200, {}, orjson.dumps(body)))
    assert (answer.text, answer.finish_reason, answer.usage) == ("", "content_filter", Usage(4))


@pytest.mark.parametrize(("finish", "ours"), [("MAX_TOKENS", "length"), ("SAFETY", "content_filter")])
def test_limit_spent_on_thoughts_or_a_filter_is_an_empty_answer(finish, ours):
    answer = read(HttpReply(200, {}, orjson.dumps({"candidates": [{"finishReason": finish}]})))
    assert (answer.text, answer.finish_reason) == ("", ours)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"candidates": [', b"[]", b"{}", b'{"candidates": "none"}', b'{"candidates": []}',
     b'{"candidates": [1]}', b'{"candidates": [{"content": "hi"}]}', b'{"candidates": [{"content": {"parts": 5}}]}',
     b'{"candidates": [{"content": {"parts": ["x"]}}]}', b'{"usageMetadata": {}}', b'{"promptFeedback": {}}',
     b'{"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]}',
     b'{"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}'],
)  # fmt: skip
def test_unreadable_success_is_paid_and_not_tried_again(body):
    error = error_of(HttpReply(200, {}, body))
    assert isinstance(error, ProviderBadReplyError)
    assert (error.retryable, error.maybe_paid, error.status) == (False, True, 200)


def test_error_inside_a_success_keeps_its_words_without_the_key():
    error = error_of(refusal(200, message=f"upstream is down for {KEY}"))
    assert isinstance(error, ProviderBadReplyError)
    assert "upstream is down" in str(error)
    assert KEY not in str(error)


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, ProviderRejectedError), (401, ProviderAuthError), (403, ProviderAuthError), (404, ProviderRejectedError),
     (429, ProviderRateLimitedError), (500, ProviderUnavailableError), (503, ProviderUnavailableError)],
)  # fmt: skip
def test_status_becomes_its_error(status, kind):
    error = error_of(refusal(status))
    assert type(error) is kind
    assert (error.status, error.maybe_paid) == (status, False)
    assert "the reason" in str(error)


def test_reply_that_came_too_late_for_the_gateway_may_have_been_paid():
    assert error_of(refusal(504, "DEADLINE_EXCEEDED")).maybe_paid


def test_wrong_key_is_no_fault_of_the_request():
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    error = error_of(refusal(400, message="API key not valid.", details=[info]))
    assert type(error) is ProviderAuthError
    assert (error.status, error.retryable) == (400, False)
    assert "API key not valid." in str(error)


@pytest.mark.parametrize("message", [f"bad key {KEY}", "bad key AIzaSyD-abcdefghijklmnopqrstuvwxyz12345"])
def test_key_echoed_by_the_server_stands_in_no_error(message):
    error = error_of(refusal(403, message=message))
    assert KEY not in f"{error} {error!r} {error.remedy}"
    assert "AIza" not in str(error)


def test_key_is_in_no_repr():
    assert KEY not in repr(adapter()) + repr(adapter().to_http(call())) + repr(adapter().read_stream(call()))


# --- streams ---------------------------------------------------------------------------------------------------


def event(body):
    return ServerSentEvent(orjson.dumps(body).decode())


def fed(*bodies):
    stream = adapter().read_stream(call())
    return stream, [stream.feed(event(body)) for body in bodies]


def parts(*of, finish=None, **extra):
    return {"candidates": [candidate(*of, finish=finish)], **extra}


def test_stream_adds_up_to_the_same_answer():
    stream, texts = fed(
        parts({"text": "Hm.", "thought": True}, usageMetadata={"promptTokenCount": 100}),
        parts({"text": "Hel"}),
        parts({"text": "lo"}, finish="FINISH_REASON_UNSPECIFIED"),
        parts({"text": ""}, finish="STOP", usageMetadata=COUNTED),
    )
    assert texts == ["", "Hel", "lo", ""]
    assert stream.answer() == read(reply_with({"text": "Hello"}, usageMetadata=COUNTED))


def test_stream_of_tool_calls_adds_up():
    first, second = ({"functionCall": {"name": name, "args": {}}} for name in ("a", "b"))
    stream, texts = fed(parts(first), parts(second), parts(finish="STOP"))
    assert texts == ["", "", ""]
    assert stream.answer().tool_calls == read(reply_with(first, second)).tool_calls
    assert stream.answer().finish_reason == "tool_calls"


def test_usage_after_the_end_is_counted():
    stream, _ = fed(parts({"text": "Hi"}, finish="STOP"), {"usageMetadata": COUNTED})
    assert stream.answer().usage == Usage(100, 28, 64, 8)


def test_what_a_stream_has_said_stands_whatever_comes_after_it():
    cut = parts({"functionCall": {"name": "f", "args": {}}}, finish="MAX_TOKENS", usageMetadata=COUNTED)
    stream, _ = fed(cut, parts(finish="FINISH_REASON_UNSPECIFIED"))
    answer = stream.answer()
    assert (answer.finish_reason, answer.usage) == ("length", Usage(100, 28, 64, 8))
    blocked, _ = fed({"promptFeedback": {"blockReason": "OTHER"}}, {"usageMetadata": COUNTED})
    assert (blocked.answer().finish_reason, blocked.answer().usage) == ("content_filter", Usage(100, 28, 64, 8))


def test_stream_of_a_blocked_prompt_says_so():
    stream, texts = fed({"promptFeedback": {"blockReason": "OTHER"}})
    assert (texts, stream.answer().finish_reason) == ([""], "content_filter")


@pytest.mark.parametrize(
    "bodies", [(), (parts({"text": "Hel"}),), (parts({"text": "Hel"}), {"usageMetadata": COUNTED})]
)
def test_stream_that_ends_early_is_paid_and_no_answer(bodies):
    stream, _ = fed(*bodies)
    with pytest.raises(ProviderBadReplyError, match="broke off") as caught:
        stream.answer()
    assert caught.value.maybe_paid


def test_stream_that_ends_without_text_is_no_answer():
    stream, _ = fed(parts(finish="MALFORMED_FUNCTION_CALL"))
    with pytest.raises(ProviderBadReplyError, match="MALFORMED_FUNCTION_CALL"):
        stream.answer()


@pytest.mark.parametrize("data", ["", "{", "[]", "null", '{"candidates": "none"}', "{}"])
def test_unreadable_event_is_paid_and_not_tried_again(data):
    with pytest.raises(ProviderBadReplyError) as caught:
        adapter().read_stream(call()).feed(ServerSentEvent(data))
    assert (caught.value.retryable, caught.value.maybe_paid) == (False, True)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(503, ProviderUnavailableError), (429, ProviderRateLimitedError), (400, ProviderRejectedError),
     (None, ProviderUnavailableError), ("503", ProviderUnavailableError), (7, ProviderUnavailableError)],
)  # fmt: skip
def test_error_among_the_events_is_what_it_stands_for_and_may_be_paid(code, kind):
    stream, _ = fed(parts({"text": "Hel"}))
    with pytest.raises(ProviderError, match="overloaded") as caught:
        stream.feed(event({"error": {"code": code, "message": f"overloaded {KEY}", "status": "UNAVAILABLE"}}))
    assert type(caught.value) is kind
    assert caught.value.maybe_paid
    assert KEY not in str(caught.value)


# --- the table of features -------------------------------------------------------------------------------------

PICTURE = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
ASKED = {
    "system prompt": {"messages": [{"role": "system", "content": "Be brief."}, *HI]},
    "multi-turn messages": {"messages": [*HI, {"role": "assistant", "content": "Ho"}, *HI]},
    "temperature": {"temperature": 1},
    "top_p": {"top_p": 0.5},
    "max_tokens": {"max_tokens": 5},
    "stop": {"stop": ["x"]},
    "seed": {"seed": 1},
    "frequency_penalty, presence_penalty": {"frequency_penalty": 0.5, "presence_penalty": 0.5},
    "JSON mode": {"response_format": {"type": "json_object"}},
    "JSON schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
    "tools": {"tools": [tool()]},
    "tool_choice": {"tools": [tool()], "tool_choice": "required"},
    "parallel_tool_calls": {"tools": [tool()], "parallel_tool_calls": True},
    "images by URL": {"messages": [{"role": "user", "content": [PICTURE]}]},
    "images in base64": {"messages": [image(f"data:image/png;base64,{PIXEL}")]},
    "reasoning_effort": {"reasoning_effort": "low"},
}
SEEN_IN_REPLIES = {
    "streaming": lambda: fed(parts({"text": "Hi"}, finish="STOP"))[0].answer().text,
    "cached tokens in usage": lambda: read(reply_with({"text": "x"}, usageMetadata=COUNTED)).usage.cached_tokens,
    "reasoning tokens in usage": lambda: read(reply_with({"text": "x"}, usageMetadata=COUNTED)).usage.reasoning_tokens,
}


def test_every_feature_has_its_row():
    assert set(SUPPORT) == set(FEATURES) == set(ASKED) | set(SEEN_IN_REPLIES) | {"several prompts in one call"}
    assert all(said in {"error", "no"} or said.partition(",")[0] == "yes" for said in SUPPORT.values())


@pytest.mark.parametrize("feature", ASKED)
def test_table_says_what_asking_does(feature):
    params = dict(ASKED[feature])
    messages = params.pop("messages", HI)
    if SUPPORT[feature] == "error":
        with pytest.raises(UnsupportedParameterError):
            body_of(messages, **params)
    else:
        # Something of it must reach the wire, but for a switch that is always on.
        plain, asked = body_of(), body_of(messages, **params)
        assert asked != plain


@pytest.mark.parametrize("feature", SEEN_IN_REPLIES)
def test_table_says_what_replies_hold(feature):
    assert SUPPORT[feature].startswith("yes")
    assert SEEN_IN_REPLIES[feature]()
