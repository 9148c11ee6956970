"""What-if over a range that a worker has answered: the model agrees with what was, and shows what would have been."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest

from stratarouter_runtime import topics
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.errors import ConfigurationError
from stratarouter_runtime.journal.migrations import migrate
from stratarouter_runtime.testing.simulator import Simulator, SimulatorSettings
from stratarouter_runtime.tools.replay import find_spans
from stratarouter_runtime.tools.what_if import compare, with_settings
from support.fleet import Watch, WorkerProcess, command, produce, request

pytestmark = pytest.mark.stack

ASKED = 24
NEAR = 8
AGAIN = 12


def _vector(number: int, turned: float = 0.0) -> list[float]:
    """One direction for each number, turned a little towards the next."""
    vector = [0.0] * (ASKED + 1)
    vector[number], vector[number + 1] = math.cos(turned), math.sin(turned)
    return vector


@dataclass
class Answered:
    """A range that was answered, with the settings and the route table of its worker."""

    config: RuntimeConfig
    routes: Path


@pytest.fixture
async def answered(config: RuntimeConfig, tmp_path: Path) -> AsyncIterator[Answered]:
    """Questions, the same ones again, and ones that mean the same at a similarity of 0.92."""
    await topics.apply(config, partitions=3)
    await migrate(config.database_url)
    async with Simulator(SimulatorSettings(latency_ms=30)) as simulator, Watch(config) as watch:
        routes = tmp_path / "routes.toml"
        routes.write_text(
            f"""
[providers.openai]
kind = "simulator"
base_url = "{simulator.base_url}"

[prices]
"openai/large" = {{ input = 2.0, output = 8.0 }}
"openai/small" = {{ input = 0.2, output = 0.8 }}

