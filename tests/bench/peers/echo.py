"""The floor of a hop: what comes in goes out as it is. ``plain``, ``at_least_once`` or ``exactly_once``."""

from __future__ import annotations

import asyncio
import sys

import aiokafka.producer.sender
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

# As in the product: aiokafka's own 20 ms would make up most of a transaction's time, and flatter whoever is compared.
aiokafka.producer.sender.BACKOFF_OVERRIDE = 0.002


async def main(servers: str, source: str, sink: str, group: str, guarantee: str) -> None:
    """Until it is ended."""
    transactional = {"transactional_id": f"{group}-echo"} if guarantee == "exactly_once" else {}
    producer = AIOKafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        enable_idempotence=True,
        max_batch_size=256 * 1024,
        retry_backoff_ms=5,
        **transactional,
    )
    consumer = AIOKafkaConsumer(
        source,
        bootstrap_servers=servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await producer.start()
    await consumer.start()
    try:
        while True:
            found = await consumer.getmany(timeout_ms=200, max_records=2000)
            if not found:
                continue
            if transactional:
                await producer.begin_transaction()
            sent = [await producer.send(sink, each.value, key=each.key) for some in found.values() for each in some]
            await asyncio.gather(*sent)
            done = {place: some[-1].offset + 1 for place, some in found.items()}
            if transactional:
                await producer.send_offsets_to_transaction(done, group)
                await producer.commit_transaction()
            elif guarantee == "at_least_once":
                await consumer.commit(done)
    finally:
        await consumer.stop()
        await producer.stop()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(*sys.argv[1:]))
