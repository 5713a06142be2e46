"""What the valid journal sends, and what its targets have got: complete, in order per target, nothing else."""

from __future__ import annotations

import struct
from bisect import bisect_right
from typing import NamedTuple

from millstream.events import daybook as d
from millstream.events import monthbook as m
from millstream.events import run as r
from millstream.events.codec import Codec
from millstream.events.envelope import Command, Event, Sent, Transition
from millstream.events.errors import SchemaError
from millstream.events.flight import DayReport
from millstream.events.kernel import DeadLetter, KernelCalled
from millstream.events.logs.port import StoredRecord, TopicPartition
from millstream.events.topics import STREAM_PARTITIONS, Topics, partition_of
from tests.simulation.books import need


class Asked(NamedTuple):
    """An output of a valid transition."""

    key: Sent
    output_id: str
    target: TopicPartition
    event: Event
    run_id: str


class Outputs:
    """All outputs of all partitions. An output is `here` once its target has it."""

    def __init__(self, topics: Topics, codec: Codec) -> None:
        self._topics, self._codec = topics, codec
        self._asked: dict[str, Asked] = {}
        self._keys: dict[int, list[tuple[Sent, str]]] = {}
        self._queues: dict[tuple[int, TopicPartition], list[str]] = {}
        self._next: dict[tuple[int, TopicPartition], int] = {}
        self._here: set[str] = set()
        self._values: dict[TopicPartition, set[bytes | None]] = {}
        self._commands: dict[tuple[int, int], bytes | None] = {}
        self._checked: dict[int, int] = {}
        self.landed = 0
        """Records that have come to the targets, copies too."""
        self.calls: dict[str, bool] = {}
        """Kernel request -> whether its answer is on the log."""
        self.junk: dict[tuple[TopicPartition, int], bool] = {}
        """What lies on kernel topics and is no call -> whether it is a dead letter."""

    def asked(self, partition: int, key: Sent, output_id: str, event: Event, t: Transition) -> None:
        """A valid transition sends this."""
        target = self._target(event, t)
        if isinstance(event, r.CommandForwarded):
            output_id = f"forward-{partition}-{event.offset}"
        elif isinstance(event, r.CommandDeadLettered):
            output_id = f"dead-{partition}-{event.offset}"
        self._asked[output_id] = Asked(key, output_id, target, event, t.run_id)
        self._keys.setdefault(partition, []).append((key, output_id))
        if not isinstance(event, r.CommandForwarded):
            self._queues.setdefault((partition, target), []).append(output_id)

    def _target(self, event: Event, t: Transition) -> TopicPartition:
        topics = self._topics
        match event:
            case d.FiguresAsked():
                return TopicPartition(topics.kernel("day_figures"), topics.partition_of(t.run_id))
            case d.MonthAsked(month_id=to_run):
                return TopicPartition(topics.commands, topics.partition_of(to_run))
            case m.MonthAnswered(to_partition=to) | r.RefusalAnswered(to_partition=to):
                return TopicPartition(topics.commands, to)
            case d.DayClosed(carrier=carrier):
                return TopicPartition(topics.stream("reports"), partition_of(carrier, STREAM_PARTITIONS))
            case r.CommandForwarded(to_partition=to):
                return TopicPartition(topics.commands, to)
        assert isinstance(event, r.CommandDeadLettered)
        return TopicPartition(topics.dead_letters, 0)

    # ------------------------------------------------------------------ what lands

    def command_landed(self, tp: TopicPartition, record: StoredRecord, command: Command | None) -> None:
        self._values.setdefault(tp, set()).add(record.value)
        self._commands[tp.partition, record.offset] = record.value
        if command is None:
            return
        if command.command_id.endswith("/answer"):
            self.calls[command.command_id.removesuffix("/answer")] = True
        elif isinstance(command.body, m.AddDay | d.RecordMonthAnswer | r.RecordRefusal):
            self._arrived(tp, command.command_id)

    def kernel_landed(self, tp: TopicPartition, record: StoredRecord) -> None:
        call = self.read_call(record)
        if call is None:
            self.junk.setdefault((tp, record.offset), False)
            return
        self._arrived(tp, call.request_id)
        self.calls.setdefault(call.request_id, False)
        asked = self._asked[call.request_id].event
        assert isinstance(asked, d.FiguresAsked)
        sent = {a.name: a.data for a in call.arrays}
        need(sent["cancelled"] == bytes(asked.cancelled), f"call {call.request_id} has other flights than its event")
        delays = struct.unpack(f"<{len(asked.arr_delay_min)}d", sent["arr_delay_min"])
        same = all(a == b or (b is None and a != a) for a, b in zip(delays, asked.arr_delay_min, strict=True))
        need(same, f"call {call.request_id} has other delays than its event")

    def read_call(self, record: StoredRecord) -> KernelCalled | None:
        try:
            call = self._codec.decode(record.value or b"")
        except SchemaError:
            return None
        return call if isinstance(call, KernelCalled) else None

    def report_landed(self, tp: TopicPartition, record: StoredRecord) -> None:
        report = self._codec.decode(record.value or b"")
        assert isinstance(report, DayReport)
        self._arrived(tp, report.event_id)
        closed = self._asked[report.event_id].event
        assert isinstance(closed, d.DayClosed)
        told = (report.carrier, report.day, report.flights, report.mean_arr_delay_min, report.month_days)
        f = closed.figures
        right = (closed.carrier, closed.day, f.flights, f.mean_arr_delay_min, closed.month_days)
        need(told == right, f"report {report.event_id} says {told}, the journal {right}")

    def dead_letter_landed(self, tp: TopicPartition, record: StoredRecord) -> None:
        header = next((v for name, v in record.headers if name == "dead-letter"), None)
        need(header is not None, "a dead letter without a header that says why")
        note = self._codec.decode(header or b"")
        assert isinstance(note, DeadLetter)
        need(bool(note.reason), f"a dead letter of {note.topic} at {note.offset} without a reason")
        if note.topic == self._topics.commands and note.offset >= 0:
            self._arrived(tp, f"dead-{note.partition}-{note.offset}")
        else:
            self.junk[TopicPartition(note.topic, note.partition), note.offset] = True

    def _arrived(self, tp: TopicPartition, output_id: str) -> None:
        asked = self._asked.get(output_id)
        need(asked is not None, f"{tp.topic} {tp.partition} gets {output_id}, which no valid transition sends")
        assert asked is not None
        self.landed += 1
        if output_id in self._here:
            return
        need(asked.target == tp, f"{output_id} goes to {tp}, right is {asked.target}")
        source = (_partition_of_id(output_id), tp)
        at = self._next.get(source, 0)
        right = self._queues[source][at]
        need(right == output_id, f"{tp.topic} {tp.partition} gets {output_id} before {right}, which precedes it")
        self._here.add(output_id)
        self._next[source] = at + 1

    # ------------------------------------------------------------------ questions

    def _is_here(self, output_id: str) -> bool:
        if output_id in self._here:
            return True
        asked = self._asked[output_id]
        if isinstance(asked.event, r.CommandForwarded):
            # The copy has nothing of the output's id, so any equal record on the target will do.
            original = self._commands[_partition_of_id(output_id), asked.event.offset]
            return original in self._values.get(asked.target, ())
        return False

    def unsent_up_to(self, partition: int, sent: Sent) -> str | None:
        """An output with a key <= `sent` that its target hasn't got, or None."""
        keys = self._keys.get(partition, [])
        end = bisect_right(keys, (sent, "~"))
        done = self._checked.get(partition, 0)
        for _, output_id in keys[done:end]:
            if not self._is_here(output_id):
                return output_id
        self._checked[partition] = max(done, end)
        return None

    def pending(self) -> list[str]:
        """Outputs that haven't arrived, and kernel requests without an answer."""
        missing = [f"output {i} to {self._asked[i].target}" for i in self._asked if not self._is_here(i)]
        missing += [f"{tp} offset {offset} is no dead letter" for (tp, offset), done in self.junk.items() if not done]
        return missing + [f"kernel request {i} unanswered" for i, done in self.calls.items() if not done]


def _partition_of_id(output_id: str) -> int:
    parts = output_id.split("-")
    return int(parts[1] if parts[0] in ("dead", "forward") else parts[0])
