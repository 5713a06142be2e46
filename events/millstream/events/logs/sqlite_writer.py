"""The embedded log's writer: one thread a process, which commits in groups.

All appends that wait when a transaction begins go into it together, whatever their
partitions, so the disk is asked once for all of them. Each is all or nothing, since
the group is. Offsets are dense and in commit order: the next one is taken inside the
transaction, under the lock that all processes share.

The order of a group: take the lock, begin, look whether others have written, insert,
commit, raise the counters, give the lock back, tell the callers, checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from millstream.events.errors import LogUnavailable
from millstream.events.logs.port import Appended, Record, TopicPartition
from millstream.events.logs.sqlite_file import (
    BUSY_WRITE_MS,
    FILE,
    Counters,
    LogLock,
    explain,
    open_connection,
    prepare_folder,
)
from millstream.events.logs.sqlite_tails import Landed, Tails
from millstream.events.logs.sqlite_work import STUCK_S, Append, Do, Job, Row, Work, unknown

GROUP_ROWS_MAX = 20_000
GROUP_BYTES_MAX = 8 << 20
PAGE_BYTES = 4096
CHECKPOINT_PAGES = 1_000
CHECKPOINT_PAGES_BUSY = 4_000
WAL_BYTES_MAX = 24 << 20
"""Over this size of the WAL file the writer waits for readers to let go of it, and cuts it."""
WAL_BYTES_BOUND = WAL_BYTES_MAX + 2 * GROUP_BYTES_MAX
"""What the WAL file stays under, unless another program keeps a read transaction open."""

OnCommit = Callable[[list[Landed] | None], None]


class Writer:
    """The thread and its queue. on_commit(what was appended, or None) is called in the event loop after each commit.

    now_ms: the log's clock. `own_commits` and the file's counter together tell how often others have written.
    """

    def __init__(
        self,
        folder: Path,
        now_ms: Callable[[], int],
        on_commit: OnCommit,
        stuck_s: float = STUCK_S,
    ) -> None:
        self.own_commits = 0
        self.lock: LogLock | None = None
        self._folder = folder
        self._now_ms = now_ms
        self._on_commit = on_commit
        self._stuck_s = stuck_s
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._open: set[Work] = set()
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._tails = Tails()
        self._last_ms = 0
        self._pages = 0
        self._groups = 0
        self._waits_for_lock = False
        self._put_back: Work | None = None
        self._thread = threading.Thread(target=self._run, name="millstream-log-writer", daemon=True)
        self.ready: asyncio.Future[None] = self._loop.create_future()

    # In the event loop.

    def start(self) -> None:
        self._thread.start()

    def append(
        self, tp: TopicPartition, records: Sequence[Record], rows: list[Row], size: int
    ) -> asyncio.Future[Appended]:
        """Queue a batch; the future has its offset, or `AppendUnknown`."""
        future: asyncio.Future[Appended] = self._loop.create_future()
        self._submit(Append(future, self._loop.time(), tp, records, rows, size))
        return future

    def run(self, do: Do, *, groups: Callable[[Any], bool] | None = None) -> asyncio.Future[Any]:
        """Queue a write transaction; the future has what `do` returned, or raised; `LogUnavailable` for SQLite's errors."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._submit(Job(future, self._loop.time(), do, groups))
        return future

    def _submit(self, work: Work) -> None:
        self._open.add(work)
        self._queue.put(work)
        if self._watch is None:
            self._watch = self._loop.call_later(self._stuck_s, self._look_for_stuck)

    def _look_for_stuck(self) -> None:
        self._watch = None
        if not self._open:
            return
        now = self._loop.time()
        stuck = [w for w in self._open if now - w.since >= self._stuck_s]
        self._give_up(stuck, self._why_stuck())
        if self._open:
            oldest = min(w.since for w in self._open)
            self._watch = self._loop.call_later(max(0.01, oldest + self._stuck_s - now), self._look_for_stuck)

    def _why_stuck(self) -> str:
        holder = self.lock.counters().holder if self.lock else 0
        if self._waits_for_lock and holder != os.getpid():
            return (
                f"the lock of the log in {str(self._folder)!r} has been held for over {self._stuck_s:g} s by process"
                f" {holder}. It may be stopped: let it go on, or end it"
            )
        return (
            f"the disk under {str(self._folder)!r} has not answered for over {self._stuck_s:g} s."
            f" Look for what keeps it busy"
        )

    def give_up_appends(self, why: str) -> None:
        """End all appends under way as unknown. Those that have not begun are never written."""
        self._give_up([w for w in self._open if isinstance(w, Append)], why)

    def _give_up(self, works: Iterable[Work], why: str) -> None:
        for work in works:
            work.abandoned = True
            self._open.discard(work)
            if not work.future.done():
                work.future.set_exception(unknown(why) if isinstance(work, Append) else LogUnavailable(f"{why}."))

    async def stop(self) -> None:
        """Write what is queued, then end the thread."""
        if self._watch is not None:
            self._watch.cancel()
        self._queue.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, STUCK_S)
        self._give_up(list(self._open), "the log was closed")

    def _tell(self, ended: list[tuple[Work, Any]]) -> None:
        for work, result in ended:
            self._open.discard(work)
            if work.future.done():
                continue
            if isinstance(result, BaseException):
                work.future.set_exception(result)
            else:
                work.future.set_result(result)

    def _tell_landed(self, landed: list[Landed], refused: list[tuple[Work, Any]]) -> None:
        self._on_commit(landed)
        self._tell(refused)
        for work, _, at in landed:
            self._open.discard(work)
            if not work.future.done():
                work.future.set_result(at)

    def _tell_done(self, job: Job, result: Any) -> None:
        self._on_commit(None)
        self._tell([(job, result)])

    # In the thread.

    def _run(self) -> None:
        try:
            self.lock = prepare_folder(self._folder)
            self._connection = open_connection(self._folder, write=True)
        except BaseException as e:  # noqa: BLE001 - raised again where the log is started
            self._post(_settle, self.ready, e)
            return
        self._post(_settle, self.ready, None)
        try:
            while (work := self._next()) is not None:
                if isinstance(work, Append):
                    self._append_group(self._group(work))
                else:
                    assert isinstance(work, Job)
                    self._do_job(work)
                self._checkpoint_if_long()
        finally:
            self._connection.close()

    def _next(self) -> Work | None:
        work, self._put_back = self._put_back, None
        return work if work is not None else self._queue.get()

    def _group(self, first: Append) -> list[Append]:
        """`first` and what waits behind it, up to the first job or the limits of a group."""
        group, rows, size = [first], len(first.rows), first.size
        while rows < GROUP_ROWS_MAX and size < GROUP_BYTES_MAX and not self._queue.empty():
            work = self._queue.get()
            if not isinstance(work, Append):
                if work is None:
                    self._queue.put(None)
                else:
                    self._put_back = work
                break
            group.append(work)
            rows += len(work.rows)
            size += work.size
        return group

    def _append_group(self, group: list[Append]) -> None:
        assert self.lock is not None
        landed: list[Landed] = []
        refused: list[tuple[Work, Any]] = []
        try:
            counters = self._take_lock()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._tails.look_for_others(self._connection)
                at = max(self._now_ms(), counters.last_ms, self._last_ms)
                self._last_ms = at = self._tails.place(self._connection, group, at, landed, refused)
                self._tails.insert(self._connection, landed, at)
                self._pages += sum(2 + work.size // PAGE_BYTES for work, _, _ in landed)
                self._connection.execute("COMMIT")
                # Told first: what wakes other processes wakes our own loop too, and would come before the answer.
                self._post(self._tell_landed, landed, refused)
                self._count(counters._replace(last_ms=at))
            except BaseException:
                self._roll_back()
                raise
            finally:
                self.lock.release()
        except sqlite3.Error as e:
            why = f"an append to the log in {str(self._folder)!r} failed: {explain(e)}"
            self._post(self._tell, [(w, unknown(why)) for w in group])
        except Exception as e:  # noqa: BLE001 - the thread must outlive whatever one group runs into
            self._post(self._tell, [(w, unknown(f"an append failed: {e!r}")) for w in group])

    def _take_lock(self) -> Counters:
        assert self.lock is not None
        self._waits_for_lock = True
        try:
            return self.lock.acquire()
        finally:
            self._waits_for_lock = False

    def _do_job(self, job: Job) -> None:
        assert self.lock is not None
        if job.abandoned:
            return
        try:
            counters = self._take_lock()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._tails.look_for_others(self._connection)
                self._tails.forget()
                changes = self._connection.total_changes
                result = job.do(self._connection)
                self._connection.execute("COMMIT")
                self._pages += 4 + (self._connection.total_changes - changes) // 8
                changed = job.groups is not None and job.groups(result)
                self._count(counters._replace(groups=counters.groups + changed))
            except BaseException:
                self._roll_back()
                raise
            finally:
                self.lock.release()
        except sqlite3.Error as e:
            why = f"a write to the log in {str(self._folder)!r} failed: {explain(e)}."
            self._post(self._tell, [(job, LogUnavailable(why))])
        except Exception as e:  # noqa: BLE001 - raised where the job was asked for
            self._post(self._tell, [(job, e)])
        else:
            self._post(self._tell_done, job, result)

    def _count(self, counters: Counters) -> None:
        assert self.lock is not None
        self.own_commits += 1
        self.lock.write(counters._replace(commits=counters.commits + 1))

    def _roll_back(self) -> None:
        self._tails.forget()
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
            # Where this fails too, the next write fails on the closed connection and comes by here again.
            with contextlib.suppress(sqlite3.Error):
                self._connection = open_connection(self._folder, write=True)

    def _checkpoint_if_long(self) -> None:
        """Keep the WAL short: when there is a pause if possible, in any case when it has grown long."""
        self._groups += 1
        if self._groups % 64 == 0 and self._wal_bytes() > WAL_BYTES_MAX:
            self._pages = max(self._pages, CHECKPOINT_PAGES_BUSY)
        if self._pages < CHECKPOINT_PAGES or (self._pages < CHECKPOINT_PAGES_BUSY and not self._queue.empty()):
            return
        assert self.lock is not None
        self._pages = 0
        try:
            self._take_lock()
            try:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if self._wal_bytes() > WAL_BYTES_MAX:
                    # Waits for readers, which hold no transaction for longer than one select.
                    self._connection.execute("PRAGMA busy_timeout = 200")
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    self._connection.execute(f"PRAGMA busy_timeout = {BUSY_WRITE_MS}")
            finally:
                self.lock.release()
        except (sqlite3.Error, OSError):
            return  # a full disk, most likely: appends say so, and the next checkpoint tries again

    def _wal_bytes(self) -> int:
        try:
            return os.stat(self._folder / f"{FILE}-wal").st_size
        except FileNotFoundError:
            return 0

    def _post(self, call: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            return  # the loop is closed: nobody is left to be told


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
