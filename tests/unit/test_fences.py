"""What was invalidated stays so, however little room there is for corrections."""

from __future__ import annotations

import pytest

from stratarouter_runtime.records import CacheCommand
from stratarouter_runtime.state.cache_control import CacheControl, Origin, label


def _said(action: str, key: str, text: str | None = None) -> CacheCommand:
    return CacheCommand(action, "ann", "because", 0, key=key, text=text)  # type: ignore[arg-type]


@pytest.mark.parametrize("begun", [11, 49])
def test_an_invalidation_holds_where_the_correction_before_it_goes_for_want_of_room(begun: int) -> None:
    """The correction's own, older place was put in that of the invalidation: what began between the two was fresh."""
    control = CacheControl(max_corrections=1)
    control.apply(_said("correct", "k", "right"), 10, 0, 100)
    control.apply(_said("invalidate", "k"), 50, 0, 100)
    between = Origin(begun, (label("key", "k"),))
    assert control.is_stale(between)
    control.apply(_said("correct", "other", "right"), 60, 0, 100)
    assert control.is_stale(between)
    assert not control.is_stale(Origin(50, (label("key", "k"),)))


@pytest.mark.parametrize("begun", [9, 10, 11])
def test_what_began_before_a_correction_is_stale_once_that_is_over(begun: int) -> None:
    control = CacheControl()
    control.apply(_said("correct", "k", "right"), 10, 1_000, 100)
    kept = Origin(begun, (label("key", "k"),))
    assert (control.lapse(100_999), control.is_stale(kept), control.corrects) == ([], False, True)
    assert (control.lapse(101_000), control.is_stale(kept), control.corrects) == (["k"], begun < 10, False)
    assert control.lapse(101_000) == []


def test_a_correction_that_was_replaced_ends_when_the_last_one_does() -> None:
    control = CacheControl(max_corrections=2)
    for number in range(10):
        control.apply(_said("correct", "k", "right"), number, 1_000 * number, 100)
    assert len(control._ends) <= 4
    assert control.lapse(108_999) == []
    assert control.correction(["k"], 108_999) is not None
    assert control.lapse(109_000) == ["k"]


@pytest.mark.parametrize("what", ["key", "tag", "route_id", "tenant"])
def test_a_correction_lasts_as_long_as_it_says_and_goes_with_all_that_it_was_made_for(what: str) -> None:
    control = CacheControl()
    made_for = {"key": "k", "tag": "t", "route_id": "r", "tenant": "a"}
    control.apply(CacheCommand("correct", "ann", "because", 0, text="right", ttl=5, **made_for), 10, 1_000, 100)  # type: ignore[arg-type]
    assert control.correction(["k"], 5_999) is not None
    assert control.correction(["k"], 6_000) is None, "its own time, not the default"
    control.apply(CacheCommand("invalidate", "ann", "because", 0, **{what: made_for[what]}), 11, 2_000, 100)  # type: ignore[arg-type]
    assert control.correction(["k"], 2_000) is None
