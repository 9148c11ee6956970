"""``doctor`` and ``status`` over the real stack: all is well, and each thing that can be wrong by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from aiokafka import TopicPartition

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.processors.publisher import TransactionalPublisher
from stratarouter_runtime.records import Outbound
from stratarouter_runtime.testing.simulator import Simulator
from stratarouter_runtime.tools.doctor import examine
from stratarouter_runtime.tools.status import LaneStatus, look
from support.fleet import Watch, WorkerProcess, command, free_port, produce, request, write_routes

pytestmark = pytest.mark.stack

NUMBER = 30


async def _states(config: RuntimeConfig) -> dict[str, str]:
    return {check.name: check.state for check in await examine(config)}


async def test_all_is_well_where_all_is_there(config: RuntimeConfig, tmp_path: Path) -> None:
    async with Simulator() as simulator:
        routes = write_routes(tmp_path / "routes.toml", simulator.base_url)
        ready = config.model_copy(update={"routes_file": routes, "cache_backend": "redis"})
        before = await _states(ready)
        assert before["topics"] == "failed"
        assert before["journal"] == "failed"
        assert before["broker"] == before["cache"] == "ok"
        await topics.apply(config)
        await migrate(config.database_url)
        checks = await examine(ready)
        assert {check.name: check.state for check in checks if check.state != "ok"} == {}
        names = {check.name for check in checks}
        assert {"routes", "broker", "topics", "journal", "schema", "cache", "embedder", "provider openai"} <= names
        assert {"clock of the journal", "clock of the cache"} <= names
        assert simulator.paid_calls == []


async def test_what_is_wrong_is_said_with_its_remedy(
    config: RuntimeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = f"127.0.0.1:{free_port()}"
    routes = tmp_path / "routes.toml"
    routes.write_text(
        f"""
[providers.away]
base_url = "http://{closed}/v1"
api_key_env = "A_KEY_OF_MINE"

