"""Bytes in Redis that are no entry of ours: each is refused as such, and none as something else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from stratarouter_runtime.cache.values import FORMAT, GarbageError, decode_answer
from stratarouter_runtime.records import Usage

ANSWER: dict[str, Any] = {
    "text": "t",
    "provider": "p",
    "model": "m",
    "usage": {"input_tokens": 3, "output_tokens": 2},
    "finish_reason": "stop",
    "cost_usd": None,
    "tool_calls": [],
}


def _raw(**changes: Any) -> bytes:
    entry = {"v": FORMAT, "entry_id": "e", "scope": "s", "content_hash": "h"}
    return orjson.dumps({**entry, "answer": {**ANSWER, **changes}})


def test_an_entry_without_labels_and_times_reads() -> None:
    assert decode_answer(_raw(), ("s", "h")).answer.usage == Usage(3, 2)


@pytest.mark.parametrize("usage", [[], "many", 5, None, True, {"input_tokens": []}, {"input_tokens": None}, {"x": 1}])
def test_a_usage_that_counts_nothing_is_garbage(usage: object) -> None:
    with pytest.raises(GarbageError, match="readable answer"):
        decode_answer(_raw(usage=usage), ("s", "h"))
