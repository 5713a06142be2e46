"""What clients want: day books, from opening to removal. A script that begins again asks the same under the same ids."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from millstream.events.daybook import CloseDay, EnterFlight, OpenDay, ShiftDay
from millstream.events.envelope import CommandBody
from millstream.events.errors import AppendUnknown, LogUnavailable
from millstream.events.run import RemoveRun
from millstream.streams.runtime.answers import Answer
from tests.simulation.books import Day

if TYPE_CHECKING:
    from tests.simulation.processes import ClientProcess
    from tests.simulation.world import World

CARRIERS = ("9E", "AA", "UA")
HERD = 50


@dataclass
class Script:
    """One day book's life. closes: by 'client', 'timer' or 'nobody'. burst: flights entered at once.

    done: all is asked and the book is where it should be.
    """

    world: World
    client: ClientProcess
    rng: random.Random
    carrier: str
    day: str
    flights: list[EnterFlight]
    shift_after: int | None
    closes: str
    close_at: int | None
    removes: bool
    burst: int
    minutes: float
    herd: int = 1
    done: bool = False
    doing: str = "nothing"
    told: dict[str, Answer] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        return f"{self.carrier}-{self.day}"

    async def run(self, process: ClientProcess) -> None:
        if self.done:
            return
        await self._open()
        for first in range(0, len(self.flights), self.burst):
            await self._think()
            await asyncio.gather(*(self._enter(n) for n in range(first, min(first + self.burst, len(self.flights)))))
        if self.closes != "nobody":
            await self._close()
        self.done, self.doing = True, "nothing"

    async def _enter(self, n: int) -> None:
        await self._ask(f"flight-{n}", self.flights[n])
        if n == self.shift_after:
            await self._ask("shift", ShiftDay(self.minutes))

    async def _open(self) -> None:
        opens = OpenDay(self.carrier, self.day, self.close_at)
        if self.herd == 1:
            await self._ask("open", opens)
            return
        same = [self._ask("open", opens) for _ in range(self.herd)]
        other = self._ask("open-otherwise", OpenDay(self.carrier, self.day, None))
        *answers, refused = await asyncio.gather(*same, other)
        if len({(a.code, a.reply) for a in answers}) != 1:
            self.world.fail(f"{self.run_id}: {self.herd} who asked the same were told {answers}")
        removed = "removed" in (answers[0].code, refused.code)
        if not removed and (answers[0].code is None) == (refused.code is None):
            self.world.fail(f"{self.run_id} was opened by two commands, or none: {answers[0]}, {refused}")

    async def _close(self) -> None:
        """Until it is closed. A failed closing leaves it open, and then the client asks again."""
        if self.closes == "timer":
            await self._until("the timer", lambda day: day.closes_at is None)
        for n in range(100):
            await self._think()
            status = await self._until("closing", lambda day: day.status != "closing")
            if status == "closed" or status is None:
                break
            answer = await self._ask(f"close-{n}", CloseDay())
            if answer.code == "too-large":
                return
        if self.removes:
            await self._think()
            await self._ask("remove", RemoveRun("it is over"))

    async def _until(self, what: str, holds: Callable[[Day], bool]) -> str | None:
        """The status of the book once it holds; None where the book is gone."""
        while True:
            self.doing = f"waiting for {what}"
            day = self.world.day(self.run_id)
            if day is None or holds(day):
                return None if day is None else day.status
            await asyncio.sleep(0.2)

    async def _think(self) -> None:
        await asyncio.sleep(self.rng.random() ** 2 * self.world.scenario.think_s)

    async def _ask(self, what: str, body: CommandBody) -> Answer:
        """Ask until there is an answer, under one command id."""
        world, command_id = self.world, f"{self.run_id}/{what}"
        self.doing = what
        while True:
            world.note("%s asks %s", self.client.name, command_id)
            assert self.client.client is not None
            timeout_s = self.rng.choice((None, 0.3, 1.5))
            asked = self.client.client.ask(self.run_id, body, command_id=command_id, timeout_s=timeout_s)
            try:
                if self.rng.random() < 0.3:
                    answer = await asyncio.wait_for(asked, self.rng.uniform(0.05, 1.5))
                else:
                    answer = await asked
                break
            except (TimeoutError, AppendUnknown, LogUnavailable) as again:
                world.note("%s asks %s again after %s", self.client.name, command_id, type(again).__name__)
        world.note("%s is told %s of %s", self.client.name, answer, command_id)
        world.told(command_id, answer)
        first = self.told.setdefault(what, answer)
        if (first.code, first.reply) != (answer.code, answer.reply) and answer.code not in ("removed", "not-found"):
            world.fail(f"{command_id} was first told {first}, then {answer}")
        return answer


def make_scripts(world: World) -> list[Script]:
    rng, scenario = world.rng("workload"), world.scenario
    scripts = []
    for n in range(rng.randint(*scenario.books)):
        flights = [_flight(rng, i) for i in range(rng.randint(*scenario.flights))]
        closes = rng.choice(("client", "client", "timer", "nobody"))
        close_at = None
        if closes == "timer" or rng.random() < 0.3:
            # Some at one instant, so that only their ids order them.
            close_at = world.log_ms() + rng.choice((300, 300, 900, 900, 2500, -5))
        scripts.append(
            Script(
                world=world,
                client=rng.choice(world.clients),
                rng=world.rng(f"script {n}"),
                carrier=rng.choice(CARRIERS),
                day=f"2013-01-{n + 1:02}",
                flights=flights,
                shift_after=rng.randrange(len(flights)) if flights and rng.random() < 0.6 else None,
                closes=closes,
                close_at=close_at,
                removes=rng.random() < 0.3,
                burst=rng.choice((1, 1, 3, 100)),
                minutes=rng.choice((-3.0, 2.5, 60.0)),
                herd=HERD if scenario.name == "herd" else 1,
            )
        )
    return scripts


def _flight(rng: random.Random, n: int) -> EnterFlight:
    cancelled = rng.random() < 0.2
    # Tenths: sums of them depend on their order unless they are exact.
    delay = None if cancelled or rng.random() < 0.1 else rng.randint(-300, 900) / 10
    return EnterFlight(f"{n}", "JFK", "LAX", cancelled, delay)
