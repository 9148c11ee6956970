"""Answers that repeat vote: what speaks against a hit, and what says nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.cache.shelf import Item, Near, Shelf
from stratarouter_runtime.cache.votes import DISPUTED, UNSAID, Sayings, said
from stratarouter_runtime.port_values import CacheMiss, CacheQuery
from stratarouter_runtime.records import Answer, Vector


def answer(text: str) -> Answer:
    return Answer(text, "p", "m")


def calling(**function: object) -> Answer:
    return replace(answer(""), tool_calls=({"id": f"call-{function}", "type": "function", "function": function},))


def test_the_same_words_say_the_same_whatever_their_case_and_spacing() -> None:
    assert said(answer("card_arrival")) == said(answer("  Card_arrival.\n")) != said(answer("card_linking"))
    assert said(answer("half a pair \ud800")) != UNSAID


def test_calls_say_what_they_call_and_not_their_ids() -> None:
    one = calling(name="refund", arguments='{"order": 7}')
    assert said(one) == said(replace(one, tool_calls=({**one.tool_calls[0], "id": "other"},)))
    assert said(one) != said(calling(name="refund", arguments='{"order": 8}')) != said(answer(""))


def test_calls_of_another_kind_than_functions_are_told_apart_too() -> None:
    one, other = (
        replace(answer(""), tool_calls=({"id": "c", "type": "custom", "custom": {"name": "shell", "input": what}},))
        for what in ("ls", "rm")
    )
    assert said(one) != said(other)


@pytest.mark.parametrize(
    "unsaid", [answer("x" * 2_001), calling(name="refund", arguments="\ud800"), calling(name="refund", order=2**64)]
)
def test_what_is_too_long_or_cannot_be_written_says_nothing_and_is_no_error(unsaid: Answer) -> None:
    assert said(unsaid) == UNSAID


def sayings(*says: int) -> Sayings:
    found = Sayings()
    for one in says:
        found.add("s", one)
    return found


@pytest.mark.parametrize(
    ("kept", "votes", "outvoted"),
    [
        ([1, 1, 2], [], False),
        ([1, 1, 2], [1], False),
        ([1, 1, 2], [2], True),  # one of a kind that repeats, against one who is alone
        ([1, 2, 2], [2], True),
        ([1, 2], [2], False),  # free text: each is unlike all others
        ([1, 1, 2], [1, 2], False),
        ([1, 1, 2, 3], [1, 2, 3], True),
        ([1, 1, 2, 3], [1, 1, 1, 2, 3], False),
        ([1, 1], [UNSAID, UNSAID], False),
    ],
)
def test_a_hit_is_outvoted_by_more_than_half_as_many_as_agree(
    kept: list[int], votes: list[int], outvoted: bool
) -> None:
    assert sayings(*kept).outvoted("s", 1, votes) is outvoted
    if outvoted:
        assert sayings(*kept).contradict("s", 1, votes)


def test_what_is_not_known_is_never_outvoted() -> None:
    assert not sayings(2, 2).contradict("s", UNSAID, [2, 2])


def test_another_scopes_answers_do_not_make_one_repeat() -> None:
    found = sayings(1)
    found.add("other", 2)
    found.add("other", 2)
    assert not found.outvoted("s", 1, [2])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.booleans()), max_size=40))
def test_counts_are_those_of_what_is_there(steps: list[tuple[str, int, bool]]) -> None:
    found, kept = Sayings(), list[tuple[str, int]]()
    for scope, says, comes in steps:
        if comes:
            found.add(scope, says)
            kept.append((scope, says))
        elif (scope, says) in kept:
            found.remove(scope, says)
            kept.remove((scope, says))
    for scope in "ab":
        for says in range(1, 4):
            assert found.repeats(scope, says) == (kept.count((scope, says)) > 1)
    for scope, says in kept:
        found.remove(scope, says)
    assert not found._counts


# -- on the shelf -----------------------------------------------------------------------------------------------


class Demanding:
    """A guard that demands a similarity."""

    def __init__(self, demand: float) -> None:
        self.demand = demand
        self.asked = 0

    def differs(self, asked: str, stored: str, similarity: float = 1.0) -> str | None:  # noqa: ARG002 - the port's
        self.asked += 1
        return None if similarity >= self.demand else "guard:wording"


def at(cosine: float) -> Vector:
    return np.array([cosine, np.sqrt(1 - cosine * cosine)], dtype=np.float32)


def shelf_of(*entries: tuple[str, float, str]) -> Shelf:
    """Name, cosine to the query, what it says."""
    kept = Shelf(max_entries=100, max_bytes=10_000)
    for name, cosine, text in entries:
        kept.put(Item(name, "s", name, f"text {name}", 100.0, 10, says=said(answer(text))), at(cosine), 0.0)
    return kept


QUERY = CacheQuery("s", "asked", "what was asked", at(1.0), 0.5)


def test_a_hit_that_its_neighbours_contradict_is_a_miss_that_says_so() -> None:
    kept = shelf_of(("a", 0.95, "cash"), ("b", 0.9, "card"), ("c", 0.2, "card"))
    miss = kept.nearest(QUERY, Demanding(0.8), 0.0)
    assert isinstance(miss, CacheMiss)
    assert (miss.reason, miss.similarity, miss.entry_id) == (DISPUTED, pytest.approx(0.95), "a")


def test_one_who_would_nearly_answer_votes_and_one_further_off_does_not() -> None:
    assert isinstance(
        shelf_of(("a", 0.95, "cash"), ("b", 0.7, "card"), ("c", 0.2, "card")).nearest(QUERY, Demanding(0.8), 0.0),
        CacheMiss,
    )
    assert isinstance(
        shelf_of(("a", 0.95, "cash"), ("b", 0.6, "card"), ("c", 0.2, "card")).nearest(QUERY, Demanding(0.8), 0.0), Near
    )


def test_neighbours_that_agree_carry_a_hit_over_one_that_does_not() -> None:
    found = shelf_of(("a", 0.95, "cash"), ("b", 0.9, "card"), ("c", 0.85, "cash")).nearest(QUERY, Demanding(0.8), 0.0)
    assert isinstance(found, Near)
    assert found.item.entry_id == "a"


def test_free_text_is_served_and_the_guard_is_asked_no_more_than_before() -> None:
    guard = Demanding(0.8)
    found = shelf_of(("a", 0.95, "It opens at nine."), ("b", 0.9, "At 9 it opens, daily.")).nearest(QUERY, guard, 0.0)
    assert isinstance(found, Near)
    assert guard.asked == 1


def test_an_entry_marked_wrong_for_the_question_has_no_vote() -> None:
    kept = shelf_of(("a", 0.95, "cash"), ("b", 0.9, "card"), ("c", 0.2, "card"))
    assert isinstance(kept.nearest(replace(QUERY, vetoed=frozenset({"b"})), Demanding(0.8), 0.0), Near)


def test_an_answer_that_has_gone_makes_no_other_repeat() -> None:
    kept = shelf_of(("a", 0.95, "cash"), ("b", 0.9, "card"), ("c", 0.2, "card"))
    kept.remove(("s", "c"))
    assert isinstance(kept.nearest(QUERY, Demanding(0.8), 0.0), Near)
    assert not kept.expire(200.0)
    assert not kept._sayings._counts