[routes.r]
targets = [{{ provider = "away", model = "m" }}]
"""
    )
    monkeypatch.setenv("A_KEY_OF_MINE", "sk-secret-of-mine")
    broken = config.model_copy(
        update={
            "routes_file": routes,
            "bootstrap_servers": closed,
            "database_url": f"postgresql://somebody:pass-of-mine@{closed}/nothing",
            "redis_url": f"redis://:pass-of-mine@{closed}",
            "cache_backend": "redis",
        }
    )
    checks = {check.name: check for check in await examine(broken)}
    for name in ("broker", "topics", "journal", "cache", "provider away"):
        assert checks[name].state == "failed", name
        assert checks[name].remedy or checks[name].detail, name
    assert "of-mine" not in repr(checks)
    monkeypatch.delenv("A_KEY_OF_MINE")
    checks = {check.name: check for check in await examine(broken)}
    assert checks["key of away"].state == "failed"
    assert "A_KEY_OF_MINE" in checks["key of away"].detail
    assert checks["provider away"].state == "skipped"


async def _lanes(config: RuntimeConfig, processor: str) -> list[LaneStatus]:
    return [lane for lane in (await look(config)).lanes if lane.processor == processor]


async def test_status_shows_lag_checkpoints_workers_and_letters(config: RuntimeConfig, tmp_path: Path) -> None:
    await topics.apply(config)
    await migrate(config.database_url)
    async with Simulator() as simulator, Watch(config) as watch:
        routes = write_routes(tmp_path / "routes.toml", simulator.base_url)
        worker = WorkerProcess(config, routes, tmp_path / "w.log", extra={"STRATAROUTER_CHECKPOINT_INTERVAL": "0.2"})
        await produce(config, [*(request(f"r{n}", f"what is {n}") for n in range(NUMBER)), b"{no json"])
        waiting = await look(config)
        assert waiting.lag["enrich"] == NUMBER + 1
        assert waiting.workers == ()
        assert all(lane.committed is lane.checkpoint is None for lane in waiting.lanes)
        await worker.start()
        await watch.until(NUMBER + 1, 60)
        async with asyncio.timeout(30):
            while not all(lane.checkpoint == lane.committed for lane in await _lanes(config, "enrich")):
                await asyncio.sleep(0.2)
        code, out, err = await command(config, "status", "--json")
        assert (code, err) == (0, "")
        said = orjson.loads(out)
        shown = [lane for lane in said["lanes"] if lane["processor"] == "enrich"]
        assert sum(lane["checkpoint"] for lane in shown) >= NUMBER
        assert all(0 <= lane["checkpoint_age_s"] < 30 for lane in shown)
        assert len(said["workers"]) == 1
        assert said["dead_letters"] >= 1
        assert said["responses"] >= NUMBER
        # All is answered, so the last commit says so; what is left are the markers of transactions.
        assert await worker.stop() == 0
        lanes = {(lane.processor, lane.partition): lane for lane in (await look(config)).lanes}
        assert {lane.unfinished for lane in lanes.values()} == {0}
        assert sum(lane.lag for (name, _), lane in lanes.items() if name != "usage") == 0
        code, out, err = await command(config, "status")
        assert (code, err) == (0, "")
        assert "no worker is registered" in out
        assert " s old" in out


async def test_markers_behind_the_last_record_are_no_lag(config: RuntimeConfig) -> None:
    """All deltas were counted, and the status said "usage 5 behind" for ever: a transaction ends with a marker."""
    await topics.apply(config, partitions=1)
    deltas = config.topic(config.usage_deltas_topic)
    writer = TransactionalPublisher(config, f"{config.group_id}-usage", TopicPartition(deltas, 0))
    try:
        await writer.open()
        await writer.publish([Outbound(deltas, b"k", b"{}")], 1, "")
        [lane] = await _lanes(config, "usage")
        assert (lane.committed, lane.end, lane.lag) == (1, 2, 0)
        await writer.publish([Outbound(deltas, b"k", b"{}")], 1, "")
        [lane] = await _lanes(config, "usage")
        assert (lane.committed, lane.end, lane.lag) == (1, 4, 2)
    finally:
        await writer.close()


async def test_doctor_exits_by_what_it_found(config: RuntimeConfig, tmp_path: Path) -> None:
    async with Simulator() as simulator:
        routes = write_routes(tmp_path / "routes.toml", simulator.base_url)
        await topics.apply(config, partitions=2)
        code, out, err = await command(config, "doctor", "--routes-file", str(routes), REDIS_URL=config.redis_url)
        assert (code, err) == (1, "")
        assert "stratarouter-runtime migrate" in out
        await migrate(config.database_url)
        # Fewer partitions than proposed are somebody's choice, and no failure.
        code, out, err = await command(config, "doctor", "--routes-file", str(routes), REDIS_URL=config.redis_url)
        assert (code, err) == (0, "")
        assert "warning topics: topic" in out
        assert (await command(config, "topics", "check", "--partitions", "2"))[0] == 0
        await topics.apply(config)
        arguments = ("doctor", "--routes-file", str(routes), "--json")
        code, out, err = await command(config, *arguments, REDIS_URL=config.redis_url)
        assert (code, err) == (0, "")
        assert {orjson.loads(line)["state"] for line in out.splitlines()} == {"ok"}


async def test_what_programs_read(config: RuntimeConfig) -> None:
    code, out, _ = await command(config, "topics", "check", "--json")
    assert code == 1
    missing = orjson.loads(out)["differences"]
    code, out, _ = await command(config, "topics", "apply", "--dry-run", "--json")
    assert (code, len(orjson.loads(out)["changes"])) == (0, len(missing))
    code, out, _ = await command(config, "topics", "apply", "--json")
    assert (code, orjson.loads(out)["dry_run"]) == (0, False)
    code, out, _ = await command(config, "topics", "check", "--json")
    assert (code, orjson.loads(out)) == (0, {"differences": []})
    code, out, _ = await command(config, "migrate", "--json")
    assert code == 0
    assert orjson.loads(out)["applied"]
    code, out, _ = await command(config, "migrate", "--json")
    assert (code, orjson.loads(out)) == (0, {"applied": []})
    code, out, _ = await command(config, "journal", "purge", "--json")
    assert (code, orjson.loads(out)) == (0, {"deleted": 0})
