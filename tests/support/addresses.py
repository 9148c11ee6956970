"""Addresses that tests call: one that swallows what is sent to it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def dead_address() -> Iterator[tuple[str, int]]:
    """An address of loopback where no connection comes about, and its port: a listener whose queue is full."""
    with contextlib.ExitStack() as opened:
        hole = opened.enter_context(socket.socket())
        hole.bind(("127.0.0.2", 0))
        hole.listen(0)
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(hole.getsockname())
        yield hole.getsockname()
