"""The transports' promises are held on both event loops: workers run on uvloop, whose classes are its own.

The cache's are held on a server of each module's own: some of its tests kill it, stop it or count what it is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop

from stratarouter_runtime.embedded import EmbeddedStack

Factory = Callable[[], asyncio.AbstractEventLoop]

ON_BOTH = {"test_transports.py", "test_direct_transport.py"}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Factory]:
    """Which loops a test runs on, once on each."""
    both: dict[str, Factory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return both if item.path.name in ON_BOTH else {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """A server of the module's own."""
    stack = EmbeddedStack(tmp_path_factory.mktemp("valkey"), kafka=False, postgres=False, redis=True)
    stack.start_sync()
    yield stack
    stack.stop_sync()


@pytest.fixture
def url(valkey: EmbeddedStack) -> str:
    """Where it is; started again where a test killed it."""
    address = valkey.start_sync().redis_url
    assert address is not None
    return address
