"""What leaves together, and when: at once while nothing is under way, else with company or at the window's end."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stratarouter_runtime.state.window import Windows


def _windows(*, window_s: float = 0.05, max_size: int = 3, max_calls: int = 2) -> Windows[str, int]:
    return Windows(window_s, max_size, max_calls)


def test_the_first_leaves_at_once() -> None:
    windows = _windows()
    windows.add(10.0, "a", 1)
    assert windows.take(10.0) == [("a", [1])]
    assert windows.under_way == 1
    assert windows.due_at() is None


def test_the_next_wait_for_the_end_of_the_window() -> None:
    windows = _windows()
    windows.add(10.0, "a", 1)
    windows.take(10.0)
    windows.add(10.01, "a", 2)
    windows.add(10.02, "a", 3)
    assert windows.take(10.02) == []
    assert windows.due_at() == 10.01 + 0.05
    assert windows.take(10.061) == [("a", [2, 3])]


def test_enough_of_them_leave_before_its_end() -> None:
    windows = _windows()
    windows.add(10.0, "a", 0)
    windows.take(10.0)
    for number in (1, 2, 3, 4):
        windows.add(10.0, "a", number)
    assert windows.take(10.0) == [("a", [1, 2, 3])]
    assert len(windows) == 1


def test_the_end_of_the_last_call_ends_the_wait() -> None:
    windows = _windows()
    windows.add(10.0, "a", 1)
    windows.take(10.0)
    windows.add(10.01, "a", 2)
    windows.ended("a")
    assert windows.take(10.02) == [("a", [2])]


def test_nothing_leaves_while_there_is_no_room_however_long_it_waits() -> None:
    windows = _windows(max_calls=1)
    windows.add(10.0, "a", 1)
    windows.take(10.0)
    windows.add(10.0, "b", 2)
    assert windows.take(99.0) == []
    assert windows.due_at() is None
    windows.ended("a")
    assert windows.take(99.0) == [("b", [2])]


def test_what_nobody_waits_for_does_not_leave() -> None:
    windows = _windows(max_calls=1)
    windows.add(10.0, "a", 1)
    windows.take(10.0)
    windows.add(10.0, "a", 2)
    windows.discard("a", 2)
    windows.discard("a", 7)
    windows.discard("b", 7)
    windows.ended("a")
    assert windows.take(11.0) == []
    assert len(windows) == 0


def test_a_window_is_over_at_its_very_end_and_full_at_its_very_size() -> None:
    windows = _windows(window_s=0.5)
    windows.add(10.0, "a", 1)
    windows.take(10.0)
    windows.add(10.0, "a", 2)
    windows.add(10.0, "b", 3)
    windows.take(10.0)
    assert windows.due_at() is None
    windows.ended("b")
    assert windows.due_at() == 10.5
    assert windows.take(10.5) == [("a", [2])]


def test_of_several_that_may_leave_the_one_who_came_first_does() -> None:
    windows = _windows(max_calls=1)
    windows.add(10.0, "a", 0)
    windows.take(10.0)
    windows.add(10.02, "late", 2)
    windows.add(10.01, "early", 1)
    assert windows.take(10.02) == []
    windows.ended("a")
    assert windows.take(10.02) == [("early", [1])]


def test_who_is_left_when_one_has_given_up_leaves_without_it() -> None:
    windows = _windows()
    windows.add(10.0, "a", 0)
    windows.take(10.0)
    for number in (1, 2):
        windows.add(10.0, "a", number)
    windows.discard("a", 1)
    windows.ended("a")
    assert windows.take(10.0) == [("a", [2])]


class WindowLife(RuleBasedStateMachine):
    """Any order of arrivals, ends, withdrawals and time: each item leaves once, in its order, or was withdrawn."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = _windows()
        self.now = 0.0
        self.waiting: dict[str, list[int]] = {"a": [], "b": []}
        self.came: dict[int, float] = {}
        self.calls: list[str] = []
        self.next = 0

    @rule(key=st.sampled_from("ab"))
    def arrive(self, key: str) -> None:
        self.windows.add(self.now, key, self.next)
        self.waiting[key].append(self.next)
        self.came[self.next] = self.now
        self.next += 1

    @rule(step=st.sampled_from([0.0, 0.01, 0.03, 0.2]))
    def leave(self, step: float) -> None:
        self.now += step
        for key, items in self.windows.take(self.now):
            assert 1 <= len(items) <= 3
            assert items == self.waiting[key][: len(items)]
            del self.waiting[key][: len(items)]
            self.calls.append(key)
        for key, left in self.waiting.items():
            if left and len(self.calls) < 2:
                assert key in self.calls
                assert len(left) < 3
                assert self.now < self.came[left[0]] + 0.05

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.calls) - 1))
        self.windows.ended(self.calls.pop(place))

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([key for key, items in self.waiting.items() if items]))
        item = data.draw(st.sampled_from(self.waiting[key]))
        self.windows.discard(key, item)
        self.waiting[key].remove(item)

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.windows) == sum(map(len, self.waiting.values()))
        assert self.windows.under_way == len(self.calls) <= 2


WindowLife.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestWindowLife = WindowLife.TestCase
