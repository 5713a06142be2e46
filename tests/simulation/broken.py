"""Protocols with one rule broken each. The simulator must find every one of them, or it can't fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from millstream.events import daybook as d
from millstream.events.codec import Codec
from millstream.events.envelope import Command, Fence, Sent, read_cause_header, read_fence_header
from millstream.events.errors import AppendUnknown
from millstream.events.kernel import KernelCalled
from millstream.events.logs.port import Appended, Log, Record, StoredRecord
from millstream.events.topics import Topics
from millstream.projections.run import Run
from millstream.streams.deciders import table
from millstream.streams.deciders.cause import Cause, Decision
from millstream.streams.gpu.group import KernelGroup
from millstream.streams.runtime.answers import JournalTail, Waiting
from millstream.streams.runtime.client import Client
from millstream.streams.runtime.clock import Chance, Clock, PartitionClock
from millstream.streams.runtime.judge import Judge
from millstream.streams.runtime.outbox import Outbox, Pending
from millstream.streams.runtime.owner import Owner
from tests.simulation.world import Rules


class ReadsNothing(Owner):
    """1 Claim: decides from its store, without reading up to its claim."""

    async def _read_up_to_claim(self) -> None:
        offset, claim_id = self._epoch or (0, 0)
        old = self._store.fence()
        fence = Fence(offset, offset, claim_id, 0, old.command_offset, old.sent)
        self._fence, self._sent = fence, fence.sent
        self._judge.reset()
        self._timers.clear()
        await self._open_commands(fence)
        self._watcher.claimed(self.partition, offset)


class _Halves:
    """A log that gets each journal batch as two appends at once."""

    def __init__(self, log: Log, journal: str) -> None:
        self._log, self._journal = log, journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> Appended:
        if topic != self._journal or len(records) < 2:
            return await self._log.append(topic, partition, records)
        half = len(records) // 2
        both = (self._log.append(topic, partition, part) for part in (records[:half], records[half:]))
        first, _ = await asyncio.gather(*both)
        return first


class TwoInFlight(Owner):
    """2 Append: two batches are under way at once."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{**given, "log": _Halves(given["log"], given["topics"].journal)})


class AnyAnswerProves(Owner):
    """3 Prove: whatever offset comes back counts as proof."""

    def _prove(self) -> None:
        assert self._flying is not None
        task, batch = self._flying
        if task.exception() is None:
            told: Any = asyncio.get_running_loop().create_future()
            told.set_result(Appended(batch.base, task.result().timestamp))
            self._flying = (told, batch)
        super()._prove()


class ErrorMeansRefused(Owner):
    """6 Unknown: after an error it goes on in its epoch, with the same numbers for other records."""

    _refused = False

    def _prove(self) -> None:
        assert self._flying is not None
        self._refused = isinstance(self._flying[0].exception(), AppendUnknown)
        super()._prove()

    async def _claim(self) -> None:
        if not self._refused:
            await super()._claim()

    async def _read_up_to_claim(self) -> None:
        if not self._refused:
            await super()._read_up_to_claim()
            return
        self._refused = False
        self._judge.reset()
        await self._open_commands(self._fence)


class KeepsTentative(Owner):
    """6 Unknown: what was decided and not proved stays in memory after the next claim."""

    async def _forget(self, why: str) -> None:
        self._runs.clear, clear = lambda: None, self._runs.clear
        try:
            await super()._forget(why)
        finally:
            self._runs.clear = clear


class _NoDedup(Judge):
    async def judge(self, stored: StoredRecord, at: int) -> tuple[Cause, Decision]:
        cause, decision = await super().judge(stored, at)
        if cause.command_id is not None and type(decision.events[0]).__name__ == "CommandRepeated":
            return cause, self._decide(self._runs.get(cause.run_id), cause)
        return cause, decision


class NoDedup(Owner):
    """5 Commands once: a second copy is decided as if it were the first."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        args = (given["decide"], self._runs, given["codec"], given["topics"], given["partition"], given["learn"])
        self._judge = _NoDedup(*args)


class _NoTombstones(Judge):
    async def judge(self, stored: StoredRecord, at: int) -> tuple[Cause, Decision]:
        self._runs.tombstone, tombstone = lambda run_id: None, self._runs.tombstone
        try:
            return await super().judge(stored, at)
        finally:
            self._runs.tombstone = tombstone


class NoTombstones(Owner):
    """5 Commands once: a removed run leaves nothing, so a late copy of its opening opens it again."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        args = (given["decide"], self._runs, given["codec"], given["topics"], given["partition"], given["learn"])
        self._judge = _NoTombstones(*args)


class _SendsWhatItProved(Outbox):
    def merge(self, pending: Iterable[Pending], sent: Sent) -> None:
        super().merge((), sent)


class _TrustsAnError(Outbox):
    async def _send(self, target: Any, items: Any) -> None:
        with contextlib.suppress(AppendUnknown):
            await super()._send(target, items)


