# noqa: INP001 - a script, no module of a package
"""Compiles the modules that every request passes to machine code (mypyc), as part of a wheel.

hatchling calls this when it builds a wheel. It does nothing unless ``STRATAROUTER_COMPILE=1``: then the wheel is for
this platform and this Python. Each module's source lies beside what was made of it; where the platform differs, or
without the variable, the same code is interpreted. Needs a C compiler, Python's headers, mypy and setuptools, and the
packages that the modules import, for their types: ``make compiled`` has all of that in place.

The public surface (``CoreRuntimeBridge``, errors, ports, settings) stays interpreted: its classes can be derived from.

mypyc leaves the ``__init__`` of a dataclass to the standard library, which sets each field through Python: 800 ns for
eight, where a class that is interpreted takes 170 and one whose ``__init__`` is compiled 60. So each dataclass is given
an ``__init__`` of its own fields before it is compiled (``with_inits``).
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "stratarouter_runtime"
SOURCES = "pipeline"
MODULES = {
    "": (
        *("deadlines", "drafts", "json_bytes", "port_values", "records", "room", "routes", "told"),
        *("usage_deltas", "validation", "wire", "wire_results"),
    ),
    "cache": ("cases", "controlled", "memory", "normalise", "shelf"),
    "engine": (
        *("accept", "asking", "budgets", "calls", "coalesce", "engine", "fills", "gates", "later", "lookup", "perform"),
        *("places", "respond", "shadows", "spread", "tokens", "work"),
    ),
    "journal": ("arrays", "grouped", "metered", "postgres", "rows"),
    "processors": ("batches", "enrich", "execute", "finished", "lane", "own_executions", "partitioner", "publish"),
    "providers": ("http_direct", "openai", "openai_request", "pricing", "provider_set", "rate_headers", "server"),
    "state": ("breaker", "cache_control", "limiter", "offsets"),
    "telemetry": ("responses", "spans"),
    # The provider's stand-in, which shares the machine with what it measures.
    "testing": ("simulator_chat", "simulator_endpoints", "simulator_http", "simulator_limits"),
}
NAMES = [".".join(filter(None, (PACKAGE, folder, name))) for folder, names in MODULES.items() for name in names]


def source_of(name: str) -> str:
    """Where a module's source lies, from the project's root."""
    return f"{SOURCES}/{name.replace('.', '/')}.py"


class CompileHook(BuildHookInterface[Any]):
    """Adds what was compiled to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a wheel is put together. Raises where a module cannot be compiled."""
        if version == "editable" or os.environ.get("STRATAROUTER_COMPILE") != "1":
            return
        made = Path(self.directory) / "compile"
        shutil.rmtree(made, ignore_errors=True)
        compile_modules(Path(self.root), made)
        for file in sorted(path for path in made.rglob("*") if path.is_file()):
            place = file.relative_to(made).as_posix()
            build_data["force_include"][str(file)] = place
            # In the place of the one that it was made of.
            self.build_config.target_config.setdefault("exclude", []).append(f"/{SOURCES}/{place}")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compile_modules(root: Path, into: Path) -> None:
    """Compile ``MODULES`` of the project at ``root``, in their folders, to ``into``; beside them what was compiled."""
    from mypyc.build import mypycify  # noqa: PLC0415 - there only where it is asked for
    from setuptools import setup  # noqa: PLC0415

    files = [source_of(name) for name in NAMES]
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        shutil.copytree(root / SOURCES, SOURCES, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(root / "pyproject.toml", ".")
        for file in files:
            Path(file).write_text(with_inits(Path(file).read_text(encoding="utf-8"), file), encoding="utf-8")
        extensions = mypycify(
            ["--config-file=pyproject.toml", "--no-warn-unused-ignores", *files],
            opt_level="1",
            debug_level="0",
            target_dir=scratch,
            group_name=PACKAGE,
        )
        # Its own settings are those of pyproject.toml; nothing else of that is setuptools' concern.
        Path("pyproject.toml").unlink()
        setup(
            name=PACKAGE,
            packages=[],
            ext_modules=extensions,
            script_args=["--quiet", "build_ext", "--build-lib", str(into), "--build-temp", "objects"],
        )
        for file in files:
            beside = into / Path(file).relative_to(SOURCES)
            beside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, beside)


def with_inits(source: str, file: str) -> str:
    """``source`` with an ``__init__`` written out for each of its dataclasses that has none.

    It takes what the standard library's would, and does what it does. They are frozen to the type checker before, which
    has seen all of the code as it is. Raises ValueError naming class and field for what cannot be written so.
    """
    lines = source.splitlines(keepends=True)
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    for node in sorted(classes, key=lambda node: -node.lineno):
        mark = next((mark for mark in node.decorator_list if ast.unparse(mark).startswith("dataclass")), None)
        methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
        if mark is None or "__init__" in methods:
            continue
        if node.bases:
            raise ValueError(f"{file}: {node.name} has fields of its bases too; write its __init__ out")
        assert node.end_lineno is not None
        lines.insert(node.end_lineno, _init_of(node, methods, file))
        lines[mark.lineno - 1 : mark.end_lineno] = [f"{' ' * (mark.col_offset - 1)}@{_without_init(mark)}\n"]
    return "".join(lines)


def _without_init(mark: ast.expr) -> str:
    options = {option.arg: ast.unparse(option.value) for option in mark.keywords} if isinstance(mark, ast.Call) else {}
    options.pop("slots", None)
    if options.pop("frozen", None) == "True":
        options["unsafe_hash"] = "True"
    options["init"] = "False"
    return f"dataclass({', '.join(f'{name}={value}' for name, value in options.items())})"


def _init_of(node: ast.ClassDef, methods: set[str], file: str) -> str:
    """The text of an ``__init__`` for the fields of ``node``, to stand at the end of its body."""
    indent = " " * (node.col_offset + 4)
    taken, sets = ["self"], []
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.annotation).startswith("ClassVar["):
            argument, value = _field(part, f"{file}: {node.name}")
            taken.append(argument)
            sets.append(f"self.{ast.unparse(part.target)} = {value}")
    if "__post_init__" in methods:
        sets.append("self.__post_init__()")
    body = "".join(f"{indent}    {line}\n" for line in sets or ["pass"])
    return f"\n{indent}def __init__({', '.join(taken)}) -> None:\n{body}"


def _field(part: ast.AnnAssign, where: str) -> tuple[str, str]:
    """The argument for a field, and the expression that the field is set to."""
    name, kind, default = ast.unparse(part.target), ast.unparse(part.annotation), part.value
    if isinstance(default, ast.Call) and ast.unparse(default.func) == "field":
        options = {option.arg: option.value for option in default.keywords}
        if options.keys() - {"default", "default_factory", "repr", "compare"}:
            raise ValueError(f"{where}.{name}: of field()'s options only default, default_factory, repr and compare")
        default = options.get("default")
        if "default_factory" in options:
            if "None" in kind.split(" | "):
                raise ValueError(f"{where}.{name}: None is a value of it; give it a default other than a factory")
            made = _made_by(options["default_factory"])
            return f"{name}: {kind} | None = None", f"{made} if {name} is None else {name}"
    return f"{name}: {kind}" + (f" = {ast.unparse(default)}" if default is not None else ""), name


def _made_by(factory: ast.expr) -> str:
    if isinstance(factory, ast.Lambda):
        return ast.unparse(factory.body)
    return {"dict": "{}", "list": "[]"}.get(ast.unparse(factory), f"{ast.unparse(factory)}()")


def interpreted() -> list[str]:
    """Those of ``MODULES`` that Python, as it was started, loads from their source."""
    return [name for name in NAMES if str(importlib.import_module(name).__file__).endswith(".py")]


if __name__ == "__main__":
    left = interpreted()
    if left:
        sys.exit(f"not compiled: {', '.join(left)}")
