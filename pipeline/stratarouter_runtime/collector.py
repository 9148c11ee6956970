"""How often Python looks for unreachable cycles: rarely, in a process that holds thousands of requests.

Each request in flight is some hundred objects. With Python's own thresholds every few requests start a search, which
walks all that are in flight: at 5,000 of them it took more than a third of a worker's processor time (11 s became 7 s
for 10,000 misses). For processes of our own only: in a caller's process the setting is the caller's.
"""

from __future__ import annotations

import gc

THRESHOLDS = (50_000, 10, 10)
"""Objects made and not freed between two searches of the youngest, and how many searches of one generation start one of
the next. What cycles can hold back is bounded by the first: some ten megabytes. Python's default is (700, 10, 10)."""


def settle() -> None:
    """Search once, leave what is there now out of later searches, and search seldom from here on.

    To be called once everything is imported and built, before the first request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
