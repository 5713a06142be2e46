"""Groups of the embedded log: leases in tables.

A member renews its lease in a transaction every sixth of its session time-out. Whoever
does so also ends the leases that have run out and shares everything out again, so no
coordinator is needed. Lease time is the machine's time since boot, which runs on while
it sleeps and knows no jumps of the wall clock; the boot's id stands beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from millstream.events.errors import InstanceInUse, LogUnavailable
from millstream.events.logs.port import TopicPartition
from millstream.events.logs.sharing import share_out

if TYPE_CHECKING:
    from millstream.events.logs.sqlite import SqliteLog

SESSION_TIMEOUT_S = 3.0
HEARTBEATS_A_SESSION = 6

_ASSIGNED = "SELECT topic, partition FROM assignments WHERE name = ? AND instance = ?"


def boot_clock_ms() -> int:
    """Milliseconds since the machine's boot, the same for all processes."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


def boot_id() -> str:
    """An id of this boot of the machine; empty where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Membership(NamedTuple):
    """What a heartbeat has brought. changed: somebody's assignment or process is another one now."""

    generation: int
    assignment: frozenset[TopicPartition]
    changed: bool


class Member(msgspec.Struct, frozen=True):
    """Who renews a lease. process: random, one for each `join`."""

    group: str
    instance_id: str
    process: str
    topics: tuple[str, ...]
    session_ms: int
    boot: str


def enter(connection: sqlite3.Connection, me: Member, now: int) -> Membership:
    """Join, in the caller's transaction. now: of the boot clock, ms.

    A static member that comes back in time gets what it had, and nobody else notices.
    """
    before = _row(connection, me)
    topics = msgspec.json.encode(me.topics).decode()
    back = before is not None and before.topics == topics
    _write_member(connection, me, topics, now)
    moved = _share_out(connection, me, now, always=not back)
    if not moved:
        generation = _next_generation(connection, me.group)
        connection.execute(
            "UPDATE members SET generation = ? WHERE name = ? AND instance = ?",
            (generation, me.group, me.instance_id),
        )
    return _membership(connection, me, changed=True)


def heartbeat(connection: sqlite3.Connection, me: Member, now: int) -> Membership:
    """Renew the lease, in the caller's transaction, and share out where members or partitions have changed.

    Raises `InstanceInUse` where another process has entered under this instance id.
    """
    row = _row(connection, me)
    if row is None:
        return enter(connection, me, now)
    if row.process != me.process:
        raise _in_use(me, row)
    if row.boot == me.boot and row.lease_end_ms < now:
        # We ourselves couldn't renew in time, so perhaps nobody could (a full disk, a machine that slept): the others
        # get one more session before theirs are ended.
        connection.execute(
            "UPDATE members SET lease_end_ms = ? + session_ms WHERE name = ? AND boot = ?",
            (now, me.group, me.boot),
        )
    connection.execute(
        "UPDATE members SET lease_end_ms = ? WHERE name = ? AND instance = ?",
        (now + me.session_ms, me.group, me.instance_id),
    )
    return _membership(connection, me, changed=_share_out(connection, me, now, always=False))


def depart(connection: sqlite3.Connection, me: Member, now: int) -> bool:
    """Give the lease up, in the caller's transaction, if it is still ours; the others get the partitions at once."""
    gone = connection.execute(
        "DELETE FROM members WHERE name = ? AND instance = ? AND process = ?",
        (me.group, me.instance_id, me.process),
    ).rowcount
    return bool(gone) and _share_out(connection, me, now, always=True)


class _Row(NamedTuple):
    process: str
    host: str
    pid: int
    topics: str
    boot: str
    lease_end_ms: int


def _row(connection: sqlite3.Connection, me: Member) -> _Row | None:
    found = connection.execute(
        "SELECT process, host, pid, topics, boot, lease_end_ms FROM members WHERE name = ? AND instance = ?",
        (me.group, me.instance_id),
    ).fetchone()
    return _Row(*found) if found else None


def _in_use(me: Member, row: _Row) -> InstanceInUse:
    return InstanceInUse(
        f"process {row.pid} on {row.host!r} has joined group {me.group!r} as {me.instance_id!r}, as this process had."
        f" Two processes with one instance id would hold the same partitions: a data folder was probably copied."
        f" Give one of them a folder of its own."
    )


def _write_member(connection: sqlite3.Connection, me: Member, topics: str, now: int) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (
            me.group,
            me.instance_id,
            me.process,
            socket.gethostname(),
            os.getpid(),
            topics,
            me.session_ms,
            me.boot,
            now + me.session_ms,
        ),
    )


def _share_out(connection: sqlite3.Connection, me: Member, now: int, *, always: bool) -> bool:
    """End leases that have run out; share out anew if members or partitions have changed, or `always`."""
    # A lease of another boot, or one that ends later than any session could, was not given by this clock.
    ended = connection.execute(
        "DELETE FROM members WHERE name = ? AND instance <> ?"
        " AND (boot <> ? OR lease_end_ms < ? OR lease_end_ms > ? + session_ms)",
        (me.group, me.instance_id, me.boot, now, now),
    ).rowcount
    members = {
        instance: frozenset(msgspec.json.decode(topics, type=list[str]))
        for instance, topics in connection.execute("SELECT instance, topics FROM members WHERE name = ?", (me.group,))
    }
    wanted = frozenset[str]().union(*members.values())
    there = {TopicPartition(t, p) for t, p in connection.execute("SELECT topic, partition FROM streams") if t in wanted}
    held = {
        TopicPartition(t, p): instance
        for t, p, instance in connection.execute(
            "SELECT topic, partition, instance FROM assignments WHERE name = ?", (me.group,)
        )
    }
    if not ended and not always and there == held.keys():
        return False
    _write_shares(connection, me.group, share_out(there, members, held))
    return True


