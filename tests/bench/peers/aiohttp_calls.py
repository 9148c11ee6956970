"""What tutorials show: read records, call the provider for ``at_once`` of them, write the answers, commit."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def main(servers: str, source: str, sink: str, group: str, base_url: str, at_once: str) -> None:
    """Until it is ended."""
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", max_batch_size=256 * 1024)
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
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def answer(value: bytes) -> None:
            request = orjson.loads(value)
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": request["query"]}]}
            async with session.post(f"{base_url}/chat/completions", json=body) as reply:
                reply.raise_for_status()
                found = orjson.loads(await reply.read())
            text = found["choices"][0]["message"]["content"]
            response = {"request_id": request["request_id"], "status": "ok", "text": text}
            await producer.send(sink, orjson.dumps(response), key=request["request_id"].encode())

        try:
            while True:
                found = await consumer.getmany(timeout_ms=200, max_records=int(at_once))
                if found:
                    await asyncio.gather(*(answer(each.value) for some in found.values() for each in some))
                    await producer.flush()
                    await consumer.commit({place: some[-1].offset + 1 for place, some in found.items()})
        finally:
            await consumer.stop()
            await producer.stop()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(*sys.argv[1:]))
