"""How waits on the embedded log end at once: by own commits, and by other processes'.

Own appends wake the readers of their partitions. Every commit of any process writes
to `log.lock`, and the system says so (inotify): measured, a reader in another process goes on 0.24 ms
after the commit, and waiting costs nothing. Where there is no inotify, or it has missed
something, the counter in that file is looked at every `POLL_S` instead.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from millstream.events.logs.port import TopicPartition

POLL_S = 0.002
NET_S = 0.25
"""So often SQLite itself is asked too: a process can be killed between its commit and the counter."""
_IN_MODIFY = 0x2


class Waker:
    """Wakes waits. foreign_commits: others' commits so far. has_news: has anybody committed since it was last asked?"""

    def __init__(self, foreign_commits: Callable[[], int], has_news: Callable[[], bool]) -> None:
        self._foreign_commits = foreign_commits
        self._has_news = has_news
        self._waits: dict[asyncio.Future[None], tuple[int, frozenset[TopicPartition]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inotify = -1
        self._polls = True
        self._misses = 0

    def start(self, file: Path) -> None:
        """Begin to watch the file that every commit writes to."""
        self._loop = asyncio.get_running_loop()
        self._inotify = watch_file(file)
        self._polls = self._inotify < 0
        if not self._polls:
            self._loop.add_reader(self._inotify, self._file_changed)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._inotify >= 0:
            assert self._loop is not None
            self._loop.remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1
        self.wake_all()

    async def wait(self, mark: int, of: frozenset[TopicPartition], timeout_s: float | None) -> None:
        """Until we commit to a partition of `of`, others' commits are no longer `mark`, or the time-out."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, resolve, future)
        self._waits[future] = (mark, of)
        if self._foreign_commits() != mark:
            resolve(future)
        if self._timer is None:
            self._set_timer(loop)
        try:
            await future
        finally:
            del self._waits[future]
            if timer is not None:
                timer.cancel()

    def touched(self, partitions: list[TopicPartition] | None) -> None:
        """We have committed: to these partitions, or (None) something else."""
        for future, (_, of) in self._waits.items():
            if partitions is None or not of.isdisjoint(partitions):
                resolve(future)

    def wake_all(self) -> None:
        for future in self._waits:
            resolve(future)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(POLL_S if self._polls else NET_S, self._look)

    def _file_changed(self) -> None:
        try:
            os.read(self._inotify, 65_536)
        except BlockingIOError:
            return
        if self._wake_behind():
            self._misses = 0

    def _wake_behind(self) -> bool:
        """Wake those who don't know of others' newest commit; whether there were any."""
        if not self._waits:
            return False
        commits = self._foreign_commits()
        behind = [future for future, (mark, _) in self._waits.items() if mark != commits and not future.done()]
        for future in behind:
            resolve(future)
        return bool(behind)

    def _look(self) -> None:
        self._timer = None
        if not self._waits:
            return
        missed = self._wake_behind()
        if missed and not self._polls and not self._event_pending():
            self._misses += 1
            # A file system that doesn't tell of other processes' writes. Once can be a commit just being counted.
            self._polls = self._misses >= 3
        if not self._polls and self._has_news():
            self.wake_all()
        self._set_timer(asyncio.get_running_loop())

    def _event_pending(self) -> bool:
        try:
            return bool(os.read(self._inotify, 65_536))
        except OSError:
            return False


def watch_file(file: Path) -> int:
    """A descriptor that becomes readable when anybody writes to the file; -1 where the system has no such thing."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:
            return -1
        if libc.inotify_add_watch(descriptor, os.fsencode(file), _IN_MODIFY) < 0:
            os.close(descriptor)
            return -1
    except (OSError, AttributeError):
        return -1
    return descriptor


def resolve(future: asyncio.Future[None]) -> None:
    """Let the wait go on, if it still waits."""
    if not future.done():
        future.set_result(None)
