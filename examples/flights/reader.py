"""From flights to commands: each is entered into the book of its carrier's day.

A command's id is the place of the record that it comes of, such as
`flights/2/1234`. A reader that is killed and begins again sends the same ids
again, and nothing is entered twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from examples.flights.data import cancelled, day_of
from millstream.events.codec import Codec
from millstream.events.daybook import CloseDay, EnterFlight, OpenDay
from millstream.events.flight import Flight
from millstream.events.logs.port import Log, TopicPartition
from millstream.streams.runtime.client import Client

READ_RECORDS = 2000


class Books:
    """Which day each carrier is at. A day is over with the carrier's first flight of another day, or with the stream."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._days: dict[str, tuple[str, str]] = {}
        self._sent: list[asyncio.Future[int]] = []

    async def enter(self, flight: Flight, place: str) -> None:
        """Send what the flight asks for; waits only where too much is under way. place: the record's, as an id."""
        carrier, day = flight.carrier, day_of(flight)
        book = f"{carrier}-{day}"
        before = self._days.get(carrier)
        if before is None or before[0] != day:
            if before is not None:
                await self._close(carrier, *before)
            await self._post(book, OpenDay(carrier, day, None), f"{place}/open")
        entered = EnterFlight(
            flight=f"{carrier}{flight.flight}",
            origin=flight.origin,
            dest=flight.dest,
            cancelled=cancelled(flight),
            arr_delay_min=flight.arr_delay,
        )
        await self._post(book, entered, place)
        self._days[carrier] = (day, place)

    async def finish(self) -> None:
        """Close the days that are still open, and wait until all that was sent is durable."""
        for carrier, (day, last) in self._days.items():
            await self._close(carrier, day, last)
        self._days.clear()
        await asyncio.gather(*self._sent)

    async def _close(self, carrier: str, day: str, last: str) -> None:
        await self._post(f"{carrier}-{day}", CloseDay(), f"{last}/close")

    async def _post(self, run_id: str, body: OpenDay | EnterFlight | CloseDay, command_id: str) -> None:
        self._sent.append(await self._client.post(run_id, body, command_id=command_id))


async def read(
    log: Log,
    codec: Codec,
    client: Client,
    positions: Mapping[TopicPartition, int],
    ends: asyncio.Future[dict[TopicPartition, int]],
) -> None:
    """Enter every flight from `positions` on. ends: gets where the stream ends, once all is published."""
    reader = log.reader(positions)
    books = Books(client)
    try:
        while not (ends.done() and all(reader.position(tp) >= end for tp, end in ends.result().items())):
            for tp, records in (await reader.read(max_records=READ_RECORDS, timeout_s=0.2)).items():
                for record in records:
                    flight = codec.decode(record.value or b"")
                    assert isinstance(flight, Flight)
                    await books.enter(flight, f"flights/{tp.partition}/{record.offset}")
                await asyncio.sleep(0)
        await books.finish()
    finally:
        await reader.close()
