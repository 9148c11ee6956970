"""What a route table asks of its targets is known before the first request: the start says what each would refuse."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from stratarouter_runtime.assembly import Assembly
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine.accept import Acceptor
from stratarouter_runtime.errors import ProviderError, ProviderUnavailableError, RouteTableError
from stratarouter_runtime.providers import ADAPTERS, check_targets
from stratarouter_runtime.records import Decision, Request, Target
from stratarouter_runtime.routes import RouteTable
from stratarouter_runtime.tools import doctor

LIMITS = ("max_tokens", "max_completion_tokens")
ROOT = Path(__file__).parents[2]


def table(kind: str, *, target: dict[str, Any] | None = None, **route: Any) -> RouteTable:
    """Two routes, the second of which has what is given."""
    plain = {"provider": "p", "model": "m"}
    return RouteTable.from_dict(
        {
            "providers": {"p": {"kind": kind, "base_url": "https://127.0.0.1:1/v1"}},
            "routes": {"good": {"targets": [plain]}, "asked": {"targets": [plain, plain | (target or {})], **route}},
        }
    )


@pytest.mark.parametrize("kind", sorted(ADAPTERS))
def test_a_parameter_that_no_request_could_carry_is_named_with_its_route_and_target(kind: str) -> None:
    check_targets(table(kind, params={"max_tokens": 5}, target={"params": {"temperature": 0.5}}))
    with pytest.raises(RouteTableError, match=r"^routes\.asked\.targets\[1\] \(p/m\) .*foo"):
        check_targets(table(kind, target={"params": {"foo": 1}}))
    with pytest.raises(RouteTableError, match=r"^routes\.asked\.targets\[0\] \(p/m\) .*max_token\b"):
        check_targets(table(kind, params={"max_token": 5}))


@pytest.mark.parametrize(("of_route", "of_target"), [LIMITS, LIMITS[::-1]])
def test_a_targets_own_limit_stands_before_its_routes_by_whichever_name(of_route: str, of_target: str) -> None:
    routes = table("openai", params={of_route: 400, "temperature": 0.5}, target={"params": {of_target: 2000}})
    check_targets(routes)
    asked = Request("r", Decision("asked"), ({"role": "user", "content": "q"},))
    [other, own] = Acceptor(RuntimeConfig(), routes).accept(asked, None).targets
    assert other.params == {of_route: 400, "temperature": 0.5}
    assert own.params == {of_target: 2000, "temperature": 0.5}
    with pytest.raises(RouteTableError, match="they differ"):
        check_targets(table("openai", target={"params": {of_route: 400, of_target: 2000}}))


def test_what_a_wire_shape_lacks_is_said_of_the_table_and_not_of_each_request() -> None:
    check_targets(table("anthropic", system_prompt="be kind"))
    with pytest.raises(RouteTableError, match="seed"):
        check_targets(table("anthropic", params={"seed": 1}))
    default = {"targets": [{"provider": "p", "model": "m"}], "params": {"seed": 1}}
    providers = {"p": {"kind": "anthropic", "base_url": "https://127.0.0.1:1"}}
    fallback = RouteTable.from_dict({"providers": providers, "default": default})
    with pytest.raises(RouteTableError, match=r"^default\.targets\[0\]"):
        check_targets(fallback)


def test_a_worker_does_not_start_with_it_and_a_reload_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    right = (
        '[providers.p]\nkind = "simulator"\nbase_url = "http://127.0.0.1:1/v1"\n'
        '[routes.asked]\ntargets = [{ provider = "p", model = "m" }]\n'
    )
    wrong = right.replace('model = "m"', 'model = "m", params = { foo = 1 }')
    config = RuntimeConfig(state_backend="memory", cache_backend="memory", routes_file=_written(file, wrong))
    with pytest.raises(RouteTableError, match="foo"):
        Assembly(config)
    _written(file, right)
    assembly = Assembly(config)
    before = assembly.routes
    _written(file, wrong)
    with pytest.raises(RouteTableError, match="foo"):
        assembly.reload()
    assert assembly.routes is before


def _open_breakers(assembly: Assembly) -> dict[str, float]:
    """What the gauge says of open breakers, by provider."""
    [found] = [one for one in assembly.metrics.registry.collect() if one.name == "stratarouter_breakers"]
    return {one.labels["provider"]: one.value for one in found.samples if one.labels["state"] == "open"}


async def test_a_provider_that_a_reload_adds_has_series_of_its_own(tmp_path: Path) -> None:
    def listed(*names: str) -> str:
        tables = [f'[providers.{name}]\nkind = "simulator"\nbase_url = "http://127.0.0.1:1/v1"\n' for name in names]
        return "".join(tables) + f'[default]\ntargets = [{{ provider = "{names[0]}", model = "m" }}]\n'

    async def call(assembly: Assembly, provider: str, problem: ProviderError | None) -> None:
        for _ in range(20):
            with contextlib.suppress(ProviderError):
                passage = await assembly.gates.enter(Target(provider, "m"), lambda: 1, 5.0)
                assembly.gates.leave(passage, problem)

    file = _written(tmp_path / "routes.toml", listed("here"))
    assembly = Assembly(RuntimeConfig(state_backend="memory", cache_backend="memory", routes_file=file))
    # Of none of these the table tells, and they share a series.
    await call(assembly, "ill", ProviderUnavailableError("down"))
    await call(assembly, "well", None)
    assembly._tell_of_breakers()
    assert _open_breakers(assembly) == {"other": 1.0}
    _written(file, listed("here", "ill", "well"))
    assembly.reload()
    assembly._tell_of_breakers()
    assert _open_breakers(assembly) == {"other": 0.0, "ill": 1.0, "well": 0.0}


def _written(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


async def test_the_doctor_says_so(tmp_path: Path) -> None:
    file = _written(
        tmp_path / "routes.toml",
        '[providers.p]\nkind = "simulator"\nbase_url = "http://127.0.0.1:1/v1"\n'
        '[default]\ntargets = [{ provider = "p", model = "m", params = { foo = 1 } }]\n',
    )
    config = RuntimeConfig(routes_file=file)
    [said] = await doctor._bounded("routes", doctor._routes(config))
    assert (said.name, said.state) == ("routes", "failed")
    assert "default.targets[0]" in said.detail


@pytest.mark.parametrize("path", ["ops/compose", "ops/kubernetes", "pipeline/stratarouter_runtime/demo_data"])
def test_the_tables_that_come_with_it_are_right(path: str) -> None:
    check_targets(RouteTable.load(ROOT / path / "routes.toml"))
