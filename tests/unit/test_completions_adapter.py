"""OpenAI's completions: several prompts in one call, each with its own answer and its share of the tokens."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.errors import ProviderBadReplyError, ProviderUnavailableError, UnsupportedParameterError
from stratarouter_runtime.port_values import HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.openai_completions import OpenAICompletionsAdapter, _shares
from stratarouter_runtime.records import Usage

ADAPTER = OpenAICompletionsAdapter("vllm", "http://localhost:8000/v1")


def _call(*messages: tuple[str, object], timeout_s: float = 5.0, **params: object) -> ProviderCall:
    said = tuple({"role": role, "content": content} for role, content in messages or (("user", "Why?"),))
    return ProviderCall("m", said, params, "request-1", timeout_s)


def _reply(texts: dict[int, str], used: int = 30, made: int = 12) -> HttpReply:
    choices = [{"index": index, "text": text, "finish_reason": "stop"} for index, text in texts.items()]
    body = {"choices": choices, "usage": {"prompt_tokens": used, "completion_tokens": made}}
    return HttpReply(200, {}, orjson.dumps(body))


def test_several_prompts_are_one_call_with_the_longest_time() -> None:
    calls = [
        _call(("system", "Be brief."), ("user", "Why?"), max_tokens=9, temperature=0),
        _call(("user", [{"type": "text", "text": "How?"}]), timeout_s=8.0, max_tokens=9, temperature=0),
    ]
    sent = ADAPTER.to_http_many(calls)
    assert sent.url == "http://localhost:8000/v1/completions"
    assert sent.timeout_s == 8.0
    assert orjson.loads(sent.body) == {
        "model": "m", "prompt": ["Be brief.\n\nWhy?", "How?"], "max_tokens": 9, "temperature": 0,
    }  # fmt: skip


def test_each_gets_the_answer_of_its_index_and_its_share_of_the_tokens() -> None:
    calls = [_call(("user", "x" * 20)), _call(("user", "y" * 10))]
    first, second = ADAPTER.from_http_many(_reply({1: "b" * 30, 0: "a" * 90}), calls)
    assert (first.text, second.text) == ("a" * 90, "b" * 30)
    assert (first.usage, second.usage) == (Usage(20, 9), Usage(10, 3))


@pytest.mark.parametrize("texts", [{0: "only one"}, {0: "a", 2: "b"}, {0: "a", 1: "b", 2: "c"}])
def test_answers_that_do_not_match_the_prompts_are_not_guessed_at(texts: dict[int, str]) -> None:
    with pytest.raises(ProviderBadReplyError, match="choices for 2 prompts") as caught:
        ADAPTER.from_http_many(_reply(texts), [_call(), _call()])
    assert caught.value.maybe_paid


@pytest.mark.parametrize(
    "call",
    [
        _call(("user", "a"), ("assistant", "b"), ("user", "c")),
        _call(tools=[]),
        _call(response_format={"type": "json_object"}),
        _call(("user", [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}])),
    ],
)
def test_what_a_plain_prompt_cannot_carry_is_an_error(call: ProviderCall) -> None:
    with pytest.raises(UnsupportedParameterError):
        ADAPTER.check(call)
    with pytest.raises(UnsupportedParameterError):
        ADAPTER.to_http(call)


@given(st.integers(0, 10_000), st.lists(st.integers(0, 5_000), min_size=1, max_size=40))
def test_shares_add_up_and_none_is_off_by_more_than_one(total: int, weights: list[int]) -> None:
    shares = _shares(total, weights)
    assert sum(shares) == total
    whole = sum(weights)
    if whole:
        assert all(abs(share - total * weight / whole) < 1 for share, weight in zip(shares, weights, strict=True))


def test_an_empty_completion_is_an_answer_and_takes_nothing_from_the_others() -> None:
    calls = [_call(), _call(), _call()]
    answers = ADAPTER.from_http_many(_reply({0: "a", 1: "", 2: "c"}), calls)
    assert [answer.text for answer in answers] == ["a", "", "c"]
    reader = ADAPTER.read_stream(_call())
    reader.feed(ServerSentEvent('{"choices": [{"text": "", "finish_reason": "stop"}]}'))
    assert reader.answer().text == ""


@pytest.mark.parametrize("choices", [{}, {"choices": None}, {"choices": []}])
def test_usage_without_choices_loses_no_paid_answer(choices: dict[str, object]) -> None:
    reader = ADAPTER.read_stream(_call())
    assert reader.feed(ServerSentEvent('{"choices": [{"text": "Hi", "finish_reason": "stop"}]}')) == "Hi"
    counted = {**choices, "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    assert reader.feed(ServerSentEvent(orjson.dumps(counted).decode())) == ""
    assert (reader.answer().text, reader.answer().usage) == ("Hi", Usage(3, 2))


@pytest.mark.parametrize("choices", ["none", {}, 0, [5]])
def test_choices_that_are_none_are_unreadable(choices: object) -> None:
    with pytest.raises(ProviderBadReplyError, match="choices are none"):
        ADAPTER.read_stream(_call()).feed(ServerSentEvent(orjson.dumps({"choices": choices}).decode()))


def test_a_streamed_completion_asks_for_its_usage_and_one_that_breaks_off_or_fails_is_no_answer() -> None:
    body = orjson.loads(ADAPTER.to_http(_call(), stream=True).body)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})
    reader = ADAPTER.read_stream(_call())
    assert reader.feed(ServerSentEvent('{"choices": [{"text": "half", "finish_reason": null}]}')) == "half"
    with pytest.raises(ProviderBadReplyError, match="broke off"):
        reader.answer()
    for data, name in (
        ('{"error": {"message": "m"}}', None),
        ('{"object": "error"}', None),
        ('{"message": "m"}', "error"),
    ):
        with pytest.raises(ProviderUnavailableError) as caught:
            reader.feed(ServerSentEvent(data, name))
        assert caught.value.maybe_paid
    counted = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    for one in ({"text": "", "finish_reason": "length"}, {"text": "", "finish_reason": None}):
        reader.feed(ServerSentEvent(orjson.dumps({"choices": [one], **counted}).decode()))
        counted = {}
    assert (reader.answer().usage, reader.answer().finish_reason) == (Usage(3, 2), "length")
