"""The journal: the durable memory of what was started and what came of it."""

from __future__ import annotations

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.memory import MemoryJournal, MemoryStore
from stratarouter_runtime.journal.postgres import PostgresJournal
from stratarouter_runtime.ports import Journal


def create_journal(config: RuntimeConfig, *, owner: str) -> Journal:
    """The journal that ``config.state_backend`` names. ``owner`` is a UUID, new at every start of a process."""
    if config.state_backend == "memory":
        return MemoryJournal(MemoryStore(), owner=owner, heartbeat_ttl_s=config.heartbeat_ttl_s)
    return PostgresJournal(config.database_url, owner=owner, heartbeat_ttl_s=config.heartbeat_ttl_s)
