"""Outputs: when they leave, in which order, who sends them again, and which answers to them count."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from millstream.events.daybook import (
    CloseFailed,
    DayClosed,
    EnterFlight,
    Figures,
    FiguresAsked,
    MonthAsked,
    RecordFigures,
)
from millstream.events.envelope import CommandBody, Sent
from millstream.events.errors import AppendUnknown
from millstream.events.kernel import Array, KernelCalled
from millstream.events.logs.memory_faults import End
from millstream.events.logs.port import LogLimits, Record, TopicPartition
from millstream.events.monthbook import AddDay
from millstream.events.run import CommandDeadLettered, CommandRefused, RefusalAnswered
from millstream.projections.run import Run
from millstream.streams.deciders import table
from millstream.streams.deciders.cause import Cause, Decision
from millstream.streams.deciders.reactions import KERNEL
from millstream.streams.deciders.run import refuse
from millstream.streams.runtime.outbox import Outbox, Pending, _Item
from millstream.streams.runtime.owner import Owner
from tests.support.world import CLOSE, DAY, MONTH, OPEN, World, book_of, day, flight, owner_with, play, play_with

FIGURES = Figures(1, 1, 0, 1.0, 1.0, 0.0)
FIGURES_ARRAYS = (Array("cancelled", "|b1", (1,), b"\0"), Array("arr_delay_min", "<f8", (1,), struct.pack("<d", 1.0)))
KERNEL_TOPIC, REPORT_TOPIC = "kernels.day_figures", "streams.reports"
ALWAYS = 100_000


async def all_decided(world: World, *commands: tuple[str, str, CommandBody]) -> None:
    """Lay each command (run, id, body) on the log and wait until it is decided."""
    for run_id, command_id, body in commands:
        world.put(run_id, body, command_id)
        assert await world.decided(command_id)


# ------------------------------------------------------------------ after the proof


class SendsAtOnce(Owner):
    """Sends what is decided, without waiting for the proof."""

    def _append(self) -> None:
        super()._append()
        assert self._flying is not None
        outputs, self._flying[1].outputs = self._flying[1].outputs, []
        for output in outputs:
            self.outbox.add(output)


async def a_closing_that_is_lost(world: World, owner_type: type[Owner]) -> int:
    """Calls that the kernel got and that no transition asks for."""
    first = world.own(owner_type)
    await all_decided(world, (DAY, "open", OPEN), (DAY, "enter", flight()))
    first.log.script.by_topic["journal"] = [End.NEVER]
    world.put(DAY, CLOSE, "close")
    await asyncio.sleep(0.5)
    first.crash()
    world.own(owner_type)
    await world.quiet()
    asked = {
        v.ref.output_id(index)
        for v in world.valid()
        for index, event in enumerate(v.transition.events)
        if isinstance(event, FiguresAsked)
    }
    calls = {call.request_id for call in world.calls()}
    assert asked <= calls
    return len(calls - asked)


def test_outputs_are_sent_after_the_proof() -> None:
    assert play(a_closing_that_is_lost, Owner) == 0
    assert play(a_closing_that_is_lost, SendsAtOnce) == 1


# ------------------------------------------------------------------ order


class OneTaskEach(Outbox):
    """Each output is sent as soon as it can be."""

    def add(self, output: Pending) -> None:
        target, record = self._address(output)
        self._open[output.key] = False
        sending = asyncio.get_running_loop().create_task(self._drain(target, deque([_Item(output.key, record)])))
        self._tasks[TopicPartition(str(output.key), 0)] = sending


async def two_closings_in_one_batch(world: World, owner_type: type[Owner]) -> list[str]:
    """Runs in the order in which the kernel is called for them. The first append to its topic has an error."""
    owning = world.own(owner_type, ends={KERNEL_TOPIC: [End.REFUSED]})
    runs = [day(number) for number in (16, 17, 18)]
    await all_decided(world, *((run_id, f"open {run_id}", opening) for run_id, opening in runs))
    for run_id, _ in runs:
        world.put(run_id, CLOSE, f"close {run_id}")
    await world.quiet()
    assert owning.failure is None
    return [call.run_id for call in world.calls()]


def test_outputs_are_sent_in_journal_order_per_target() -> None:
    assert play(two_closings_in_one_batch, Owner) == ["9E-2013-01-16", "9E-2013-01-17", "9E-2013-01-18"]
    assert play(two_closings_in_one_batch, owner_with(outbox=OneTaskEach)) == [
        "9E-2013-01-17",
        "9E-2013-01-18",
        "9E-2013-01-16",
    ]


# ------------------------------------------------------------------ who sends again


class SendsOpenRequestsAgain(Outbox):
    """Sends again what still waits for an answer, and nothing else."""

    def merge(self, pending: Iterable[Pending], sent: Sent) -> None:
        super().merge([p for p in pending if isinstance(p.event, FiguresAsked | MonthAsked)], sent)


async def a_crash_before_the_report(world: World, owner_type: type[Owner]) -> int:
    """How many reports are there in the end."""
    first = world.own(owner_type, ends={REPORT_TOPIC: [End.REFUSED] * ALWAYS})
    world.compute()
    await all_decided(world, (DAY, "open", OPEN), (DAY, "enter", flight()), (DAY, "close", CLOSE))
    assert await world.until(lambda: bool(world.events(DayClosed)))
    await world.quiet()
    first.crash()
    world.own(owner_type)
    await world.quiet()
    return len(world.reports())


def test_what_waits_for_no_answer_is_sent_again_too() -> None:
    assert play(a_crash_before_the_report, Owner) == 1
    assert play(a_crash_before_the_report, owner_with(outbox=SendsOpenRequestsAgain)) == 0


class NeverNotesWhatWasSent(Owner):
    """Writes no watermark."""

    async def _read_up_to_claim(self) -> None:
        await super()._read_up_to_claim()
        self._sent = Sent(1 << 62, 0, 0, 0)


async def a_take_over_when_all_is_done(world: World, owner_type: type[Owner], leaves: bool) -> int:
    """How many outputs are sent again."""
    first = world.own(owner_type)
    kernel = world.compute()
    await all_decided(world, (DAY, "open", OPEN), (DAY, "enter", flight()), (DAY, "close", CLOSE))
    assert await world.until(lambda: len(world.reports()) == 1)
    kernel.crash()
    if leaves:
        await first.leave()
    else:
        await world.quiet()
        first.crash()
    before = outputs_on_topics(world)
    world.own(owner_type)
    await world.quiet()
    return outputs_on_topics(world) - before


def outputs_on_topics(world: World) -> int:
    return len(world.calls()) + len(world.reports()) + len(world.commands())


def test_a_new_owner_sends_again_only_what_lies_above_the_watermark() -> None:
    # A quiet partition notes it within seconds, and one that is stopped notes it before it goes.
    assert play(a_take_over_when_all_is_done, Owner, leaves=False) == 0
    assert play(a_take_over_when_all_is_done, Owner, leaves=True) == 0
    # Each take-over floods the targets with all that was ever sent.
    assert play(a_take_over_when_all_is_done, NeverNotesWhatWasSent, leaves=False) == 4


class NotesTheNewest(Outbox):
    """Its watermark is the newest output that was acknowledged, whatever lies below it."""

    def _acknowledged(self, items: Sequence[_Item]) -> None:
        super()._acknowledged(items)
        self.watermark = max(self.watermark, items[-1].key)


async def a_target_that_is_away(world: World, owner_type: type[Owner]) -> int:
    """Calls that arrive in the end. The kernel's topic was away; an output that came later had gone out."""
    first = world.own(owner_type, ends={KERNEL_TOPIC: [End.REFUSED] * ALWAYS})
    await all_decided(world, (DAY, "open", OPEN), (DAY, "close", CLOSE))
    world.land(world.topics.commands, 0, Record(b"no command"))
    assert await world.until(lambda: len(world.dead_letters()) == 1)
    await world.quiet()
    assert world.events(CommandDeadLettered)
    first.crash()
    world.own(owner_type)
    await world.quiet()
    return len(world.calls())


