"""Hand the commands of many partitions to their owners: one reader for all, one bounded queue each.

Commands are read by a reader of our own from the position that the journal
knows (`command_offset` + 1), never from a group's committed offset.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from millstream.events.errors import Stop
from millstream.events.logs.port import Log, Reader, StoredRecord, TopicPartition

QUEUE_RECORDS_MAX = 4000
READ_RECORDS_MAX = 1000
IDLE_READ_S = 5.0


class Inlet:
    """The commands of one partition, in offset order. `take` never waits; `wake` is called when there is something."""

    def __init__(self, feed: Feed, tp: TopicPartition, position: int, wake: Callable[[], None]) -> None:
        self._feed, self.tp, self._wake = feed, tp, wake
        self._queue: deque[StoredRecord] = deque()
        self.position = position
        self.failure: Stop | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def peek(self) -> StoredRecord | None:
        """The next command, left in place. Raises what stopped the reading (`OffsetOutOfRange`, ...)."""
        if self._queue:
            return self._queue[0]
        if self.failure is not None:
            raise self.failure
        return None

    def pop(self) -> StoredRecord:
        record = self._queue.popleft()
        if len(self._queue) == QUEUE_RECORDS_MAX // 2:
            self._feed.changed()
        return record

    @property
    def read_to(self) -> int:
        """The next offset that isn't in the queue yet."""
        return self.position

    def push(self, records: list[StoredRecord]) -> None:
        self._queue.extend(records)
        self.position = records[-1].offset + 1
        self._wake()

    def fail(self, failure: Stop) -> None:
        self.failure = failure
        self._wake()

    @property
    def full(self) -> bool:
        return len(self._queue) > QUEUE_RECORDS_MAX // 2

    def close(self) -> None:
        self._feed.closed(self)


class Feed:
    """Reads `topic` for all open inlets. Run `run()` as a task."""

    def __init__(self, log: Log, topic: str) -> None:
        self._log, self._topic = log, topic
        self._inlets: dict[TopicPartition, Inlet] = {}
        self._changed = asyncio.Event()
        self._reading: asyncio.Task[dict[TopicPartition, list[StoredRecord]]] | None = None

    def open(self, partition: int, position: int, wake: Callable[[], None]) -> Inlet:
        """Begin to read `partition` at `position`, in place of an earlier inlet for it."""
        tp = TopicPartition(self._topic, partition)
        inlet = self._inlets[tp] = Inlet(self, tp, position, wake)
        self.changed()
        return inlet

    def closed(self, inlet: Inlet) -> None:
        if self._inlets.get(inlet.tp) is inlet:
            del self._inlets[inlet.tp]
            self.changed()

    def changed(self) -> None:
        """Another set of partitions is to be read, or a full queue has room again."""
        self._changed.set()
        if self._reading is not None:
            self._reading.cancel()

    async def run(self) -> None:
        reader = self._log.reader({})
        try:
            while True:
                self._changed.clear()
                wanted = {tp: i.position for tp, i in self._inlets.items() if not i.full and i.failure is None}
                reader.assign(wanted)
                if not wanted:
                    await self._changed.wait()
                else:
                    await self._read_until_changed(reader)
        finally:
            await reader.close()

    async def _read_until_changed(self, reader: Reader) -> None:
        """Read until the set of inlets has changed. A read that is cut short is begun anew from our own positions."""
        loop = asyncio.get_running_loop()
        while not self._changed.is_set():
            self._reading = read = loop.create_task(reader.read(max_records=READ_RECORDS_MAX, timeout_s=IDLE_READ_S))
            try:
                # `wait`, not `await read`: a cancelled read must not look like a cancelled feed, nor the other way round.
                await asyncio.wait([read])
            finally:
                self._reading = None
                if not read.done():
                    read.cancel()
                    await asyncio.wait([read])
            if read.cancelled():
                return
            failure = read.exception()
            if isinstance(failure, Stop):
                self._failed(failure)
                return
            self._deliver(read.result())

    def _deliver(self, got: dict[TopicPartition, list[StoredRecord]]) -> None:
        for tp, records in got.items():
            inlet = self._inlets.get(tp)
            if inlet is None or not records:
                continue
            if records[0].offset < inlet.position:
                records = [r for r in records if r.offset >= inlet.position]
            if records:
                inlet.push(records)
                if inlet.full:
                    self.changed()

    def _failed(self, failure: Stop) -> None:
        """Only the partition that the error names stops; where it names none, all do."""
        partition = getattr(failure, "partition", None)
        for tp, inlet in list(self._inlets.items()):
            if partition is None or tp.partition == partition:
                inlet.fail(failure)
        self.changed()
