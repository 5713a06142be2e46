"""Clients in the test's own process, which remember every answer that they were given: outside the log.

Each worker writes day books, one after the other: opens one, enters flights, some at once,
shifts it, and (with `closes`) closes it. Now and then the same command is asked a
second time, by another client at the same moment.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

from millstream.events.codec import Codec
from millstream.events.daybook import CloseDay, EnterFlight, OpenDay, ShiftDay
from millstream.events.envelope import CommandBody
from millstream.events.errors import AppendUnknown, LogUnavailable, MillstreamError
from millstream.streams.runtime.answers import Answer
from millstream.streams.runtime.client import Client
from tests.chaos.place import Place
from tests.support.aio import until

Told = dict[str, list[Answer]]
CLIENTS = 2


class Load:
    """`async with Load(place, seed=1) as load:` works until `finish`; the prefix must have been served.

    name: begins all command ids and carriers. workers: books written at a time. think_s: at most, between two
    asks of a worker. told: command id -> all the answers that were given to it. closes: whether books are closed.
    """

    def __init__(
        self, place: Place, *, seed: int, name: str = "L", workers: int = 6, think_s: float = 0.12, closes: bool = False
    ) -> None:
        self._place, self._name, self._workers, self._think_s = place, name, workers, think_s
        self._closes = closes
        self._rng = random.Random(f"{seed}/{name}")
        self._stack = AsyncExitStack()
        self._clients: list[Client] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._finishing = False
        self.told: Told = {}
        self.closed_books: list[str] = []
        """Books whose closing was accepted."""

    @property
    def answers(self) -> int:
        """Commands answered so far."""
        return len(self.told)

    async def __aenter__(self) -> Load:
        for _ in range(CLIENTS):
            log = await self._stack.enter_async_context(self._place.log())
            topics = await self._place.topics(log)
            self._clients.append(await self._stack.enter_async_context(Client(log, topics, Codec())))
        self._tasks = [asyncio.create_task(self._work(n), name=f"load {n}") for n in range(self._workers)]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def answered(self, more: int, deadline_s: float = 45.0) -> None:
        """Wait until so many more commands are answered."""
        goal = self.answers + more

        def reached() -> bool:
            self._fail_where_a_worker_did()
            return self.answers >= goal

        await until(reached, f"{more} more answers come ({self.answers} had)", deadline_s)

    async def finish(self, deadline_s: float = 60.0) -> Told:
        """Let all workers end the books that they are at; everything asked is answered then."""
        self._finishing = True
        async with asyncio.timeout(deadline_s):
            await asyncio.gather(*self._tasks)
        return self.told

    def _fail_where_a_worker_did(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _work(self, worker: int) -> None:
        book = 0
        while not self._finishing:
            await self._write_book(f"{self._name}{worker}", f"2013-{1 + book // 28 % 12:02}-{1 + book % 28:02}")
            book += 1

    async def _write_book(self, carrier: str, day: str) -> None:
        run_id = f"{carrier}-{day}"
        await self._ask(run_id, "open", OpenDay(carrier, day, None))
        flights = self._rng.randrange(1, 16)
        for first in range(0, flights, 4):
            await asyncio.gather(*(self._enter(run_id, n) for n in range(first, min(first + 4, flights))))
            if self._finishing:
                break
        if self._rng.random() < 0.3:
            await self._ask(run_id, "shift", ShiftDay(2.5))
        if self._closes and (await self._ask(run_id, "close", CloseDay())).accepted:
            self.closed_books.append(run_id)

    async def _enter(self, run_id: str, n: int) -> None:
        delay = None if n % 7 == 3 else float(n * 3 - 10)
        await self._ask(run_id, f"flight-{n}", EnterFlight(f"F{n}", "JFK", "BOS", delay is None, delay))

    async def _ask(self, run_id: str, what: str, body: CommandBody) -> Answer:
        await asyncio.sleep(self._rng.random() * self._think_s)
        first, second = self._rng.sample(self._clients, 2)
        asks = [self._ask_once(first, run_id, what, body)]
        if self._rng.random() < 0.1:
            asks.append(self._ask_once(second, run_id, what, body))
        return (await asyncio.gather(*asks))[0]

    async def _ask_once(self, client: Client, run_id: str, what: str, body: CommandBody) -> Answer:
        command_id = f"{run_id}/{what}"
        while True:
            try:
                answer = await client.ask(run_id, body, command_id=command_id)
            except (AppendUnknown, LogUnavailable):
                continue
            except MillstreamError as stop:
                raise AssertionError(f"the client of {command_id} stopped: {stop}") from stop
            self.told.setdefault(command_id, []).append(answer)
            return answer
