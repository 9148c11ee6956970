"""A measurement in a process of its own, whose memory is then its own."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import orjson

PROCESS_TIMEOUT_S = 400.0


async def said(module: str, *arguments: object) -> Any:
    """What ``python -m module arguments`` writes, which is JSON."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *map(str, arguments)), stdout=asyncio.subprocess.PIPE
    )
    try:
        written, _ = await asyncio.wait_for(process.communicate(), PROCESS_TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{module} {arguments} broke"
    return orjson.loads(written)
