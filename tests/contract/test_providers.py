"""What every provider promises, whatever its wire shape: asked over a real socket of the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from stratarouter_runtime.errors import (
    ProviderAuthError,
    ProviderBadReplyError,
    ProviderError,
    ProviderInterruptedError,
    ProviderQuotaError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderUnavailableError,
)
from stratarouter_runtime.port_values import ProviderCall
from stratarouter_runtime.providers import ADAPTERS, ProviderSet, create_transport
from stratarouter_runtime.providers.pricing import Pricer
from stratarouter_runtime.records import Answer
from stratarouter_runtime.testing.simulator import FaultRule, Simulator, SimulatorSettings
from stratarouter_runtime.testing.simulator_endpoints import expected_answer

CANARY = "sk-canary-0123456789abcdef"
KINDS = sorted(set(ADAPTERS) - {"simulator"})
CHATS = [kind for kind in KINDS if kind != "openai-completions"]
"""Those that carry more than one turn of text."""
PATHS = {"openai": "/v1", "openai-responses": "/v1", "openai-completions": "/v1", "anthropic": "", "google": ""}
MESSAGES = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is invoice 7?"})
TOOL = {
    "type": "function",
    "function": {
        "name": "find_invoice",
        "description": "Find one.",
        "parameters": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@asynccontextmanager
async def _provider(kind: str, *faults: FaultRule, **settings: Any) -> AsyncIterator[tuple[ProviderSet, Simulator]]:
    async with Simulator(SimulatorSettings(faults=faults, **settings)) as simulator:
        base_url = simulator.base_url.removesuffix("/v1") + PATHS[kind]
        adapter = ADAPTERS[kind]("vendor", base_url, SecretStr(CANARY))
        providers = ProviderSet(lambda: {"vendor": [adapter]}, create_transport(), Pricer())
        await providers.start()
        try:
            yield providers, simulator
        finally:
            await providers.stop()


def _call(messages: tuple[dict[str, Any], ...] = MESSAGES, timeout_s: float = 10.0, **params: Any) -> ProviderCall:
    return ProviderCall("some-model", messages, params, "request-1", timeout_s)


async def _ask(providers: ProviderSet, call: ProviderCall, *, streamed: bool) -> tuple[Answer, str]:
    pieces: list[str] = []
    on_text: Callable[[str], None] | None = pieces.append if streamed else None
    answer = await providers.call("vendor", call, on_text=on_text)
    return answer, "".join(pieces)


async def test_an_answer_is_the_same_in_every_shape_whole_or_streamed(kind: str, *, streamed: bool) -> None:
    async with _provider(kind, output_tokens=60) as (providers, simulator):
        answer, heard = await _ask(providers, _call(), streamed=streamed)
    asked = [dict(message) for message in MESSAGES]
    if kind not in CHATS:
        asked = [{"role": "user", "content": "\n\n".join(message["content"] for message in asked)}]
    expected = expected_answer("some-model", asked, 60)
    assert answer.text.split(". You asked")[1] == expected.split(". You asked")[1]
    assert heard == (answer.text if streamed else "")
    assert (answer.finish_reason, answer.model, answer.provider) == ("stop", "some-model", "vendor")
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert [call.request_id for call in simulator.paid_calls] == ["request-1"]


async def test_a_limit_on_tokens_cuts_the_answer_and_says_so(kind: str, *, streamed: bool) -> None:
    async with _provider(kind, output_tokens=200) as (providers, _):
        answer, _ = await _ask(providers, _call(max_tokens=20), streamed=streamed)
    assert answer.finish_reason == "length"
    assert answer.usage.output_tokens == 20


@pytest.mark.parametrize("kind", CHATS)
async def test_a_demanded_tool_is_called_and_its_result_goes_back(kind: str, *, streamed: bool) -> None:
    async with _provider(kind) as (providers, _):
        asked = _call(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "find_invoice"}})
        answer, _ = await _ask(providers, asked, streamed=streamed)
        [call] = answer.tool_calls
        assert answer.finish_reason == "tool_calls"
        assert call["function"]["name"] == "find_invoice"
        assert set(orjson.loads(call["function"]["arguments"])) == {"number"}
        later = (
            *MESSAGES,
            {"role": "assistant", "content": None, "tool_calls": list(answer.tool_calls)},
            {"role": "tool", "tool_call_id": call["id"], "content": "it is paid"},
        )
        second, _ = await _ask(providers, _call(later, tools=[TOOL]), streamed=streamed)
    assert second.text


@pytest.mark.parametrize("kind", CHATS)
async def test_a_schema_is_kept_to_and_images_are_taken(kind: str) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    parts = [{"type": "text", "text": "Where?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    async with _provider(kind) as (providers, _):
        answer, _ = await _ask(
            providers, _call(({"role": "user", "content": parts},), response_format=wanted), streamed=False
        )
    assert set(orjson.loads(answer.text)) == {"city"}


REFUSALS = [
    (FaultRule("status", status=429, retry_after="seconds", retry_after_s=3), ProviderRateLimitedError, 3.0),
    (FaultRule("status", status=429, retry_after="ms", retry_after_s=3), ProviderRateLimitedError, 3.0),
    (FaultRule("status", status=429, retry_after="garbage"), ProviderRateLimitedError, None),
    (FaultRule("status", status=429, retry_after="huge"), ProviderRateLimitedError, 1e9),
    (FaultRule("status", status=500), ProviderUnavailableError, None),
    (FaultRule("status", status=503), ProviderUnavailableError, None),
    (FaultRule("status", status=529), ProviderUnavailableError, None),
    (FaultRule("status", status=400), ProviderRejectedError, None),
    (FaultRule("status", status=401), ProviderAuthError, None),
    (FaultRule("status", status=403), ProviderAuthError, None),
    (FaultRule("status", status=404), ProviderRejectedError, None),
    (FaultRule("status", status=413), ProviderRejectedError, None),
]


@pytest.mark.parametrize(
    ("rule", "error", "wait_s"), REFUSALS, ids=[f"{r.status}-{r.retry_after or r.code or ''}" for r, _, _ in REFUSALS]
)
async def test_each_refusal_is_its_own_error_and_costs_nothing(
    kind: str, rule: FaultRule, error: type[ProviderError], wait_s: float | None, *, streamed: bool
) -> None:
    async with _provider(kind, rule) as (providers, simulator):
        with pytest.raises(error) as caught:
            await _ask(providers, _call(), streamed=streamed)
    assert caught.value.status == rule.status
    if kind == "google" and rule.retry_after == "garbage":
        # This vendor says it in the body as well.
        wait_s = rule.retry_after_s
    assert caught.value.retry_after_s == wait_s
    assert not caught.value.maybe_paid
    assert CANARY not in repr(caught.value) + str(caught.value)
    assert simulator.paid_calls == []


async def test_a_date_in_retry_after_is_a_wait(kind: str) -> None:
    rule = FaultRule("status", status=429, retry_after="date", retry_after_s=20)
    async with _provider(kind, rule) as (providers, _):
        with pytest.raises(ProviderRateLimitedError) as caught:
            await _ask(providers, _call(), streamed=False)
    assert caught.value.retry_after_s == pytest.approx(20, abs=3)


async def test_a_spent_quota_is_not_waited_for() -> None:
    rule = FaultRule("status", status=429, code="insufficient_quota", retry_after="seconds")
    async with _provider("openai", rule) as (providers, _):
        with pytest.raises(ProviderQuotaError):
            await _ask(providers, _call(), streamed=False)


@pytest.mark.parametrize("effect", ["reset", "truncate", "hang"])
async def test_a_reply_that_breaks_off_may_have_been_paid_for(kind: str, effect: Any, *, streamed: bool) -> None:
    async with _provider(kind, FaultRule(effect), output_tokens=400) as (providers, simulator):
        with pytest.raises((ProviderInterruptedError, ProviderBadReplyError)) as caught:
            await _ask(providers, _call(timeout_s=1.0), streamed=streamed)
    assert caught.value.maybe_paid
    assert len(simulator.paid_calls) == 1


@pytest.mark.parametrize("effect", ["invalid_json", "wrong_shape"])
async def test_a_reply_that_cannot_be_read_is_not_asked_for_again(kind: str, effect: Any, *, streamed: bool) -> None:
    async with _provider(kind, FaultRule(effect), output_tokens=400) as (providers, _):
        with pytest.raises((ProviderBadReplyError, ProviderInterruptedError)) as caught:
            await _ask(providers, _call(timeout_s=2.0), streamed=streamed)
    assert caught.value.maybe_paid
    if not streamed:
        assert isinstance(caught.value, ProviderBadReplyError)
        assert not caught.value.retryable


async def test_many_calls_at_once_get_their_own_answers(kind: str) -> None:
    async with _provider(kind, latency_ms=20) as (providers, _):
        answers = await asyncio.gather(
            *(
                _ask(providers, _call(({"role": "user", "content": f"question {n}"},)), streamed=False)
                for n in range(200)
            )
        )
    assert [answer.text.rsplit("question ", 1)[1].split()[0] for answer, _ in answers] == [str(n) for n in range(200)]
