"""Comparers for tests, as ``cache_comparer`` names them."""

from __future__ import annotations

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.records import Answer


class ByTopic:
    """Two of the simulator's answers are the same where both say or both do not say that a refund was asked for."""

    def __init__(self, config: RuntimeConfig) -> None:
        del config

    async def same(self, question: str, kept: Answer, fresh: Answer) -> bool:  # noqa: ARG002 - the port
        return ("refund" in kept.text) is ("refund" in fresh.text)
