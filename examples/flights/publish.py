"""Put flights on the stream `flights`, keyed by carrier: what is of one carrier stays in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from millstream.events.codec import Codec
from millstream.events.flight import Flight
from millstream.events.logs.port import Log, Record, TopicPartition
from millstream.events.topics import STREAM_PARTITIONS, Topics, partition_of
from millstream.streams.runtime.clock import Chance
from millstream.streams.runtime.sender import Sender

STREAM = "flights"
TURN = 250
"""Records between two turns of the event loop."""


async def publish(
    log: Log, topics: Topics, codec: Codec, flights: Iterable[Flight], published: Callable[[int], None]
) -> dict[TopicPartition, int]:
    """Publish all flights, many in one append. Returns where each partition of the stream ends, once all is durable.

    published: is told how many are durable so far.
    """
    topic = topics.stream(STREAM)
    sender = Sender(log, Chance())
    under_way: list[asyncio.Future[int]] = []
    done = 0
    try:
        for number, flight in enumerate(flights, 1):
            tp = TopicPartition(topic, partition_of(flight.carrier, STREAM_PARTITIONS))
            under_way.append(await sender.post(tp, Record(codec.encode(flight), flight.carrier.encode())))
            if number % TURN == 0:
                await asyncio.sleep(0)
                while done < len(under_way) and under_way[done].done():
                    done += 1
                published(done)
        await asyncio.gather(*under_way)
        published(len(under_way))
    finally:
        await sender.close()
    return {TopicPartition(topic, p): (await log.bounds(topic, p)).end for p in range(STREAM_PARTITIONS)}
