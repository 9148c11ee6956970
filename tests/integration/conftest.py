"""What tests of servers that speak TLS share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from support.tls import Authority


@pytest.fixture
def collected() -> Iterator[None]:
    """What aiokafka leaves is collected here, and not in the middle of another test."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))
