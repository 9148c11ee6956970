"""Maps what asyncpg and the network raise to the runtime's own errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import asyncpg

from stratarouter_runtime.errors import ConfigurationError, JournalUnavailableError

MAPPED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""OSError holds the timeouts, refused connections, name resolution and TLS failures."""


@contextlib.contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Raise JournalUnavailableError, saying what it was ``doing``, for whatever the database or network raised."""
    try:
        yield
    except MAPPED as exc:
        raise JournalUnavailableError(f"the journal failed to {doing}: {_reason(exc)}") from exc


@contextlib.contextmanager
def mapped_connect() -> Iterator[None]:
    """As ``mapped``, and ConfigurationError for a database URL that cannot be read."""
    try:
        with mapped("connect"):
            yield
    except JournalUnavailableError as exc:
        if isinstance(exc.__cause__, asyncpg.exceptions.ClientConfigurationError):
            raise _bad_url() from None
        raise
    except (ValueError, OverflowError):
        # asyncpg's parser lets these through; a refused certificate is a ValueError too, but ``mapped`` had it.
        raise _bad_url() from None


def _bad_url() -> ConfigurationError:
    # Without the cause: it may quote a piece of the password.
    return ConfigurationError(
        "the database URL cannot be read",
        remedy="write DATABASE_URL as postgresql://user:password@host:5432/database, the password percent-encoded",
    )


def _reason(exc: BaseException) -> str:
    # A server's detail and hint may quote whole rows, and so answers: the first line alone.
    message = exc.args[0] if isinstance(exc, asyncpg.PostgresError) and exc.args else exc
    return f"{type(exc).__name__}: {message}".removesuffix(": ")
