"""How rows look on their way into PostgreSQL; that it reads columns of text so is in the journal's contract."""

from dataclasses import asdict

import orjson
import pytest

from stratarouter_runtime.journal import rows
from stratarouter_runtime.journal.arrays import text_array
from stratarouter_runtime.records import Answer, Attempt, Usage


@pytest.mark.parametrize(
    ("values", "literal"),
    [
        ((), "{}"),
        (("a", "b"), '{"a","b"}'),
        (("", "NULL", "a,b", "{x}"), '{"","NULL","a,b","{x}"}'),
        (('a"b', "c"), '{"a\\"b","c"}'),
        (("a\\", 'x","y'), '{"a\\\\","x\\",\\"y"}'),
        (("a", None), '{"a",NULL}'),
        ((None, None), None),
    ],
)
def test_column_is_written_as_an_array_of_text(values: tuple[str | None, ...], literal: str | None) -> None:
    assert text_array(values) == literal


def test_every_field_of_a_result_is_written() -> None:
    answer = Answer("t", "p", "m", Usage(1, 2, 3, 4), "length", 0.5, ({"id": "c"},))
    attempts = (Attempt("p", "m", "ok", 1.5, 200, 2.5),)
    assert rows.pack(answer) == orjson.dumps(asdict(answer))
    assert rows.pack(attempts) == orjson.dumps([asdict(one) for one in attempts])
    assert rows.pack(()) is rows.pack(None) is None
