"""The model of a configuration decides as the product does where recorded answers speak against each other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stratarouter_runtime.cache.votes import UNSAID
from stratarouter_runtime.config import CONSIDERED_FROM, RuntimeConfig
from stratarouter_runtime.records import Context, Decision, Request
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.tools.what_if import _was, with_settings
from stratarouter_runtime.tools.what_if_model import Kind, Observed, World

TABLE = RouteTable.from_dict(
    {
        "providers": {"sim": {"kind": "simulator", "base_url": "http://127.0.0.1:1/v1"}},
        "default": {"targets": [{"provider": "sim", "model": "m"}]},
    }
)
APART = ((1.0, 0.3), (1.0, -0.3), (-1.0, 0.1), (1.0, 0.01))
"""Two that the last one is near to, on either side, and one far off."""
TEXTS = (
    "How do I top up my card",
    "How do I top up a new card?",
    "Please close the account",
    "How do I top up a card?",
)


@pytest.mark.parametrize(
    ("said", "kind"), [((1, 2, 2), "paid"), ((1, 2, 3), "semantic"), ((UNSAID, UNSAID, UNSAID), "semantic")]
)
async def test_a_hit_that_recorded_answers_speak_against_is_paid_for(said: tuple[int, ...], kind: Kind) -> None:
    config = RuntimeConfig(batch_enabled=False, cache_similarity_threshold=0.9)
    world = World(config, TABLE, lambda *_: 0.001, lambda _: 0.1)
    for number, (text, place, says) in enumerate(zip(TEXTS, APART, (*said, UNSAID), strict=True)):
        row = np.array(place, dtype=np.float32)
        messages = ({"role": "user", "content": text},)
        request = Request(f"r{number}", Decision("support"), messages, embedding=row / np.linalg.norm(row))
        await world.take(Observed(request, float(number), says=says))
    assert world.sums.kinds == Counter(["paid"] * 3 + [kind])


def _observed(at_s: float, request_id: str, text: str = "what is new?", **more: Any) -> Observed:
    tenant = more.pop("tenant", "acme")
    request = Request(request_id, Decision("support"), ({"role": "user", "content": text},), context=Context(tenant))
    return Observed(request, at_s, provider="sim", model="m", cost_usd=0.5, duration_s=0.1, **more)


@pytest.mark.parametrize(
    ("seen", "kinds"),
    [
        ([("r", "paid"), ("r", "paid"), ("r", "paid")], {"paid": 1, "replayed": 2}),
        ([("r", "paid"), ("q", "paid")], {"paid": 2}),
        ([("r", "coalesced"), ("r", "coalesced")], {"coalesced": 1, "replayed": 1}),
        ([("r", "refused"), ("r", "paid"), ("r", "refused")], {"refused": 2, "paid": 1}),
        ([("r", "exact"), ("r", "paid"), ("r", "exact")], {"exact": 2, "paid": 1}),
    ],
)
def test_what_was_paid_for_an_id_counts_once(seen: list[tuple[str, Kind]], kinds: dict[Kind, int]) -> None:
    sums, unknown = _was([_observed(float(n), name, kind=kind) for n, (name, kind) in enumerate(seen)])
    assert (sums.kinds, unknown) == (Counter(kinds), 0)
    assert sum(sums.paid_usd.values()) == 0.5 * kinds.get("paid", 0)


def test_what_was_paid_before_the_range_is_replayed_in_it() -> None:
    sums, _ = _was([_observed(0.0, "r", kind="paid", counts=False), _observed(1.0, "r", kind="paid")])
    assert sums.kinds == Counter(["replayed"])
    assert (sums.paid_usd, sums.saved_usd) == ({}, 0.5)


@pytest.mark.parametrize(
    ("again", "kinds"),
    [
        ({}, {"paid": 1, "replayed": 1}),
        ({"at_s": 0.05}, {"paid": 1, "replayed": 1}),
        ({"request_id": "q"}, {"paid": 2}),
        ({"tenant": "globex"}, {"paid": 2}),
        ({"text": "what else is new?"}, {"paid": 1, "refused": 1}),
    ],
    ids=["the same", "during the call", "another id", "another tenant", "other words"],
)
async def test_the_model_pays_once_for_an_id(again: dict[str, Any], kinds: dict[Kind, int]) -> None:
    world = World(RuntimeConfig(batch_enabled=False, cache_enabled=False), TABLE, lambda *_: 0.001, lambda _: 0.1)
    await world.take(_observed(0.0, "r"))
    await world.take(_observed(**{"at_s": 5.0, "request_id": "r"} | again))
    assert world.sums.kinds == Counter(kinds)
    assert sum(world.sums.paid_usd.values()) == 0.5 * kinds["paid"]


async def test_the_model_serves_an_id_that_comes_again_from_the_cache_first() -> None:
    world = World(RuntimeConfig(), TABLE, lambda *_: 0.001, lambda _: 0.1)
    for at_s in (0.0, 5.0):
        await world.take(_observed(at_s, "r"))
    assert world.sums.kinds == Counter(["paid", "exact"])


def _asked(request_id: str, text: str, at_s: float, duration_s: float | None = None) -> Observed:
    request = Request(request_id, Decision("support"), ({"role": "user", "content": text},))
    return Observed(request, at_s, provider="sim", model="m", duration_s=duration_s)


async def test_an_id_that_is_used_for_other_words_is_refused_and_ends_no_call() -> None:
    """It was a call, which took the first one from the list of calls; the next to join that one was a KeyError."""
    world = World(RuntimeConfig(), TABLE, lambda *_: 0.001, lambda _: 1.0)
    await world.take(_asked("x", "first words", 0.0, duration_s=10.0))
    await world.take(_asked("x", "other words", 1.0, duration_s=1.0))
    await world.take(_asked("y", "first words", 5.0))
    assert world.sums.kinds == {"paid": 1, "refused": 1, "coalesced": 1}
    await world.take(_asked("z", "first words", 20.0))
    assert world.sums.kinds == {"paid": 1, "refused": 1, "coalesced": 1, "exact": 1}


@pytest.mark.parametrize(
    ("was", "changes", "least"),
    [
        ({}, {"cache_ttl": 60}, CONSIDERED_FROM),
        ({}, {"cache_similarity_threshold": 0.9}, 0.9),
        ({"cache_similarity_threshold": 0.9}, {"cache_ttl": 60}, 0.9),
    ],
)
def test_a_change_sets_nothing_else(was: dict[str, Any], changes: dict[str, Any], least: float) -> None:
    config = RuntimeConfig(cache_max_error_rate=0.01, **was)
    changed, _ = with_settings(config, changes)
    assert changed.least_similarity == least
    assert changed.model_fields_set == config.model_fields_set | set(changes)


def test_what_if_reads_the_file_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``--config`` beside STRATAROUTER_CONFIG the changed world took what nobody had set from the other file."""
    named, other = tmp_path / "named.toml", tmp_path / "other.toml"
    named.write_text("cache_ttl = 60")
    other.write_text("cache_ttl = 5\ncache_max_entries = 3")
    monkeypatch.setenv("STRATAROUTER_CONFIG", str(other))
    config = RuntimeConfig.load(named)
    changed, _ = with_settings(config, {"cache_guard": "lenient"})
    assert changed.model_dump() == config.model_dump() | {"cache_guard": "lenient"}
