"""Which leader a request may follow, and what is remembered of one that did."""

from __future__ import annotations

import numpy as np
import pytest

from stratarouter_runtime.engine.coalesce import ALIASES, Candidate, Leaders, Match
from stratarouter_runtime.port_values import JournalKey


class CountingGuard:
    """Refuses what it is told to; counts how often it is asked."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.asked = 0

    def differs(self, asked: str, stored: str, similarity: float = 1.0) -> str | None:  # noqa: ARG002 - the port's shape
        self.asked += 1
        return "guard:test" if asked in self.refused else None


def _candidate(name: str, angle: float, *, words: str = "", scope: str = "s") -> Candidate:
    vector = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
    return Candidate(JournalKey("t", name), scope, words or f"hash of {name}", words or name, vector)


def test_the_same_other_words_are_judged_once() -> None:
    guard = CountingGuard()
    leaders = Leaders(guard)
    leaders.add(_candidate("leader", 0.0))
    first = leaders.find(_candidate("one", 0.1, words="other words"), 0.9)
    again = leaders.find(_candidate("two", 0.1, words="other words"), 0.9)
    assert first is not None
    assert first == again == Match(JournalKey("t", "leader"), first.similarity)
    assert 0.99 < first.similarity < 1.0
    assert guard.asked == 1


def test_what_is_remembered_passes_no_threshold_and_no_veto() -> None:
    leaders = Leaders(CountingGuard())
    leaders.add(_candidate("leader", 0.0))
    assert leaders.find(_candidate("one", 0.3, words="other words"), 0.9) is not None
    assert leaders.find(_candidate("two", 0.3, words="other words"), 0.99) is None
    assert leaders.find(_candidate("three", 0.3, words="other words"), 0.9, {"hash of leader"}) is None


def test_nothing_is_remembered_of_a_leader_that_ended_or_of_a_refusal() -> None:
    guard = CountingGuard("refused")
    leaders = Leaders(guard)
    leader = _candidate("leader", 0.0)
    leaders.add(leader)
    assert leaders.find(_candidate("one", 0.1, words="refused"), 0.9) is None
    assert leaders.find(_candidate("two", 0.1, words="refused"), 0.9) is None
    assert leaders.find(_candidate("three", 0.1, words="taken"), 0.9) is not None
    leaders.remove(leader)
    assert leaders.find(_candidate("four", 0.1, words="taken"), 0.9) is None
    leaders.add(_candidate("next", 0.1))
    found = leaders.find(_candidate("five", 0.1, words="taken"), 0.9)
    assert found is not None
    assert found.leader == JournalKey("t", "next")


def test_one_leader_is_known_by_so_many_wordings_and_followed_by_more() -> None:
    guard = CountingGuard()
    leaders = Leaders(guard)
    leaders.add(_candidate("leader", 0.0))
    for number in range(ALIASES + 5):
        assert leaders.find(_candidate(f"r{number}", 0.1, words=f"words {number}"), 0.9) is not None
    before = guard.asked
    assert leaders.find(_candidate("early", 0.1, words="words 0"), 0.9) is not None
    assert guard.asked == before
    assert leaders.find(_candidate("late", 0.1, words=f"words {ALIASES + 4}"), 0.9) is not None
    assert guard.asked == before + 1


@pytest.mark.parametrize("ends", [0, 1])
def test_of_two_who_lead_for_the_same_words_the_other_goes_on(ends: int) -> None:
    leaders = Leaders(CountingGuard())
    both = [_candidate(name, 0.0, words="words") for name in ("older", "newer")]
    for one in both:
        leaders.add(one)
    found = leaders.find(_candidate("asks", 0.0, words="words"), 0.9)
    assert found == Match(JournalKey("t", "newer"), 1.0)
    left = both.pop(1 - ends)
    leaders.remove(both[0])
    assert leaders.find(_candidate("asks", 0.0, words="words"), 0.9) == Match(left.key, 1.0)
    leaders.remove(left)
    assert "words" not in leaders
    assert leaders.find(_candidate("asks", 0.0, words="words"), 0.9) is None


def test_rows_are_found_after_growth_and_reuse() -> None:
    leaders = Leaders(CountingGuard())
    many = [_candidate(f"leader {number}", number * 0.05) for number in range(40)]
    for one in many:
        leaders.add(one)
    for one in many[:30]:
        leaders.remove(one)
    leaders.add(_candidate("new", 3.0))
    found = leaders.find(_candidate("asks", 3.0, words="x"), 0.999)
    assert found is not None
    assert found.leader == JournalKey("t", "new")
    assert leaders.find(_candidate("gone", 0.0, words="y"), 0.9999) is None


def test_the_next_nearest_is_followed_where_the_guard_refuses_the_nearest() -> None:
    class Refusing(CountingGuard):
        def differs(self, asked: str, stored: str, similarity: float = 1.0) -> str | None:
            super().differs(asked, stored, similarity)
            return "guard:test" if stored in self.refused else None

    leaders = Leaders(Refusing("nearest"))
    leaders.add(_candidate("nearest", 0.0))
    leaders.add(_candidate("next", 0.1))
    found = leaders.find(_candidate("asks", 0.0, words="x"), 0.9)
    assert found is not None
    assert found.leader == JournalKey("t", "next")


def test_leaders_that_ended_take_no_place_among_the_nearest() -> None:
    leaders = Leaders(CountingGuard())
    ended = [_candidate(f"ended {number}", 0.0) for number in range(10)]
    for one in ended:
        leaders.add(one)
    leaders.add(_candidate("leader", 0.1))
    for one in ended:
        leaders.remove(one)
    found = leaders.find(_candidate("asks", 0.0, words="x"), 0.9)
    assert found is not None
    assert found.leader == JournalKey("t", "leader")


def test_words_that_could_follow_two_leaders_are_forgotten_with_both() -> None:
    leaders = Leaders(CountingGuard())
    far, near = _candidate("far", 0.3), _candidate("near", 0.05)
    leaders.add(far)
    found = [leaders.find(_candidate("one", 0.0, words="x"), 0.9)]
    leaders.add(near)
    found.append(leaders.find(_candidate("two", 0.0, words="x"), 0.99))
    assert [match and match.leader for match in found] == [far.key, near.key]
    leaders.remove(far)
    leaders.remove(near)
    assert not leaders.know("x")
    assert leaders.find(_candidate("three", 0.0, words="x"), 0.9) is None


def test_nothing_is_left_when_all_have_ended() -> None:
    leaders = Leaders(CountingGuard())
    many = [_candidate(f"leader {number}", number * 0.05) for number in range(40)]
    for _ in range(2):
        for one in many:
            leaders.add(one)
        assert leaders.find(_candidate("asks", 0.0, words="x"), 0.9) is not None
        for one in many:
            leaders.remove(one)
        assert (len(leaders), leaders._scopes, leaders._rows) == (0, {}, {})
        assert not leaders.know("x")
