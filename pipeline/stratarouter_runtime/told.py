"""Answers that were given and have not reached their callers: those go on in the event loop's next turn alone, behind
whatever else holds the loop until then. What can wait gives way to them.
"""

from __future__ import annotations

import asyncio

MAX_TURNS = 3
"""Turns that ``give_way`` lets pass at most: where answers come all the time, the others' turn comes too."""


class Told:
    """Counts the answers on their way to callers. Belongs to one event loop."""

    def __init__(self) -> None:
        self.on_the_way = 0

    def tell(self, ended: asyncio.Future[None]) -> None:
        """Have whoever waits for ``ended``, which is not done, go on in the next turn."""
        ended.set_result(None)
        self.on_the_way += 1
        # Callbacks are called in order: this one just after the caller went on.
        asyncio.get_running_loop().call_soon(self._arrived)

    def _arrived(self) -> None:
        self.on_the_way -= 1

    async def give_way(self) -> None:
        """Let pass the turns in which answers reach their callers; none where there are none."""
        for _ in range(MAX_TURNS):
            if not self.on_the_way:
                return
            await asyncio.sleep(0)
