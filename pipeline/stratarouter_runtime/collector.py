"""What a process does about its memory: it looks for unreachable cycles rarely, and gives back what a burst has left.

With Python's own thresholds a search starts every few requests, and the later ones walk all that is in flight. With up
to 5,000 of them it took more than a third of a worker's processor time (11 s became 7 s for 10,000 misses). A process
of our own is settled for good (``settle``); in a caller's, the threshold is raised while a bridge runs (``SELDOM``).
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
from collections.abc import Callable

THRESHOLDS = (200_000, 10, 10)
"""Objects made and not freed between two searches of the youngest, and how many searches of one generation start one of
the next. Larger numbers leave more garbage lying in cycles. Python's default is (700, 10, 10).

Requests leave no cycles: after 10,000 misses and after 40,000 hits a search found what starting up and connections that
were closed had left, a thousand objects. What comes and goes are the 76 objects and more that a miss holds while it is
in flight. Of 100,000, 200,000, 400,000 and 1,000,000, eight runs each: 2,590, 2,850, 2,660 and 2,760 misses a second,
11,800, 12,800, 12,500 and 12,300 hits."""


def settle() -> None:
    """Search once, leave what is there now out of later searches, and search seldom from here on.

    To be called once everything is imported and built, before the first request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


TIDY_EVERY_S = 15.0
WORTH_A_SEARCH = 20_000
"""Objects made and not freed since the last search, below which nothing has happened that would leave much."""


async def tidy_up(is_idle: Callable[[], bool]) -> None:
    """Search, and give what is free back to the system, where ``is_idle`` says that nobody is kept waiting by it.

    Until cancelled. Requests leave no cycles, but failures do, in tracebacks: a worker grew by some megabytes with each
    outage until 200,000 objects had gathered. And the C library keeps what lies between pieces still in use: 20 of 130
    MB after a burst of 4,000. Both take some milliseconds.
    """
    trim = _trim()
    while True:
        await asyncio.sleep(TIDY_EVERY_S)
        if gc.get_count()[0] >= WORTH_A_SEARCH and is_idle():
            gc.collect()
            if trim is not None:
                trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """``malloc_trim``, which glibc has; None with another C library, most of which need no asking."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


class Seldom:
    """Raises the threshold of a caller's process while somebody holds it, and then gives back what was there.

    A search of everything starts once what survived amounts to a quarter of what there is, and what is in flight
    survives. In-process, of a miss' processor time with Python's 700 and with 20,000: of 353 us 56 less at 200 in
    flight, of 410 us 66 at 1,000, of 508 us 205 at 5,000, of 945 us 467 at 15,000. Where the cache fills meanwhile, and
    what is kept survives too, 20,000 leaves 34 us of searching a miss at 1,000 in flight, 50,000 leaves 21 and 100,000
    leaves 14. But each search keeps everybody waiting, half a millisecond for a thousand objects.
    """

    def __init__(self) -> None:
        self._holders = 0
        self._before = self._raised = (0, 0, 0)

    def hold(self, threshold: int) -> None:
        """Raise the threshold of the youngest to ``threshold`` objects; of several holders the first one's counts.

        Left alone where it is as high already, and where the process searches by itself never.
        """
        if self._holders == 0:
            self._before = self._raised = gc.get_threshold()
            youngest, *older = self._before
            if gc.isenabled() and 0 < youngest < threshold:
                self._raised = (threshold, older[0], older[1])
                gc.set_threshold(*self._raised)
        self._holders += 1

    def let_go(self) -> None:
        """The last holder gives back what was there, unless somebody has set another threshold meanwhile."""
        self._holders -= 1
        if self._holders == 0 and gc.get_threshold() == self._raised:
            gc.set_threshold(*self._before)


SELDOM = Seldom()
"""One for the process, as is Python's threshold."""
