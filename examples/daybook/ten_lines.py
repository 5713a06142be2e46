"""A day book in ten lines. Run it twice: the second time it finds what the first one left."""

import asyncio

from millstream.events.daybook import EnterFlight, OpenDay
from millstream.streams.runtime.local import local

BOOK = "9E-2013-01-16"


async def main() -> None:
    async with local(".millstream") as client:
        opened = await client.ask(BOOK, OpenDay("9E", "2013-01-16", close_at=None))
        print("opened" if opened.accepted else f"refused: {opened.reason}")
        flight = EnterFlight("4065", "JFK", "BOS", cancelled=False, arr_delay_min=12.0)
        entered = await client.ask(BOOK, flight, command_id="enter-4065")
        print("flight 4065 has position", int(entered.reply))


asyncio.run(main())
