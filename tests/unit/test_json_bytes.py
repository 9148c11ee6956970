"""JSON is written of plain objects alone: what was compiled has no memory that orjson could read a dataclass from."""

from __future__ import annotations

import dataclasses

import orjson
import pytest

from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.usage_deltas import Receipt

RECEIPT = Receipt("r1", "paid", 42_000_000, 1_000, 2_000)


@pytest.mark.parametrize("value", [RECEIPT, [RECEIPT], {"receipt": RECEIPT}, {"deep": [{"er": (RECEIPT,)}]}])
def test_a_dataclass_is_refused_wherever_it_stands(value: object) -> None:
    with pytest.raises(orjson.JSONEncodeError, match="Receipt"):
        json_bytes(value)


def test_a_dataclass_goes_to_the_default() -> None:
    said = orjson.loads(json_bytes([RECEIPT], default=dataclasses.asdict))
    assert said == [dataclasses.asdict(RECEIPT)]


def test_options_are_heard() -> None:
    assert json_bytes({"b": 1, "a": 2}, option=orjson.OPT_SORT_KEYS) == b'{"a":2,"b":1}'
