"""Closes Kafka's clients that have done what they were made for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from stratarouter_runtime.processors.kafka_client import CLIENT_ERRORS
from stratarouter_runtime.telemetry.logs import event

log = logging.getLogger("stratarouter.closing")


async def closed(closing: Awaitable[None], timeout_s: float, **told: Any) -> None:
    """Wait for ``closing``, a client's ``stop`` or ``close``; leave the client where it fails or takes more than
    ``timeout_s`` seconds, and log whose it was: ``told``.

    aiokafka waits for the end of each connection, which over TLS has been seen to take more than 10 s. What was done
    with the client stands.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await closing
    except CLIENT_ERRORS as exc:
        event(log, logging.INFO, "client closed with an error", **told, cause=repr(exc))
