"""A request's scope is that of its tenant, route and parameters, however often it was asked for before."""

from __future__ import annotations

import pytest

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.engine import accept
from stratarouter_runtime.engine.accept import Acceptor
from stratarouter_runtime.records import Context, Decision, Request
from stratarouter_runtime.routes import RouteTable


def table(system_prompt: str = "be kind") -> RouteTable:
    target = {"provider": "sim", "model": "m"}
    return RouteTable.from_dict(
        {
            "providers": {"sim": {"kind": "simulator", "base_url": "http://127.0.0.1:1/v1"}},
            "routes": {name: {"targets": [target], "system_prompt": system_prompt} for name in ("a", "b")},
            "default": {"targets": [target]},
        }
    )


def request(number: int, *, route: str = "a", tenant: str = "t", **more: object) -> Request:
    decision = Decision(route, provider="sim" if "model" in more else None, model=more.pop("model", None))  # type: ignore[arg-type]
    messages = ({"role": "user", "content": "q"},)
    return Request(f"r{number}", decision, messages, context=Context(tenant), **more)  # type: ignore[arg-type]


REQUESTS = [
    request(0),
    request(1, tenant="other"),
    request(2, route="b"),
    request(3, route="in no table"),
    request(4, params={"temperature": 0}),
    request(5, params={"temperature": 1}),
    request(6, model="another"),
]


def test_the_scope_is_the_same_when_it_is_kept_and_when_it_is_made() -> None:
    routes = table()
    acceptor = Acceptor(RuntimeConfig(), routes)
    made = [wire.scope_of(routes.resolve(one.decision), one) for one in REQUESTS]
    assert len(set(made)) == len(made)
    for _ in range(2):
        assert [acceptor.accept(one, None).scope for one in REQUESTS] == made


def test_a_changed_route_has_another_scope() -> None:
    acceptor = Acceptor(RuntimeConfig(), table())
    before = acceptor.accept(REQUESTS[0], None).scope
    acceptor.update(table("be brief"))
    assert acceptor.accept(REQUESTS[0], None).scope != before


def test_scopes_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "MAX_SCOPES", 3)
    acceptor = Acceptor(RuntimeConfig(), table())
    scopes = [acceptor.accept(request(n, tenant=f"t{n}"), None).scope for n in range(10)]
    assert len(set(scopes)) == len(scopes)
    assert len(acceptor._scopes) <= 3
