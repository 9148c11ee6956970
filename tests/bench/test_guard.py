"""Ratios that hold on any machine, measured shortly, with bounds far below what ``make bench`` asks for.

They say that something became several times slower, not by how much: both sides of a ratio run in turns in one
process, so a busy machine slows both.
"""

from __future__ import annotations

import statistics

import pytest

from bench import bridge_rate, journal
from bench.parts import database, simulator
from stratarouter_runtime.embedded import StackAddresses

pytestmark = pytest.mark.stack

ROUNDS = 3
CALLS = 1000


async def test_grouped_journal_writes_stay_near_bare_inserts(addresses: StackAddresses) -> None:
    # Single rounds gave 0.19 to 0.52 where this was written.
    for result in await journal.measure(addresses, rounds=ROUNDS):
        assert result.ratio > 0.08, result


async def test_the_bridge_costs_some_bare_calls_at_most(addresses: StackAddresses) -> None:
    # By processor time: 0.16 to 0.23 where this was written, with the default collector and event loop.
    async with database(addresses) as url, simulator() as base_url, bridge_rate.calls(url, base_url) as (ours, bare):
        ratios = []
        for _ in range(ROUNDS):
            mine = await bridge_rate.per_core_second(ours, 200, CALLS)
            ratios.append(mine / await bridge_rate.per_core_second(bare, 200, CALLS))
    assert statistics.median(ratios) > 0.06, ratios


async def test_a_thousand_calls_in_flight_cost_little_more_than_fifty(addresses: StackAddresses) -> None:
    # By processor time: 0.72 to 1.04 where this was written.
    async with database(addresses) as url, simulator() as base_url, bridge_rate.calls(url, base_url) as (ours, _):
        await bridge_rate.per_core_second(ours, 1000, 1000)
        ratios = []
        for _ in range(ROUNDS):
            many = await bridge_rate.per_core_second(ours, 1000, CALLS)
            ratios.append(many / await bridge_rate.per_core_second(ours, 50, CALLS))
    assert statistics.median(ratios) > 0.25, ratios
