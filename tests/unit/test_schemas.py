"""The JSON Schemas and the decoders are two statements of one contract; each is held against the other."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from stratarouter_runtime import contracts, records, usage_deltas, wire, wire_control
from stratarouter_runtime.errors import InvalidRecordError, SchemaViolationError
from stratarouter_runtime.records import (
    Attempt,
    BatchVerdict,
    CacheCommand,
    CacheOptions,
    CacheVerdict,
    Context,
    Coordinates,
    DeadLetter,
    Decision,
    ErrorInfo,
    Execution,
    Request,
    Response,
    Target,
    Usage,
)

EXAMPLES = contracts.schemas_folder() / "examples"
DECODERS = {
    "request": functools.partial(
        wire.decode_request, limits=wire.Limits(reply_prefix="responses"), default_id="made-up"
    ),
    "execution": wire.decode_execution,
    "response": wire.decode_response,
    "dead-letter": wire.decode_dead_letter,
    "cache-control": wire_control.decode_command,
    "usage-delta": usage_deltas.decode,
    "usage": usage_deltas.decode_usage,
}


def examples(group: str) -> list[Any]:
    """Every example of ``group`` with its kind, named for the report."""
    paths = sorted(EXAMPLES.glob(f"*/{group}/*.json"))
    return [pytest.param(path.parts[-3], path, id=f"{path.parts[-3]}-{path.stem}") for path in paths]


@functools.cache
def validator(kind: str) -> Draft202012Validator:
    """A validator that knows every schema."""
    resources = [Resource.from_contents(contracts.schema(name)) for name in contracts.schema_names()]
    registry = Registry().with_resources([(resource.id(), resource) for resource in resources])
    return Draft202012Validator(contracts.schema(f"{kind}.v1"), registry=registry)


# --- examples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", contracts.schema_names())
def test_each_schema_is_valid_and_says_what_it_is(name: str):
    schema = contracts.schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["title"]
    assert schema["description"]


@pytest.mark.parametrize(("kind", "path"), examples("valid"))
def test_valid_example_passes_schema_and_decoder(kind: str, path: Path):
    value = path.read_bytes()
    assert list(validator(kind).iter_errors(orjson.loads(value))) == []
    assert DECODERS[kind](value)


@pytest.mark.parametrize(("kind", "path"), examples("invalid"))
def test_invalid_example_is_refused_by_both_with_its_code_and_path(kind: str, path: Path):
    example = orjson.loads(path.read_bytes())
    with pytest.raises(InvalidRecordError, match=rf"{re.escape(example['path'])}(?![\w\[])") as refused:
        DECODERS[kind](orjson.dumps(example["record"]))
    assert refused.value.code == example["expect"]
    only_the_decoder = example.get("refused_by") == "decoder"
    assert validator(kind).is_valid(example["record"]) == only_the_decoder


def test_there_are_examples_enough_to_mean_something():
    counts = {kind: len(list((EXAMPLES / "request" / kind).iterdir())) for kind in ("valid", "invalid")}
    assert counts["valid"] >= 8
    assert counts["invalid"] >= 15
    for kind in DECODERS:
        assert any((EXAMPLES / kind / "valid").iterdir())
        assert any((EXAMPLES / kind / "invalid").iterdir())


# --- names -----------------------------------------------------------------------------------------------------

SAME_NAMES = [
    ("execution.v1", None, Execution),
    ("execution.v1", "target", Target),
    ("execution.v1", "coordinates", Coordinates),
    ("response.v1", None, Response),
    ("response.v1", "usage", Usage),
    ("response.v1", "cache_verdict", CacheVerdict),
    ("response.v1", "batch_verdict", BatchVerdict),
    ("response.v1", "attempt", Attempt),
    ("response.v1", "error", ErrorInfo),
    ("response.v1", "coordinates", Coordinates),
    ("usage-delta.v1", None, usage_deltas.Delta),
    ("usage-delta.v1", "receipt", usage_deltas.Receipt),
]


def properties(name: str, definition: str | None = None) -> set[str]:
    """The property names in a schema, or in one of its definitions."""
    schema = contracts.schema(name)
    return set((schema if definition is None else schema["$defs"][definition])["properties"])


@pytest.mark.parametrize(("name", "definition", "record"), SAME_NAMES)
def test_schema_and_record_have_the_same_fields(name: str, definition: str | None, record: type):
    # Where an execution goes stands in its key, not in its value.
    assert properties(name, definition) == {field.name for field in dataclasses.fields(record)} - {"spread"}


def test_request_schema_and_decoder_know_the_same_fields():
    assert properties("request.v1") == wire.REQUEST_FIELDS
    assert properties("request.v1", "decision") == wire.DECISION_FIELDS
    assert properties("request.v1", "cache") == wire.CACHE_FIELDS
    assert properties("request.v1", "context") == {f.name for f in dataclasses.fields(Context)} - {"extra"}


def test_dead_letter_schema_has_the_records_fields_with_its_time_written_out():
    fields = {field.name for field in dataclasses.fields(DeadLetter)}
    assert properties("dead-letter.v1") == fields - {"failed_at_ms"} | {"failed_at"}


def test_cache_control_schema_has_the_records_fields_with_its_time_written_out():
    fields = {field.name for field in dataclasses.fields(CacheCommand)}
    assert properties("cache-control.v1") == fields - {"at_ms"} | {"at"} == wire_control.CONTROL_FIELDS


def test_each_closed_set_is_the_records_own():
    actions = contracts.schema("cache-control.v1")["properties"]["action"]["enum"]
    assert set(actions) == set(records.CacheAction.__args__) == wire_control.CONTROL_ACTIONS
    request, response = contracts.schema("request.v1")["$defs"], contracts.schema("response.v1")
    modes = set(request["cache"]["properties"]["mode"]["enum"]) - {None}
    assert modes == set(records.CacheMode.__args__) == wire.CACHE_MODES
    assert set(request["message"]["properties"]["role"]["enum"]) == wire.ROLES
    assert set(response["properties"]["status"]["enum"]) == set(records.Status.__args__)
    kinds = response["$defs"]["cache_verdict"]["properties"]["kind"]["enum"]
    assert set(kinds) == set(records.CacheVerdictKind.__args__)
    roles = response["$defs"]["batch_verdict"]["properties"]["role"]["enum"]
    assert set(roles) == set(records.BatchRole.__args__)


# --- what the encoders write -----------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
names = st.text(st.sampled_from("abc-_.09"), min_size=1, max_size=9).filter(lambda name: name not in (".", ".."))
finite = st.floats(allow_nan=False, allow_infinity=False)
fractions = st.floats(0, 1)
money = st.none() | st.floats(0, 1e6)
similarities = st.floats(0, 1, exclude_min=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
offsets = st.integers(0, 2**63 - 1)
coordinates = st.builds(
    Coordinates, topic=names, partition=st.integers(0, 2**31 - 1), offset=offsets, timestamp_ms=st.integers(-1, 2**62)
)
epoch_ms = st.integers(0, 253_402_300_799_000)  # up to the end of the year 9999, where RFC 3339 ends


@st.composite
def vectors(draw: st.DrawFn) -> np.ndarray:
    raw = np.array(draw(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8)), dtype=np.float64) + 2.0
    return (raw / np.linalg.norm(raw)).astype(np.float32)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    own_target = draw(st.booleans())
    return Decision(
        route_id=draw(ids),
        confidence=draw(st.none() | fractions),
        scores=draw(st.dictionaries(texts, finite, max_size=3)),
        alternatives=tuple(draw(st.lists(ids, max_size=2))),
        provider=draw(ids) if own_target else None,
        model=draw(ids) if own_target else None,
    )


messages = st.fixed_dictionaries({"role": st.sampled_from(sorted(wire.ROLES)), "content": texts})
contexts = st.builds(
    Context,
    tenant=ids,
    user=st.none() | ids,
    session=st.none() | ids,
    extra=json_objects.map(lambda found: {k: v for k, v in found.items() if k not in ("tenant", "user", "session")}),
)
requests = st.builds(
    Request,
    request_id=ids,
    decision=decisions(),
    messages=st.lists(messages, min_size=1, max_size=3).map(tuple),
    params=json_objects,
    context=contexts,
    embedding=st.none() | vectors(),
    deadline_ms=st.none() | epoch_ms,
    cache=st.builds(
        CacheOptions,
        mode=st.sampled_from(sorted(wire.CACHE_MODES)),
        ttl=st.none() | st.integers(1, 315_360_000),
        threshold=st.none() | similarities,
        tags=st.lists(ids, max_size=3).map(tuple),
    ),
    reply_to=st.none() | names,
    traceparent=st.none(),
)
targets = st.builds(Target, provider=ids, model=ids, params=json_objects, weight=st.floats(0, 100))
timings = st.dictionaries(texts, st.floats(0, 1e6), max_size=3)
executions = st.builds(
    Execution,
    request=requests,
    targets=st.lists(targets, min_size=1, max_size=3).map(tuple),
    system_prompt=st.none() | texts,
    scope=ids,
    content_hash=ids,
    payload_hash=ids,
    source=st.none() | coordinates,
    cache_ttl=st.integers(0, 315_360_000),
    cache_threshold=similarities,
    batch_threshold=st.none() | similarities,
    enriched_ms=timings,
    cache_tags=st.lists(ids, max_size=3).map(tuple),
)
attempts = st.builds(
    Attempt,
    provider=texts,
    model=texts,
    outcome=texts,
    duration_ms=finite,
    status=st.none() | st.integers(100, 599),
    waited_ms=finite,
)
responses = st.builds(
    Response,
    request_id=ids,
    status=st.sampled_from(["ok", "error"]),
    text=st.none() | texts,
    provider=st.none() | texts,
    model=st.none() | texts,
    finish_reason=st.none() | texts,
    tool_calls=st.lists(json_objects, max_size=2).map(tuple),
    usage=st.builds(Usage, offsets, offsets, offsets, offsets),
    cost_usd=money,
    saved_usd=money,
    cache=st.builds(
        CacheVerdict,
        st.sampled_from(["exact", "semantic", "miss", "bypass"]),
        st.none() | finite,
        st.none() | texts,
        key=st.none() | texts,
    ),
    batch=st.builds(
        BatchVerdict,
        st.sampled_from(["none", "leader", "follower"]),
        st.none() | texts,
        st.none() | finite,
        leader_key=st.none() | texts,
    ),
    attempts=st.lists(attempts, max_size=2).map(tuple),
    timings_ms=timings,
    error=st.none() | st.builds(ErrorInfo, texts, texts, texts, st.booleans()),
    route_id=texts,
    tenant=ids,
    source=st.none() | coordinates,
    from_journal=st.booleans(),
)
letters = st.builds(
    DeadLetter,
    code=texts,
    reason=texts,
    remedy=texts,
    source=coordinates,
    processor=texts,
    key=st.none() | st.binary(max_size=20),
    value=st.none() | st.binary(max_size=20),
    headers=st.lists(st.tuples(texts, st.binary(max_size=9)), max_size=2).map(tuple),
    failed_at_ms=epoch_ms,
    request_id=st.none() | ids,
)


reasons = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9)
selectors = st.one_of(
    st.fixed_dictionaries({"key": ids}),
    st.fixed_dictionaries({"request_id": ids}, optional={"tenant": ids}),
    st.fixed_dictionaries({"tag": ids}),
    st.fixed_dictionaries({"route_id": ids}),
    st.fixed_dictionaries({"tenant": ids}),
    st.just({"everything": True}),
)
commands = st.one_of(
    st.builds(
        lambda by, reason, at_ms, named: CacheCommand("invalidate", by, reason, at_ms, **named),
        ids,
        reasons,
        epoch_ms,
        selectors,
    ),
    st.builds(
        CacheCommand,
        action=st.just("correct"),
        by=ids,
        reason=reasons,
        at_ms=epoch_ms,
        key=ids,
        tenant=st.none() | ids,
        text=reasons,
        ttl=st.none() | st.integers(1, 9999),
    ),
    st.builds(
        CacheCommand,
        action=st.just("mark_wrong"),
        by=ids,
        reason=reasons,
        at_ms=epoch_ms,
        key=ids,
        answered_by=st.none() | ids,
        request_id=st.none() | ids,
        asked=st.none() | texts,
        stored=st.none() | texts,
    ),
    st.builds(
        CacheCommand,
        action=st.just("mark_wrong"),
        by=ids,
        reason=reasons,
        at_ms=epoch_ms,
        request_id=ids,
        tenant=st.none() | ids,
    ),
)


def assert_valid(kind: str, value: bytes) -> None:
    """Fail with the schema's first complaint."""
    problems = [f"{error.json_path}: {error.message}" for error in validator(kind).iter_errors(orjson.loads(value))]
    assert problems == []


