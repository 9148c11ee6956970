"""Where a provider lists its models, by its vendor: asked by the doctor, with the key as that vendor takes it."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from stratarouter_runtime.port_values import HttpCall
from stratarouter_runtime.providers import create_adapter
from stratarouter_runtime.providers.reach import Reached, reach
from stratarouter_runtime.route_file import VENDORS, ProviderSpec

AZURE = "https://mine.openai.azure.com/openai/v1?api-version=preview"


@pytest.mark.parametrize(
    ("kind", "base_url", "url", "header"),
    [
        ("openai", None, "https://api.openai.com/v1/models", ("authorization", "Bearer k")),
        ("openai-responses", None, "https://api.openai.com/v1/models", ("authorization", "Bearer k")),
        ("openai-completions", "http://vllm:8000/v1", "http://vllm:8000/v1/models", ("authorization", "Bearer k")),
        ("openai", AZURE, "https://mine.openai.azure.com/openai/v1/models?api-version=preview", ("api-key", "k")),
        ("anthropic", None, "https://api.anthropic.com/v1/models", ("x-api-key", "k")),
        ("anthropic", "http://proxy/v1", "http://proxy/v1/models", ("x-api-key", "k")),
        ("google", None, "https://generativelanguage.googleapis.com/v1beta/models", ("x-goog-api-key", "k")),
        ("google", "http://proxy/v1", "http://proxy/v1/models", ("x-goog-api-key", "k")),
    ],
)
def test_models_are_asked_for_where_the_vendor_lists_them(
    kind: str, base_url: str | None, url: str, header: tuple[str, str]
) -> None:
    spec = ProviderSpec("one", kind, base_url or VENDORS[kind][0], ("A_KEY",))
    call = create_adapter(spec, SecretStr("k")).models()
    assert (call.method, call.url, call.body) == ("GET", url, b"")
    assert header in call.headers.items()
    assert "Bearer" not in str(create_adapter(spec, None).models().headers)


@pytest.mark.parametrize(
    ("status", "is_well", "is_refused"),
    [(200, True, False), (401, False, True), (404, False, False), (None, False, False)],
)
def test_only_a_list_of_models_is_well(status: int | None, is_well: bool, is_refused: bool) -> None:
    reached = Reached(status, "said")
    assert (reached.is_well, reached.key_refused) == (is_well, is_refused)


@pytest.mark.parametrize(
    ("url", "headers", "said"),
    [
        ("http://127.0.0.1:99999/v1/models", {}, "OverflowError"),
        ("http://[::1/models", {}, "InvalidURL"),
        ("ftp://127.0.0.1/models", {}, "UnsupportedProtocol"),
        ("http://127.0.0.1:1/models", {"x-api-key": "ü"}, "UnicodeEncodeError"),
    ],
    ids=["port", "address", "scheme", "key"],
)
async def test_what_can_be_sent_nowhere_is_a_finding(url: str, headers: dict[str, str], said: str) -> None:
    assert await reach(HttpCall("GET", url, headers, b"")) == Reached(None, said)
