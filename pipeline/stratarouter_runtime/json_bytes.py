"""The one way from objects to JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson


def json_bytes(value: object, *, default: Callable[[Any], Any] | None = None, option: int = 0) -> bytes:
    """As ``orjson.dumps``, but for dataclasses, which go to ``default`` or are refused as foreign objects.

    orjson gives each field of a dataclass back before it writes it. In one that was compiled the numbers are made as
    they are read, so it wrote what was freed: mostly the number still, but a worker whose memory came from the C
    library (``PYTHONMALLOC=malloc``) died of it. Besides, one with slots takes it ten times as long as a dictionary.

    Raises:
        orjson.JSONEncodeError: what JSON lacks: a lone surrogate, an integer over 64 bits, an object. A TypeError.
    """
    return orjson.dumps(value, default, option | orjson.OPT_PASSTHROUGH_DATACLASS)
