"""A request's scope is that of its tenant, route and parameters, however often it was asked for before."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime import wire
from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.drafts import MAX_WORDS_CHARS, Draft
from stratarouter_runtime.engine import accept
from stratarouter_runtime.engine.accept import Acceptor
from stratarouter_runtime.errors import InvalidEmbeddingError, RecordTooLargeError, SchemaViolationError
from stratarouter_runtime.records import Context, Decision, Execution, Request
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


def arms(*models: str) -> RouteTable:
    targets = [{"provider": name, "model": model, "weight": 1} for name, model in zip("pq", models, strict=True)]
    providers = {name: {"kind": "simulator", "base_url": f"http://127.0.0.1/{name}"} for name in "pq"}
    return RouteTable.from_dict({"providers": providers, "routes": {"a": {"targets": targets}}})


@pytest.mark.parametrize(("models", "scopes"), [(("small", "large"), 2), (("small", "small"), 1)])
def test_answers_of_one_arm_are_not_served_to_the_other_and_those_of_one_model_are_shared(
    models: tuple[str, str], scopes: int
) -> None:
    acceptor = Acceptor(RuntimeConfig(), arms(*models))
    made = [acceptor.accept(request(n), None) for n in range(64)]
    assert len({one.targets[0].provider for one in made}) == 2
    assert len({one.scope for one in made}) == scopes
    assert len({(one.scope, one.targets[0].model) for one in made}) == scopes
    assert len({one.content_hash for one in made if one.request.messages == made[0].request.messages}) <= scopes


def test_the_scope_of_an_arm_is_made_once() -> None:
    """It was made for each request: with a system prompt of 20 kB accepting one took 54 us, without weights 8."""
    acceptor = Acceptor(RuntimeConfig(), arms("small", "large"))
    made = {acceptor.accept(request(n), None).scope for n in range(64)}
    assert len(made) == 2
    assert set(acceptor._scopes.values()) == made


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


# --- drafts ----------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "acme", "1", "tenant"])
CONTEXTS = st.dictionaries(
    st.sampled_from(["tenant", "user", "session", "trace", "a"]), NAMES | st.integers(0, 1) | st.none(), max_size=3
).filter(lambda context: all(isinstance(context.get(name, ""), str | None) for name in ("tenant", "user", "session")))
MORE = st.fixed_dictionaries(
    {"query": st.sampled_from(["q", "q", "q", "a", "Two  words?", "two\nlines", "café ½"])},
    optional={
        "embedding": st.sampled_from([[1.0, 0.0], [0.0, -3.0]]),
        "params": st.just({"temperature": 0}),
        "cache": st.sampled_from([{"mode": "refresh"}, {"mode": "read_only"}, {"mode": "default", "ttl": 60}, {}]),
    },
)
DECISIONS = st.sampled_from(["a", "a", "a", "b", {"route_id": "a", "confidence": 0.5}])


def draft(decision: object, context: dict[str, object], fields: dict[str, object], request_id: str | None) -> Draft:
    nothing: dict[str, object] = dict.fromkeys(("query", "messages", "embedding", "params", "cache"))
    return Draft.of(decision, context, request_id, nothing | fields)


@given(st.lists(st.tuples(DECISIONS, CONTEXTS, MORE), min_size=1, max_size=30))
def test_a_draft_is_accepted_as_if_none_had_come_before(asked: list[tuple[object, dict[str, object], Any]]) -> None:
    routes = table()
    acceptor = Acceptor(RuntimeConfig(), routes)
    for number, one in enumerate(asked * 3):
        given_id = f"id-{number}"
        accepted = acceptor.accept_draft(draft(*one, given_id), ())
        fresh = Acceptor(RuntimeConfig(), routes)
        made = fresh.decode(draft(*one, given_id).record(), (), None)
        assert _plain(wire.hashed(accepted)) == _plain(wire.hashed(fresh.accept(made, None)))


def _plain(execution: Execution) -> tuple[object, ...]:
    vector = execution.request.embedding
    bare = replace(execution, request=replace(execution.request, embedding=None))
    return bare, None if vector is None else vector.tolist()


def test_what_a_known_draft_brings_of_its_own_is_read_anew() -> None:
    acceptor = Acceptor(RuntimeConfig(embedding_dimension=2), table())
    for _ in range(3):
        acceptor.accept_draft(draft("a", {}, {"query": "q", "embedding": [1, 0]}, None), ())
    with pytest.raises(InvalidEmbeddingError, match="3 numbers"):
        acceptor.accept_draft(draft("a", {}, {"query": "q", "embedding": [1, 0, 0]}, None), ())
    with pytest.raises(SchemaViolationError, match="control characters"):
        acceptor.accept_draft(draft("a", {}, {"query": "q"}, "\n"), ())
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    again = acceptor.accept_draft(draft("a", {}, {"query": "q"}, None), (("traceparent", parent.encode()),))
    assert again.request.traceparent == parent
    assert acceptor.accept_draft(draft("a", {}, {"query": "q"}, None), ()).request.traceparent is None


def test_a_known_draft_follows_a_changed_route() -> None:
    acceptor = Acceptor(RuntimeConfig(), table())
    for _ in range(3):
        before = acceptor.accept_draft(draft("a", {}, {"query": "q"}, None), ())
    acceptor.update(table("be brief"))
    after = acceptor.accept_draft(draft("a", {}, {"query": "q"}, None), ())
    assert (before.system_prompt, after.system_prompt) == ("be kind", "be brief")
    assert before.content_hash != after.content_hash


def test_a_weighted_route_chooses_for_each_draft() -> None:
    targets = [{"provider": "sim", "model": model, "weight": 1} for model in "mn"]
    provider = {"kind": "simulator", "base_url": "http://127.0.0.1:1/v1"}
    routes = {"providers": {"sim": provider}, "routes": {"a": {"targets": targets}}}
    acceptor = Acceptor(RuntimeConfig(), RouteTable.from_dict(routes))
    accepted = [acceptor.accept_draft(draft("a", {}, {"query": "q"}, f"id-{n}"), ()) for n in range(50)]
    assert {execution.targets[0].model for execution in accepted} == {"m", "n"}


def test_known_drafts_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "MAX_KNOWN", 3)
    acceptor = Acceptor(RuntimeConfig(), table())
    for number in range(10):
        acceptor.accept_draft(draft("a", {}, {"query": f"q {number}"}, None), ())
        assert len(acceptor._known) <= 3
    assert draft("a", {}, {"query": "q" * (MAX_WORDS_CHARS + 1)}, None).words is None
    assert draft("a", {"session": "s" * MAX_WORDS_CHARS}, {"query": "q"}, None).words is None


def test_who_asked_before_is_not_who_asks() -> None:
    acceptor = Acceptor(RuntimeConfig(), table())
    contexts: list[dict[str, object]] = [{"user": "u", "session": "s", "more": "m"}, {}, {"user": "v"}, {}]
    for context in contexts * 3:
        execution = acceptor.accept_draft(draft("a", context, {"query": "q"}, "r"), ())
        made = execution.request.context
        assert (made.user, made.session, made.extra) == (
            context.get("user"),
            context.get("session"),
            {"more": "m"} if "more" in context else {},
        )
        fresh = Acceptor(RuntimeConfig(), table()).accept(execution.request, None)
        assert wire.hashed(execution).payload_hash == wire.hashed(fresh).payload_hash


@pytest.mark.parametrize("query", ["", "  ", "\n", "\ud800"])
def test_what_is_no_question_is_refused_beside_others_of_its_route(query: str) -> None:
    acceptor = Acceptor(RuntimeConfig(), table())
    for number in range(3):
        acceptor.accept_draft(draft("a", {}, {"query": f"q {number}"}, None), ())
    for _ in range(3):
        with pytest.raises(SchemaViolationError, match=r"query|JSON"):
            acceptor.accept_draft(draft("a", {}, {"query": query}, None), ())


class Routes(StrEnum):
    """Route ids as an application may name them."""

    A = "a"


@pytest.mark.parametrize("text", [np.str_, Routes])
@pytest.mark.parametrize("before", [0, 3])
def test_text_that_is_more_than_text_is_taken_whatever_came_before(text: type[str], before: int) -> None:
    acceptor = Acceptor(RuntimeConfig(), table())
    for number in range(before):
        acceptor.accept_draft(draft("a", {}, {"query": "q"}, f"r{number}"), ())
    for decision in (text("a"), {"route_id": text("a")}, SimpleNamespace(name=text("a"), score=0.9, threshold=0.5)):
        accepted = acceptor.accept_draft(draft(decision, {}, {"query": "q"}, text("a")), ()).request
        assert (accepted.decision.route_id, accepted.request_id) == ("a", "a")
        assert {type(accepted.decision.route_id), type(accepted.request_id)} == {str}


@pytest.mark.parametrize("wrong", [({1: "x"}, {}), ({}, {"cache": {"mode": ""}})], ids=["a name", "a mode"])
@pytest.mark.parametrize("before", [0, 3])
def test_what_a_record_could_not_say_is_refused_whatever_came_before(
    wrong: tuple[dict[Any, Any], dict[str, object]], before: int
) -> None:
    context, more = wrong
    acceptor = Acceptor(RuntimeConfig(), table())
    for number in range(before):
        acceptor.accept_draft(draft("a", {}, {"query": f"q{number % 2}"}, None), ())
    with pytest.raises(SchemaViolationError, match=r"JSON|mode"):
        acceptor.accept_draft(draft("a", context, {"query": "q0"} | more, None), ())


def test_a_mode_that_there_is_not_is_refused_every_time() -> None:
    acceptor = Acceptor(RuntimeConfig(), table())
    acceptor.accept_draft(draft("a", {}, {"query": "q"}, None), ())
    for mode in ("read_only", "never", "never", 1, None):
        asked = draft("a", {}, {"query": "q", "cache": {"mode": mode}}, None)
        if mode in ("read_only", None):
            assert acceptor.accept_draft(asked, ()).request.cache.mode == (mode or "default")
        else:
            with pytest.raises(SchemaViolationError, match="mode"):
                acceptor.accept_draft(asked, ())


def test_a_draft_is_held_to_the_smallest_limit_on_bytes() -> None:
    acceptor = Acceptor(RuntimeConfig(max_request_bytes=1024), table())
    acceptor.accept_draft(draft("a", {}, {"query": "q"}, None), ())
    with pytest.raises(RecordTooLargeError):
        acceptor.accept_draft(draft("a", {}, {"query": "é" * 600}, None), ())


def test_half_a_surrogate_pair_in_a_known_drafts_context_is_said() -> None:
    acceptor = Acceptor(RuntimeConfig(), table())
    for _ in range(3):
        acceptor.accept_draft(draft("a", {"user": "u"}, {"query": "q"}, None), ())
    with pytest.raises(SchemaViolationError, match="JSON"):
        acceptor.accept_draft(draft("a", {"user": "\ud800"}, {"query": "q"}, None), ())
    with pytest.raises(SchemaViolationError, match="user"):
        acceptor.accept_draft(draft("a", {"user": ""}, {"query": "q"}, None), ())


def said_of_vectors(caplog: pytest.LogCaptureFixture, config: RuntimeConfig, *requests: Request) -> list[str]:
    caplog.clear()
    acceptor = Acceptor(config, table())
    for one in requests:
        acceptor.accept(one, None)
    return [record.getMessage() for record in caplog.records]


def test_who_chose_no_embedder_and_sends_no_vectors_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    vector = np.ones(2, np.float32)
    with_vectors = [request(n, embedding=vector) for n in range(2)]
    warning = "no vectors: only the same words hit, or share a call"
    assert said_of_vectors(caplog, RuntimeConfig(), *REQUESTS) == [warning]
    assert said_of_vectors(caplog, RuntimeConfig(batch_enabled=False), *with_vectors, *REQUESTS) == [warning]
    assert said_of_vectors(caplog, RuntimeConfig(cache_enabled=False), *REQUESTS) == [warning]
    assert said_of_vectors(caplog, RuntimeConfig(), *with_vectors) == []
    assert said_of_vectors(caplog, RuntimeConfig(embedder="none"), *REQUESTS) == []
    assert said_of_vectors(caplog, RuntimeConfig(cache_enabled=False, batch_enabled=False), *REQUESTS) == []
