"""What is written of a dataclass is its fields, whether its class was compiled or not."""

from __future__ import annotations

import dataclasses

import orjson
import pytest

from stratarouter_runtime.json_bytes import json_bytes
from stratarouter_runtime.usage_deltas import Receipt


@dataclasses.dataclass
class Place:
    """As a caller's own would be: never compiled."""

    topic: str
    offset: int


RECEIPT = Receipt("r1", "paid", 42_000_000, 1_000, 2_000)
"""Of a class that ``make compiled`` compiles."""
PLACE = Place("requests", 1_893_456_000_123)


@pytest.mark.parametrize("record", [RECEIPT, PLACE])
def test_a_dataclass_is_its_fields_wherever_it_stands(record: Receipt | Place) -> None:
    said = dataclasses.asdict(record)
    assert orjson.loads(json_bytes(record)) == said
    assert orjson.loads(json_bytes({"deep": [{"er": (record, record)}]})) == {"deep": [{"er": [said, said]}]}
    assert orjson.loads(json_bytes([record, PLACE.__class__], default=repr)) == [said, repr(PLACE.__class__)]


def test_orjson_sees_no_dataclass(monkeypatch: pytest.MonkeyPatch) -> None:
    # What it does to one that was compiled goes well by chance: Python's memory holds a freed number for a while.
    assert orjson.dumps(PLACE) == json_bytes(PLACE)
    with pytest.raises(orjson.JSONEncodeError, match="Place"):
        orjson.dumps(PLACE, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    seen: list[int] = []
    monkeypatch.setattr(orjson, "dumps", lambda _value, _default, option: seen.append(option) or b"")
    json_bytes(PLACE)
    json_bytes(PLACE, option=orjson.OPT_SORT_KEYS)
    assert seen == [orjson.OPT_PASSTHROUGH_DATACLASS, orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_SORT_KEYS]


def test_a_foreign_object_goes_to_the_default_or_is_refused() -> None:
    assert json_bytes({"at": 3j}, default=str) == b'{"at":"3j"}'
    with pytest.raises(orjson.JSONEncodeError, match="complex"):
        json_bytes({"at": 3j})
    with pytest.raises(orjson.JSONEncodeError, match="type"):
        json_bytes(Place)
