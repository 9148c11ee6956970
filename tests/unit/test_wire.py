"""Decoding requests: what is taken, what is refused and with which words, and what the hashes cover."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from stratarouter_runtime import validation, wire
from stratarouter_runtime.config import MAX_REQUEST_BYTES, RuntimeConfig
from stratarouter_runtime.errors import (
    InvalidEmbeddingError,
    RecordTooLargeError,
    ReplyTopicNotAllowedError,
    SchemaViolationError,
    UndecodableRecordError,
)
from stratarouter_runtime.records import (
    Attempt,
    BatchVerdict,
    CacheVerdict,
    Coordinates,
    DeadLetter,
    Decision,
    ErrorInfo,
    Request,
    Response,
    Target,
    Usage,
)
from stratarouter_runtime.routes import Route, RouteCache

SOURCE = Coordinates("requests", 3, 41)
TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def value(**changed: Any) -> bytes:
    """A valid request with fields changed."""
    return orjson.dumps({"request_id": "r-1", "decision": "billing", "query": "Where is it?"} | changed)


def decode(**changed: Any) -> Request:
    """Decode a valid request with fields changed."""
    return wire.decode_request(value(**changed))


def float32(*numbers: float) -> str:
    """Base64 of little-endian float32."""
    return base64.b64encode(np.array(numbers, dtype="<f4").tobytes()).decode()


# --- the record as a whole -------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [None, b"", b"{", b"null null", b'{"a":NaN}', b"\xff\xfe", b'{"query":"\xff"}'])
def test_what_is_no_json_is_undecodable(raw: bytes | None):
    with pytest.raises(UndecodableRecordError):
        wire.decode_request(raw)


@pytest.mark.parametrize("raw", [b"[]", b"null", b"7", b'"text"'])
def test_json_that_is_no_object_violates_the_schema(raw: bytes):
    with pytest.raises(SchemaViolationError, match="must be a JSON object"):
        wire.decode_request(raw)


def test_a_record_of_the_largest_size_is_taken_and_one_byte_more_is_not():
    raw = value()
    assert wire.decode_request(raw, limits=wire.Limits(max_bytes=len(raw)))
    with pytest.raises(RecordTooLargeError, match=rf"{len(raw)} bytes, more than {len(raw) - 1}"):
        wire.decode_request(raw, limits=wire.Limits(max_bytes=len(raw) - 1))


def nested(levels: int) -> dict[str, Any]:
    """Parameters such that the whole record is ``levels`` deep."""
    inner: Any = 0
    for _ in range(levels - 2):
        inner = [inner]
    return {"p": inner}


def test_a_record_of_the_deepest_nesting_is_taken_and_one_level_more_is_not():
    assert wire.decode_request(value(params=nested(8)), limits=wire.Limits(max_depth=8))
    with pytest.raises(UndecodableRecordError, match="deeper than 8"):
        wire.decode_request(value(params=nested(9)), limits=wire.Limits(max_depth=8))


def test_many_shallow_containers_are_not_taken_for_depth():
    assert decode(params={"stops": [[n] for n in range(1000)]}).params["stops"][999] == [999]


def test_nesting_beyond_the_stack_is_refused_not_crashed_on():
    with pytest.raises(UndecodableRecordError):
        wire.decode_request(b"[" * 500_000)


def test_a_typo_is_refused_with_the_field_that_was_meant():
    with pytest.raises(SchemaViolationError, match=r"\$\.mesages is an unknown field; did you mean 'messages'\?"):
        decode(mesages=[])


@pytest.mark.parametrize(
    ("where", "name"), [("cache", "threshhold"), ("decision", "modell")], ids=["cache", "decision"]
)
def test_a_typo_within_a_part_is_refused_and_a_later_version_of_ours_may_add_one(where: str, name: str):
    part = {"route_id": "billing"} if where == "decision" else {"mode": "bypass"}
    with pytest.raises(SchemaViolationError, match=rf"\$\.{where}\.{name} is an unknown field; did you mean"):
        decode(**{where: part | {name: 0.99}})
    raw = orjson.loads(_execution())
    raw["request"][where] = part | {"later": 1}
    assert wire.decode_execution(orjson.dumps(raw)).request.request_id == "r-1"


def test_a_large_wrong_value_is_shown_shortened():
    with pytest.raises(SchemaViolationError) as refused:
        decode(query=list(range(100_000)))
    assert len(refused.value.message) < 300


def test_limits_come_from_the_configuration():
    config = RuntimeConfig(max_request_bytes=2048, max_nesting_depth=9, embedding_dimension=3, topic_prefix="dev.")
    limits = wire.Limits.of(config)
    assert limits == wire.Limits(2048, 9, 3, "dev.responses")


# --- ids, trace and words --------------------------------------------------------------------------------------


def test_a_request_without_an_id_gets_the_same_one_each_time_it_is_read():
    raw = value(request_id=None)
    first = wire.decode_request(raw, source=SOURCE).request_id
    assert wire.decode_request(raw, source=SOURCE).request_id == first
    assert wire.decode_request(raw, source=replace(SOURCE, offset=42)).request_id != first
    assert wire.decode_request(raw, source=replace(SOURCE, topic="other")).request_id != first
    assert wire.decode_request(value(request_id=None, query="else"), source=SOURCE).request_id != first


def test_a_given_default_id_is_used_only_where_there_is_none():
    assert wire.decode_request(value(request_id=None), default_id="d", source=SOURCE).request_id == "d"
    assert wire.decode_request(value(), default_id="d").request_id == "r-1"


def test_no_id_and_nothing_to_make_one_of_is_refused():
    with pytest.raises(SchemaViolationError, match=r"\$\.request_id is missing"):
        decode(request_id=None)


@pytest.mark.parametrize("bad", ["a\u0000", "a\n", "\u0085", "", "x" * 257, 7, True])
def test_an_id_that_the_journal_could_not_hold_is_refused(bad: object):
    with pytest.raises(SchemaViolationError, match=r"\$\.request_id"):
        decode(request_id=bad)


def test_a_lone_surrogate_is_refused():
    with pytest.raises(UndecodableRecordError):
        wire.decode_request(rb'{"request_id":"\ud800","decision":"a","query":"x"}')


def test_a_query_becomes_one_user_message():
    assert decode().messages == ({"role": "user", "content": "Where is it?"},)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_message_without_content_is_an_assistants_beside_its_calls_and_nobody_elses():
    spoken = {"role": "assistant", "tool_calls": [CALL]}
    assert decode(query=None, messages=[spoken]).messages == (spoken,)


@pytest.mark.parametrize(
    ("message", "at"),
    [
        ({"role": "assistant"}, "content"),
        ({"role": "assistant", "tool_calls": []}, "content"),
        ({"role": "user", "tool_calls": [CALL]}, "content"),
        ({"role": "assistant", "content": 7, "tool_calls": [CALL]}, "content"),
        ({"role": "user", "content": []}, "content"),
        ({"role": ["user"], "content": "hi"}, "role"),
        ({"role": "user", "content": "hi", "tool_calls": 7}, "tool_calls"),
    ],
)
def test_a_message_that_no_provider_would_take_is_refused_where_it_is_wrong(message: dict[str, Any], at: str):
    with pytest.raises(SchemaViolationError, match=rf"^\$\.messages\[0\]\.{at} = "):
        decode(query=None, messages=[message])


def test_the_traceparent_is_read_from_the_headers():
    request = wire.decode_request(value(), headers=[("other", b"x"), ("traceparent", TRACEPARENT)])
    assert request.traceparent == TRACEPARENT.decode()


@pytest.mark.parametrize(
    "bad", [b"", b"00-0-0-00", TRACEPARENT.upper(), b"00-" + b"0" * 32 + TRACEPARENT[35:], b"\xff"]
)
def test_a_malformed_traceparent_is_dropped_as_the_standard_demands(bad: bytes):
    assert wire.decode_request(value(), headers=[("traceparent", bad)]).traceparent is None


def test_a_tenant_that_is_null_is_nobodys_in_particular():
    assert decode(context={"tenant": None}).context.tenant == "default"


def test_as_many_tags_as_are_taken_are_taken_and_one_more_is_not():
    tags = [f"doc-{number}" for number in range(wire.MAX_TAGS)]
    assert decode(cache={"tags": tags}).cache.tags == tuple(tags)
    with pytest.raises(SchemaViolationError, match=rf"\$\.cache\.tags = .* at most {wire.MAX_TAGS} tags"):
        decode(cache={"tags": [*tags, "doc-x"]})


def test_context_keeps_what_it_does_not_know():
    context = decode(context={"tenant": "acme", "department": {"id": 7}}).context
    assert (context.tenant, context.extra) == ("acme", {"department": {"id": 7}})


@pytest.mark.parametrize(
    ("deadline", "epoch_ms"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01t00:00:01.5z", 1500),
        ("1970-01-01T02:00:00.123456789+02:00", 123),
        ("1969-12-31T23:59:59Z", -1000),
    ],
)
def test_a_deadline_is_read_to_the_millisecond(deadline: str, epoch_ms: int):
    assert decode(deadline=deadline).deadline_ms == epoch_ms


def test_a_vector_with_an_integer_that_no_float_holds_is_refused():
    with pytest.raises(InvalidEmbeddingError, match="too large for a float"):
        validation.embedding([1.0, 10**400], "$.embedding", None)


@pytest.mark.parametrize("deadline", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+01:00"])
def test_a_deadline_beyond_the_calendar_violates_the_schema(deadline: str):
    """It was taken, and could not be written: three tries, and a dead letter called poison."""
    with pytest.raises(SchemaViolationError, match=r"\$\.deadline"):
        decode(deadline=deadline)


@pytest.mark.parametrize("deadline", ["9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00.000Z"])
def test_the_calendars_first_and_last_moment_are_written_as_they_were_read(deadline: str):
    assert validation.rfc3339(validation.time_ms(deadline, "$.deadline")) == deadline


@pytest.mark.parametrize("topic", ["responses", "responses.team-a", "responses-b"])
def test_a_reply_topic_within_the_prefix_is_taken(topic: str):
    limits = wire.Limits(reply_prefix="responses")
    assert wire.decode_request(value(reply_to=topic), limits=limits).reply_to == topic


@pytest.mark.parametrize("topic", ["response", "responsesteam", "requests", "__consumer_offsets"])
def test_a_reply_topic_outside_the_prefix_is_refused(topic: str):
    with pytest.raises(ReplyTopicNotAllowedError, match="must be 'responses'"):
        wire.decode_request(value(reply_to=topic), limits=wire.Limits(reply_prefix="responses"))


# --- embeddings ------------------------------------------------------------------------------------------------


def test_a_vector_as_a_list_and_as_base64_come_out_the_same():
    one, other = decode(embedding=[3.0, 4.0]).embedding, decode(embedding=float32(3, 4)).embedding
    assert one is not None
    assert other is not None
    assert one.dtype == np.float32
    assert one.tolist() == other.tolist() == [np.float32(0.6), np.float32(0.8)]


@pytest.mark.parametrize("numbers", [[1e300, 1e300], [1e-300, 1e-300], [5e-324, 0], [1, -1]])
def test_a_vector_is_brought_to_unit_length_whatever_its_size(numbers: list[float]):
    vector = decode(embedding=numbers).embedding
    assert vector is not None
    assert math.isclose(float(np.linalg.norm(vector)), 1.0, rel_tol=1e-6)


def test_a_unit_vector_passes_through_unchanged():
    raw = np.random.default_rng(7).normal(size=384)
    unit = (raw / np.linalg.norm(raw)).astype(np.float32)
    assert np.array_equal(decode(embedding=float32(*unit)).embedding, unit)


@pytest.mark.parametrize(
    "bad", [[0, 0], [], float32(float("nan")), float32(float("inf"), 1), float32(0, 0), [0.1] * 4097, "AAA="]
)
def test_a_vector_without_a_direction_or_with_a_wrong_size_is_refused(bad: object):
    with pytest.raises(InvalidEmbeddingError, match=r"\$\.embedding"):
        decode(embedding=bad)


def test_a_vector_of_another_dimension_than_configured_is_refused():
    with pytest.raises(InvalidEmbeddingError, match="has 2 numbers, not embedding_dimension = 3"):
        wire.decode_request(value(embedding=[1, 2]), limits=wire.Limits(dimension=3))


def test_a_vector_beside_a_request_is_its_embedding_and_goes_before_one_within():
    beside = np.array([0.0, 2.0], dtype=np.float32)
    found = wire.decode_request(value(embedding=[1.0, 0.0]), vector=beside).embedding
    assert found is not None
    assert found.tolist() == [0.0, 1.0]


def test_a_vector_that_comes_again_is_read_once_and_nobody_writes_to_it():
    for numbers in ((3.0, 4.0), (0.6, 0.8)):
        first, again = (decode(embedding=float32(*numbers)).embedding for _ in range(2))
        assert first is not None
        assert first is again
        assert not first.flags.writeable
    with pytest.raises(InvalidEmbeddingError, match="has 2 numbers, not embedding_dimension = 3"):
        wire.decode_request(value(embedding=float32(3.0, 4.0)), limits=wire.Limits(dimension=3))
    many = float32(*([1.0] * (validation.KEPT_CHARS // 4)))
    assert decode(embedding=many).embedding is not decode(embedding=many).embedding


@pytest.mark.parametrize("bad", [[True], ["1"], [None], {"0": 1}, 1.0])
def test_only_numbers_make_a_vector(bad: object):
    with pytest.raises(SchemaViolationError, match=r"\$\.embedding"):
        decode(embedding=bad)


# --- results and encoders --------------------------------------------------------------------------------------


def test_the_request_id_is_found_in_a_request_that_is_wrong_elsewhere():
    assert wire.peek_request_id(value(decision=None)) == "r-1"
    assert wire.peek_request_id(b"{") is None
    assert wire.peek_request_id(value(request_id=7)) is None


def test_a_record_without_a_value_and_one_over_every_limit_are_not_read_for_an_id():
    assert wire.peek_request_id(None) is None
    padded = value().ljust(MAX_REQUEST_BYTES)
    assert wire.peek_request_id(padded) == "r-1"
    assert wire.peek_request_id(padded + b" ") is None


def test_an_execution_carries_its_trace_in_the_headers():
    assert (
        wire.decode_execution(_execution(), [("traceparent", TRACEPARENT)]).request.traceparent == TRACEPARENT.decode()
    )


def _execution() -> bytes:
    hashes = dict.fromkeys(("scope", "content_hash", "payload_hash"), "aa")
    targets = [{"provider": "p", "model": "m"}]
    request = orjson.loads(value())
    return orjson.dumps({"request": request, "targets": targets, "cache_ttl": 1, "cache_threshold": 1} | hashes)


def test_a_field_of_a_later_version_does_not_stop_an_execution():
    raw = orjson.loads(_execution())
    raw["request"]["later"] = raw["later"] = 1
    assert wire.decode_execution(orjson.dumps(raw)).request.request_id == "r-1"


def test_a_response_comes_back_from_its_record_as_it_was_with_every_field_filled():
    response = Response(
        request_id="r-1",
        status="error",
        text="t",
        provider="p",
        model="m",
        finish_reason="length",
        tool_calls=(CALL,),
        usage=Usage(1, 2, 3, 4),
        cost_usd=0.25,
        saved_usd=0.5,
        cache=CacheVerdict("semantic", 0.97, "e", "why", "k"),
        batch=BatchVerdict("follower", "r-0", 0.99, "lk"),
        attempts=(Attempt("p", "m", "timeout", 7.5, 504, 1.5),),
        timings_ms={"enrich": 1.5},
        error=ErrorInfo("rate_limited", "too many", "wait", retryable=True),
        route_id="billing",
        tenant="acme",
        source=SOURCE,
        from_journal=True,
        replay_id="again",
    )
    assert wire.decode_response(wire.encode_response(response)) == response


def test_a_dead_letter_comes_back_with_its_bytes_and_its_headers_one_without_a_value_empty():
    headers: Any = (("h", b"\xff\x00"), ("empty", None))
    letter = DeadLetter(
        "poison", "why", "do this", SOURCE, "enrich", b"\xfe", b"\xff", headers, 1_700_000_000_123, "r-1"
    )
    read = wire.decode_dead_letter(wire.encode_dead_letter(letter))
    assert read == replace(letter, headers=(("h", b"\xff\x00"), ("empty", b"")))


def test_what_json_cannot_hold_is_refused_by_the_encoder():
    with pytest.raises(SchemaViolationError, match="cannot be written as JSON"):
        wire.encode_response(Response("r-1", "ok", text="\ud800"))


# --- hashes ----------------------------------------------------------------------------------------------------

ROUTE = Route("billing", (Target("openai", "gpt-4o-mini"),))


@pytest.mark.parametrize(
    "changed",
    [
        {"query": "Other words"},
        {"decision": "support"},
        {"decision": {"route_id": "billing", "provider": "p", "model": "m"}},
        {"params": {"temperature": 1}},
        {"context": {"tenant": "acme"}},
        {"context": {"user": "u2"}},
    ],
)
def test_the_payload_hash_tells_another_request_under_the_same_id(changed: dict[str, Any]):
    assert wire.payload_hash(decode(**changed)) != wire.payload_hash(decode())


@pytest.mark.parametrize(
    "changed",
    [
        {"deadline": "2030-01-01T00:00:00Z"},
        {"embedding": [1, 2]},
        {"decision": {"route_id": "billing", "confidence": 0.5}},
        {"cache": {"mode": "refresh"}},
        {"reply_to": "responses"},
    ],
)
def test_sending_again_with_a_later_deadline_is_no_conflict(changed: dict[str, Any]):
    assert wire.payload_hash(decode(**changed)) == wire.payload_hash(decode())


def test_key_order_makes_no_other_hash():
    one, other = ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1})
    assert wire.payload_hash(decode(params=one)) == wire.payload_hash(decode(params=other))
    assert wire.scope_of(ROUTE, decode(params=one)) == wire.scope_of(ROUTE, decode(params=other))


@pytest.mark.parametrize(
    ("route", "changed"),
    [
        (ROUTE, {"context": {"tenant": "acme"}}),
        (ROUTE, {"params": {"temperature": 1}}),
        (replace(ROUTE, route_id="support"), {}),
        (replace(ROUTE, targets=(Target("openai", "gpt-4o"),)), {}),
        (replace(ROUTE, targets=(Target("openai", "gpt-4o-mini", {"seed": 1}),)), {}),
        (replace(ROUTE, system_prompt="Be brief."), {}),
        (replace(ROUTE, params={"max_tokens": 9}), {}),
    ],
)
def test_whatever_an_answer_depends_on_makes_another_scope(route: Route, changed: dict[str, Any]):
    assert wire.scope_of(route, decode(**changed)) != wire.scope_of(ROUTE, decode())


def test_words_user_and_weights_leave_the_scope_alone():
    request = decode(query="Other words", context={"user": "u2"}, embedding=[1, 2])
    weighted = replace(ROUTE, targets=(Target("openai", "gpt-4o-mini", weight=3),), weighted=True)
    assert wire.scope_of(weighted, request) == wire.scope_of(ROUTE, decode())


def test_a_route_that_shares_its_answers_has_one_scope_for_all_tenants():
    shared = replace(ROUTE, cache=RouteCache(share_across_tenants=True))
    one, other = (decode(context={"tenant": name}) for name in ("acme", "globex"))
    assert wire.scope_of(shared, one) == wire.scope_of(shared, other)


def test_a_shared_scope_is_no_tenants_own():
    shared = replace(ROUTE, cache=RouteCache(share_across_tenants=True))
    assert wire.scope_of(shared, decode()) != wire.scope_of(ROUTE, decode())


def test_a_decision_written_as_a_string_is_its_route():
    assert decode(decision="billing").decision == Decision("billing")


# --- headers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [[("h", b"")] * 129, [("h", b"x" * 40_000), ("i", b"x" * 40_000)]])
def test_more_headers_than_are_taken_are_refused_and_a_letter_keeps_the_first(headers):
    assert wire.decode_request(value(), headers=headers[:1])
    with pytest.raises(RecordTooLargeError, match="headers"):
        wire.decode_request(value(), headers=headers)
    assert 0 < len(wire.kept_headers(headers)) < len(headers)


def test_a_header_without_a_value_is_taken_and_kept():
    headers: list[Any] = [("trace-flags", None), ("traceparent", TRACEPARENT)]
    assert wire.decode_request(value(), headers=headers).traceparent == TRACEPARENT.decode()
    assert wire.kept_headers(headers) == tuple(headers)
