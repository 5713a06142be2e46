"""Fifty who ask the same at once, from several processes, under one command id: one transition, and fifty equal answers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from millstream.streams.runtime.answers import Answer
from tests.chaos.examine import settled
from tests.chaos.place import Place
from tests.support.aio import run
from tests.support.processes import Program, Programs

ASKER = Path(__file__).parent / "asker.py"
PROCESSES, TIMES = 5, 10
BOOK = "9E-2013-01-16"


def answers(program: Program) -> list[Answer]:
    return [msgspec.json.decode(line, type=Answer) for line in program.said().splitlines() if line.startswith("{")]


def test_fifty_equal_asks_of_five_processes_are_one_transition_and_fifty_equal_answers(place: Place) -> None:
    async def check() -> None:
        async with Programs(place.cwd) as programs:
            server = place.server(programs).start()
            await server.says("owns partitions")
            server.kill()  # so that all of them have asked before the first is decided

            def asker(name: str, command_id: str, times: int, close_at: str) -> Program:
                return programs.python(
                    name, ASKER, place.address, place.prefix, BOOK, command_id, str(times), close_at
                ).start()

            same = [asker(f"same-{n}", "open-it", TIMES, "none") for n in range(PROCESSES)]
            for program in same:
                await program.says("asked")
            other = asker("other", "open-otherwise", 1, "4000000000000")
            await other.says("asked")
            server.start()
            for program in (*same, other):
                await program.ends(0)
            told = [answer for program in same for answer in answers(program)]
            assert len(told) == PROCESSES * TIMES
            assert {(a.code, a.reply) for a in told} == {(None, None)}
            (refused,) = answers(other)
            assert refused.code == "exists"
            assert BOOK in refused.reason
            found = await settled(place, {"open-it": told, "open-otherwise": [refused]})
            # The copies were decided too, as copies: the checker has seen to it that they changed nothing.
            assert sum(p.seen["DayOpened"] for p in found.partitions) == 1
            assert len(found.valid["open-it"]) == PROCESSES * TIMES
            await server.stop()
        await place.verify("server")

    run(check(), deadline_s=90)