def _write_shares(connection: sqlite3.Connection, group: str, shares: Mapping[TopicPartition, str]) -> None:
    connection.execute("DELETE FROM assignments WHERE name = ?", (group,))
    connection.executemany(
        "INSERT INTO assignments VALUES (?, ?, ?, ?)",
        [(group, tp.topic, tp.partition, instance) for tp, instance in shares.items()],
    )
    generation = _next_generation(connection, group)
    connection.execute("UPDATE members SET generation = ? WHERE name = ?", (generation, group))


def _next_generation(connection: sqlite3.Connection, group: str) -> int:
    return int(
        connection.execute(
            "INSERT INTO groups VALUES (?, 1) ON CONFLICT DO UPDATE SET generation = generation + 1"
            " RETURNING generation",
            (group,),
        ).fetchone()[0]
    )


def _membership(connection: sqlite3.Connection, me: Member, *, changed: bool) -> Membership:
    generation = connection.execute(
        "SELECT generation FROM members WHERE name = ? AND instance = ?", (me.group, me.instance_id)
    ).fetchone()[0]
    assigned = connection.execute(_ASSIGNED, (me.group, me.instance_id)).fetchall()
    return Membership(generation, frozenset(TopicPartition(t, p) for t, p in assigned), changed)


def _changed(result: Membership) -> bool:
    return result.changed


class SqliteGroup:
    """A member. A task renews the lease, and looks at once when any process has changed an assignment."""

    def __init__(
        self, log: SqliteLog, group: str, topics: Sequence[str], instance_id: str, session_timeout_s: float
    ) -> None:
        self._log = log
        self._session_timeout_s = session_timeout_s
        self._me = Member(
            group,
            instance_id,
            secrets.token_hex(8),
            tuple(sorted(set(topics))),
            round(session_timeout_s * 1000),
            boot_id(),
        )
        self._assignment: frozenset[TopicPartition] = frozenset()
        self._generation = 0
        self._heard_ms = boot_clock_ms()
        self._seen_changes = -1
        self._lost: InstanceInUse | None = None
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return self._assignment

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def session_timeout_s(self) -> float:
        return self._session_timeout_s

    async def start(self) -> None:
        """Join. Returns when the first assignment is there; it may be empty."""
        self._take(await self._log.writer.run(lambda c: enter(c, self._me, boot_clock_ms()), groups=_changed))
        self._task = asyncio.create_task(self._keep_alive(), name=f"group {self._me.group}")

    async def changed(self, since_generation: int) -> frozenset[TopicPartition]:
        while True:
            if self._lost is not None:
                raise self._lost
            if self._generation > since_generation:
                return self._assignment
            self._news.clear()
            await self._news.wait()

    def silent_for_s(self) -> float:
        return max(0.0, (boot_clock_ms() - self._heard_ms) / 1000)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        rows = [(self._me.group, tp.topic, tp.partition, position) for tp, position in positions.items()]
        await self._log.writer.run(
            lambda c: c.executemany("INSERT OR REPLACE INTO committed VALUES (?, ?, ?, ?)", rows).rowcount
        )

    async def committed(self, tp: TopicPartition) -> int | None:
        found = self._log.rows(
            "SELECT position FROM committed WHERE name = ? AND topic = ? AND partition = ?",
            (self._me.group, *tp),
        )
        return int(found[0][0]) if found else None

    async def close(self, *, leave: bool = False) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        if leave:
            me = self._me
            await self._log.writer.run(lambda c: depart(c, me, boot_clock_ms()), groups=bool)

    async def _keep_alive(self) -> None:
        pause_s = self._session_timeout_s / HEARTBEATS_A_SESSION
        while self._lost is None:
            await self._pause(pause_s)
            try:
                self._take(
                    await self._log.writer.run(lambda c: heartbeat(c, self._me, boot_clock_ms()), groups=_changed)
                )
            except InstanceInUse as e:
                self._lost = e
                self._assignment = frozenset()
                self._news.set()
            except LogUnavailable:
                continue  # `silent_for_s` grows, and the owner draws its conclusions

    async def _pause(self, pause_s: float) -> None:
        """Until the next heartbeat is due, or any group has changed since we last looked."""
        loop = asyncio.get_running_loop()
        due = loop.time() + pause_s
        while (left := due - loop.time()) > 0:
            mark = self._log.foreign_commits()
            changes = self._log.group_changes()
            if changes != self._seen_changes:
                self._seen_changes = changes
                return
            await self._log.waker.wait(mark, frozenset(), left)

    def _take(self, membership: Membership) -> None:
        self._heard_ms = boot_clock_ms()
        self._assignment = membership.assignment
        if membership.generation > self._generation:
            self._generation = membership.generation
            self._news.set()
