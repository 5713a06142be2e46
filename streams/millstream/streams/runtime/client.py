"""Ask for something and read what became of it: commands in, answers out, records to and from streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType

from millstream.events.codec import Codec
from millstream.events.envelope import Command, CommandBody
from millstream.events.errors import LogUnavailable, TopicMissing
from millstream.events.logs.port import Log, Record, StoredRecord, TopicPartition
from millstream.events.registry import load_schemas
from millstream.events.topics import Topics, check_run_id
from millstream.streams.runtime.answers import Answer, JournalTail, Waiting
from millstream.streams.runtime.clock import Chance
from millstream.streams.runtime.sender import Sender


class Client:
    """Commands and answers over one log and prefix. Use as `async with Client(log, topics, codec) as client:`.

    The topics must exist: the first server, or `ensure_prefix`, makes them.
    """

    def __init__(self, log: Log, topics: Topics, codec: Codec, *, chance: Chance | None = None) -> None:
        self._log, self._topics, self._codec = log, topics, codec
        self._chance = chance or Chance()
        self._sender = Sender(log, self._chance)
        self._waiting = Waiting(codec)
        self._tail = JournalTail(log, topics, self._waiting.take, codec)
        self._task: asyncio.Task[None] | None = None
        self._ids = self._chance.token()
        self._counter = 0

    async def __aenter__(self) -> Client:
        if await self._log.partitions(self._topics.journal) is None:
            raise TopicMissing(
                f"there is no journal {self._topics.journal!r} on this log. Nobody has served it yet:"
                f" run `millstream serve` once, or check the prefix."
            )
        await load_schemas(self._log, self._topics, self._codec)
        positions = await self._tail.start()
        self._task = asyncio.get_running_loop().create_task(self._tail.run(positions))
        self._task.add_done_callback(self._tail_ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sender.close()
        self._waiting.fail(LogUnavailable("the client was closed before the answer came; ask again under the same id"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _tail_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and isinstance(error, Exception):
            self._waiting.fail(error)

    def new_id(self) -> str:
        """A command id that nobody else makes."""
        self._counter += 1
        return f"{self._ids}-{self._counter}"

    async def ask(
        self, run_id: str, body: CommandBody, *, command_id: str | None = None, timeout_s: float | None = None
    ) -> Answer:
        """Send a command and wait for its answer, accepted or refused.

        The same `command_id` gets the same answer, however often it is asked. Raises `BadId`, `RecordTooLarge`
        before anything is sent; `TimeoutError` after `timeout_s`: then the command may still be decided.
        """
        if self._task is None or self._task.done():
            self._raise_why_deaf()
        if command_id is None:
            command_id = self.new_id()
        tp, record = self._record(run_id, body, command_id)
        if not self._sender.has_room:
            await self._sender.room()
        future = self._waiting.expect(command_id)
        try:
            self._sender.put(tp, record, future, wants_offset=False)
            return await (future if timeout_s is None else asyncio.wait_for(future, timeout_s))
        finally:
            self._waiting.forget(command_id, future)

    async def post(self, run_id: str, body: CommandBody, *, command_id: str) -> asyncio.Future[int]:
        """Send a command without waiting for its answer; the future gets its offset once it is durable."""
        tp, record = self._record(run_id, body, command_id)
        return await self._sender.post(tp, record)

    def _record(self, run_id: str, body: CommandBody, command_id: str) -> tuple[TopicPartition, Record]:
        check_run_id(run_id)
        value = self._codec.encode(Command(command_id, run_id, None, body))
        tp = TopicPartition(self._topics.commands, self._topics.partition_of(run_id))
        return tp, Record(value, run_id.encode())

    def _raise_why_deaf(self) -> None:
        """Nobody listens for answers (any more): an `ask` would wait for ever."""
        if self._task is None:
            raise RuntimeError("this client is not open: use it inside `async with Client(...) as client:`")
        self._task.result()

    async def flush(self) -> None:
        """Wait until everything posted is durable."""
        await self._sender.flush()


async def follow(
    log: Log, positions: Mapping[TopicPartition, int], *, until: Mapping[TopicPartition, int] | None = None
) -> AsyncIterator[tuple[TopicPartition, StoredRecord]]:
    """The records of some partitions from `positions` on, for ever, or to the offsets in `until`."""
    reader = log.reader(positions)
    try:
        while until is None or any(reader.position(tp) < end for tp, end in until.items()):
            for tp, records in (await reader.read(timeout_s=1.0)).items():
                for record in records:
                    if until is None or record.offset < until[tp]:
                        yield tp, record
    finally:
        await reader.close()
