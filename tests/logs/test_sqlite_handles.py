"""Several handles on one embedded log in one process, as a server with a client beside it has them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from millstream.events.logs.sqlite import SqliteLog
from tests.logs.steps import make_topic, read_all, values
from tests.support.aio import run

OPEN_AND_CLOSE = """
import asyncio, sys
from millstream.events.logs.sqlite import SqliteLog

async def main():
    async with SqliteLog(sys.argv[1]):
        pass

asyncio.run(main())
"""


def test_a_second_handle_in_a_process_takes_no_lock_from_the_first(tmp_path: Path) -> None:
    """The system drops all of a process's locks on a file when the process closes any descriptor of it.

    Without them another process that leaves takes itself for the last one, and deletes the WAL under our feet.
    """

    async def check() -> None:
        async with SqliteLog(tmp_path) as first:
            (tp,) = await make_topic(first, "t")
            await first.append("t", 0, values("before"))
            async with SqliteLog(tmp_path):
                other = await asyncio.create_subprocess_exec(sys.executable, "-P", "-c", OPEN_AND_CLOSE, str(tmp_path))
                assert await other.wait() == 0
                assert (await first.append("t", 0, values("after"))).offset == 1
                async with SqliteLog(tmp_path) as third:
                    assert [r.value for r in await read_all(third, tp)] == [b"before", b"after"]
                    assert (await third.append("t", 0, values("third"))).offset == 2
                assert [r.value for r in await read_all(first, tp)] == [b"before", b"after", b"third"]

    run(check())