def test_the_watermark_does_not_pass_an_output_that_is_not_acknowledged() -> None:
    assert play(a_target_that_is_away, Owner) == 1
    assert play(a_target_that_is_away, owner_with(outbox=NotesTheNewest)) == 0


# ------------------------------------------------------------------ ids


class IdsOfItsOwn(Outbox):
    """Makes the id of an output when it sends it."""

    def _address(self, output: Pending) -> Any:
        return super()._address(output._replace(key=output.key._replace(claim_id=self._chance.claim_id())))


async def a_report_that_lands_with_an_error(world: World, owner_type: type[Owner]) -> tuple[int, int]:
    """Reports, and different ids among them. The owner that had the error dies, and the next one sends again."""
    first = world.own(ends={REPORT_TOPIC: [End.LANDED_ERROR] * ALWAYS})
    world.compute()
    await all_decided(world, (DAY, "open", OPEN), (DAY, "enter", flight()), (DAY, "close", CLOSE))
    assert await world.until(lambda: len(world.reports()) == 1)
    first.crash()
    world.own(owner_type)
    await world.quiet()
    reports = world.reports()
    return len(reports), len({report.event_id for report in reports})


def test_an_output_has_the_same_id_whoever_sends_it_and_how_often() -> None:
    assert play(a_report_that_lands_with_an_error, Owner) == (2, 1)
    # A reader takes them for two reports.
    assert play(a_report_that_lands_with_an_error, owner_with(outbox=IdsOfItsOwn)) == (2, 2)


