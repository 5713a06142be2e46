"""Fifty who ask the same at once, from several processes, under one command id: one transition, and fifty equal answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from millstream.events.codec import Codec
from millstream.events.daybook import OpenDay
from millstream.streams.runtime.answers import Answer
from millstream.streams.runtime.client import Client
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

            words = [place.address, place.prefix, BOOK, "open-it", str(TIMES)]
            same = [programs.python(f"same-{n}", ASKER, *words).start() for n in range(PROCESSES)]
            for program in same:
                await program.says("asked")
            async with place.log() as log, Client(log, await place.topics(log), Codec()) as client:
                other = asyncio.ensure_future(
                    client.ask(BOOK, OpenDay("9E", "2013-01-16", 4_000_000_000_000), command_id="open-otherwise")
                )
                server.start()
                refused = await other
            for program in same:
                await program.ends(0)
            told = [answer for program in same for answer in answers(program)]
            assert len(told) == PROCESSES * TIMES
            assert {(a.code, a.reply) for a in told} == {(None, None)}
            assert refused.code == "exists"
            assert BOOK in refused.reason
            found = await settled(place, {"open-it": told, "open-otherwise": [refused]})
            # The copies were decided too, as copies: the checker has seen to it that they changed nothing.
            assert sum(p.seen["DayOpened"] for p in found.partitions) == 1
            assert len(found.valid["open-it"]) == PROCESSES * TIMES
            await server.stop()
        await place.verify("server")

    run(check(), deadline_s=90)
