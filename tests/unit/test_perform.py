"""What stands between a leader and its call: a journal that is away, a provider that this worker has not heard of."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

import pytest

from stratarouter_runtime.engine import calls
from stratarouter_runtime.port_values import JournalKey
from stratarouter_runtime.records import Coordinates, Execution
from stratarouter_runtime.route_file import Budget
from unit.engine_bench import Bench, Provider, execution, until

SHORT_S = 0.5
"""What one call may take at most, here."""
READ = Coordinates("executions", 0, 7)


class Told(Provider):
    """Providers that a route table may come to name later."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = set(names)

    def keys(self, provider: str) -> int:
        return 1 if provider in self.names else 0


def read(request_id: str, **changes: object) -> Execution:
    return replace(execution(request_id, "words", **changes), source=READ)  # type: ignore[arg-type]


@pytest.mark.parametrize("budgets", [(), (Budget("per_tenant", tokens=1_000_000),)], ids=["plain", "with a budget"])
async def test_a_journal_that_was_away_for_longer_than_a_call_may_take_costs_no_request(
    budgets: tuple[Budget, ...],
) -> None:
    async with Bench(Provider(), execution_timeout=SHORT_S, budgets=budgets) as bench:
        bench.journal._store.available = False
        task = bench.engine.submit(read("r"))
        came = time.monotonic()
        await until(lambda: time.monotonic() - came > 3 * SHORT_S)
        bench.journal._store.available = True
        response = await task
    assert response.error is None
    assert response.text == "answer to words"


async def test_a_caller_who_waited_in_vain_for_the_journal_may_ask_again_by_the_same_id() -> None:
    provider = Provider()
    async with Bench(provider, execution_timeout=SHORT_S) as bench:
        bench.journal._store.available = False
        late = await bench.engine.submit(execution("r", "words"))
        assert late.error is not None
        assert late.error.code == "deadline_exceeded"
        assert "journal" in late.error.message
        bench.journal._store.available = True
        assert JournalKey("acme", "r") not in bench.journal._store.rows
        again = await bench.engine.submit(execution("r", "words"))
    assert again.error is None
    assert len(provider.calls) == 1


async def test_a_provider_that_this_worker_hears_of_later_is_called_then(caplog: pytest.LogCaptureFixture) -> None:
    provider = Told("another")
    with caplog.at_level(logging.WARNING, "stratarouter.calls"):
        async with Bench(provider) as bench:
            tasks = [bench.engine.submit(read(f"r{n}", targets=[("new", "model")], scope=f"s{n}")) for n in range(3)]
            await until(lambda: bool(caplog.records))
            assert provider.calls == []
            assert bench.journal._store.rows == {}, "another worker, which knows it, may take it over"
            provider.names.add("new")
            responses = await asyncio.gather(*tasks)
    assert [response.provider for response in responses] == ["new"] * 3
    assert len(caplog.records) == 1, "once for a provider, not for each request"


async def test_a_provider_that_nobody_tells_this_worker_of_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "UNKNOWN_POLL_S", 0.01)
    async with Bench(Told("old"), execution_timeout=SHORT_S) as bench:
        other = await bench.engine.submit(read("a", targets=[("new", "model"), ("old", "model")]))
        nobody = await bench.engine.submit(read("b", targets=[("new", "model")], scope="t"))
    assert other.provider == "old"
    assert nobody.error is not None
    assert nobody.error.code == "unknown_provider"
    assert "'new'" in nobody.error.message
    assert "SIGHUP" in (nobody.error.remedy or "")
