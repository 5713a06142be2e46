"""Read answers from the journal: which transition came of a command, judged as any reader must.

An answer is read from the log and not from the owner, so it survives the owner.
A reader that knew only an offset would take a zombie's records for true; so it
begins at the newest fence on the topic `fences`, which an owner publishes of
what it has proved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from millstream.events.codec import Codec
from millstream.events.envelope import (
    NO_FENCE,
    NOTHING_SENT,
    Event,
    Fence,
    Transition,
    read_cause_header,
    read_fence_header,
)
from millstream.events.logs.port import Log, StoredRecord, TopicPartition, read_range
from millstream.events.run import CommandRefused, CommandRepeated
from millstream.events.topics import Topics
from millstream.projections.fence import Hole, Judge, fence_after
from millstream.projections.reader import gap_accepted

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Fence).decode


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What became of a command. code: None where it was accepted, else the refusal's word, and `reason` its text.

    reply: JSON, or None. partition, offset: of the journal record; a read that brings them waits until it is folded.
    """

    code: str | None
    reason: str
    reply: bytes | None
    partition: int
    offset: int
    at: int

    @property
    def accepted(self) -> bool:
        return self.code is None


def fence_record(partition: int, fence: Fence) -> tuple[bytes, bytes]:
    """Key and value of a record on `fences`: the partition in decimal, the fence as a JSON array."""
    return str(partition).encode(), _encode(fence)


async def read_fences(log: Log, topics: Topics) -> dict[int, Fence]:
    """The newest published fence of each partition that has one."""
    bounds = await log.bounds(topics.fences, 0)
    fences: dict[int, Fence] = {}
    async for batch in read_range(log, topics.fences, 0, bounds.first, bounds.end):
        for record in batch:
            if record.key is not None and record.value is not None:
                fences[int(record.key)] = _decode(record.value)
    return fences


def answer_of(transition: Transition, partition: int, offset: int) -> Answer:
    """What a transition tells the one who asked."""
    code, reason = refusal_of(transition.events)
    return Answer(code, reason, transition.reply, partition, offset, transition.at)


def refusal_of(events: Sequence[Event]) -> tuple[str | None, str]:
    """Code and reason where the command was refused (or is a copy of one that was), else (None, "")."""
    for event in events:
        if isinstance(event, CommandRefused | CommandRepeated):
            return event.code, event.reason
    return None, ""


class JournalTail:
    """Follows all partitions of a journal from their newest fences, and hands over each valid transition's record.

    valid: called with (partition, record, cause) for transitions only. cause: the command id in UTF-8, or None.
    """

    def __init__(
        self,
        log: Log,
        topics: Topics,
        valid: Callable[[int, StoredRecord, bytes | None], None],
        codec: Codec | None = None,
    ) -> None:
        self._log, self._topics, self._valid = log, topics, valid
        self._codec = codec or Codec()
        self._fences: dict[int, Fence] = {}
        self._judge = Judge()

    async def start(self) -> Mapping[TopicPartition, int]:
        """Find where to begin; everything appended after this returns will be seen."""
        fences = await read_fences(self._log, self._topics)
        positions = {}
        for partition in range(self._topics.partitions):
            self._fences[partition] = fence = fences.get(partition, NO_FENCE)
            first = (await self._log.bounds(self._topics.journal, partition)).first
            positions[TopicPartition(self._topics.journal, partition)] = max(first, fence.offset + 1)
        return positions

    async def run(self, positions: Mapping[TopicPartition, int]) -> None:
        """Follow for ever. Raises `HoleInJournal` at a hole that no operator has accepted."""
        reader = self._log.reader(positions)
        try:
            while True:
                for tp, records in (await reader.read(max_records=2000, timeout_s=5.0)).items():
                    await self._take_past_gaps(tp.partition, records)
                await asyncio.sleep(0)
        finally:
            await reader.close()

    async def _take_past_gaps(self, partition: int, records: list[StoredRecord]) -> None:
        while True:
            try:
                return self._take(partition, records)
            except Hole as hole:
                if not await gap_accepted(self._log, self._topics, partition, hole, self._codec.decode):
                    raise
                self._judge.gaps.add(hole.gap)
                records = [r for r in records if r.offset >= hole.offset]

    def _take(self, partition: int, records: list[StoredRecord]) -> None:
        fence = self._fences[partition]
        judge, valid = self._judge, self._valid
        try:
            for record in records:
                mark = read_fence_header(record.headers)
                if mark is None:
                    continue
                verdict = judge(mark, record.offset, fence)
                if verdict == "claim":
                    fence = fence_after(fence, mark, record.offset)
                elif verdict == "apply":
                    fence = Fence(record.offset, fence.epoch_offset, fence.claim_id, mark.number, -1, NOTHING_SENT)
                    valid(partition, record, read_cause_header(record.headers))
        finally:
            self._fences[partition] = fence


class Waiting:
    """Commands that wait for their answers, by id."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._futures: dict[bytes, list[asyncio.Future[Answer]]] = {}

    def __len__(self) -> int:
        return len(self._futures)

    def expect(self, command_id: str) -> asyncio.Future[Answer]:
        """A future of this command's answer; any number may wait under one id."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(command_id.encode(), []).append(future)
        return future

    def take(self, partition: int, record: StoredRecord, cause: bytes | None) -> None:
        if cause is None or cause not in self._futures:
            return
        transition = self._codec.decode(record.value or b"")
        assert isinstance(transition, Transition)
        answer = answer_of(transition, partition, record.offset)
        for future in self._futures.pop(cause):
            if not future.done():
                future.set_result(answer)

    def forget(self, command_id: str, future: asyncio.Future[Answer]) -> None:
        """Nobody waits on this future any more."""
        key = command_id.encode()
        futures = self._futures.get(key)
        if futures is not None and future in futures:
            futures.remove(future)
            if not futures:
                del self._futures[key]

    def fail(self, error: Exception) -> None:
        """Nobody will answer any more, and this is why."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        self._futures.clear()
