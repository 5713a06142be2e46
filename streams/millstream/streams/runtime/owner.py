"""The owner of one partition: the journal protocol as one loop.

    1 claim      append `OwnershipClaimed`; the epoch is its offset and its claim id
    2 read       fold the journal from the store's fence up to the own claim
    3 decide     commands in offset order, timers, slices of plans: on the tentative state
    4 append     one batch in flight
    5 prove      the expected offset came back: write the rows and the fence, send what follows
    6 unknown    anything else: forget the tentative state, retire the producer, claim again
    7 outputs    after the proof, in order per target, with the watermark `sent` (outbox.py)

Each rule's reason stands in `docs/protocol.md`. The loop yields to the event loop
at least every 50 ms, since heartbeats share it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from millstream.events.codec import Codec
from millstream.events.envelope import (
    CAUSE_HEADER,
    FORMAT,
    Fence,
    OwnershipClaimed,
    Ref,
    Sent,
    Transition,
    claim_header,
    fence_header,
)
from millstream.events.errors import AppendUnknown, InstanceInUse, LogUnavailable, LogWentBack, OffsetOutOfRange
from millstream.events.logs.port import Appended, Log, Record, StoredRecord
from millstream.events.topics import Topics
from millstream.projections.fold import Runs, apply, finish
from millstream.projections.reader import JournalReader
from millstream.projections.store import Store
from millstream.streams.deciders.cause import NOTHING, Cause, Decision, next_slice
from millstream.streams.runtime.batch import RECORD_OVERHEAD_BYTES, Batch
from millstream.streams.runtime.clock import Chance, Clock, PartitionClock
from millstream.streams.runtime.feed import Feed, Inlet
from millstream.streams.runtime.judge import Decide, Judge
from millstream.streams.runtime.outbox import Outbox, Pending
from millstream.streams.runtime.timers import DueTimers

log_ = logging.getLogger("millstream.owner")

# 50 ms: a stretch that the group's heartbeats, which share the loop, don't notice.
SLICE_S = 0.02
FIRST_BATCH_RECORDS = 128
RIPEN_S = 0.002
CLAIM_BACKOFF_FIRST_S = 0.05
CLAIM_BACKOFF_CAP_S = 2.0
IDLE_WATERMARK_S = 1.0
STOP_DRAIN_S = 5.0
TWIN_CLAIMS = 3
"""Our own process of before can have died with a claim or two on the wire that land after ours; only a living one goes on."""


class Watcher(Protocol):
    """Is told what an owner does; the server counts and publishes, tests look on. All calls are cheap and don't raise."""

    def claimed(self, partition: int, offset: int) -> None: ...

    def proved(self, partition: int, fence: Fence, records: int) -> None: ...

    def unknown(self, partition: int, why: str) -> None: ...

    def rebuilt(self, partition: int, why: str) -> None: ...


class Identity(Protocol):
    """Who claims: `instance` is kept over restarts (the store folder's), `process` is not."""

    @property
    def instance(self) -> str: ...

    @property
    def process(self) -> str: ...


