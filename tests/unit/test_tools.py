"""The pure parts of the operators' tools: what is written on the command line, and which letters are marked."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError, InvalidRecordError, SchemaViolationError
from stratarouter_runtime.records import Coordinates, DeadLetter
from stratarouter_runtime.state.offsets import OffsetMap, decode, encode
from stratarouter_runtime.tools.dead_letters import DeadLetters, Found, changed, mark, parse_address, parse_change
from stratarouter_runtime.tools.ranges import Span, Wanted, parse_offsets, parse_time
from stratarouter_runtime.tools.replay import Plan

NONE = OffsetMap(-1, -1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", Wanted(3)),
        ("0:5..9", Wanted(0, 5, 9)),
        ("0:5..", Wanted(0, 5, None)),
        ("12:..9", Wanted(12, None, 9)),
    ],
)
def test_ranges_as_they_are_written(text: str, expected: Wanted) -> None:
    assert parse_offsets(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1:5", "1:5-9", "1:9..5", "1:5..5", "-1", "1:1..2..3"])
def test_what_is_no_range_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_offsets(text)
    assert caught.value.remedy


def test_times_absolute_and_ago() -> None:
    assert parse_time("2026-01-31T12:00:00Z", "--from") == 1_769_860_800_000
    assert parse_time("1d", "--from") < parse_time("1h", "--from") < parse_time("1m", "--from")
    with pytest.raises(ConfigurationError, match="--to 'noon' is no time"):
        parse_time("noon", "--to")


def test_a_plan_is_known_by_all_that_decides_what_is_written() -> None:
    one = Plan((Span(0, 1, 2), Span(1, 3, 4)))
    assert one.name == Plan((Span(1, 3, 4), Span(0, 1, 2))).name
    others = [
        Plan((Span(0, 1, 2),)),
        Plan(one.spans, to_topic="t"),
        Plan(one.spans, re_execute=True),
        Plan(one.spans, re_execute=True, only_errors=True),
        Plan(one.spans, tenant="t"),
        Plan(one.spans, route="t"),
        Plan(one.spans, request_id="t"),
    ]
    assert len({plan.name for plan in [one, *others]}) == len(others) + 1
    assert Plan(one.spans, replay_id="mine").name == "mine"


def test_words_that_move_name_a_replay_in_place_of_the_offsets_they_stand_for() -> None:
    now, later = Plan((Span(0, 1, 20),), asked=([], "20m", None)), Plan((Span(0, 9, 30),), asked=([], "20m", None))
    assert (now.name, now.group) == (later.name, later.group)
    assert Plan(now.spans, asked=([], "30m", None)).name != now.name
    # Over just its offsets, under its name, it is the same replay; of other requests it is not.
    assert Plan(now.spans, replay_id=now.name).group == now.group
    assert Plan(now.spans, replay_id=now.name, tenant="acme").group != now.group


def test_changes_and_addresses() -> None:
    assert parse_change("context.tenant=acme") == (("context", "tenant"), "acme")
    assert parse_change("params.temperature=0.5") == (("params", "temperature"), 0.5)
    assert parse_change('query="a=b"') == (("query",), "a=b")
    assert parse_address("3@17") == Wanted(3, 17, 18)
    for text in ("context", "=x", "a..b=1"):
        with pytest.raises(ConfigurationError):
            parse_change(text)


def test_fields_are_set_where_they_are_and_where_they_are_not_yet() -> None:
    mended = changed(b'{"query":"q","decision":{"route_id":"a"}}', [(("decision", "route_id"), "b"), (("x", "y"), 1)])
    assert orjson.loads(mended or b"") == {"query": "q", "decision": {"route_id": "b"}, "x": {"y": 1}}
    assert changed(b"{no json", []) == b"{no json"
    for value in (b"{no json", b"[]", None):
        with pytest.raises(SchemaViolationError):
            changed(value, [(("a",), 1)])
    with pytest.raises(SchemaViolationError, match="'query' is no object"):
        changed(b'{"query":"q"}', [(("query", "x"), 1)])


def test_a_decision_that_is_a_route_id_alone_can_be_mended() -> None:
    """``request`` and the bridge write it so, and the manual's own example was refused for every such letter."""
    mended = changed(b'{"decision":"billling","context":null}', [
        (("decision", "route_id"), "billing"), (("context", "tenant"), "acme")
    ])  # fmt: skip
    assert orjson.loads(mended or b"") == {"decision": {"route_id": "billing"}, "context": {"tenant": "acme"}}
    mended = changed(b'{"decision":"billing"}', [(("decision", "confidence"), 0.9)])
    assert orjson.loads(mended or b"") == {"decision": {"route_id": "billing", "confidence": 0.9}}
    with pytest.raises(SchemaViolationError, match="'decision' is no object"):
        changed(b'{"context":{"decision":"x"}}', [(("context", "decision", "y"), 1)])


@pytest.mark.parametrize("code", [*(kind.code for kind in InvalidRecordError.__subclasses__()), "of tomorrow"])
def test_a_letters_outline_holds_nothing_of_its_record(code: str) -> None:
    """A reason shows parts of the record, and was shown to those who may not see texts."""
    secret = "my secret: must be a string"
    letter = DeadLetter(
        code, f"$.query = {secret}: {secret}", f"not {secret}", Coordinates("requests", 1, 2), "enrich", None,
        secret.encode(), request_id="r1",
    )  # fmt: skip
    found = Found(0, 7, 1, letter, resent=False)
    assert secret in found.summary()["reason"]
    outline = found.outline()
    assert secret not in str(outline)
    assert (outline["code"], outline["letter"], outline["request_id"]) == (code, "0@7", "r1")
    assert outline["reason"]
    assert outline.keys() == found.summary().keys()


@given(
    st.lists(st.sets(st.integers(0, 300), min_size=1, max_size=8), min_size=1, max_size=12),
    st.lists(st.integers(0, 60), min_size=12, max_size=12),
)
def test_marks_hold_exactly_what_was_sent(rounds: list[set[int]], starts: list[int]) -> None:
    """Sent again in any order, while the topic's beginning moves on, and through the metadata each time."""
    state, sent, first = NONE, set(), 0
    for letters, moved in zip(rounds, starts, strict=False):
        first = max(first, moved)
        here = {offset for offset in letters if offset >= first}
        if not here:
            continue
        state = mark(state, first, here)
        sent |= here
        state = decode(state.watermark, encode(state))
        for offset in range(first, 310):
            assert state.is_finished(offset) == (offset in sent)


@pytest.mark.parametrize(
    ("deadline", "sent"), [("2020-01-01T00:00:00Z", None), ("2099-01-01T00:00:00Z", "2099-01-01T00:00:00Z")]
)
def test_a_letter_is_sent_again_without_a_deadline_that_is_over(deadline: str, sent: str | None) -> None:
    value = orjson.dumps({"request_id": "r1", "decision": "billing", "query": "q", "deadline": deadline})
    letter = DeadLetter(
        "unknown_route", "no", "", Coordinates("requests", 1, 2), "enrich", None, value, request_id="r1"
    )
    outbound = DeadLetters(RuntimeConfig())._request(Found(0, 7, 1, letter, resent=False), [], None)
    assert orjson.loads(outbound.value)["deadline"] == sent
