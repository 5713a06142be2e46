"""What a server that has stopped leaves behind, made in the test's own process: quicker than by one of its own."""

from __future__ import annotations

from millstream.events.codec import Codec
from millstream.events.daybook import EnterFlight, OpenDay
from millstream.streams.runtime.client import Client
from millstream.streams.runtime.prefix import find_topics
from millstream.streams.runtime.server import Server
from tests.chaos.load import Told
from tests.chaos.place import Place

FLIGHTS = 60
CARRIERS = ("AA", "B6", "UA", "WN")


async def serve_once(place: Place, *, folder: str = "server", day: int = 1, flights: int = FLIGHTS) -> Told:
    """Serve, write one day book a carrier, stop. Returns what was told."""
    told: Told = {}
    async with place.log() as log:
        topics = await find_topics(log, place.prefix, place.partitions)
        async with Server(log, topics, place.folder(folder)) as server:
            await server.ready()
            async with Client(log, topics, Codec()) as client:
                for carrier in CARRIERS:
                    book = f"{carrier}-2013-01-{day:02}"
                    bodies = [OpenDay(carrier, f"2013-01-{day:02}", None)]
                    bodies += [EnterFlight(f"F{n}", "JFK", "BOS", False, float(n)) for n in range(flights)]
                    for n, body in enumerate(bodies):
                        told[f"{book}/{n}"] = [await client.ask(book, body, command_id=f"{book}/{n}")]
    return told
