"""Run a coroutine from a plain test, with a deadline: a test that hangs fails and says where it hung."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

DEADLINE_S = 60.0


def run(coro: Coroutine[Any, Any, T], deadline_s: float = DEADLINE_S) -> T:
    """The coroutine's result; `TimeoutError` after `deadline_s`, raised inside the coroutine where it waits."""

    async def bounded() -> T:
        async with asyncio.timeout(deadline_s):
            return await coro

    return asyncio.run(bounded())


async def until(
    condition: Callable[[], bool | Awaitable[bool]], what: str, deadline_s: float = 20.0, pause_s: float = 0.005
) -> None:
    """Wait until `condition` holds, for tests with real processes; fails naming `what` after `deadline_s`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while True:
        held = condition()
        if not isinstance(held, bool):
            held = await held
        if held:
            return
        if loop.time() > end:
            raise AssertionError(f"waited {deadline_s:.0f} s in vain until {what}")
        await asyncio.sleep(pause_s)
