"""A server that believes that all partitions are its own, whatever a group would say: `fighter.py ADDRESS PREFIX FOLDER`.

Everything else of it is what `millstream serve` runs. Ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from millstream.events.errors import Stop
from millstream.events.logs.address import open_log
from millstream.events.logs.port import Group, Log, TopicPartition
from millstream.streams.runtime.prefix import find_topics
from millstream.streams.runtime.server import Server


class Everything:
    """A membership that assigns all partitions to whoever asks, once and for ever."""

    def __init__(self, partitions: frozenset[TopicPartition]) -> None:
        self.assignment = partitions
        self.generation = 1
        self.session_timeout_s = 3.0

    async def changed(self, since_generation: int) -> frozenset[TopicPartition]:
        if since_generation >= self.generation:
            await asyncio.Event().wait()
        return self.assignment

    def silent_for_s(self) -> float:
        return 0.0

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None: ...

    async def committed(self, tp: TopicPartition) -> int | None:
        return None

    async def close(self, *, leave: bool = False) -> None: ...


def assign_everything(log: Log) -> None:
    """From now on who joins a group on this handle is given everything."""

    async def join(
        group: str, topics: Sequence[str], *, instance_id: str, session_timeout_s: float | None = None
    ) -> Group:
        counts = {topic: await log.partitions(topic) or 0 for topic in topics}
        return Everything(frozenset(TopicPartition(t, p) for t, count in counts.items() for p in range(count)))

    log.join = join  # type: ignore[method-assign]


async def main(address: str, prefix: str, folder: Path, partitions: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_log(address) as log:
        topics = await find_topics(log, prefix, partitions)
        assign_everything(log)
        async with Server(log, topics, folder, say=lambda line: print(line, flush=True)) as server:
            serving = asyncio.ensure_future(server.serve())
            print("fights", flush=True)
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
            serving.cancel()


if __name__ == "__main__":
    _, log_address, topics_prefix, store_folder, count = sys.argv
    try:
        asyncio.run(main(log_address, topics_prefix, Path(store_folder), int(count)))
    except Stop as error:
        sys.exit(f"stopped: {error}")
