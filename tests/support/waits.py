"""Waiting for what is soon so, within a bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

DEADLINE_S = 20.0


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask again and again; AssertionError naming ``what`` once ``DEADLINE_S`` seconds are over."""
    ends = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        await asyncio.sleep(0.01)
