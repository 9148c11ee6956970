"""Loads the named statements of ``sql/queries.sql``: ``-- name: begin`` opens one, the next name ends it."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def load() -> dict[str, str]:
    """All statements by name. Raises ValueError where a name occurs twice."""
    return parse(files(__package__).joinpath("sql", "queries.sql").read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, str]:
    """Split ``text`` into statements; what stands before the first name is a comment."""
    _, *parts = _NAME.split(text)
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError(f"a statement's name occurs twice: {sorted(names)}")
    return {name: body.strip() for name, body in zip(names, bodies, strict=True)}


def sql(name: str) -> str:
    """The statement called ``name``. Raises KeyError where there is none."""
    return load()[name]
