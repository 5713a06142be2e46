"""An event loop whose time jumps: where nothing is ready it goes straight to the next timer.

No sleeping, no sockets, no threads, so a run takes only what its code takes, and
the order of everything is given by the code and its seeds. Where nothing is ready
and no timer is set, nothing can ever happen again: `Deadlock` lists who waits.

A part of the tasks can be *frozen*, as a stopped process is: what would run in
their context is kept, in order, until `thaw`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

PART: ContextVar[Part | None] = ContextVar("PART", default=None)
"""Which part of the simulated world the running code belongs to; tasks and callbacks inherit it."""


class Deadlock(AssertionError):
    """Nothing is ready, and no timer is set: whoever waits, waits for ever."""


class Part:
    """Tasks that are cancelled together and frozen together. `tasks`: the live ones, in order of creation."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.frozen: deque[asyncio.Handle] | None = None


class VirtualLoop(asyncio.BaseEventLoop):
    """Use `run(coroutine)`, once. `spared(handle)`: whether a callback of a frozen part runs all the same."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, *, spared: Callable[[asyncio.Handle], bool] | None = None) -> None:
        super().__init__()
        self._now = 0.0
        self._turns = 0
        self._spared = spared
        self._any_frozen = 0
        self._alarm: tuple[int, Callable[[], None]] | None = None
        self.live: dict[asyncio.Task[Any], None] = {}
        self.unhandled: list[str] = []
        self.set_task_factory(_make_task)
        self.set_exception_handler(_note_unhandled)

    @property
    def turns(self) -> int:
        """Callbacks run so far: a measure of work, and a clock of its own for faults."""
        return self._turns

    def time(self) -> float:
        return self._now

    def at_turn(self, turn: int, what: Callable[[], None]) -> None:
        """Call `what` before the callback number `turn` runs: to enumerate every place where tasks change over."""
        self._alarm = (turn, what)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, then cancel whatever is left. Raises `Deadlock`."""
        try:
            return self.run_until_complete(main)
        finally:
            self._cancel_rest()
            self.close()

    def freeze(self, part: Part) -> None:
        """Stop everything of this part where it is, as SIGSTOP does."""
        if part.frozen is None:
            part.frozen = deque()
            self._any_frozen += 1

    def thaw(self, part: Part) -> None:
        """Let it go on: first what has come meanwhile, in order."""
        if part.frozen is not None:
            self._ready.extend(part.frozen)
            part.frozen = None
            self._any_frozen -= 1

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        if not ready and not self._stopping:
            self._jump()
        while scheduled and scheduled[0]._when <= self._now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if self._alarm is not None and self._alarm[0] == self._turns:
                (_, what), self._alarm = self._alarm, None
                what()
            if handle._cancelled:
                continue
            if self._any_frozen and self._keep_back(handle):
                continue
            self._turns += 1
            handle._run()

    def _keep_back(self, handle: asyncio.Handle) -> bool:
        part = handle._context.get(PART)
        if part is None or part.frozen is None or (self._spared is not None and self._spared(handle)):
            return False
        part.frozen.append(handle)
        return True

    def _jump(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not scheduled:
            waiting = "\n".join(f"  {t.get_name()}: {_place(t)}" for t in self.live if not t.done())
            raise Deadlock(f"nothing is ready and no timer is set. Waiting for ever:\n{waiting}")
        self._now = max(self._now, scheduled[0]._when)

    def _cancel_rest(self) -> None:
        for part in {t._part: None for t in self.live}:
            if part is not None:
                self.thaw(part)
        rest = [t for t in self.live if not t.done()]
        if rest:
            for task in rest:
                task.cancel()
            self.run_until_complete(asyncio.wait(rest, timeout=60))
        self.run_until_complete(self.shutdown_asyncgens())

    # What the base class would do by a selector and a pipe to itself.

    def _process_events(self, event_list: Any) -> None: ...

    def _write_to_self(self) -> None: ...

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None: ...


class _Task(asyncio.Task[Any]):
    """A task that knows its part. Pure Python would be slow; a subclass of the C task isn't."""

    _part: Part | None


def _make_task(
    loop: asyncio.AbstractEventLoop, coro: Any, *, context: Context | None = None, **kwargs: Any
) -> asyncio.Task[Any]:
    task = _Task(coro, loop=loop, context=context, **kwargs)
    assert isinstance(loop, VirtualLoop)
    part = PART.get() if context is None else context.get(PART)
    task._part = part
    loop.live[task] = None
    if part is not None:
        part.tasks[task] = None
    # A plain callback and not a coroutine's end: it has to see tasks that were cancelled before their first step, too.
    task.add_done_callback(_forget, context=_NOWHERE)
    return task


_NOWHERE = Context()
"""The bookkeeping of a frozen part's tasks isn't frozen."""


def _forget(task: asyncio.Task[Any]) -> None:
    loop = task.get_loop()
    assert isinstance(loop, VirtualLoop)
    loop.live.pop(task, None)
    part = task._part
    if part is not None:
        part.tasks.pop(task, None)


def _note_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    error = context.get("exception")
    loop.unhandled.append(f"{context.get('message')}: {type(error).__name__}: {error}")


def _place(task: asyncio.Task[Any]) -> str:
    """File, line and function where a task waits, innermost first."""
    places: list[str] = []
    waits: Any = task.get_coro()
    while (frame := getattr(waits, "cr_frame", None)) is not None:
        places.append(f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_name}")
        waits = waits.cr_await
    return " < ".join(reversed(places))


def virtual_run(main: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine on a virtual loop of its own."""
    return VirtualLoop().run(main)
