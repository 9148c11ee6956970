"""What is committed passes over nothing that was read and is not done."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stratarouter_runtime.state.in_order import InOrder


def test_what_is_done_moves_on_to_the_first_that_is_not() -> None:
    order = InOrder()
    order.read([3, 4, 7, 9])
    assert order.advance() is None
    order.done([7, 3])
    assert (order.advance(), len(order)) == (4, 3 - 1)
    order.done([4])
    assert (order.advance(), len(order)) == (8, 1)
    order.done([9])
    assert (order.advance(), len(order), order.advance()) == (10, 0, None)


def test_a_position_that_is_set_back_begins_again_there() -> None:
    order = InOrder()
    order.read([3, 4, 7])
    order.done([7])
    order.read([4, 7, 8])
    order.done([3])
    assert order.advance() == 4
    order.done([4])
    assert (order.advance(), len(order)) == (8, 1)


def test_one_that_later_ones_pass_is_told_with_how_long_it_stands() -> None:
    order = InOrder()
    order.read([1, 2, 3])
    assert order.passed_over(0.0) is None
    order.done([1])
    assert order.passed_over(1.0) is None
    order.done([3])
    assert order.passed_over(2.0) == (2, 0.0)
    assert order.passed_over(9.0) == (2, 7.0)
    order.read([2, 3, 4])
    assert order.passed_over(10.0) == (2, 8.0)
    order.done([2])
    assert order.passed_over(11.0) is None
    order.done([5])
    assert order.passed_over(12.0) == (4, 0.0)


@given(st.lists(st.tuples(st.sampled_from(["read", "done", "back", "advance"]), st.integers(0, 30)), max_size=60))
def test_no_sequence_commits_beyond_what_is_open(steps: list[tuple[str, int]]) -> None:
    order, position, done, committed = InOrder(), 0, set[int](), 0
    for step, number in steps:
        if step == "read":
            offsets = range(position, position + number % 4)
            order.read(offsets)
            position += number % 4
        elif step == "done" and number < position:
            order.done([number])
            done.add(number)
        elif step == "back":
            position = min(position, max(committed, number))
        elif (moved := order.advance()) is not None:
            assert moved >= committed
            assert set(range(committed, moved)) <= done
            committed = moved
