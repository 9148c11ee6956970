"""What the standard library has, without what costs too much where it is used for every request.

``dataclass``: frozen to the type checker, plain slots when it runs.

Python sets each field of a frozen dataclass by a call of ``object.__setattr__``, which takes three times as long as a
plain one: for the hundred fields that one cache hit fills, a tenth of all its processor time. Nothing here assigns to a
field after that: mypy, which runs over all of the code and its tests, refuses it.

``field_names``: of a dataclass; where it was compiled it has no ``__slots__`` to read them from.

``cached_property``: Python 3.11's takes a lock, which is most of what a small property costs; from 3.12 on it has none.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - given on
    from functools import cached_property as cached_property  # noqa: PLC0414 - given on
else:

    def dataclass(*, frozen: bool = False, **options: Any) -> Any:
        """As the standard library's; a ``frozen`` one can be hashed, and nothing watches over its fields."""
        return dataclasses.dataclass(**{"unsafe_hash": frozen, **options})

    class cached_property:  # noqa: N801 - as the standard library's
        """As the standard library's; two threads may both make the value."""

        def __init__(self, make: Any) -> None:
            self._make = make
            self.__doc__ = make.__doc__

        def __set_name__(self, _: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, _: type | None = None) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self._make(instance)
            return value


def field_names(record: type[Any]) -> tuple[str, ...]:
    """The names of a dataclass' fields, in their order."""
    return tuple(field.name for field in dataclasses.fields(record))
