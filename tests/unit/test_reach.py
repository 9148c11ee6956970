"""Where a provider lists its models, by its vendor: asked by the doctor, with the key as that vendor takes it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.port_values import HttpCall
from stratarouter_runtime.providers import create_adapter
from stratarouter_runtime.providers import reach as reaching
from stratarouter_runtime.providers.reach import Reached, reach
from stratarouter_runtime.route_file import VENDORS, ProviderSpec
from stratarouter_runtime.tools import doctor
from support.tls import Authority

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


@asynccontextmanager
async def saying(*pieces: bytes, pause_s: float = 0.0, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that says these pieces to whoever comes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}/v1"
    server.close()


EMPTY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"


async def test_what_calls_trust_the_doctor_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority.make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.issue("127.0.0.1"))
    async with saying(EMPTY + b"\r\n", tls=context) as url:
        assert (await reach(HttpCall("GET", url, {}, b""))).said == "ConnectError"
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
        assert (await reach(HttpCall("GET", url, {}, b""))).is_well


async def test_a_server_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "TIMEOUT_S", 0.2)
    pieces = [EMPTY, *[f"x-{n}: y\r\n".encode() for n in range(40)], b"\r\n"]
    async with saying(*pieces, pause_s=0.05) as url:
        assert await reach(HttpCall("GET", url, {}, b"")) == Reached(None, "TimeoutError")


@pytest.mark.parametrize(
    ("date", "names"),
    [
        (b"yesterday", ["provider own"]),
        (b"", ["provider own"]),
        (b"Sun, 06 Nov 1994 08:49:37 GMT", ["provider own", "clock of own"]),
    ],
)
async def test_a_date_that_is_none_is_no_clock(date: bytes, names: list[str]) -> None:
    async with saying(EMPTY + b"date: " + date + b"\r\n\r\n") as url:
        found = await doctor._provider(ProviderSpec("own", "openai", url, ()), RuntimeConfig())
    assert [one.name for one in found] == names
