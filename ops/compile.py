# noqa: INP001 - a script, no module of a package
"""Compiles the modules that every request passes to machine code (mypyc), as part of a wheel.

hatchling calls this when it builds a wheel. It does nothing unless ``STRATAROUTER_COMPILE=1``: then the wheel is for
this platform and this Python. Each module's source lies beside what was made of it; where the platform differs, or
without the variable, the same code is interpreted. Needs a C compiler, Python's headers, mypy and setuptools, and the
packages that the modules import, for their types: ``make compiled`` has all of that in place.

The public surface (``CoreRuntimeBridge``, errors, ports, settings) stays interpreted: its classes can be derived from.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "stratarouter_runtime"
SOURCES = "pipeline"
MODULES = {
    "": (
        *("deadlines", "drafts", "json_bytes", "room", "routes", "told", "usage_deltas", "validation", "wire"),
        "wire_results",
    ),
    "cache": ("controlled", "memory", "normalise", "shelf"),
    "engine": (
        *("accept", "asking", "budgets", "calls", "coalesce", "engine", "fills", "gates", "later", "lookup", "perform"),
        *("places", "respond", "shadows", "work"),
    ),
    "journal": ("arrays", "grouped", "metered", "postgres", "rows"),
    "processors": ("batches", "enrich", "execute", "finished", "lane", "own_executions", "partitioner", "publish"),
    "providers": ("http_direct", "openai", "openai_request", "provider_set", "server"),
    "state": ("breaker", "limiter", "offsets"),
    "telemetry": ("responses",),
}
NAMES = [".".join(filter(None, (PACKAGE, folder, name))) for folder, names in MODULES.items() for name in names]


class CompileHook(BuildHookInterface[Any]):
    """Adds what was compiled to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a wheel is put together. Raises where a module cannot be compiled."""
        if version == "editable" or os.environ.get("STRATAROUTER_COMPILE") != "1":
            return
        made = Path(self.directory) / "compile"
        compile_modules(Path(self.root), made)
        for library in sorted(made.rglob("*.so")):
            build_data["force_include"][str(library)] = library.relative_to(made).as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def compile_modules(root: Path, into: Path) -> None:
    """Compile ``MODULES`` of the project at ``root``, with their folders, to ``into``."""
    from mypyc.build import mypycify  # noqa: PLC0415 - there only where it is asked for
    from setuptools import setup  # noqa: PLC0415

    with contextlib.chdir(root), tempfile.TemporaryDirectory() as scratch:
        extensions = mypycify(
            ["--config-file=pyproject.toml", *(f"{SOURCES}/{name.replace('.', '/')}.py" for name in NAMES)],
            opt_level="1",
            debug_level="0",
            target_dir=scratch,
            group_name=PACKAGE,
        )
        # Its own settings are those of pyproject.toml; nothing else of that is setuptools' concern.
        with contextlib.chdir(scratch):
            setup(
                name=PACKAGE,
                packages=[],
                ext_modules=extensions,
                script_args=["--quiet", "build_ext", "--build-lib", str(into), "--build-temp", scratch],
            )


def interpreted() -> list[str]:
    """Those of ``MODULES`` that Python, as it was started, loads from their source."""
    return [name for name in NAMES if str(importlib.import_module(name).__file__).endswith(".py")]


if __name__ == "__main__":
    left = interpreted()
    if left:
        sys.exit(f"not compiled: {', '.join(left)}")
