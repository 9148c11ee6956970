"""How often Python looks for unreachable cycles: rarely, in a process that holds thousands of requests.

With Python's own thresholds a search starts every few requests, and the later ones walk all that is in flight. With up
to 5,000 of them it took more than a third of a worker's processor time (11 s became 7 s for 10,000 misses). For
processes of our own only: in a caller's process the setting is the caller's.
"""

from __future__ import annotations

import gc

THRESHOLDS = (100_000, 10, 10)
"""Objects made and not freed between two searches of the youngest, and how many searches of one generation start one of
the next. Larger numbers leave more garbage lying in cycles. Python's default is (700, 10, 10).

A miss holds some 400 objects while it is in flight, so with 5,000 of them the number made and not yet freed goes up and
down by as much as a hundred thousand: at 50,000 a tenth of a worker's processor time (67 of 640 us a miss) went into
searches that found nothing, at 200,000 14 us. Hits, which hold little, were a tenth slower at 300,000 than at 50,000:
what lies in cycles meanwhile drives the rest out of the processor's caches."""


def settle() -> None:
    """Search once, leave what is there now out of later searches, and search seldom from here on.

    To be called once everything is imported and built, before the first request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