def same_request(one: Request, other: Request) -> bool:
    """Equality that knows arrays."""
    bare = [dataclasses.replace(request, embedding=None) for request in (one, other)]
    return bare[0] == bare[1] and (
        (one.embedding is None and other.embedding is None) or np.array_equal(one.embedding, other.embedding)
    )


@settings(max_examples=60, deadline=None)
@given(requests)
def test_an_encoded_request_is_valid_and_comes_back_the_same(request: Request):
    value = wire.encode_request(request)
    assert_valid("request", value)
    assert same_request(wire.decode_request(value), request)


@settings(max_examples=60, deadline=None)
@given(executions)
def test_an_encoded_execution_is_valid_and_comes_back_the_same(execution: Execution):
    value = wire.encode_execution(execution)
    assert_valid("execution", value)
    again = wire.decode_execution(value)
    assert same_request(again.request, execution.request)
    assert dataclasses.replace(again, request=execution.request) == execution


@settings(max_examples=60, deadline=None)
@given(responses)
def test_an_encoded_response_is_valid_and_comes_back_the_same(response: Response):
    value = wire.encode_response(response)
    assert_valid("response", value)
    assert wire.decode_response(value) == response


@settings(max_examples=60, deadline=None)
@given(letters)
def test_an_encoded_dead_letter_is_valid_and_keeps_every_byte(letter: DeadLetter):
    value = wire.encode_dead_letter(letter)
    assert_valid("dead-letter", value)
    assert wire.decode_dead_letter(value) == letter