[routes.support]
targets = [{{ provider = "openai", model = "large" }}]
"""
        )
        worker = WorkerProcess(config, routes, tmp_path / "worker.log")
        await worker.start()
        turned = math.acos(0.92)
        first = [request(f"a{n}", f"How do I reset my router model {n}?", embedding=_vector(n)) for n in range(ASKED)]
        again = [request(f"b{n}", f"How do I reset my router model {n}?", embedding=_vector(n)) for n in range(AGAIN)]
        near = [
            request(f"c{n}", f"How can I reset my router model {n}?", embedding=_vector(n, turned)) for n in range(NEAR)
        ]
        for some in (first, again, near):
            due = len(watch.seen.responses) + len(some)
            await produce(config, some)
            await watch.until(due, 60)
        assert len(watch.seen.responses) == ASKED + AGAIN + NEAR
        assert await worker.stop() == 0
        yield Answered(config.model_copy(update={"routes_file": routes}), routes)
        # Whatever was asked of the model, nobody was paid for it.
        assert len(simulator.paid_calls) == ASKED + NEAR


async def test_the_model_agrees_with_what_was_and_shows_what_would_be(answered: Answered) -> None:
    config = answered.config
    spans = await find_spans(config, [], None, None)
    report = await compare(config, with_settings(config, {"cache_similarity_threshold": 0.9}), spans)
    assert dict(report.was.kinds) == dict(report.modelled.kinds) == {"paid": ASKED + NEAR, "exact": AGAIN}
    assert dict(report.what_if.kinds) == {"paid": ASKED, "exact": AGAIN, "semantic": NEAR}
    assert report.was.calls == report.modelled.calls == {"openai/large": ASKED + NEAR}
    assert report.modelled.paid_usd == pytest.approx(report.was.paid_usd)
    assert report.what_if.saved_usd > report.was.saved_usd > 0
    assert sum(report.what_if.paid_usd.values()) < sum(report.was.paid_usd.values())
    # The pairs that would newly share an answer, for somebody to judge.
    assert report.new_pairs == NEAR
    assert {(risk.pair.asked, risk.pair.answered) for risk in report.risks} == {
        (f"How can I reset my router model {n}?", f"How do I reset my router model {n}?") for n in range(NEAR)
    }
    assert {round(risk.pair.similarity, 2) for risk in report.risks} == {0.92}
    assert (report.unknown, report.refused, report.without_vector) == (0, 0, 0)


async def test_other_targets_and_no_cache(answered: Answered) -> None:
    config = answered.config
    spans = await find_spans(config, [], None, None)
    cheaper = await compare(config, with_settings(config, {"routes.support.targets": "openai/small"}), spans)
    assert cheaper.what_if.calls == {"openai/small": ASKED + NEAR}
    assert sum(cheaper.what_if.paid_usd.values()) == pytest.approx(sum(cheaper.was.paid_usd.values()) / 10)
    none = await compare(config, with_settings(config, {"cache_enabled": False, "batch_enabled": False}), spans)
    assert dict(none.what_if.kinds) == {"paid": ASKED + AGAIN + NEAR}


async def test_earlier_requests_warm_the_caches_up_and_are_not_counted(answered: Answered) -> None:
    config = answered.config
    spans = await find_spans(config, [], None, None)
    last = [replace(span, begin=span.end - span.width // 3) for span in spans]
    before = [replace(span, end=span.end - span.width // 3) for span in spans]
    changed = with_settings(config, {"cache_similarity_threshold": 0.9})
    cold = await compare(config, changed, last)
    warm = await compare(config, changed, last, warm=before)
    assert warm.what_if.requests == cold.what_if.requests == sum(span.width for span in last)
    assert warm.what_if.kinds["paid"] < cold.what_if.kinds["paid"]
    assert warm.was == cold.was


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cache_ttl", "soon", "cache_ttl"),
        ("execution_timeout", 5, "cannot show its effect"),
        ("no_such_setting", 5, "cannot show its effect"),
        ("routes.support.targets.x", 5, "is no table"),
        ("routes.support.targets", "nobody/m", "nobody"),
    ],
)
def test_what_cannot_be_changed_is_said(tmp_path: Path, name: str, value: object, said: str) -> None:
    routes = tmp_path / "routes.toml"
    routes.write_text('[providers.openai]\n[routes.support]\ntargets = [{ provider = "openai", model = "m" }]\n')
    with pytest.raises(ConfigurationError, match=said):
        with_settings(RuntimeConfig(routes_file=routes), {name: value})
    with pytest.raises(ConfigurationError, match="no route table"):
        with_settings(RuntimeConfig(), {"routes.support.targets": "openai/m"})


@pytest.mark.parametrize("written", [None, b"not [ toml", b"\xff\xfe", b"routes = 3\n"])
def test_a_route_table_that_cannot_be_read_is_said(tmp_path: Path, written: bytes | None) -> None:
    """It ended in a traceback."""
    routes = tmp_path / "routes.toml"
    if written is not None:
        routes.write_bytes(written)
    with pytest.raises(ConfigurationError, match=r"cannot be read|is not TOML|not UTF-8|is no table"):
        with_settings(RuntimeConfig(routes_file=routes), {"routes.support.targets": "openai/m"})


async def test_the_command(answered: Answered, tmp_path: Path) -> None:
    image = tmp_path / "what-if.png"
    arguments = ("what-if", "--routes-file", str(answered.routes), "--set", "cache_similarity_threshold=0.9")
    code, out, err = await command(answered.config, *arguments, "--json", "--png", str(image))
    assert (code, err) == (0, "")
    said = orjson.loads(out)
    assert said["what_if"]["semantic"] == NEAR
    assert said["was"]["paid"] == said["modelled"]["paid"] == ASKED + NEAR
    assert said["new_pairs"] == len(said["risks"]) == NEAR
    assert image.read_bytes().startswith(b"\x89PNG")
    code, out, err = await command(answered.config, *arguments)
    assert (code, err) == (0, "")
    assert "would newly share an answer" in out
    code, _, err = await command(answered.config, "what-if")
    assert code == 2
    assert "nothing to change" in err
