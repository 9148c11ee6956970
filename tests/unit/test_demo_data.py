"""The demo's records keep what its README promises."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

import stratarouter_runtime
from stratarouter_runtime import errors, wire
from stratarouter_runtime.cache.normalise import content_key
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.records import Decision
from stratarouter_runtime.routes import RouteTable

FOLDER = Path(stratarouter_runtime.__file__).parent / "demo_data"
LINES: list[dict[str, Any]] = [orjson.loads(line) for line in (FOLDER / "queries.jsonl").read_bytes().splitlines()]
KINDS = {"unique": 150, "repeat": 190, "paraphrase": 130, "near_miss": 100, "malformed": 30}
CONFIG = RuntimeConfig(embedding_dimension=384)
DERIVED = [line for line in LINES if "of" in line]
GOOD = [line for line in LINES if line["kind"] != "malformed"]


def record(line: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(line["raw"])
    return value


def messages(line: dict[str, Any]) -> list[dict[str, str]]:
    value = record(line)
    return value.get("messages") or [{"role": "user", "content": value["query"]}]


def scope(line: dict[str, Any]) -> tuple[str, str, bytes]:
    value = record(line)
    params = orjson.dumps(value.get("params", {}), option=orjson.OPT_SORT_KEYS)
    return value["context"]["tenant"], value["decision"]["route_id"], params


def key(line: dict[str, Any]) -> str:
    return content_key(repr(scope(line)), messages(line))


def test_the_counts_are_the_readme_s() -> None:
    assert Counter(line["kind"] for line in LINES) == KINDS


def test_every_derived_line_comes_after_an_original_of_its_own_scope() -> None:
    for at, line in enumerate(LINES):
        assert ("of" in line) == (line["kind"] in ("repeat", "paraphrase", "near_miss"))
        if "of" in line:
            original = LINES[line["of"]]
            assert line["of"] < at
            assert original["kind"] == "unique"
            assert scope(line) == scope(original)


def test_a_repeat_has_its_original_s_exact_key() -> None:
    assert all(key(line) == key(LINES[line["of"]]) for line in DERIVED if line["kind"] == "repeat")


def test_nothing_but_repeats_shares_an_exact_key() -> None:
    keys = Counter(key(line) for line in GOOD if line["kind"] != "repeat")
    assert keys.most_common(1)[0][1] == 1


def test_some_repeats_differ_in_case_or_spacing_and_some_follow_their_original_at_once() -> None:
    repeats = [(at, line) for at, line in enumerate(LINES) if line["kind"] == "repeat"]
    restyled = [line for _, line in repeats if messages(line) != messages(LINES[line["of"]])]
    assert len(restyled) == 22
    assert sum(line["of"] == at - 1 for at, line in repeats) >= 15


def test_the_same_question_is_asked_by_all_three_tenants_and_kept_apart() -> None:
    askers = {scope(line)[0] for line in GOOD if "reset my password" in messages(line)[-1]["content"]}
    assert askers == {"acme", "globex", "initech"}


def test_some_requests_hold_several_turns() -> None:
    assert sum(len(messages(line)) > 1 for line in GOOD) >= 8


def test_request_ids_are_never_used_twice() -> None:
    ids = [record(line)["request_id"] for line in GOOD]
    assert len(set(ids)) == len(ids)


def test_good_lines_expect_a_response_and_bad_ones_a_code_that_exists() -> None:
    codes = {error.code for error in errors.InvalidRecordError.__subclasses__()}
    assert all(line["expect"] == "response" for line in GOOD)
    assert {line["expect"] for line in LINES if line["kind"] == "malformed"} <= codes


def value(line: dict[str, Any]) -> bytes:
    if line.get("generate") == "oversize":
        return b'{"query": "' + b"x" * CONFIG.max_request_bytes + b'"}'
    return base64.b64decode(line["raw_base64"]) if "raw_base64" in line else str(line["raw"]).encode()


def outcome(line: dict[str, Any], table: RouteTable) -> str:
    try:
        request = wire.decode_request(value(line), limits=wire.Limits.of(CONFIG))
        table.resolve(request.decision)
    except errors.InvalidRecordError as exc:
        return exc.code
    return "response"


def test_the_decoder_does_with_every_line_what_the_line_expects() -> None:
    table = RouteTable.load(FOLDER / "routes.toml")
    found = {at: outcome(line, table) for at, line in enumerate(LINES)}
    assert {at: code for at, code in found.items() if code != LINES[at]["expect"]} == {}


def test_every_malformed_line_says_its_value_in_exactly_one_way() -> None:
    for line in LINES:
        assert len({"raw", "raw_base64", "generate"} & line.keys()) == 1
        if "raw_base64" in line:
            with pytest.raises(UnicodeDecodeError):
                base64.b64decode(line["raw_base64"]).decode()


def test_every_good_record_passes_the_route_table() -> None:
    table = RouteTable.load(FOLDER / "routes.toml")
    for line in GOOD:
        decision = record(line)["decision"]
        route = table.routes[decision["route_id"]]
        assert decision["confidence"] >= route.min_confidence
    with pytest.raises(errors.UnknownRouteError):
        table.resolve(Decision("astrology"))


def test_every_target_has_a_known_price() -> None:
    from genai_prices import Usage, calc_price

    table = RouteTable.load(FOLDER / "routes.toml")
    models = {(target.provider, target.model) for route in table.routes.values() for target in route.targets}
    for provider, model in models:
        assert calc_price(Usage(input_tokens=1000), model, provider_id=provider).total_price > 0
