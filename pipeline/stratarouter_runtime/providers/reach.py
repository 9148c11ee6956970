"""Asks a provider whether it is there and takes the key, without paying: its list of models is free everywhere."""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple

import httpx

from stratarouter_runtime.port_values import HttpCall

TIMEOUT_S = 10.0


class Reached(NamedTuple):
    """``status`` None: no answer, ``said`` tells why. ``date``: the Date header, or empty."""

    status: int | None
    said: str
    date: str = ""

    @property
    def key_refused(self) -> bool:
        """Whether the provider answered that it does not take the key."""
        return self.status in {401, 403}

    @property
    def is_well(self) -> bool:
        """Whether the provider showed its models."""
        return self.status is not None and 200 <= self.status < 300


async def reach(call: HttpCall) -> Reached:
    """Send ``call``, an adapter's ``models()``. Raises nothing: what went wrong is what is asked for."""
    try:
        # The certificates that calls trust; the client's own would be others. A server may drip: its reads end anew.
        trusted = await asyncio.to_thread(ssl.create_default_context)
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False, verify=trusted) as client,
        ):
            reply = await client.request(call.method, call.url, headers=dict(call.headers))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ExceptionGroup) as exc:
        # The type alone: a message may quote the URL with what stands in it.
        return Reached(None, type(_first(exc)).__name__)
    return Reached(reply.status_code, reply.reason_phrase, reply.headers.get("date", ""))


def _first(failure: Exception) -> Exception:
    """Itself, or the first within: what breaks as httpx connects, a port beyond 65535 say, comes in a group."""
    return _first(failure.exceptions[0]) if isinstance(failure, ExceptionGroup) else failure
