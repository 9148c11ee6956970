"""The README's table of providers is what the adapters say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from stratarouter_runtime.providers import ADAPTERS, table
from stratarouter_runtime.providers.features import FEATURES

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_holds_the_table() -> None:
    page = README.read_text()
    assert page == table.into(page), "run `make docs`"


def test_every_kind_says_something_of_every_feature() -> None:
    assert {name.strip("`") for name in table.TABLES} == set(ADAPTERS) - {"simulator"}
    for says in table.TABLES.values():
        assert list(says) == list(FEATURES)
        assert all(said in {"yes", "no", "error"} or said.startswith("yes, ") for said in says.values())


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks"):
        table.into("nothing")