@settings(max_examples=60, deadline=None)
@given(commands)
def test_an_encoded_command_is_valid_and_comes_back_the_same(command: CacheCommand):
    value = wire_control.encode_command(command)
    assert_valid("cache-control", value)
    assert wire_control.decode_command(value) == command


def test_what_is_wrong_with_a_command_names_the_contract_of_commands():
    with pytest.raises(SchemaViolationError, match="names none") as caught:
        wire_control.encode_command(CacheCommand("invalidate", "ann", "why", 1))
    assert "schemas/cache-control.v1.json" in caught.value.remedy


WHOLE = orjson.loads((EXAMPLES / "request" / "valid" / "whole.json").read_bytes())
near_misses = json_values | st.sampled_from(
    [0, 1, -1, 1.5, True, "", "x", [], {}, [0.5], ["x"], "AAAAAA==", {"a": None}]
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["", "decision", "cache", "context"]),
    st.sampled_from(sorted(wire.REQUEST_FIELDS | wire.DECISION_FIELDS | wire.CACHE_FIELDS | {"tenant", "user"})),
    near_misses,
)
def test_what_the_decoder_takes_the_schema_takes_too(place: str, field: str, value: Any):
    changed = orjson.loads(orjson.dumps(WHOLE))
    (changed[place] if place else changed)[field] = value
    try:
        DECODERS["request"](orjson.dumps(changed))
    except InvalidRecordError as exc:
        refused = exc
    else:
        assert_valid("request", orjson.dumps(changed))
        return
    # What only the decoder can refuse lies in the words of three of its rules.
    if validator("request").is_valid(changed):
        assert refused.code in {"invalid_embedding", "reply_topic_not_allowed"} or "base64" in refused.message


