"""Finds and reads the contract files: ``topics.toml`` and the JSON Schemas, in a checkout or in an installed wheel."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import orjson

from stratarouter_runtime.errors import ConfigurationError

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_contracts"
_CHECKOUT = _PACKAGE.parent.parent


def topics_file() -> Path:
    """Where ``topics.toml`` stands. Raises ConfigurationError where the installation lacks it."""
    return _first(_INSTALLED / "topics.toml", _CHECKOUT / "topics" / "topics.toml")


def schemas_folder() -> Path:
    """Where the JSON Schemas stand. Raises ConfigurationError where the installation lacks them."""
    return _first(_INSTALLED / "schemas", _CHECKOUT / "schemas")


def schema_names() -> tuple[str, ...]:
    """The schemas there are, as ``request.v1``, in alphabetical order."""
    return tuple(sorted(path.name.removesuffix(".json") for path in schemas_folder().glob("*.v*.json")))


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema called ``name`` (as ``request.v1``); shared, not to be changed. Raises ConfigurationError."""
    if name not in schema_names():
        raise ConfigurationError(f"there is no schema {name!r} (there are: {', '.join(schema_names())})")
    parsed: dict[str, Any] = orjson.loads((schemas_folder() / f"{name}.json").read_bytes())
    return parsed


def _first(*places: Path) -> Path:
    for place in places:
        if place.exists():
            return place
    raise ConfigurationError(
        f"the contract files are missing: neither {' nor '.join(str(place) for place in places)} exists",
        remedy="install the package again",
    )
