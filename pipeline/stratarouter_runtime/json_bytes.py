"""The one way from objects to JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import orjson

from stratarouter_runtime.plain import field_names

Default = Callable[[Any], Any]

_names = cache(field_names)


def json_bytes(value: object, *, default: Default | None = None, option: int = 0) -> bytes:
    """As ``orjson.dumps``, which is not to see a dataclass.

    orjson gives each field back before it writes it. In a class that was compiled the numbers are made as they are
    read, so it wrote what was freed: mostly the number still, but a worker whose memory came from the C library
    (``PYTHONMALLOC=malloc``) died of it. Where much is written, give dictionaries: ten times as fast.

    Raises:
        orjson.JSONEncodeError: what JSON lacks: a lone surrogate, an integer over 64 bits, an object. A TypeError.
    """
    plain = _fields if default is None else partial(_fields, default=default)
    return orjson.dumps(value, plain, option | orjson.OPT_PASSTHROUGH_DATACLASS)


def _fields(value: Any, default: Default | None = None) -> Any:
    """A dataclass as the dictionary of its fields, which holds them while they are written."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in _names(type(value))}
    if default is None:
        raise TypeError
    return default(value)
