"""Checks hits that are served in this process by a call of their own; enrich has it done over its topic instead."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from stratarouter_runtime.engine.trials import Trials
from stratarouter_runtime.errors import RuntimeSystemError
from stratarouter_runtime.port_values import CacheHit
from stratarouter_runtime.records import Execution, Response
from stratarouter_runtime.telemetry.logs import event
from stratarouter_runtime.telemetry.metrics import Metrics
from stratarouter_runtime.telemetry.responses import count_shadow

log = logging.getLogger("stratarouter.shadows")

MAX_SHADOWS = 8
"""Checks under way at once; more hits are not checked, so that checking never takes work's room."""


class Shadows:
    """Checks under way. ``submit`` executes one, ``spawn`` runs a task that the engine ends."""

    def __init__(
        self,
        trials: Trials,
        metrics: Metrics,
        *,
        submit: Callable[[Execution], asyncio.Task[Response]],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._trials = trials
        self._metrics = metrics
        self._submit = submit
        self._spawn = spawn
        self.under_way = 0

    def check(self, execution: Execution, hit: CacheHit) -> None:
        """Have a hit checked, if it is to be."""
        shadow = None if execution.source is not None else self._trials.shadow_of(execution, hit)
        if shadow is not None and self.under_way < MAX_SHADOWS:
            self.under_way += 1
            self._spawn(self._run(shadow), f"shadow {execution.request.request_id}")

    async def _run(self, shadow: Execution) -> None:
        try:
            # Its id is made of the request's, which may come again: it is journaled before the call, and paid for once.
            count_shadow(self._metrics, await self._submit(shadow))
        except RuntimeSystemError as exc:
            event(log, logging.INFO, "hit not checked", cause=str(exc))
        finally:
            self.under_way -= 1
