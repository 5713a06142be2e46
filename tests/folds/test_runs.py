"""The live runs of a partition: the tentative state, answers, tombstones, outputs, and what stays in memory."""

from __future__ import annotations

import pytest

from millstream.events.daybook import DayClosed, DayOpened, Figures, FlightEntered, FlightsShifted
from millstream.events.envelope import Event, Sent
from millstream.events.errors import NewerFormat
from millstream.events.run import (
    CommandDeadLettered,
    CommandForwarded,
    CommandRefused,
    CommandRepeated,
    RefusalAnswered,
    RunRemoved,
    TimerCancelled,
    TimerFired,
    TimerSet,
)
from millstream.projections.daybook import DayBook
from millstream.projections.fold import Answer, Rows, finish
from millstream.projections.keys import run_prefix
from tests.support.folding import EPOCH, Folded

DAY = "9E-2013-01-16"
OPENED = DayOpened("9E", "2013-01-16")
FIGURES = Figures(1, 1, 0, 1.0, 1.0, 0.0)


def flight(position: int) -> FlightEntered:
    return FlightEntered(position, "1234", "JFK", "BOS", False, 1.0)


def test_a_command_is_answered_by_its_first_decision_for_as_long_as_the_run_lives() -> None:
    folded = Folded()
    folded.fold(DAY, OPENED, command_id="c1", reply=b"1")
    folded.fold(DAY, CommandRefused("exists", "it is open"), command_id="c2")
    folded.fold(DAY, CommandRepeated("exists", "it is open"), command_id="c2", reply=b"2")
    for runs in (folded.runs, folded.reloaded()):
        assert runs.peek_answer(DAY, "c1") == Answer(None, "", b"1", 1010)
        assert runs.peek_answer(DAY, "c2") == Answer("exists", "it is open", None, 1020)
        assert runs.peek_answer(DAY, "c3") is None


def test_a_refusal_of_a_run_that_does_not_exist_is_kept_and_makes_no_run() -> None:
    folded = Folded()
    folded.fold(DAY, CommandRefused("not-found", "there is none"), command_id="c1")
    assert folded.runs.get(DAY) is None
    answer = folded.reloaded().peek_answer(DAY, "c1")
    assert answer is not None
    assert answer.code == "not-found"


def test_what_concerns_no_run_leaves_no_answer() -> None:
    folded = Folded()
    folded.fold("", CommandForwarded(7, 2), command_id="c1")
    folded.fold("", CommandDeadLettered(8, "no schema"))
    assert folded.keys(b"r") == []
    assert len(folded.keys(b"o")) == 2


def test_the_tentative_state_has_what_is_decided_and_the_store_only_what_is_written() -> None:
    folded = Folded()
    first: Rows = {}
    folded.decide(DAY, OPENED, rows=first, command_id="c1")
    assert folded.runs.peek_answer(DAY, "c1") is not None
    finish(folded.runs, first)
    second: Rows = {}
    folded.decide(DAY, flight(0), rows=second, command_id="c2")
    run = folded.runs.get(DAY)
    assert run is not None
    assert isinstance(run.state, DayBook)
    assert len(run.state.flights) == 1
    assert folded.runs.peek_answer(DAY, "c1") is not None
    assert folded.reloaded().get(DAY) is None
    folded.write(first)
    written = folded.reloaded().get(DAY)
    assert written is not None
    assert written.state == DayBook("9E", "2013-01-16")
    finish(folded.runs, second)
    folded.write(second)
    assert len(folded.state(DAY, DayBook).flights) == 1


def test_batches_are_written_in_the_order_in_which_they_were_finished() -> None:
    folded = Folded()
    first: Rows = {}
    second: Rows = {}
    folded.decide(DAY, OPENED, rows=first)
    finish(folded.runs, first)
    folded.decide(DAY, flight(0), rows=second)
    finish(folded.runs, second)
    with pytest.raises(ValueError, match="isn't the oldest"):
        folded.write(second)


