"""A Kafka broker, PostgreSQL and a Redis-compatible server from Python packages, for development and tests."""

from stratarouter_runtime.embedded.errors import (
    DataDirInUseError,
    DataDirMismatchError,
    EmbeddedExtraMissingError,
    EmbeddedStackError,
    JarDownloadError,
    ServerStartError,
)
from stratarouter_runtime.embedded.stack import EmbeddedStack, StackAddresses

__all__ = [
    "DataDirInUseError",
    "DataDirMismatchError",
    "EmbeddedExtraMissingError",
    "EmbeddedStack",
    "EmbeddedStackError",
    "JarDownloadError",
    "ServerStartError",
    "StackAddresses",
]
