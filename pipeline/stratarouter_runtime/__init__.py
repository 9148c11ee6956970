"""StrataRouter Runtime: turns routing decisions into answers, exactly one each, none paid for twice."""

from stratarouter_runtime.errors import RuntimeSystemError
from stratarouter_runtime.version import __version__

__all__ = ["CoreRuntimeBridge", "RuntimeConfig", "RuntimeSystemError", "__version__"]


def __getattr__(name: str) -> object:
    """Import the public classes on first use, so that the command line starts fast."""
    if name == "CoreRuntimeBridge":
        from stratarouter_runtime.bridge import CoreRuntimeBridge  # noqa: PLC0415

        return CoreRuntimeBridge
    if name == "RuntimeConfig":
        from stratarouter_runtime.config import RuntimeConfig  # noqa: PLC0415

        return RuntimeConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