def test_after_an_unknown_end_only_what_was_written_is_left() -> None:
    folded = Folded()
    folded.fold(DAY, OPENED, TimerSet("close", 5000), command_id="c1")
    lost: Rows = {}
    folded.decide(DAY, flight(0), TimerCancelled("close", 5000), rows=lost, command_id="c2")
    folded.decide(DAY, DayClosed("9E", "2013-01-16", FIGURES, 1), rows=lost)
    folded.decide("other", RunRemoved("old", 9000), rows=lost)
    folded.runs.clear()
    assert folded.state(DAY, DayBook) == DayBook("9E", "2013-01-16")
    assert folded.runs.peek_answer(DAY, "c2") is None
    assert folded.runs.tombstone("other") is None
    assert list(folded.runs.outbox) == []
    assert folded.runs.timers.due(5000) == [(5000, DAY, "close")]
    assert folded.runs.at == 1010


def test_a_removed_run_leaves_a_tombstone_and_the_answer_to_its_removal_and_nothing_else() -> None:
    folded = Folded()
    folded.fold(DAY, OPENED, TimerSet("close", 5000), command_id="c1")
    folded.fold(DAY, flight(0), command_id="c2")
    folded.fold(DAY, RunRemoved("old", 9000), command_id="c3", reply=b"true")
    assert folded.keys(run_prefix(DAY)) == []
    assert folded.keys(b"t") == []
    for runs in (folded.runs, folded.reloaded()):
        assert runs.get(DAY) is None
        assert runs.tombstone(DAY) == 9000
        assert runs.peek_answer(DAY, "c1") is None
        assert runs.peek_answer(DAY, "c3") == Answer(None, "", b"true", 1030)
    assert folded.runs.tombstone("other") is None


def test_a_run_that_was_made_and_removed_in_unwritten_batches_leaves_nothing_either() -> None:
    folded = Folded()
    first: Rows = {}
    second: Rows = {}
    folded.decide(DAY, OPENED, TimerSet("close", 5000), rows=first, command_id="c1")
    finish(folded.runs, first)
    folded.decide(DAY, flight(0), rows=second, command_id="c2")
    folded.decide(DAY, RunRemoved("old", 9000), rows=second, command_id="c3")
    assert folded.runs.peek_answer(DAY, "c1") is None
    finish(folded.runs, second)
    folded.write(first)
    assert folded.runs.peek_answer(DAY, "c1") is None
    assert folded.runs.get(DAY) is None
    folded.write(second)
    assert folded.keys(run_prefix(DAY)) == []
    assert folded.keys(b"t") == []


def test_a_new_run_under_an_old_id_has_nothing_of_the_old_one() -> None:
    folded = Folded()
    folded.fold(DAY, OPENED, command_id="c1")
    for position in range(3):
        folded.fold(DAY, flight(position))
    rows: Rows = {}
    folded.decide(DAY, RunRemoved("old", 1001), rows=rows)
    folded.decide(DAY, OPENED, flight(0), rows=rows, command_id="c9")
    finish(folded.runs, rows)
    folded.write(rows)
    assert len(folded.state(DAY, DayBook).flights) == 1
    assert folded.reloaded().peek_answer(DAY, "c1") is None
    assert folded.reloaded().peek_answer(DAY, "c9") is not None


def test_timers_are_rows_until_they_are_over() -> None:
    folded = Folded()
    folded.fold(DAY, OPENED, TimerSet("b", 3000), TimerSet("a", 3000), TimerSet("early", -5))
    assert folded.run(DAY).timers == {"b": 3000, "a": 3000, "early": -5}
    for runs in (folded.runs, folded.reloaded()):
        assert runs.timers.next_due() == -5
        assert runs.timers.due(2999) == [(-5, DAY, "early")]
        assert runs.timers.due(3000) == [(-5, DAY, "early"), (3000, DAY, "a"), (3000, DAY, "b")]
    folded.fold(DAY, TimerFired("early", -5), TimerCancelled("a", 3000))
    assert folded.run(DAY).timers == {"b": 3000}
    for runs in (folded.runs, folded.reloaded()):
        assert runs.timers.due(3000) == [(3000, DAY, "b")]