class Owner:
    """Owns one partition for as long as `run` runs. The decider judges; the owner only orders, appends and proves."""

    def __init__(
        self,
        *,
        partition: int,
        log: Log,
        topics: Topics,
        store: Store,
        codec: Codec,
        decide: Decide,
        feed: Feed,
        clock: Clock,
        chance: Chance,
        identity: Identity,
        learn: Callable[[], Awaitable[None]],
        watcher: Watcher,
        record_bytes_max: int | None = None,
    ) -> None:
        self.partition = partition
        self._log, self._topics, self._store, self._codec = log, topics, store, codec
        self._feed, self._clock, self._chance, self._identity = feed, clock, chance, identity
        self._watcher = watcher
        self._time = PartitionClock(clock)
        self._runs = Runs(store)
        self._timers = DueTimers(self._runs)
        limit = min(log.limits.record_bytes_max, log.limits.batch_bytes_max) - RECORD_OVERHEAD_BYTES
        self._record_bytes_max = limit if record_bytes_max is None else record_bytes_max
        self._judge = Judge(decide, self._runs, codec, topics, partition, learn)
        self._claims: list[tuple[int, OwnershipClaimed]] = []
        self._reader = JournalReader(
            log=log,
            topics=topics,
            partition=partition,
            runs=self._runs,
            codec=codec,
            learn=learn,
            claimed=lambda offset, claim: self._claims.append((offset, claim)),
            clock=clock.monotonic,
        )
        self.outbox = Outbox(
            log=log,
            topics=topics,
            partition=partition,
            codec=codec,
            chance=chance,
            wake=self._wake_up,
            now=self._time.now,
        )
        self._wake = asyncio.Event()
        self._stopping = False
        self._inlet: Inlet | None = None
        self._epoch: tuple[int, int] | None = None
        self._pending: Batch | None = None
        self._flying: tuple[asyncio.Task[Appended], Batch] | None = None
        self._fence = store.fence()
        self._sent: Sent = self._fence.sent
        self._ripe_to = -1
        self._claimed_at: int | None = None
        self._twins: dict[str, set[int]] = {}

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Claim, and go on until `stop`. Raises `Stop` where going on would lose or invent data."""
        delay_s = CLAIM_BACKOFF_FIRST_S
        prepared = False
        try:
            while not self._stopping:
                proved_before = self._fence
                try:
                    if not prepared:
                        await self._prepare()
                        prepared = True
                    await self._claim()
                    await self._read_up_to_claim()
                    await self._work()
                except (AppendUnknown, LogUnavailable) as unknown:
                    await self._forget(str(unknown))
                    if self._fence is not proved_before:
                        delay_s = CLAIM_BACKOFF_FIRST_S
                    await asyncio.sleep(self._chance.jitter(delay_s))
                    delay_s = min(delay_s * 2, CLAIM_BACKOFF_CAP_S)
        finally:
            await self._step_down()

    async def _prepare(self) -> None:
        """Compare the store with the log, once; a log that is away now is waited for as it is later."""
        if (why := await self._reader.prepare()) is not None:
            self._watcher.rebuilt(self.partition, why)

    def stop(self) -> None:
        """Finish what is in flight, then end. What is undecided stays on the log."""
        self._stopping = True
        self._wake_up()

    @property
    def fence(self) -> Fence:
        """The newest proved fence."""
        return self._fence

    def _wake_up(self) -> None:
        self._wake.set()

    async def _step_down(self) -> None:
        if self._inlet is not None:
            self._inlet.close()
        if self._flying is not None:
            await _cut_short(self._flying[0])
        await self.outbox.close()
        self._store.flush()

    # ------------------------------------------------------------------ 1 claim

    async def _claim(self) -> None:
        claim_id = self._chance.claim_id()
        claim = OwnershipClaimed(
            owner=self._identity.instance,
            process=self._identity.process,
            claim_id=claim_id,
            partitions=self._topics.partitions,
            format=FORMAT,
            at=self._clock.wall_ms(),
        )
        record = Record(self._codec.encode(claim), None, (claim_header(claim_id),))
        appended = await self._log.append(self._topics.journal, self.partition, [record])
        if appended.offset < 0:
            raise AppendUnknown("the log took the claim but didn't tell its offset")
        self._epoch = (appended.offset, claim_id)
        self._time.heard(appended.timestamp)

    # ------------------------------------------------------------------ 2 read

    async def _read_up_to_claim(self) -> None:
        assert self._epoch is not None
        claim_offset, claim_id = self._epoch
        self._reader.rewind()
        fence = await self._reader.catch_up(claim_offset + 1)
        if (fence.epoch_offset, fence.claim_id) != (claim_offset, claim_id):
            raise AppendUnknown(f"the log said that our claim is at offset {claim_offset}, but it isn't there")
        self._refuse_a_twin(claim_offset)
        self._fence, self._sent = fence, fence.sent
        self._time.not_before(self._runs.at)
        self._judge.reset()
        self._timers.clear()
        self._ripe_to = -1
        await self._open_commands(fence)
        pending = [Pending(key, run_id, event) for key, (run_id, _, event) in self._runs.pending_outputs()]
        self.outbox.merge(pending, fence.sent)
        self._watcher.claimed(self.partition, claim_offset)

    def _refuse_a_twin(self, claim_offset: int) -> None:
        """Another process that goes on claiming under our instance id will do so for ever: one of the two has to stop.

        The one that began earlier does, as groups have it too. If each stopped on seeing the other, nobody would be left.
        """
        seen, self._claims = self._claims, []
        mine, self._claimed_at = self._claimed_at, claim_offset
        if mine is None:
            return
        for offset, claim in seen:
            other = claim.process != self._identity.process and claim.owner == self._identity.instance
            if not other or offset < mine or claim.process < self._identity.process:
                continue
            twin = self._twins.setdefault(claim.process, set())
            twin.add(claim.claim_id)
            if len(twin) >= TWIN_CLAIMS:
                raise InstanceInUse(
                    f"partition {self.partition}: process {claim.process!r} claims it under our own instance id"
                    f" {claim.owner!r}. The data folder was probably copied. Delete the file 'instance-id' in the copy,"
                    f" and start it again."
                )

    async def _open_commands(self, fence: Fence) -> None:
        bounds = await self._log.bounds(self._topics.commands, self.partition)
        if bounds.end <= fence.command_offset:
            raise LogWentBack(
                f"{self._topics.commands!r} partition {self.partition} ends at {bounds.end}, but the journal has decided"
                f" command {fence.command_offset}. The topic was recreated, or restored from an older copy. Nothing was"
                f" decided. Restore both topics from one moment, or begin a new prefix."
            )
        position = fence.command_offset + 1
        if position < bounds.first:
            raise OffsetOutOfRange(self._topics.commands, self.partition, position, bounds.first, bounds.end)
        self._inlet = self._feed.open(self.partition, position, self._wake_up)

    # ------------------------------------------------------------------ 3 decide

    async def _work(self) -> None:
        """Steps 3 to 5 until stopped. One batch flies while the next is decided."""
        while True:
            self._wake.clear()
            if self._flying is not None and self._flying[0].done():
                self._prove()
            try:
                more = not self._stopping and await self._decide_some()
            except OffsetOutOfRange as cut:
                # Whoever owned the partition meanwhile may have decided these commands and cut them away: the journal knows.
                raise AppendUnknown(str(cut)) from cut
            if self._flying is None and self._pending is not None:
                self._append()
            elif self._stopping and self._flying is None:
                await self._note_last_watermark()
                return
            elif not more:
                await self._rest()
                continue
            await asyncio.sleep(0)

    async def _rest(self) -> None:
        """Wait for commands, the end of the append, a timer, or for time to note the watermark of a quiet partition."""
        if self._wake.is_set():
            return
        timeouts: list[float] = []
        due = self._timers.next_due()
        if due is not None and self._pending is None:
            timeouts.append(max(self._time.wait_s(due), RIPEN_S))
        if self._flying is None and self.outbox.watermark > self._sent:
            timeouts.append(IDLE_WATERMARK_S)
        try:
            await asyncio.wait_for(self._wake.wait(), min(timeouts)) if timeouts else await self._wake.wait()
        except TimeoutError:
            if self._flying is None and self._pending is None and self.outbox.watermark > self._sent:
                self._note_watermark()

    async def _decide_some(self) -> bool:
        """Decide for a slice of time, or until a batch is worth sending. True where there is more to do at once."""
        inlet = self._inlet
        assert inlet is not None
        if (due := self._timers.next_due()) is not None:
            await self._ripen(due, inlet)
        until = self._clock.monotonic() + SLICE_S
        count = 0
        now = self._time.now()
        while True:
            stored = inlet.peek()
            if (cause := self._own_cause(stored)) is not None:
                now = max(now, cause.at)
                if not self._put(cause, self._judge.decide(cause), None):
                    self._timers.put_back(cause)
                    return False
            elif stored is not None:
                if stored.timestamp > now:
                    self._time.not_before(stored.timestamp)
                    now = stored.timestamp
                cause, decision = await self._judge.judge(stored, now)
                if not self._put(cause, decision, stored.offset):
                    return False
                inlet.pop()
            else:
                return False
            count += 1
            if count & 15 == 0:
                if self._flying is None and count >= FIRST_BATCH_RECORDS:
                    return True
                if self._clock.monotonic() > until:
                    return True
                now = self._time.now()

    def _own_cause(self, stored: StoredRecord | None) -> Cause | None:
        """What comes before the next command: a slice of an unfinished plan, or a timer that the log's time has passed."""
        if (run_id := self._judge.open_plan()) is not None:
            return next_slice(run_id, self._time.now())
        due = self._timers.next_due()
        if due is None:
            return None
        # While commands wait, only what was due when the log took the next of them comes before it.
        ripe_to = self._ripe_to if stored is None else stored.timestamp
        if due > ripe_to:
            return None
        cause = self._timers.cause(ripe_to, self._time.now())
        if cause is not None:
            self._time.not_before(cause.at)
        return cause

    async def _ripen(self, due: int, inlet: Inlet) -> None:
        """Let timers fire up to now, once all commands that the log took before now have been seen.

        A late answer and a time-out that are both due are ordered by the log's time, not by who was read first.
        """
        now = self._time.now()
        if due > now or due <= self._ripe_to:
            return
        end = (await self._log.bounds(self._topics.commands, self.partition)).end
        if inlet.read_to >= end:
            self._ripe_to = now

    def _put(self, cause: Cause, decision: Decision, offset: int | None) -> bool:
        """Put one cause's transition into the pending batch and fold it into the tentative state. False: no room now."""
        batch = self._pending
        if batch is None:
            batch = self._new_batch()
        watermark = self.outbox.watermark
        sent = watermark if watermark > self._sent else None
        run_id, command_id, events = cause.run_id, cause.command_id, decision.events
        command_offset = batch.command_offset if offset is None else offset
        transition = Transition(cause.at, run_id, command_id, command_offset, sent, decision.reply, events)
        value = self._codec.encode(transition)
        size = len(value) + len(run_id) + RECORD_OVERHEAD_BYTES
        if command_id is not None:
            size += len(command_id)
        if size > self._record_bytes_max:
            return self._put(cause, self._judge.too_large(cause, size, self._record_bytes_max), offset)
        if not batch.takes(size):
            return False
        ref = Ref(self.partition, batch.epoch_offset, batch.claim_id, batch.number + 1)
        apply(self._runs, transition, ref, batch.rows)
        self._judge.note(run_id)
        batch.add(_record(value, cause, ref), size, command_offset=command_offset, sent=sent)
        self._pending = batch
        if sent is not None:
            self._sent = sent
        for index, event in enumerate(events):
            if event.output:
                batch.outputs.append(Pending(Sent(ref.epoch_offset, ref.claim_id, ref.number, index), run_id, event))
        return True

    def _new_batch(self) -> Batch:
        if self._flying is not None:
            flying = self._flying[1]
            return Batch(flying.end, flying.fence)
        return Batch(self._expected, self._fence)

    def _note_watermark(self) -> None:
        """A transition of no run that only says what was sent: without it a quiet partition is sent again at a take-over."""
        self._put(Cause("", NOTHING, self._time.now()), Decision(()), None)

    async def _note_last_watermark(self) -> None:
        await self.outbox.drained(STOP_DRAIN_S)
        if self.outbox.watermark > self._sent:
            self._note_watermark()
            self._append()
            assert self._flying is not None
            await asyncio.wait([self._flying[0]])
            self._prove()

    # ------------------------------------------------------------------ 4 append

    def _append(self) -> None:
        """Send the pending batch. Only one is in flight: with two, a lost first one leaves a hole for ever."""
        assert self._flying is None
        assert self._pending is not None
        batch, self._pending = self._pending, None
        finish(self._runs, batch.rows)
        append = self._log.append(self._topics.journal, self.partition, batch.records)
        task = asyncio.get_running_loop().create_task(append)
        task.add_done_callback(lambda _: self._wake_up())
        self._flying = (task, batch)

    # ------------------------------------------------------------------ 5 prove

    def _prove(self) -> None:
        """The expected offset is the only proof. Rows and fence become one write; then the outputs go out."""
        assert self._flying is not None
        (task, batch), self._flying = self._flying, None
        appended = task.result()
        if appended.offset != batch.base:
            raise self._unproved(appended, batch)
        self._time.heard(appended.timestamp)
        self._fence = fence = batch.fence
        self._runs.write(batch.rows, fence)
        for output in batch.outputs:
            self.outbox.add(output)
        self._watcher.proved(self.partition, fence, len(batch.records))

    def _unproved(self, appended: Appended, batch: Batch) -> AppendUnknown | LogWentBack:
        if 0 <= appended.offset < batch.base:
            return LogWentBack(
                f"{self._topics.journal!r} partition {self.partition}: a batch landed at offset {appended.offset}, but"
                f" records up to {batch.base - 1} were proved before. The log lost its end (an unclean election, or"
                f" a restored copy). Stopped, so that nothing is built on it. Compare replicas, then `millstream verify`."
            )
        return AppendUnknown(
            f"the batch landed at offset {appended.offset}, expected {batch.base}: somebody else wrote"
        )

    @property
    def _expected(self) -> int:
        """The offset that follows the newest proved record of ours."""
        return self._fence.offset + 1

    # ------------------------------------------------------------------ 6 unknown

    async def _forget(self, why: str) -> None:
        """Throw away everything that isn't proved. What landed all the same is read back after the next claim."""
        self._watcher.unknown(self.partition, why)
        if self._inlet is not None:
            self._inlet.close()
            self._inlet = None
        flying, self._flying, self._pending = self._flying, None, None
        if flying is not None and not flying[0].done():
            await self._log.retire()
        if flying is not None:
            await _cut_short(flying[0])
        self._runs.clear()
        self._timers.clear()


async def _cut_short(append: asyncio.Task[Appended]) -> None:
    """End an append that nobody waits for any more. Not by awaiting it: its end must not be taken for our own."""
    append.cancel()
    await asyncio.wait([append])
    if not append.cancelled():
        append.exception()


def _record(value: bytes, cause: Cause, ref: Ref) -> Record:
    mark = fence_header(ref.epoch_offset, ref.claim_id, ref.number)
    key = cause.run_id.encode()
    if cause.command_id is None:
        return Record(value, key, (mark,))
    return Record(value, key, (mark, (CAUSE_HEADER, cause.command_id.encode())))
