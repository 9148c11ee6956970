"""The errors against what is documented of them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

from stratarouter_runtime import errors
from stratarouter_runtime.errors import BrokerError, RuntimeSystemError, UnreadableBatchError

PACKAGE = Path(errors.__file__).parent
CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, RuntimeSystemError) and value.__module__ == errors.__name__
]
LEAVES = [kind for kind in CLASSES if not any(kind in other.__bases__ for other in CLASSES)]
DRAWN = (errors.__doc__ or "").split("::\n\n")[1].split("\n\n")[0].splitlines()


def _tree(kind: type[RuntimeSystemError], above: str = "") -> Iterator[str]:
    """The classes under ``kind``, drawn in the order in which they are defined."""
    children = [other for other in CLASSES if kind in other.__bases__]
    for child in children:
        is_last = child is children[-1]
        yield f"{above}{'`' if is_last else '|'}-- {child.__name__}"
        yield from _tree(child, above + ("    " if is_last else "|   "))


def test_the_documented_tree_is_that_of_the_classes() -> None:
    shapes = [line.removeprefix("    ")[: len(line) - len(line.lstrip(" |`-")) - 4] for line in DRAWN]
    names = [line.lstrip(" |`-").split()[0] for line in DRAWN]
    drawn = [shape + name for shape, name in zip(shapes, names, strict=True)]
    assert drawn == [RuntimeSystemError.__name__, *_tree(RuntimeSystemError)]


def test_the_documented_codes_are_those_of_the_classes() -> None:
    said = {name: rest for name, *rest in (line.lstrip(" |`-").split() for line in DRAWN)}
    assert {kind.__name__: said[kind.__name__][:1] for kind in LEAVES} == {
        kind.__name__: [kind.code] for kind in LEAVES
    }


def test_every_code_is_one_classes_alone() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(codes) == len(set(codes))


def test_every_error_is_one_that_the_package_raises() -> None:
    named = {
        node.id
        for path in PACKAGE.rglob("*.py")
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name)
    }
    assert [kind.__name__ for kind in LEAVES if kind.__name__ not in named] == []


def test_an_unreadable_batch_has_a_code_and_a_remedy_of_its_own() -> None:
    error = UnreadableBatchError("the records from topic t partition 0 offset 7 on cannot be unpacked")
    assert isinstance(error, BrokerError)
    assert (error.code, error.retryable) == ("unreadable_batch", False)
    assert "kafka-consumer-groups --reset-offsets" in error.remedy
    assert "get no answer" in error.remedy


def test_what_a_code_means_is_said_without_any_message() -> None:
    for kind in CLASSES:
        said, remedy = errors.in_general(kind.code)
        assert (said, remedy) == (kind.__doc__, kind.default_remedy), kind
    assert errors.in_general("of_tomorrow") == ("a code of another version", "")
