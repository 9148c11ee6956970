"""Opens a connection to whichever of a name's addresses answers first, as RFC 8305 ("happy eyeballs") has it.

``create_connection`` tries them one after the other, and an address that swallows what is sent to it takes all the time
that there is: the provider was away for as long as one of its addresses was. It can stagger them itself on asyncio's
loop, not on uvloop's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from stratarouter_runtime.providers.http import CONNECT_TIMEOUT_S, UnopenedError, cause

P = TypeVar("P", bound=asyncio.BaseProtocol)
Opened = tuple[asyncio.BaseTransport, P]

NEXT_ADDRESS_S = 0.25
"""After so long without an answer the next address is tried as well, as RFC 8305 recommends."""


async def open_connection(
    loop: asyncio.AbstractEventLoop, factory: Callable[[], P], host: str, port: int, tls: ssl.SSLContext | None
) -> Opened[P]:
    """The first connection that is open, with TLS where that is asked for. Raises OSError, UnopenedError."""
    name = None if tls is None else host
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            found = await _addresses(loop, host, port)
            if len(found) == 1:
                return await loop.create_connection(factory, found[0], port, ssl=tls, server_hostname=name)
            return await _first(loop, factory, found, port, tls, name)
    except TimeoutError:
        raise UnopenedError(f"no address of it answered within {CONNECT_TIMEOUT_S:g} s") from None


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[str]:
    """The addresses of ``host`` in the system's order, but the families in turn: one of them may lead nowhere."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return [host]
    families: dict[int, list[str]] = {}
    for family, _, _, _, (address, _, *flow_and_scope) in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        scope = flow_and_scope[-1] if flow_and_scope else 0
        families.setdefault(family, []).append(f"{address}%{scope}" if scope else f"{address}")
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*families.values()))
    return list(dict.fromkeys(address for address in in_turn if address is not None))


async def _first(
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], P],
    addresses: list[str],
    port: int,
    tls: ssl.SSLContext | None,
    name: str | None,
) -> Opened[P]:
    begun: dict[asyncio.Task[Opened[P]], str] = {}
    problems: list[str] = []
    waiting = iter(addresses)
    try:
        while len(problems) < len(addresses):
            address = next(waiting, None)
            if address is not None:
                opened = loop.create_connection(factory, address, port, ssl=tls, server_hostname=name)
                begun[asyncio.create_task(opened)] = address
            done, _ = await asyncio.wait(
                begun, timeout=None if address is None else NEXT_ADDRESS_S, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                where, problem = begun.pop(task), task.exception()
                if problem is None:
                    return task.result()
                problems.append(f"{where} {cause(problem)}")
    finally:
        for task in begun:
            task.add_done_callback(_drop)
            task.cancel()
    raise UnopenedError("; ".join(problems))


def _drop(task: asyncio.Task[Any]) -> None:
    """Close what another address was faster than, or was given up for."""
    if not task.cancelled() and task.exception() is None:
        transport, _ = task.result()
        transport.abort()
