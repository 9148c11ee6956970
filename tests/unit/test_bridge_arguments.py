"""What a caller gets wrong is said the same way in-process and over Kafka, before anything is connected or sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

from stratarouter_runtime.bridge import CoreRuntimeBridge
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import SchemaViolationError

NOWHERE = "127.0.0.1:1"
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "an id that is a number": ({"request_id": 5}, "request_id = 5", "string"),
    "an id that is nothing": ({"request_id": 0}, "request_id = 0", "string"),
    "an id in bytes": ({"request_id": b"r1"}, "request_id = b'r1'", "string"),
    "a context that is text": ({"context": "acme"}, "context = 'acme'", "mapping"),
    "a context that is a list": ({"context": ["acme"]}, "context = ['acme']", "mapping"),
    "a context that is a number": ({"context": 7}, "context = 7", "mapping"),
    "a timeout that is text": ({"timeout_s": "5"}, "timeout_s = '5'", "seconds"),
    "a timeout that is a list": ({"timeout_s": [5]}, "timeout_s = [5]", "seconds"),
    "an embedding of words": ({"embedding": ["a", "b"]}, "embedding is not a vector of numbers", "(dimension,)"),
    "an embedding beyond floats": ({"embedding": [10**400]}, "embedding is not a vector of numbers", "(dimension,)"),
    "a timeout that is no number": ({"timeout_s": float("nan")}, "timeout_s = nan", "seconds"),
}


@pytest.fixture(params=["inline", "kafka"])
async def bridge(request: pytest.FixtureRequest) -> AsyncIterator[CoreRuntimeBridge]:
    """Of servers that are not there: what was sent to them would be another error."""
    transport: Literal["inline", "kafka"] = request.param
    config = RuntimeConfig(
        transport=transport, bootstrap_servers=NOWHERE, database_url=f"postgresql://{NOWHERE}/none", embedder="none"
    )
    made = CoreRuntimeBridge(config)
    yield made
    await made.close()


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_argument_is_named_with_its_value_and_what_to_pass(bridge: CoreRuntimeBridge, name: str) -> None:
    wrong, said, remedy = WRONG[name]
    with pytest.raises(SchemaViolationError) as caught:
        await bridge.execute("chat", **({"query": "where is my invoice?"} | wrong))
    assert said in caught.value.message
    assert remedy in caught.value.remedy


async def test_of_many_requests_one_with_an_unknown_argument_fails_alone(bridge: CoreRuntimeBridge) -> None:
    wrong = [{"decision": "chat", "qurey": "a"}, {"decision": "chat"}, {"query": "a"}]
    done = await bridge.execute_many(wrong, return_exceptions=True)
    assert [type(one) for one in done] == [TypeError, SchemaViolationError, TypeError]
    assert "qurey" in str(done[0])
    with pytest.raises(TypeError, match="qurey"):
        await bridge.execute_many(wrong)
