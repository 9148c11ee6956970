"""What the broker itself remembers of transactional ids, read from its own log of them."""

from __future__ import annotations

import asyncio
import struct
import time

from stratarouter_runtime.config import RuntimeConfig
from stratarouter_runtime.processors import kafka_client

TRANSACTION_LOG = "__transaction_state"
TIMEOUT_S = 60.0


async def transactional_ids(config: RuntimeConfig) -> dict[str, bool]:
    """Every transactional id in the broker's log, and whether it still stands there (the last record is no tombstone).

    The key is a version of 2 bytes and the id behind a length of 2 bytes (Kafka's TransactionLogKey).
    """
    reader = kafka_client.consumer(config, TRANSACTION_LOG, group=None)
    await reader.start()
    try:
        places = kafka_client.places_of(reader, TRANSACTION_LOG)
        ends = await reader.end_offsets(places)
        stands: dict[str, bool] = {}
        deadline = time.monotonic() + TIMEOUT_S
        while [place for place in places if await reader.position(place) < ends[place]]:
            assert time.monotonic() < deadline
            for records in (await reader.getmany(timeout_ms=200)).values():
                for record in records:
                    (length,) = struct.unpack_from(">h", record.key, 2)
                    stands[record.key[4 : 4 + length].decode()] = record.value is not None
        return stands
    finally:
        await reader.stop()


async def until_forgotten(config: RuntimeConfig, *, least: int) -> None:
    """Until the broker has forgotten all of this configuration's transactional ids, of which there are ``least``."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        known = {name: there for name, there in (await transactional_ids(config)).items() if config.group_id in name}
        if len(known) >= least and not any(known.values()):
            return
        assert time.monotonic() < deadline, known
        await asyncio.sleep(0.5)
