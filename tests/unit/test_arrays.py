"""Columns of text as PostgreSQL reads them; that it reads them so is in the journal's contract."""

import pytest

from stratarouter_runtime.journal.arrays import text_array


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
