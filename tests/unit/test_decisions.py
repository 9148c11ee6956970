"""Every form in which a router returns its decision."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from stratarouter.route import RouteChoice
from stratarouter.types import RouteResult

from stratarouter_runtime.decisions import to_decision
from stratarouter_runtime.drafts import Draft
from stratarouter_runtime.errors import SchemaViolationError
from stratarouter_runtime.records import Decision

SCORES = {"semantic": 0.9, "total": 0.87}
RESULT = RouteResult(route_id="billing", confidence=0.87, scores=SCORES, latency_ms=1.2, metadata={"team": "finance"})


def test_cores_result_is_taken_by_its_attributes():
    assert to_decision(RESULT) == Decision("billing", 0.87, SCORES)


def test_cores_raw_dict_is_taken_as_it_is():
    assert to_decision(RESULT.model_dump()) == Decision("billing", 0.87, SCORES)


def test_a_matched_choice_is_a_decision():
    choice = RouteChoice(name="billing", score=0.91, threshold=0.82)
    assert to_decision(choice) == to_decision(choice.model_dump()) == Decision("billing", 0.91)


@pytest.mark.parametrize(
    "choice", [RouteChoice(name=None, score=0.4), RouteChoice(name="billing", score=0.4, threshold=0.82)]
)
def test_a_choice_that_matched_nothing_is_refused(choice: RouteChoice):
    for form in (choice, choice.model_dump()):
        with pytest.raises(SchemaViolationError, match=r"no route matched \(score 0\.4, threshold 0\.82\)"):
            to_decision(form)


def test_a_cosine_below_zero_is_no_confidence():
    assert to_decision(RouteChoice(name="a", score=-0.2, threshold=-1)).confidence == 0.0


def test_our_own_decision_comes_back_the_same():
    decision = Decision("billing", 0.5, {"a": 1.0}, ("legal",), "openai", "gpt-4o")
    assert to_decision(decision) == decision


def test_a_dict_of_our_form_may_name_the_target():
    found = to_decision({"route_id": "billing", "provider": "openai", "model": "gpt-4o"})
    assert found == Decision("billing", provider="openai", model="gpt-4o")


def test_a_string_is_a_route_id():
    assert to_decision("billing") == Decision("billing")


def test_numpys_numbers_and_float32_rounding_are_taken():
    found = {"route_id": "a", "confidence": np.float32(1) + np.float32(2e-7), "scores": {"x": np.float64(0.5)}}
    assert to_decision(found) == Decision("a", 1.0, {"x": 0.5})


@pytest.mark.parametrize("found", [None, 7, object(), ["billing"], b"billing"])
def test_anything_else_is_refused_with_what_is_accepted(found: object):
    with pytest.raises(SchemaViolationError, match=r"decision is .* a ") as refused:
        to_decision(found)
    assert "RouteResult" in refused.value.remedy


@pytest.mark.parametrize(
    ("found", "path"),
    [
        ({}, "decision.route_id is missing"),
        ("", "decision = ''"),
        ({"route_id": "a", "confidence": 1.5}, "decision.confidence = 1.5"),
        ({"route_id": "a", "confidence": 10**400}, "decision.confidence = 1000"),
        ({"route_id": "a", "confidence": 10**5000}, "decision.confidence = an integer"),
        ({"name": "a", "score": 10**400, "threshold": 0.5}, "decision.score = 1000"),
        ({"route_id": "a", "scores": {"x": -(10**400)}}, "decision.scores.x = -1000"),
        ({"route_id": "a", "scores": {"x": None}}, "decision.scores.x = None"),
        ({"route_id": "a", "provider": "openai"}, "must be named together"),
        ({"route": "a"}, "did you mean 'route_id'"),
        ({"name": "a", "score": "0.9", "threshold": 0.8}, "decision.score = '0.9'"),
    ],
)
def test_a_wrong_decision_names_its_field(found: object, path: str):
    with pytest.raises(SchemaViolationError, match=path):
        to_decision(found)


# --- a question that comes with its decision -------------------------------------------------------------------


def _draft(decision: object, context: dict[str, object] | None = None, **given: object) -> Draft:
    nothing = {"query": None, "messages": None, "embedding": None, "params": None, "cache": None}
    return Draft.of(decision, context, "r1", nothing | given)


def test_a_decision_may_hold_the_question():
    routed = SimpleNamespace(route_id="billing", confidence=0.87, query="Where is my invoice?")
    for decision in (routed, vars(routed)):
        fields = _draft(decision, {"user_id": "u1"}).fields
        assert fields["query"] == "Where is my invoice?"
        assert fields["decision"] == {"route_id": "billing", "confidence": 0.87}
        assert fields["context"] == {"user": "u1"}


def test_a_decision_may_hold_messages_and_a_vector():
    said = [{"role": "user", "content": "hello"}]
    draft = _draft({"route_id": "billing", "messages": said, "embedding": [3.0, 4.0]})
    assert draft.fields["messages"] == said
    assert draft.vector is not None
    assert draft.vector.tolist() == [3.0, 4.0]


def test_what_the_caller_says_goes_before_what_the_decision_holds():
    decision = {"route_id": "billing", "query": "the decision's"}
    assert _draft(decision, query="the argument's").fields["query"] == "the argument's"
    assert _draft(decision, {"query": "the context's"}).fields["query"] == "the context's"


def test_no_question_anywhere_is_said_with_all_its_places():
    with pytest.raises(SchemaViolationError, match="neither a query nor messages") as caught:
        _draft(RESULT)
    assert "the decision" in caught.value.remedy
