"""Which rows this process is at: one that is let go too soon is paid for twice, one too late is waited for in vain."""

from __future__ import annotations

import pytest

from stratarouter_runtime.journal.held import Held
from stratarouter_runtime.port_values import Begin, Begun, JournalKey, Recorded

A, B = JournalKey("acme", "a"), JournalKey("acme", "b")
ME, OTHER = "me", "other"
RECORDED = Begun("recorded", recorded=Recorded(None, None))


def _begin(key: JournalKey, payload: str = "p", leader: JournalKey | None = None) -> Begin:
    return Begin(key, payload, "billing", leader)


def test_a_row_is_held_from_before_its_begin_is_sent_until_it_is_released() -> None:
    held = Held()
    assert held.claim([_begin(A), _begin(B)]) == {A, B}
    assert held.claim([_begin(A)]) == set()
    assert A in held
    held.release([A])
    assert A not in held
    assert held.claim([_begin(A), _begin(B)]) == {A}


@pytest.mark.parametrize(
    ("begun", "leader", "stays"),
    [
        (Begun("granted"), None, True),
        (Begun("granted"), B, False),
        (Begun("conflict"), None, False),
        (Begun("busy", owner=ME), None, False),
        (Begun("busy", owner=OTHER), None, False),
        (Begun("ambiguous"), None, False),
        (RECORDED, None, False),
    ],
)
def test_of_what_was_asked_for_anew_only_what_is_granted_to_lead_stays_held(
    begun: Begun, leader: JournalKey | None, stays: bool
) -> None:
    held = Held()
    item = _begin(A, leader=leader)
    held.settle([item], [begun], held.claim([item]), ME)
    assert (A in held) is stays


@pytest.mark.parametrize(
    ("begun", "stays"),
    [
        (Begun("busy", owner=ME), True),
        (Begun("conflict"), True),
        (Begun("busy", owner=OTHER), False),
        (Begun("ambiguous"), False),
        (RECORDED, False),
    ],
)
def test_what_is_at_work_here_is_let_go_only_where_it_is_finished_or_another_s(begun: Begun, stays: bool) -> None:
    held = Held()
    held.claim([_begin(A)])
    held.settle([_begin(A)], [begun], held.claim([_begin(A)]), ME)
    assert (A in held) is stays


@pytest.mark.parametrize("turn", [1, -1])
def test_a_row_refused_with_another_payload_in_the_same_call_stays_with_whoever_has_it(turn: int) -> None:
    held = Held()
    items, begun = [_begin(A), _begin(A, "other")], [Begun("granted"), Begun("conflict")]
    held.settle(items[::turn], begun[::turn], held.claim(items), ME)
    assert A in held
