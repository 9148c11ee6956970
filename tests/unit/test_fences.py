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