# ------------------------------------------------------------------ refused by the target


class InsistsOnIt(Outbox):
    """What its target refuses it tries again, as if it were a matter of time."""

    async def _dead_letter(self, record: Record, target: TopicPartition, reason: str) -> None:
        raise AppendUnknown(reason)


async def a_call_that_is_too_large(world: World, owner_type: type[Owner]) -> tuple[list[str], list[str], bool]:
    """Runs for which the kernel is called, the reasons on dead-letters, and whether all counts as sent.

    What asks for the large call fits into a record, and the call doesn't.
    """
    owning = world.own(owner_type, limits=LogLimits(record_bytes_max=3000))
    (large, open_large), (small, open_small) = day(16), day(17)
    await all_decided(world, (large, "open-large", open_large), (small, "open-small", open_small))
    for number in range(400):
        world.put(large, EnterFlight("1234", "JFK", "BOS", True, None), f"enter-{number}")
    await all_decided(world, (large, "close-large", CLOSE), (small, "close-small", CLOSE))
    await world.quiet()
    letters = [world.codec.decode(dict(letter.headers)["dead-letter"] or b"") for letter in world.dead_letters()]
    assert all(letter.topic == "t.kernels.day_figures" for letter in letters)
    return [call.run_id for call in world.calls()], [letter.reason for letter in letters], owning.owner.outbox.idle


def test_an_output_that_its_topic_refuses_goes_to_dead_letters_and_counts_as_sent() -> None:
    calls, reasons, idle = play(a_call_that_is_too_large, Owner)
    assert calls == ["9E-2013-01-17"]
    assert len(reasons) == 1
    assert "over the limit of 3,000 bytes" in reasons[0]
    assert idle
    # Whatever is behind it waits for ever.
    assert play(a_call_that_is_too_large, owner_with(outbox=InsistsOnIt)) == ([], [], False)


# ------------------------------------------------------------------ answers


def refuses_silently(run: Run | None, cause: Cause) -> Decision:
    """A command of a run that is refused is refused, and the run isn't told."""
    decision = table.decide(run, cause)
    return Decision([e for e in decision.events if not isinstance(e, RefusalAnswered)], decision.reply)


async def a_month_that_refuses(world: World, decide: Any) -> tuple[str, list[str]]:
    """The day book's status in the end, and why its closing failed."""
    for partition in range(2):
        world.own(partition=partition, decide=decide)
    for partition_name in ("kernel-0", "kernel-1"):
        world.compute(name=partition_name)
    world.put(MONTH, AddDay("9E", "2013-01-16", FIGURES), "by hand")
    for command_id, body in (("open", OPEN), ("enter", flight()), ("close", CLOSE)):
        world.put(DAY, body, command_id)
    await world.quiet(20.0)
    partition = world.topics.partition_of(DAY)
    book = book_of(await world.fold(partition=partition))
    return book.status, [e.reason for e in world.events(CloseFailed, partition)]


def test_a_command_of_a_run_that_is_refused_is_answered_to_that_run() -> None:
    status, reasons = play_with(2, a_month_that_refuses, table.decide)
    assert status == "open"
    assert len(reasons) == 1
    assert "has 2013-01-16 already" in reasons[0]
    status, reasons = play_with(2, a_month_that_refuses, refuses_silently)
    # The day waits for an answer that nobody will give.
    assert (status, reasons) == ("closing", [])


def takes_any_answer(run: Run | None, cause: Cause) -> Decision:
    """An answer counts while some request of that run is open, whichever it names."""
    body = cause.body
    if isinstance(body, RecordFigures) and run is not None and (request := run.state.request) is not None:  # type: ignore[union-attr]
        cause = Cause(cause.run_id, RecordFigures(request, body.figures, body.error), cause.at, cause.command_id)
    return table.decide(run, cause)


