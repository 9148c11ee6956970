"""What a dataclass is given before it is compiled takes, and sets, what the standard library's would."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ADDRESS = re.compile(" at 0x[0-9a-f]+")


def _run(text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``text`` as a module of its own, whatever was imported under its name before."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(text, f"{name} as text", "exec"), module.__dict__)
    return module


def _script() -> ModuleType:
    file = ROOT / "ops/compile.py"
    spec = importlib.util.spec_from_file_location("ops_compile", file)
    assert spec is not None and spec.loader is not None  # noqa: PT018 - of a file that is there
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()


def _dataclasses(module: ModuleType) -> dict[str, type[Any]]:
    own = {name: value for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
    return {name: value for name, value in own.items() if isinstance(value, type) and dataclasses.is_dataclass(value)}


def _made(kind: type[Any], given: dict[str, object]) -> dict[str, object]:
    made = kind(**given)
    return {field.name: getattr(made, field.name) for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("name", SCRIPT.NAMES)
def test_an_init_that_is_written_out_does_what_the_standard_librarys_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SCRIPT.source_of(name)
    source = (ROOT / file).read_text(encoding="utf-8")
    importlib.import_module(name)  # what asks for it in turn is there then
    before = _run(source, name, monkeypatch)
    after = _run(SCRIPT.with_inits(source, file), name, monkeypatch)
    kinds = _dataclasses(before)
    assert _dataclasses(after).keys() == kinds.keys()
    for kind in kinds.values():
        written = vars(after)[kind.__name__]
        assert written.__init__.__code__.co_filename.endswith("as text"), "it was not written out"
        fields = dataclasses.fields(kind)
        assert [field.name for field in dataclasses.fields(written)] == [field.name for field in fields]
        whole = {field.name: f"given {field.name}" for field in fields}
        assert _made(written, whole) == whole
        assert list(inspect.signature(written).parameters) == list(whole)
        assert ("__hash__" in vars(written)) == ("__hash__" in vars(kind))
        if vars(kind).get("__hash__"):
            assert hash(written(**whole)) == hash(kind(**whole))
        positional = written(*whole.values())
        assert {name: getattr(positional, name) for name in whole} == whole
        needed = {field.name: whole[field.name] for field in fields if _must_be_given(field)}
        assert ADDRESS.sub("", repr(written(**needed))) == ADDRESS.sub("", repr(kind(**needed)))
        for missing in needed:
            with pytest.raises(TypeError, match=missing):
                written(**{name: value for name, value in needed.items() if name != missing})


def _must_be_given(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


HEAD = "from dataclasses import dataclass, field\n\n"


def test_what_a_factory_makes_is_made_anew_and_what_follows_the_fields_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = HEAD + (
        "@dataclass(\n    slots=True,\n)\n"
        "class Kept:\n"
        "    limit: int\n"
        "    by: dict[str, int] = field(default_factory=lambda: {'a': 1})\n"
        "    all: list[int] = field(default_factory=list, repr=False)\n\n"
        "    def __post_init__(self) -> None:\n"
        "        self.limit += 1\n\n\n"
        "LAST = Kept(1)\n"
    )
    module = _run(SCRIPT.with_inits(source, "kept.py"), "kept", monkeypatch)
    one, other = module.Kept(1), module.Kept(1)
    assert (one.limit, one.by, one.all) == (2, {"a": 1}, [])
    assert one == other == module.LAST
    assert one.by is not other.by
    assert one.all is not other.all


def test_a_class_with_an_init_of_its_own_and_one_that_is_no_dataclass_stay_as_they_are() -> None:
    source = HEAD + (
        "@dataclass(init=False)\nclass Own:\n    at: int\n\n    def __init__(self) -> None:\n        self.at = 3\n\n\n"
        "class Plain:\n    at: int = 4\n"
    )
    assert SCRIPT.with_inits(source, "own.py") == source


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("class A(Base):\n    at: int\n", "made.py: A has fields of its bases too"),
        ("class A:\n    at: int = field(kw_only=True)\n", "made.py: A.at: of field"),
        ("class A:\n    at: dict[str, int] | None = field(default_factory=dict)\n", "made.py: A.at: None is a value"),
    ],
)
def test_what_cannot_be_written_out_says_where_it_is(body: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SCRIPT.with_inits(f"{HEAD}@dataclass\n{body}", "made.py")
