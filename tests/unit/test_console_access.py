"""Who may see and change what: by the address it is served at, the token, and the host that was asked for."""

from __future__ import annotations

import orjson
import pytest
from pydantic import SecretStr

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.console.access import Access, Need
from stratarouter_runtime.console.server import Console
from stratarouter_runtime.telemetry.http import HttpRequest, Reply, read_head

TOKEN = SecretStr("right")


def _request(host: str = "127.0.0.1:9090", authorization: str | None = None) -> HttpRequest:
    headers = {"host": host} | ({} if authorization is None else {"authorization": authorization})
    return HttpRequest("GET", "/api/search", headers=headers)


def _status(access: Access, request: HttpRequest, need: Need) -> int | None:
    refusal = access.refuses(request, need)
    return None if refusal is None else refusal.status


@pytest.mark.parametrize("host", ["127.0.0.1:9090", "localhost", "LOCALHOST:1", "[::1]:9090"])
def test_on_loopback_everybody_reads_and_the_token_does_the_rest(host: str) -> None:
    access = Access("127.0.0.1", TOKEN)
    assert _status(access, _request(host), "read") is None
    for need in ("texts", "change"):
        assert _status(access, _request(host), need) == 401  # type: ignore[arg-type]
        assert _status(access, _request(host, "Bearer right"), need) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["attacker.example", "127.0.0.1.attacker.example", "", "[::2]"])
def test_on_loopback_no_other_name_is_answered(host: str) -> None:
    access = Access("127.0.0.1", TOKEN)
    for need in ("read", "texts", "change"):
        assert _status(access, _request(host, "Bearer right"), need) == 403  # type: ignore[arg-type]


def test_elsewhere_reading_needs_the_token_too() -> None:
    access = Access("0.0.0.0", TOKEN)
    assert _status(access, _request("runtime.example"), "read") == 401
    assert _status(access, _request("runtime.example", "Bearer right"), "read") is None


@pytest.mark.parametrize("given", ["Bearer wrong", "Bearer", "right", "Basic right", "Bearer right x", "Bearer ríght"])
def test_what_is_not_the_token_is_refused(given: str) -> None:
    assert _status(Access("127.0.0.1", TOKEN), _request(authorization=given), "change") == 401


@pytest.mark.parametrize("token", [None, SecretStr("")])
def test_without_a_token_nothing_that_needs_it_can_be_done(token: SecretStr | None) -> None:
    access = Access("127.0.0.1", token)
    assert not access.has_token
    assert _status(access, _request(), "read") is None
    for given in (None, "Bearer", "Bearer ", "Bearer None"):
        assert _status(access, _request(authorization=given), "change") == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_refusal_never_says_the_token(host: str) -> None:
    refusal = Access(host, TOKEN).refuses(_request(), "change")
    assert refusal is not None
    assert "right" not in refusal.message


def test_a_request_head_is_read_with_its_fields() -> None:
    head = b"POST /api/x?a=1&b=%20 HTTP/1.1\r\nHost: here:1\r\nContent-Length: 3\r\nX-Odd\r\n\r\n"
    read = read_head(head, frozenset({"GET", "POST"}))
    assert isinstance(read, HttpRequest)
    assert (read.method, read.path, read.query) == ("POST", "/api/x", "a=1&b=%20")
    assert (read.headers["host"], read.headers["content-length"]) == ("here:1", "3")
    refused = read_head(head, frozenset({"GET"}))
    assert isinstance(refused, Reply)
    assert refused.status == 405


@pytest.mark.parametrize("key", ["req-1234", "0" * 31, "0" * 33, "G" * 32])
async def test_a_key_that_is_none_is_not_taken_back(key: str) -> None:
    """It was sent to every worker, and changed nothing."""
    console = Console(RuntimeConfig(console_token=TOKEN), "127.0.0.1")
    body = orjson.dumps({"key": key, "reason": "it is wrong"})
    headers = {"host": "127.0.0.1", "authorization": "Bearer right"}
    reply = await console.answer(HttpRequest("POST", "/api/cache/invalidate", "", headers, body))
    assert reply is not None
    assert (reply.status, "is no key of the cache" in orjson.loads(reply.body)["error"]) == (400, True)
