"""Leases of the embedded log's groups, on a clock that the test sets. Times are ms since boot."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from millstream.events.errors import InstanceInUse
from millstream.events.logs.port import TopicPartition
from millstream.events.logs.sqlite_file import TABLES
from millstream.events.logs.sqlite_groups import Member, depart, enter, heartbeat


@pytest.fixture
def tables() -> Iterator[sqlite3.Connection]:
    """An empty log with the topic `t` of four partitions."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(TABLES)
    for p in range(4):
        connection.execute("INSERT INTO streams (topic, partition) VALUES ('t', ?)", (p,))
    yield connection
    connection.close()


def member(instance_id: str, *, process: str = "p", boot: str = "boot") -> Member:
    return Member("g", instance_id, process + instance_id, ("t",), 3000, boot)


def of(*numbers: int) -> frozenset[TopicPartition]:
    return frozenset(TopicPartition("t", n) for n in numbers)


def test_a_lease_that_ran_out_is_ended_by_whoever_heartbeats(tables: sqlite3.Connection) -> None:
    a, b = member("a"), member("b")
    assert enter(tables, a, 0).assignment == of(0, 1, 2, 3)
    assert enter(tables, b, 100).assignment == of(2, 3)
    assert heartbeat(tables, b, 2900).assignment == of(2, 3)
    assert heartbeat(tables, b, 3000).changed is False
    taken = heartbeat(tables, b, 3001)
    assert (taken.assignment, taken.changed) == (of(0, 1, 2, 3), True)


def test_a_member_whose_lease_was_ended_joins_anew(tables: sqlite3.Connection) -> None:
    a, b = member("a"), member("b")
    enter(tables, a, 0)
    enter(tables, b, 0)
    heartbeat(tables, b, 2000)
    before = heartbeat(tables, b, 4000)
    assert before.assignment == of(0, 1, 2, 3)
    back = heartbeat(tables, a, 4500)
    assert len(back.assignment) == 2
    assert back.generation > before.generation


def test_a_stand_still_of_everybody_costs_nobody_its_partitions(tables: sqlite3.Connection) -> None:
    a, b = member("a"), member("b")
    enter(tables, a, 0)
    enter(tables, b, 0)
    had = heartbeat(tables, a, 100)
    assert heartbeat(tables, a, 60_000) == had
    assert heartbeat(tables, b, 60_500).assignment == of(2, 3)
    assert heartbeat(tables, a, 61_000) == had


def test_after_a_stand_still_the_dead_are_still_found_out(tables: sqlite3.Connection) -> None:
    a, b = member("a"), member("b")
    enter(tables, a, 0)
    enter(tables, b, 0)
    heartbeat(tables, a, 60_000)
    heartbeat(tables, a, 62_000)
    assert heartbeat(tables, a, 63_001).assignment == of(0, 1, 2, 3)


def test_leases_of_another_boot_are_void(tables: sqlite3.Connection) -> None:
    enter(tables, member("a", boot="before"), 5_000_000)
    assert enter(tables, member("b"), 1000).assignment == of(0, 1, 2, 3)


def test_leases_from_a_clock_far_ahead_are_void(tables: sqlite3.Connection) -> None:
    enter(tables, member("a", boot=""), 5_000_000)
    assert enter(tables, member("b", boot=""), 1000).assignment == of(0, 1, 2, 3)


def test_a_static_member_back_in_time_changes_its_own_generation_only(tables: sqlite3.Connection) -> None:
    a, b = member("a"), member("b")
    enter(tables, a, 0)
    enter(tables, b, 0)
    had, others = heartbeat(tables, a, 10), heartbeat(tables, b, 10)
    back = enter(tables, member("a", process="new"), 500)
    assert back.assignment == had.assignment
    assert back.generation > had.generation
    assert heartbeat(tables, b, 600)[:2] == others[:2]


def test_the_older_process_of_an_instance_id_is_told_which_the_newer_is(tables: sqlite3.Connection) -> None:
    old = member("a", process="old")
    enter(tables, old, 0)
    enter(tables, member("a", process="new"), 10)
    with pytest.raises(InstanceInUse, match="has joined group 'g' as 'a'"):
        heartbeat(tables, old, 20)
    assert depart(tables, old, 30) is False
    assert heartbeat(tables, member("a", process="new"), 40).assignment == of(0, 1, 2, 3)


def test_partitions_that_come_later_are_shared_out_at_a_heartbeat(tables: sqlite3.Connection) -> None:
    a = member("a")
    first = enter(tables, a, 0)
    tables.execute("INSERT INTO streams (topic, partition) VALUES ('t', 4)")
    assert heartbeat(tables, a, 10).assignment == of(0, 1, 2, 3, 4)
    assert heartbeat(tables, a, 20).generation == first.generation + 1