def _outbox(kind: type[Outbox], owner: Owner, given: dict[str, Any]) -> Outbox:
    names = ("log", "topics", "partition", "codec", "chance")
    return kind(wake=owner._wake_up, now=owner._time.now, **{n: given[n] for n in names})


class ResendsNothing(Owner):
    """7 Outputs: a new owner doesn't send what the old one had not sent."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.outbox = _outbox(_SendsWhatItProved, self, given)


class CountsErrorsAsSent(Owner):
    """7 Outputs: an output whose append had an error counts as acknowledged."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.outbox = _outbox(_TrustsAnError, self, given)


class SendsBeforeProof(Owner):
    """7 Outputs: they leave when they are decided."""

    def _append(self) -> None:
        super()._append()
        assert self._flying is not None
        batch = self._flying[1]
        outputs, batch.outputs = batch.outputs, []
        for output in outputs:
            self.outbox.add(output)


class NeverNotesWatermark(Owner):
    """7 Outputs: no transition says what was sent."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._sent = Sent(1 << 62, 0, 0, 0)

    async def _read_up_to_claim(self) -> None:
        await super()._read_up_to_claim()
        self._sent = Sent(1 << 62, 0, 0, 0)


class _HostTime(PartitionClock):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._host = clock

    def now(self) -> int:
        self._last = max(self._last, self._host.wall_ms())
        return self._last


class BelievesItsHost(Owner):
    """Time: a partition's time is the host's, not the log's."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._time = _HostTime(given["clock"])


class _AllCount(JournalTail):
    def _take(self, partition: int, records: list[StoredRecord]) -> None:
        for record in records:
            mark = read_fence_header(record.headers)
            if mark is not None and mark.kind == "transition":
                self._valid(partition, record, read_cause_header(record.headers))


class TakesZombies(Client):
    """4 Read: a client takes every record for true, whatever its epoch."""

    def __init__(self, log: Log, topics: Topics, codec: Codec, *, chance: Chance | None = None) -> None:
        super().__init__(log, topics, codec, chance=chance)
        self._waiting = Waiting(codec)
        self._tail = _AllCount(log, topics, self._waiting.take)


def any_answer(run: Run | None, cause: Cause) -> Decision:
    """7 Outputs: an answer is accepted in the right state, whatever request it names."""
    body, request = cause.body, getattr(getattr(run, "state", None), "request", None)
    if request is not None and isinstance(body, d.RecordFigures):
        body = d.RecordFigures(request, body.figures, body.error)
    elif request is not None and isinstance(body, d.RecordMonthAnswer):
        body = d.RecordMonthAnswer(request, body.days)
    return table.decide(run, Cause(cause.run_id, body, cause.at, cause.command_id, cause.origin))


class CommitsFirst(KernelGroup):
    """A kernel worker commits its position before its answers are durable."""

    async def _answer(self, calls: Sequence[KernelCalled], answers: Sequence[Command]) -> None:
        self._under_way = asyncio.ensure_future(super()._answer(calls, answers))
        await asyncio.sleep(0)


class Broken(NamedTuple):
    """rules: with one broken. scenarios: where it shows."""

    name: str
    rules: Rules
    scenarios: tuple[str, ...]


BROKEN: tuple[Broken, ...] = (
    Broken("reads nothing up to its claim", Rules(owner_type=ReadsNothing), ("crashes", "zombies")),
    Broken("two batches in flight", Rules(owner_type=TwoInFlight), ("herd", "zombies")),
    Broken("any answer proves", Rules(owner_type=AnyAnswerProves), ("fight", "zombies")),
    Broken("an error means refused", Rules(owner_type=ErrorMeansRefused), ("ends", "all")),
    Broken("keeps the tentative state", Rules(owner_type=KeepsTentative), ("ends", "all")),
    Broken("no memory of commands", Rules(owner_type=NoDedup), ("copies", "herd")),
    Broken("no tombstones", Rules(owner_type=NoTombstones), ("copies",)),
    Broken("sends nothing again", Rules(owner_type=ResendsNothing), ("crashes", "zombies")),
    Broken("an error counts as sent", Rules(owner_type=CountsErrorsAsSent), ("ends", "all")),
    Broken("sends before the proof", Rules(owner_type=SendsBeforeProof), ("fight", "ends")),
    Broken("never notes what was sent", Rules(owner_type=NeverNotesWatermark), ("calm",)),
    Broken("believes its host's clock", Rules(owner_type=BelievesItsHost), ("clocks",)),
    Broken("a client takes zombies for true", Rules(client_type=TakesZombies), ("fight", "zombies")),
    Broken("any answer will do", Rules(decider=any_answer), ("kernels", "copies")),
    Broken("a worker commits first", Rules(kernel_type=CommitsFirst), ("kernels",)),
)