def test_outputs_wait_in_order_until_they_are_acknowledged() -> None:
    folded = Folded()
    closed = DayClosed("9E", "2013-01-16", FIGURES, 1)
    refused = RefusalAnswered("asker", 3, "q", "not-open", "it is closed")
    folded.fold(DAY, OPENED, closed)
    folded.fold(DAY, CommandRefused("not-open", "it is closed"), refused, command_id="c")
    folded.fold("", CommandForwarded(7, 2))
    expected: list[tuple[Sent, tuple[str, int, Event]]] = [
        (Sent(*EPOCH, 1, 1), (DAY, 1010, closed)),
        (Sent(*EPOCH, 2, 1), (DAY, 1020, refused)),
        (Sent(*EPOCH, 3, 0), ("", 1030, CommandForwarded(7, 2))),
    ]
    assert list(folded.runs.pending_outputs()) == expected
    assert list(folded.reloaded().pending_outputs()) == expected
    folded.fold("", sent=Sent(*EPOCH, 2, 1))
    assert list(folded.runs.pending_outputs()) == expected[2:]
    assert list(folded.reloaded().pending_outputs()) == expected[2:]
    assert len(folded.keys(b"o")) == 1


def test_an_output_is_pending_only_once_it_is_proved() -> None:
    folded = Folded()
    rows: Rows = {}
    folded.decide("", CommandForwarded(7, 2), rows=rows)
    finish(folded.runs, rows)
    assert list(folded.runs.pending_outputs()) == []
    folded.write(rows)
    assert len(list(folded.runs.pending_outputs())) == 1


def test_an_output_that_is_acknowledged_within_its_own_batch_writes_no_row() -> None:
    folded = Folded()
    rows: Rows = {}
    folded.decide("", CommandForwarded(7, 2), rows=rows)
    folded.decide("", rows=rows, sent=Sent(*EPOCH, 1, 0))
    finish(folded.runs, rows)
    assert [key for key in rows if key[:1] == b"o"] == []
    folded.write(rows)
    assert folded.keys(b"o") == []


def test_runs_go_out_of_memory_least_recently_used_first_and_come_back_the_same() -> None:
    folded = Folded(max_runs=3)
    for n in range(10):
        folded.fold(f"run-{n}", DayOpened("9E", f"2013-01-{n:02}"), flight(0), command_id="c")
    assert len(folded.runs._cache) == 3
    for n in range(10):
        assert folded.state(f"run-{n}", DayBook).day == f"2013-01-{n:02}"
        folded.fold(f"run-{n}", flight(1))
    assert len(folded.runs._cache) == 3
    assert all(len(folded.state(f"run-{n}", DayBook).flights) == 2 for n in range(10))


def test_a_run_with_unwritten_changes_stays_in_memory() -> None:
    folded = Folded(max_runs=2)
    rows: Rows = {}
    for n in range(6):
        folded.decide(f"run-{n}", DayOpened("9E", f"2013-01-{n:02}"), rows=rows)
    for n in range(6):
        run = folded.runs.get(f"run-{n}")
        assert run is not None
        folded.decide(f"run-{n}", flight(0), rows=rows)
    finish(folded.runs, rows)
    folded.write(rows)
    folded.runs.get("nobody")
    assert len(folded.runs._cache) == 2
    assert all(len(folded.state(f"run-{n}", DayBook).flights) == 1 for n in range(6))


def test_the_same_events_in_one_batch_or_in_many_give_the_same_rows() -> None:
    many, one = Folded(), Folded()
    rows: Rows = {}
    history: list[tuple[str, tuple[Event, ...]]] = [
        (DAY, (OPENED, TimerSet("close", 5000))),
        (DAY, (flight(0), flight(1))),
        (DAY, (FlightsShifted(0, 2, 1.5),)),
        (DAY, (TimerCancelled("close", 5000), TimerSet("close", 5000))),
        (DAY, (TimerFired("close", 5000),)),
    ]
    for run_id, events in history:
        many.fold(run_id, *events, command_id=f"c{many.number}")
        one.decide(run_id, *events, rows=rows, command_id=f"c{one.number}")
    finish(one.runs, rows)
    one.write(rows)
    assert list(one.store.scan(b"")) == list(many.store.scan(b""))


def test_an_event_that_the_folds_do_not_know_stops_them() -> None:
    class Invented(Event, frozen=True, gc=False):
        pass

    folded = Folded()
    with pytest.raises(NewerFormat, match="don't know the event Invented"):
        folded.fold(DAY, Invented())


def test_an_event_of_a_run_that_does_not_exist_stops_the_fold() -> None:
    folded = Folded()
    with pytest.raises(LookupError, match=f"FlightEntered for run '{DAY}', which doesn't exist"):
        folded.fold(DAY, flight(0))
