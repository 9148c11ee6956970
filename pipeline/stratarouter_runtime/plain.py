"""``dataclass`` for records that are made for every request: frozen to the type checker, plain slots when it runs.

Python sets each field of a frozen dataclass by a call of ``object.__setattr__``, which takes three times as long as a
plain one: for the hundred fields that one cache hit fills, a tenth of all its processor time. Nothing here assigns to a
field after that: mypy, which runs over all of the code and its tests, refuses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - given on
else:
    import dataclasses

    def dataclass(*, frozen: bool = False, **options: Any) -> Any:
        """As the standard library's; a ``frozen`` one can be hashed, and nothing watches over its fields."""
        return dataclasses.dataclass(unsafe_hash=frozen, **options)
