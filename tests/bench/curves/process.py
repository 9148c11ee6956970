"""A measurement in a process of its own, whose memory is then its own."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import orjson

from bench.peers import run

PROCESS_TIMEOUT_S = 400.0


async def said(module: str, *arguments: object) -> Any:
    """What ``python -m module arguments`` writes, which is JSON. Raises PeerError where it breaks."""
    return orjson.loads(await run(sys.executable, "-m", module, *map(str, arguments), timeout_s=PROCESS_TIMEOUT_S))


def resident_bytes() -> int:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
