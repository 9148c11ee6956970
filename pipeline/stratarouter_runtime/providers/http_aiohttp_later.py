"""The transport over aiohttp, loaded when it is needed first: it takes 0.2 s, and most workers never need it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from stratarouter_runtime.port_values import HttpCall, HttpReply
from stratarouter_runtime.providers.http import StreamedReply, not_started

if TYPE_CHECKING:
    from stratarouter_runtime.providers.http_aiohttp import AiohttpTransport


class AiohttpLater:
    """A ``ports.Transport`` that starts nothing before its first call."""

    def __init__(self, *, max_connections: int) -> None:
        self._max_connections = max_connections
        self._transport: AiohttpTransport | None = None
        self._started = False

    async def start(self) -> None:
        """Allow calls. Idempotent."""
        self._started = True

    async def stop(self) -> None:
        """Close what was opened. Idempotent."""
        self._started = False
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.stop()

    async def send(self, call: HttpCall) -> HttpReply:
        """Send one call and read its whole reply within ``call.timeout_s``. Raises as ``ports.Transport`` says."""
        return await (await self._loaded()).send(call)

    @asynccontextmanager
    async def stream(self, call: HttpCall) -> AsyncIterator[StreamedReply]:
        """Send one call and read its reply as it comes, within ``call.timeout_s``. Raises as ``send`` does."""
        async with (await self._loaded()).stream(call) as reply:
            yield reply

    async def _loaded(self) -> AiohttpTransport:
        if self._transport is None and self._started:
            module = await asyncio.to_thread(importlib.import_module, "stratarouter_runtime.providers.http_aiohttp")
            # Meanwhile another call may have opened it, or the transport was stopped.
            if self._transport is None and self._started:
                self._transport = module.AiohttpTransport(max_connections=self._max_connections)
                await self._transport.start()
        if self._transport is None:
            raise not_started()
        return self._transport
