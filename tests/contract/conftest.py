"""The transports' promises are held on both event loops: workers run on uvloop, whose classes are its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

Factory = Callable[[], asyncio.AbstractEventLoop]

ON_BOTH = {"test_transports.py", "test_direct_transport.py"}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Factory]:
    """Which loops a test runs on, once on each."""
    both: dict[str, Factory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return both if item.path.name in ON_BOTH else {"asyncio": asyncio.new_event_loop}
