"""Typed reads of a TOML table that note every mistake, each with its line, and every key that nobody read."""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Path = tuple[str | int, ...]

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""Integers in JSON as it is written here."""
_HEADER = re.compile(r"\s*(\[{1,2})(.+?)\]{1,2}\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=""")
_KEY_PART = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)""")


class TomlTable:
    """One table of a file: typed reads that note a problem and go on, and an account of which keys were read."""

    def __init__(self, data: Mapping[str, Any], path: Path, problems: list[tuple[Path, str]]) -> None:
        self.data = data
        self.path = path
        self._problems = problems
        self._read: set[str] = set()

    def problem(self, key: str | None, rule: str) -> None:
        """Note a mistake at ``key`` of this table, or in the table as a whole."""
        self._problems.append((self.path if key is None else (*self.path, key), rule))

    def text(self, key: str, default: str | None = None, *, required: bool = False) -> str | None:
        """A string that is not blank."""
        self._read.add(key)
        value = self.data.get(key)
        if value is None:
            if required:
                self.problem(None, f"needs {key!r}")
            return default
        if not isinstance(value, str) or not value.strip():
            self.problem(key, f"= {_short(value)} must be a non-empty string")
            return default
        return value

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """A string, or a list of different ones."""
        self._read.add(key)
        value = self.data.get(key)
        if value is None:
            return default
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not found or not all(isinstance(one, str) and one.strip() for one in found):
            self.problem(key, f"= {_short(value)} must be a non-empty string, or a list of them")
            return default
        if len(set(found)) < len(found):
            self.problem(key, f"= {_short(value)} names one twice")
        return tuple(found)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        self._read.add(key)
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            self.problem(key, f"= {_short(value)} must be true or false")
            return default
        return value

    def number(self, key: str, rule: str, low: float, high: float, *, open_low: bool = False) -> float | None:
        """A finite number within bounds; ``rule`` says them in words."""
        self._read.add(key)
        value = self.data.get(key)
        if value is None:
            return None
        # Compared as it is: an integer beyond the largest float cannot be made one.
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        if not number or not (low < value if open_low else low <= value) or value > high:
            self.problem(key, f"= {_short(value)} must be {rule}")
            return None
        return float(value)

    def count(self, key: str, high: int | None = None) -> int | None:
        """A whole number above 0, at most ``high``."""
        self._read.add(key)
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1 or (high is not None and value > high):
            rule = "above 0" if high is None else f"from 1 to {high}"
            self.problem(key, f"= {_short(value)} must be a whole number {rule}")
            return None
        return value

    def section(self, key: str) -> TomlTable:
        """A table within this one; an absent one is empty."""
        self._read.add(key)
        value = self.data.get(key, {})
        if not isinstance(value, Mapping):
            self.problem(key, f"= {_short(value)} must be a table")
            value = {}
        return TomlTable(value, (*self.path, key), self._problems)

    def sections(self, key: str) -> Iterator[tuple[str, TomlTable]]:
        """The named tables within the table ``key``."""
        parent = self.section(key)
        for name in parent.data:
            if not str(name).strip():
                parent.problem(name, "needs a name")
            yield name, parent.section(name)

    def json(self, key: str) -> dict[str, Any]:
        """A table that is sent on as JSON."""
        section = self.section(key)
        for name, value in section.data.items():
            if not _is_json(value):
                section.problem(name, f"= {_short(value)} must be what JSON can say: no date, nan, inf or huge number")
        return dict(section.data)

    def items(self, key: str) -> list[TomlTable]:
        """A list of at least one table."""
        self._read.add(key)
        value = self.data.get(key)
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            self.problem(None if value is None else key, f"needs {key!r}, a list of at least one table")
            return []
        found = []
        for index, item in enumerate(value):
            path = (*self.path, key, index)
            if isinstance(item, Mapping):
                found.append(TomlTable(item, path, self._problems))
            else:
                self._problems.append((path, f"= {_short(item)} must be a table"))
        return found

    def close(self) -> None:
        """Note every key that nobody read."""
        for key in self.data:
            if key not in self._read:
                near = difflib.get_close_matches(str(key), self._read, n=1)
                self.problem(key, "is unknown" + (f"; did you mean {near[0]!r}?" if near else ""))


def _is_json(value: object) -> bool:
    """Whether ``value`` is written as it is: a number that is none would become null, and a date a text."""
    match value:
        case Mapping():
            return all(isinstance(name, str) and _is_json(one) for name, one in value.items())
        case list() | tuple():
            return all(map(_is_json, value))
        case int():
            return SMALLEST <= value <= LARGEST
        case float():
            return math.isfinite(value)
        case _:
            return value is None or isinstance(value, str)


def located(source: str, text: str, path: Path, rule: str) -> str:
    """The message for a mistake: source, line where the text has it, key and rule."""
    line = line_of(text, path)
    where = source if line is None else f"{source}, line {line}"
    return f"{where}: {_dotted(path)} {rule}".replace(":  ", ": ")


def _dotted(path: Path) -> str:
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            shown += ("." if shown else "") + (part if NAME.fullmatch(part) else f'"{part}"')
    return shown


def line_of(text: str, path: Path) -> int | None:
    """The line (from 1) of the key at ``path`` in a TOML text, or of its nearest table; None where none is found."""
    best, best_depth = None, 0
    for number, here in _keys_by_line(text):
        shared = _shared_depth(here, path)
        if shared == len(here) and shared > best_depth:
            best, best_depth = number, shared
    return best


def _shared_depth(here: Path, path: Path) -> int:
    for depth, (one, other) in enumerate(zip(here, path, strict=False)):
        if one != other:
            return depth
    return min(len(here), len(path))


def _keys_by_line(text: str) -> Iterator[tuple[int, Path]]:
    """Each line's key as a path, by headers, keys at the line's start and inline tables that begin a line."""
    header: Path = ()
    key: Path = ()
    counts: dict[Path, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if (match := _HEADER.match(line)) and not line.lstrip().startswith("[{"):
            header, key = _parts(match[2]), ()
            if match[1] == "[[":
                counts[header] = counts.get(header, -1) + 1
                header = (*header, counts[header])
            yield number, header
        elif match := _KEY.match(line):
            key = (*header, *_parts(match[1]))
            counts.pop(key, None)
            yield number, key
        if key:
            yield from _inline_items(number, line, key, counts)


def _inline_items(number: int, line: str, key: Path, counts: dict[Path, int]) -> Iterator[tuple[int, Path]]:
    if line.lstrip().startswith("{"):
        counts[key] = counts.get(key, -1) + 1
        yield number, (*key, counts[key])


def _parts(dotted: str) -> Path:
    return tuple(match[1] or match[2] or match[3] or "" for match in _KEY_PART.finditer(dotted))


def _short(value: object) -> str:
    try:
        shown = repr(value)
    except ValueError:
        # Python writes none of more than 4,300 digits.
        return "an integer too long to show"
    return shown if len(shown) <= 60 else shown[:57] + "..."