# --- near misses -----------------------------------------------------------------------------------------------

NEAR_MISSES = [None, 0, 0.0, False, "", [], {}, 1.5, "x\n", "a\u0001", "2026-01-01T00:00:00Z\n"]
"""Above all what counts as false in Python: null alone means that a field is left out."""


def places(found: object) -> list[tuple[Any, ...]]:
    """The path to each value inside ``found``."""
    inner = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    return [place for key, value in inner for place in ((key,), *((key, *rest) for rest in places(value)))]


def put(found: Any, place: tuple[Any, ...], value: object) -> Any:
    """A copy of ``found`` with ``value`` at ``place``."""
    changed = orjson.loads(orjson.dumps(found))
    functools.reduce(lambda inside, key: inside[key], place[:-1], changed)[place[-1]] = value
    return changed


@pytest.mark.parametrize(("kind", "path"), examples("valid"))
def test_decoder_and_schema_agree_about_what_stands_in_the_place_of_any_value(kind: str, path: Path):
    example = orjson.loads(path.read_bytes())
    known = {(name,) for name in contracts.schema(f"{kind}.v1")["properties"]}
    for place in sorted({*places(example), *known}, key=str):
        for value in NEAR_MISSES:
            changed = put(example, place, value)
            try:
                DECODERS[kind](orjson.dumps(changed))
                taken = True
            except InvalidRecordError as exc:
                # Only the decoder can refuse these: see below.
                if exc.code == "invalid_embedding" or "base64" in exc.message:
                    continue
                taken = False
            assert validator(kind).is_valid(changed) is taken, (place, value)


@pytest.mark.parametrize("time", ["2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2016-12-31T23:59:60Z"])
def test_a_day_or_time_that_is_not_there_is_refused_by_the_decoder_alone_and_the_schemas_say_so(time: str):
    for kind, field in (("request", "deadline"), ("cache-control", "at"), ("dead-letter", "failed_at")):
        example = orjson.loads(next((EXAMPLES / kind / "valid").glob("*.json")).read_bytes()) | {field: time}
        with pytest.raises(InvalidRecordError, match=rf"\$\.{field} = '{re.escape(time)}'"):
            DECODERS[kind](orjson.dumps(example))
        assert validator(kind).is_valid(example)
        assert "no pattern can say" in contracts.schema(f"{kind}.v1")["properties"][field]["description"]