async def a_late_answer_after_asking_anew(world: World, decide: Any) -> tuple[int, list[str]]:
    """How many flights the recorded figures are of, and the refusals' codes."""
    world.own(decide=decide)
    await all_decided(world, (DAY, "open", OPEN), (DAY, "one", flight()), (DAY, "close", CLOSE))
    assert await world.until(lambda: len(world.calls()) == 1)
    first = world.calls()[0].request_id
    await all_decided(
        world,
        (DAY, "failed", RecordFigures(first, None, "the device was lost")),
        (DAY, "two", flight()),
        (DAY, "close again", CLOSE),
    )
    assert await world.until(lambda: len(world.calls()) == 2)
    second = world.calls()[1].request_id
    await all_decided(
        world,
        (DAY, "late", RecordFigures(first, FIGURES, None)),
        (DAY, "right", RecordFigures(second, Figures(2, 2, 0, 1.0, 1.0, 0.0), None)),
    )
    figures = book_of(await world.fold()).figures
    assert figures is not None
    return figures.flights, [e.code for e in world.events(CommandRefused)]


def test_a_stale_answer_is_refused_after_the_question_was_asked_anew() -> None:
    assert play(a_late_answer_after_asking_anew, table.decide) == (2, ["stale"])
    assert play(a_late_answer_after_asking_anew, takes_any_answer) == (1, ["stale"])


class TakesAnswersOfItsEpoch(Owner):
    """An answer counts if what it answers was asked by the owner that reads it."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{**given, "decide": self._decide})

    def _decide(self, run: Run | None, cause: Cause) -> Decision:
        body = cause.body
        assert self._epoch is not None
        if isinstance(body, RecordFigures) and int(body.request_id.split("-")[1]) != self._epoch[0]:
            return refuse(cause, "stale", "that was asked by another owner")
        return table.decide(run, cause)


async def an_answer_after_a_take_over(world: World, owner_type: type[Owner]) -> int:
    """How many reports come of a day whose figures arrive when another owner has taken over."""
    first = world.own(owner_type)
    await all_decided(world, (DAY, "open", OPEN), (DAY, "one", flight()), (DAY, "close", CLOSE))
    assert await world.until(lambda: len(world.calls()) == 1)
    first.crash()
    world.own(owner_type)
    await world.quiet()
    world.compute()
    await world.quiet(20.0)
    return len(world.reports())


def test_a_good_answer_is_taken_after_a_take_over() -> None:
    assert play(an_answer_after_a_take_over, Owner) == 1
    assert play(an_answer_after_a_take_over, TakesAnswersOfItsEpoch) == 0


async def what_carries_a_reply_partition(world: World) -> set[int]:
    for partition in range(2):
        world.own(partition=partition)
        world.compute(name=f"kernel-{partition}")
    for command_id, body in (("open", OPEN), ("enter", flight()), ("close", CLOSE)):
        world.put(DAY, body, command_id)
    assert await world.until(lambda: len(world.reports()) == 1)
    calls = [call for partition in range(2) for call in world.calls(partition)]
    asked = [c for partition in range(2) for c in world.commands(partition) if isinstance(c.body, AddDay)]
    assert len(calls) == len(asked) == 1
    assert asked[0].origin is not None
    return {calls[0].reply_partition, asked[0].origin.partition, world.topics.partition_of(DAY)}


async def where_answers_go(world: World, *reply_partitions: int) -> tuple[list[list[str]], list[str]]:
    """The requests answered on each partition of `commands`, and the reasons in dead-letters."""
    for number, reply_partition in enumerate(reply_partitions):
        call = KernelCalled(f"request-{number}", KERNEL, DAY, reply_partition, FIGURES_ARRAYS)
        world.land(world.topics.kernel(KERNEL), 0, Record(world.codec.encode(call), DAY.encode()))
    world.compute()
    await world.quiet()
    answered = [[c.body.request_id for c in world.commands(partition)] for partition in range(2)]
    letters = [world.codec.decode(dict(letter.headers)["dead-letter"] or b"") for letter in world.dead_letters()]
    return answered, [letter.reason for letter in letters]


def test_a_kernel_answers_on_the_partition_that_the_call_names() -> None:
    assert play_with(2, where_answers_go, 0, 1, 1) == ([["request-0"], ["request-1", "request-2"]], [])


def test_a_call_that_wants_its_answer_on_a_partition_that_is_not_there_is_dead_lettered_alone() -> None:
    answered, reasons = play_with(2, where_answers_go, 1, 7, 0)
    assert answered == [["request-2"], ["request-0"]]
    assert reasons == ["the answer is wanted on partition 7, and there are 2"]


def test_every_message_that_wants_an_answer_carries_its_reply_partition() -> None:
    assert len(play_with(2, what_carries_a_reply_partition)) == 1
