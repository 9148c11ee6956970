"""Asks the cache for one execution: at once where the answer is in this process, else with a round trip."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from stratarouter_runtime.cache.normalise import conversation_text
from stratarouter_runtime.engine import lookup, respond
from stratarouter_runtime.engine.respond import Story
from stratarouter_runtime.engine.trials import Trials
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.ports import Cache, CacheHit, CacheMiss, Clock
from stratarouter_runtime.records import CacheVerdict, Execution, Response
from stratarouter_runtime.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Looked:
    """What the cache said of a request before it was submitted. ``response`` is there for a hit."""

    story: Story
    text: str
    response: Response | None


class Asking:
    """What stands between the engine and its cache.

    Args:
        cache: None: there is none, and every request is executed.
        spawn: starts a task that belongs to the engine.
        served: told of each hit that is served.
    """

    def __init__(
        self,
        cache: Cache | None,
        trials: Trials,
        metrics: Metrics,
        clock: Clock,
        *,
        spawn: Callable[[Coroutine[Any, Any, Any], str], object],
        served: Callable[[Execution, CacheHit], None],
    ) -> None:
        self._cache = cache
        self._trials = trials
        self._metrics = metrics
        self._clock = clock
        self._spawn = spawn
        self._served = served

    def now(self, execution: Execution) -> Looked | None:
        """What can be said without waiting; None where the cache is not to be asked, or needs a round trip."""
        if self._cache is None or not lookup.may_read(execution):
            return None
        began, story, text = self._clock.monotonic(), new_story(execution), likened_text(execution)
        found = self._cache.lookup_now([lookup.query(execution, text)])
        if found is None:
            return None
        hit = self._noted(self._cache, execution, found[0], story, began)
        if hit is None:
            return Looked(story, text, None)
        response = respond.from_hit(execution, hit, story.timings_ms)
        response.timings_ms["execute"] = self._ms_since(began)
        return Looked(story, text, response)

    async def ask(self, execution: Execution, text: str, story: Story) -> CacheHit | None:
        """The hit to serve, if there is one. ``text`` is the conversation; ``story`` is told what was said."""
        if self._cache is None or not lookup.may_read(execution):
            return None
        began, queries = self._clock.monotonic(), [lookup.query(execution, text)]
        found = self._cache.lookup_now(queries)
        [result] = await self._cache.lookup(queries) if found is None else found
        return self._noted(self._cache, execution, result, story, began)

    def _noted(
        self, cache: Cache, execution: Execution, result: CacheHit | CacheMiss, story: Story, began: float
    ) -> CacheHit | None:
        story.withheld, result = self._trials.judged(execution, result)
        story.cache = lookup.verdict(result, execution.content_hash)
        story.timings_ms["lookup"] = self._ms_since(began)
        lookup.count(self._metrics, result)
        if not isinstance(result, CacheHit):
            return None
        if result.kind == "semantic" and lookup.may_write(execution):
            self._spawn(cache.store([lookup.alias_of(execution, result)]), "store alias")
        self._served(execution, result)
        return result

    def _ms_since(self, began: float) -> float:
        return round((self._clock.monotonic() - began) * 1000, 3)


def new_story(execution: Execution) -> Story:
    """Nothing has happened yet."""
    return Story(CacheVerdict("bypass", key=execution.content_hash))


def likened_text(execution: Execution) -> str:
    """The conversation for the guard, which judges likeness: without a vector nobody asks it."""
    return "" if execution.request.embedding is None else conversation_text(execution.request.messages)
