"""Records that the type checker holds to be frozen."""

from __future__ import annotations

from dataclasses import replace

from stratarouter_runtime.records import Coordinates


def test_the_type_checker_refuses_to_set_a_field() -> None:
    place = Coordinates("requests", 0, 7)
    # Were it not refused, mypy would call the comment unused.
    place.offset = 8  # type: ignore[misc]
    assert place.offset == 8


def test_records_are_equal_hashed_and_replaced_by_their_fields() -> None:
    place = Coordinates("requests", 0, 7)
    assert {place, Coordinates("requests", 0, 7)} == {place}
    assert replace(place, offset=8) == Coordinates("requests", 0, 8)
    assert not hasattr(place, "__dict__")
