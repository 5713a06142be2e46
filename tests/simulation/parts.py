"""Twins of what a process has outside itself, for the simulator: log handle, clock, disk, server folder.

Everything takes its chance from a `random.Random` that it is given, and its time
from the virtual loop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from millstream.events.codec import Codec
from millstream.events.envelope import Fence
from millstream.events.errors import AppendUnknown
from millstream.events.logs.memory import MemoryCluster, MemoryLog
from millstream.events.logs.memory_faults import End, Faults
from millstream.events.logs.port import Appended, Record, StoredRecord, TopicPartition
from millstream.projections.memory_store import MemoryStore
from millstream.streams.runtime.clock import Chance
from millstream.streams.runtime.folder import ServerFolder

EPOCH_MS = 1_358_294_400_000
"""When simulations begin: 2013-01-16."""

HOUR_MS = 60 * 60 * 1000

APPEND_TIMEOUT_S = 1.0
"""After that a handle gives an append up, as a producer does; what was under way may land all the same."""


class SimClock:
    """A host's clocks. The wall clock can be set wrong by `jumped_ms`; the monotonic one is the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.jumped_ms = 0

    def monotonic(self) -> float:
        return self._loop.time()

    def wall_ms(self) -> int:
        return EPOCH_MS + int(self._loop.time() * 1000) + self.jumped_ms


class SimCodec(Codec):
    """Reads each schema once: every process of every world reads the same ones."""

    def __init__(self) -> None:
        super().__init__()
        self._learnt: dict[str, int] = {}

    def learn(self, schema_json: str) -> int:
        known = self._learnt.get(schema_json)
        if known is None:
            known = self._learnt[schema_json] = super().learn(schema_json)
        return known


class SimCluster(MemoryCluster):
    """Tells `landed` of every batch that the log takes."""

    def __init__(
        self, now_ms: Callable[[], int], landed: Callable[[TopicPartition, Sequence[StoredRecord]], None]
    ) -> None:
        super().__init__(now_ms=now_ms, identity="simulated")
        self._landed = landed

    def land(self, tp: TopicPartition, records: Sequence[Record]) -> Appended:
        appended = super().land(tp, records)
        self._landed(tp, self.streams[tp].records[-len(records) :])
        return appended


class SimLog(MemoryLog):
    """A handle whose appends end, at the latest, after a time-out."""

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> Appended:
        if isinstance(self.faults, SimFaults):
            self.faults.claiming = records[0].key is None
        try:
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                return await super().append(topic, partition, records)
        except TimeoutError:
            raise AppendUnknown(f"no answer from {topic!r} for {APPEND_TIMEOUT_S:.0f} s") from None


class SimFaults(Faults):
    """Ends of appends, but for two lies that no log tells and that the protocol answers with a stop: an offset lower
    than the right one, and a wrong one for a claim."""

    claiming = False

    def next_end(self, topic: str, partition: int) -> End:
        end = super().next_end(topic, partition)
        return End.LANDED_NO_OFFSET if self.claiming and end is End.LANDED_OTHER_OFFSET else end

    def wrong_offset(self, right: int) -> int:
        return right + self._rng.choice((1, 2, 100))


class Delays:
    """How long an append is on its way, in seconds: some ms, and now and then much longer."""

    def __init__(self, rng: random.Random, *, slow: float) -> None:
        self._rng, self.slow = rng, slow

    def __call__(self) -> float:
        drawn = self._rng.random()
        if drawn < self.slow:
            return 0.05 + drawn / self.slow * 0.3
        return 0.0005 + drawn * 0.004


class SimStore(MemoryStore):
    """A store on a disk that flushes when it likes, besides when it is told to."""

    def __init__(self, rng: random.Random, flushes: float) -> None:
        super().__init__("simulated")
        self._rng, self._flushes = rng, flushes

    def write(self, puts: Mapping[bytes, bytes | None], fence: Fence) -> None:
        super().write(puts, fence)
        if self._rng.random() < self._flushes:
            self.flush()

    def copied(self) -> SimStore:
        copy = SimStore(self._rng, self._flushes)
        for key, value in self.scan(b""):
            copy._set(key, value)
        copy.flush()
        return copy


class Disk:
    """The stores of one host, by partition. What outlives a process."""

    def __init__(self, rng: random.Random, flushes: float) -> None:
        self._rng, self._flushes = rng, flushes
        self.stores: dict[int, SimStore] = {}

    def open(self, partition: int) -> SimStore:
        store = self.stores.get(partition)
        if store is None:
            store = self.stores[partition] = SimStore(self._rng, self._flushes)
        return store

    def crash(self, *, lost: bool) -> None:
        """The process has died. Each store is what it had flushed, or gone. The dead process keeps the old objects."""
        if lost:
            self.stores.clear()
            return
        for partition, store in self.stores.items():
            store.crash()
            self.stores[partition] = store.copied()


class SimFolder(ServerFolder):
    """The folder of a simulated server: an instance id and a disk."""

    def __init__(self, instance: str, disk: Disk) -> None:
        super().__init__(Path(instance), since="the beginning")
        self._instance, self._disk = instance, disk

    def lock(self) -> None: ...

    def unlock(self) -> None: ...

    def instance_id(self, chance: Chance) -> str:
        return self._instance

    def open_store(self, partition: int) -> tuple[Any, str | None]:
        return self._disk.open(partition), None

    def answer_checkpoints(self, stores: Mapping[int, Any]) -> None: ...
