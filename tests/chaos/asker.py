"""Asks one thing many times at once, under one command id: `asker.py ADDRESS PREFIX RUN COMMAND_ID TIMES`.

Says `asked` when all of it is on its way, then each answer as a line of JSON.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from millstream.events.codec import Codec
from millstream.events.daybook import OpenDay
from millstream.events.logs.address import open_log
from millstream.streams.runtime.client import Client
from millstream.streams.runtime.prefix import find_topics


async def main(address: str, prefix: str, run_id: str, command_id: str, times: int) -> None:
    carrier, _, day = run_id.partition("-")
    async with open_log(address) as log:
        topics = await find_topics(log, prefix)
        async with Client(log, topics, Codec()) as client:
            body = OpenDay(carrier, day, None)
            asks = [asyncio.ensure_future(client.ask(run_id, body, command_id=command_id)) for _ in range(times)]
            await asyncio.sleep(0)
            await client.flush()
            print("asked", flush=True)
            for ask in asks:
                print(msgspec.json.encode(await ask).decode(), flush=True)


if __name__ == "__main__":
    _, log_address, topics_prefix, run, command, count = sys.argv
    asyncio.run(main(log_address, topics_prefix, run, command, int(count)))
