"""Tokens as servers of the OpenAI shape count them: reasoning stands within the completion's, or beside it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from stratarouter_runtime.port_values import HttpReply, ProviderCall, ServerSentEvent
from stratarouter_runtime.providers.openai import OpenAIAdapter
from stratarouter_runtime.providers.openai_completions import OpenAICompletionsAdapter
from stratarouter_runtime.records import Usage

CHAT = OpenAIAdapter("xai", "http://localhost:8000/v1")
PLAIN = OpenAICompletionsAdapter("vllm", "http://localhost:8000/v1")
CALL = ProviderCall("m", ({"role": "user", "content": "Why?"},), {}, "r-1", 5.0)


def _counts(used: int, made: int, reasoning: int, total: int | None) -> dict[str, Any]:
    details = {"reasoning_tokens": reasoning}
    counts = {"prompt_tokens": used, "completion_tokens": made, "completion_tokens_details": details}
    return counts if total is None else {**counts, "total_tokens": total}


# What xAI answered: $0.0232856 on its bill, of which the reasoning is $0.0070225.
BESIDE = _counts(10120, 1499, 2809, 14428)


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        (BESIDE, Usage(10120, 4308, 0, 2809)),
        (_counts(279, 6, 89, 374), Usage(279, 95, 0, 89)),
        (_counts(12, 0, 97, 120), Usage(12, 97, 0, 97)),
        (_counts(100, 20, 8, 120), Usage(100, 20, 0, 8)),
        (_counts(100, 20, 20, 120), Usage(100, 20, 0, 20)),
        (_counts(100, 20, 0, 500), Usage(100, 20, 0, 0)),
        (_counts(100, 20, 8, 127), Usage(100, 20, 0, 8)),
        (_counts(100, 20, 30, None), Usage(100, 20, 0, 20)),
        (_counts(100, 20, 30, 2**64 - 1), Usage(100, 20, 0, 20)),
    ],
    ids=["beside", "beside-less", "nothing-but", "within", "all-within", "none", "one-short", "no-total", "nonsense"],
)
def test_reasoning_is_paid_for_once_wherever_the_total_says_it_was_counted(
    counts: dict[str, Any], usage: Usage
) -> None:
    choice = {"message": {"content": "Hi"}, "delta": {"content": "Hi"}, "finish_reason": "stop"}
    body = orjson.dumps({"choices": [choice], "usage": counts})
    stream = CHAT.read_stream(CALL)
    stream.feed(ServerSentEvent(body.decode()))
    assert [CHAT.from_http(HttpReply(200, {}, body), CALL).usage, stream.answer().usage] == [usage, usage]


def test_reasoning_beside_a_plain_completion_is_part_of_its_output() -> None:
    choices = [{"index": index, "text": "a" * 10, "finish_reason": "stop"} for index in range(2)]
    reply = HttpReply(200, {}, orjson.dumps({"choices": choices, "usage": BESIDE}))
    assert [answer.usage for answer in PLAIN.from_http_many(reply, [CALL, CALL])] == [Usage(5060, 2154)] * 2
    stream = PLAIN.read_stream(CALL)
    stream.feed(ServerSentEvent(orjson.dumps({"choices": choices[:1], "usage": BESIDE}).decode()))
    assert stream.answer().usage == Usage(10120, 4308)
