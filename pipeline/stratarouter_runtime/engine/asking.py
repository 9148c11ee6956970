"""Asks the cache for one execution: at once where the answer is in this process, else with a round trip."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from stratarouter_runtime.cache.normalise import conversation_text
from stratarouter_runtime.engine import lookup, respond
from stratarouter_runtime.engine.respond import Story
from stratarouter_runtime.engine.trials import Trials
from stratarouter_runtime.plain import dataclass
from stratarouter_runtime.port_values import CacheHit, CacheMiss
from stratarouter_runtime.ports import Cache, Clock
from stratarouter_runtime.records import Execution, Response, milliseconds
from stratarouter_runtime.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Looked:
    """What the cache said of a request before it was submitted: nothing that answers it. ``led``: somebody led for the
    very same words then.
    """

    story: Story
    text: str
    began: float
    led: bool


class Asking:
    """What stands between the engine and its cache.

    Args:
        cache: None: there is none, and every request is executed.
        spawn: starts a task that belongs to the engine.
        served: told of each hit that is served.
        is_led: whether somebody leads for words, by their content hash.
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
        is_led: Callable[[str], bool],
    ) -> None:
        self._cache = cache
        self._trials = trials
        self._metrics = metrics
        self._clock = clock
        self._spawn = spawn
        self._served = served
        self._is_led = is_led

    def now(self, execution: Execution) -> Response | Looked | None:
        """A hit's response, or what else can be said without waiting; None where the cache is not to be asked, or needs
        a round trip.
        """
        if self._cache is None or not lookup.may_read(execution):
            return None
        began, text = self._clock.monotonic(), likened_text(execution)
        found = self._cache.lookup_now([lookup.query(execution, text)])
        return None if found is None else self._told(self._cache, execution, text, found[0], began)

    async def look(self, execution: Execution) -> Response | Looked | None:
        """As ``now``, with a round trip where the cache needs one; None where it is not to be asked."""
        if self._cache is None or not lookup.may_read(execution):
            return None
        began, text = self._clock.monotonic(), likened_text(execution)
        [found] = await self._cache.lookup([lookup.query(execution, text)])
        return self._told(self._cache, execution, text, found, began)

    def _told(
        self, cache: Cache, execution: Execution, text: str, found: CacheHit | CacheMiss, began: float
    ) -> Response | Looked:
        withheld, result = self._trials.judged(execution, found)
        if isinstance(result, CacheHit):
            return self._response(cache, execution, result, began)
        story = new_story(execution)
        lookup.count(self._metrics, result)
        self._missed(execution, result, withheld, story, began)
        return Looked(story, text, began, self._is_led(execution.content_hash))

    async def same_words(self, execution: Execution) -> Response | None:
        """The response where these very words are kept. Of a miss nothing is noted: it is asked again with a vector."""
        if self._cache is None or not lookup.may_read(execution):
            return None
        began = self._clock.monotonic()
        _, result = await self._found(self._cache, execution, "")
        return self._response(self._cache, execution, result, began) if isinstance(result, CacheHit) else None

    async def ask(self, execution: Execution, text: str, story: Story, *, again: bool = False) -> CacheHit | None:
        """The hit to serve, if there is one. ``text`` is the conversation; ``story`` is told what was said. Who asks
        ``again`` was counted before.
        """
        if self._cache is None or not lookup.may_read(execution):
            if execution.source is None and not again:  # else enrich has counted it
                lookup.count(self._metrics, lookup.not_asked(execution))
            return None
        began = self._clock.monotonic()
        withheld, result = await self._found(self._cache, execution, text)
        if not again:
            lookup.count(self._metrics, result)
        if isinstance(result, CacheMiss):
            self._missed(execution, result, withheld, story, began)
            return None
        story.timings_ms["lookup"] = self._ms_since(began)
        self._hit(self._cache, execution, result)
        return result

    async def _found(
        self, cache: Cache, execution: Execution, text: str
    ) -> tuple[CacheHit | None, CacheHit | CacheMiss]:
        """What the cache says, with a round trip where it needs one: the hit that is held back, and the verdict."""
        queries = [lookup.query(execution, text)]
        found = cache.lookup_now(queries)
        [result] = await cache.lookup(queries) if found is None else found
        return self._trials.judged(execution, result)

    def _missed(
        self, execution: Execution, miss: CacheMiss, withheld: CacheHit | None, story: Story, began: float
    ) -> None:
        story.withheld = withheld
        story.cache = lookup.verdict(miss, execution.content_hash)
        story.timings_ms["lookup"] = self._ms_since(began)

    def _response(self, cache: Cache, execution: Execution, hit: CacheHit, began: float) -> Response:
        took_ms = self._ms_since(began)
        lookup.count(self._metrics, hit)
        self._hit(cache, execution, hit)
        return respond.from_hit(execution, hit, {"lookup": took_ms, "execute": self._ms_since(began)})

    def _hit(self, cache: Cache, execution: Execution, hit: CacheHit) -> None:
        if hit.kind == "semantic" and lookup.may_write(execution):
            self._spawn(cache.store([lookup.alias_of(execution, hit)]), "store alias")
        self._served(execution, hit)

    def _ms_since(self, began: float) -> float:
        return milliseconds(self._clock.monotonic() - began)


def new_story(execution: Execution) -> Story:
    """Nothing has happened yet."""
    return Story(lookup.verdict(lookup.not_asked(execution), execution.content_hash))


def likened_text(execution: Execution) -> str:
    """The conversation for the guard, which judges likeness: without a vector nobody asks it."""
    return "" if execution.request.embedding is None else conversation_text(execution.request.messages)
