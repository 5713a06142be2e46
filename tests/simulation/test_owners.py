"""Cases of their own: fifty who open the same, two processes of one identity, a hundred thousand timers of one instant."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from millstream.events.daybook import EnterFlight, OpenDay
from millstream.events.envelope import FORMAT, Command, OwnershipClaimed, Transition, claim_header
from millstream.events.logs.memory import MemoryLog
from millstream.events.logs.port import Record, TopicPartition
from millstream.events.run import TimerFired
from millstream.streams.runtime.prefix import ensure_prefix, extra_specs
from tests.simulation.parts import EPOCH_MS
from tests.simulation.processes import ServerProcess
from tests.simulation.scenarios import Scenario
from tests.simulation.world import Rules, World

ONE = Scenario(
    "one", "one partition, nothing scripted", servers=(1, 1), kernels=(1, 1), clients=(1, 1), partitions=(1, 1),
    books=(0, 0), flushes=0.0,
)  # fmt: skip


class Told(World):
    """A world with a tale of its own in place of chaos and scripts."""

    async def _story(self) -> None:
        await ensure_prefix(MemoryLog(self.cluster), self.topics, self.codec, extra_specs(self.topics))
        await self.tale()

    async def tale(self) -> None:
        raise NotImplementedError

    async def until(self, holds: object) -> None:
        assert callable(holds)
        async with asyncio.timeout(600):
            while not holds():
                await asyncio.sleep(0.05)


def test_fifty_who_open_the_same_book_at_once_get_one_answer_and_others_are_told_what_it_is() -> None:
    class Herd(Told):
        async def tale(self) -> None:
            for process in self.processes:
                process.start()
            await asyncio.sleep(0.1)
            client = self.clients[0].client
            assert client is not None
            opens = OpenDay("AA", "2013-01-01", None)
            asked = [client.ask("AA-2013-01-01", opens, command_id="open") for _ in range(50)]
            answers = await asyncio.gather(*asked)
            assert {(a.code, a.offset) for a in answers} == {(None, answers[0].offset)}
            other = await client.ask("AA-2013-01-01", opens)
            assert other.code == "exists"
            assert "AA-2013-01-01" in other.reason
            # One who comes later, under the same id, is told the same, from the copy's own record.
            again = await client.ask("AA-2013-01-01", opens, command_id="open")
            assert again.accepted

    world = Herd(1, ONE, Rules(), False)
    world.run()
    assert world.report.seen["DayOpened"] == 1


def test_of_two_processes_with_one_instance_id_one_at_least_says_so_and_ends() -> None:
    class Twins(Told):
        async def tale(self) -> None:
            self.stops_expected = True
            twins = [ServerProcess(self, name, instance="copied") for name in ("one", "two")]
            self.servers[:] = twins
            first, second = twins
            first.start()
            await asyncio.sleep(0.2)
            # It doesn't hear its group, which gives everything to the other one; only the journal can tell them.
            assert first.log is not None
            first.log.fall_silent()
            second.start()
            for process in (*self.kernels, *self.clients):
                process.start()
            await asyncio.sleep(0.1)
            client, asked = self.clients[0].client, 0
            assert client is not None
            while not self.ends:
                asked += 1
                await client.post(
                    f"AA-2013-01-{asked:04}", OpenDay("AA", f"2013-01-{asked:04}", None), command_id=f"{asked}"
                )
                await asyncio.sleep(0.05)
                assert asked < 2000

    world = Twins(3, ONE, Rules(), False)
    world.run()
    assert world.ends
    assert "under our own instance id 'copied'" in world.ends[0]
    assert "instance-id" in world.ends[0]


def test_a_late_claim_of_ones_own_dead_process_is_no_twin() -> None:
    class Ghost(Told):
        async def tale(self) -> None:
            for process in self.processes:
                process.start()
            await asyncio.sleep(0.1)
            claim = OwnershipClaimed("server-0", "of before", 7, 1, FORMAT, EPOCH_MS)
            tp = TopicPartition(self.topics.journal, 0)
            self.cluster.land(tp, [Record(self.codec.encode(claim), None, (claim_header(7),))])
            client = self.clients[0].client
            assert client is not None
            answer = await client.ask("AA-2013-01-01", OpenDay("AA", "2013-01-01", None))
            assert answer.accepted

    world = Ghost(2, ONE, Rules(), False)
    world.run()
    assert world.ends == []
    assert world.report.claims == 2


def test_a_command_that_the_log_took_before_a_timer_was_due_is_decided_before_it() -> None:
    class Late(Told):
        async def tale(self) -> None:
            server, client = self.servers[0], self.clients[0]
            server.start()
            client.start()
            await asyncio.sleep(0.1)
            assert client.client is not None
            run_id, due_at = "AA-2013-01-01", self.log_ms() + 300
            await client.client.ask(run_id, OpenDay("AA", "2013-01-01", due_at))
            server.crash()
            entered = asyncio.ensure_future(client.client.ask(run_id, EnterFlight("1", "JFK", "LAX", False, 3.0)))
            await asyncio.sleep(2)
            server.start()
            answer = await entered
            assert answer.accepted
            await self.until(lambda: self.day(run_id).closes_at is None)

    world = Late(2, ONE, Rules(), False)
    world.run()
    assert world.report.seen["TimerFired"] == 1


def test_an_owner_that_was_stopped_while_others_decided_and_cut_its_commands_goes_on() -> None:
    class Cut(Told):
        async def tale(self) -> None:
            first, second = self.servers
            first.start()
            await asyncio.sleep(0.1)
            first.freeze()
            for process in (second, *self.clients):
                process.start()
            await asyncio.sleep(0.1)
            client, commands = self.clients[0].client, self.cluster.streams[TopicPartition(self.topics.commands, 0)]
            assert client is not None
            days = iter(range(1, 100))
            while commands.first == 0:
                day = f"2013-01-{next(days):02}"
                await client.ask(f"AA-{day}", OpenDay("AA", day, None))
                await asyncio.sleep(0.5)
            second.crash()
            # It goes on, and its group doesn't hear of it yet: it still believes that the partition is its own.
            assert first.part is not None
            self.loop.thaw(first.part)
            answer = await client.ask("AA-2013-02-01", OpenDay("AA", "2013-02-01", None))
            assert answer.accepted
            assert first.server is not None
            assert not first.server.stopped

    Cut(2, replace(ONE, servers=(2, 2)), Rules(), False).run()


class Timers(Told):
    """Very many day books that close at one instant; the owner dies in the middle of closing them."""

    count = 0

    async def tale(self) -> None:
        server, tp = self.servers[0], TopicPartition(self.topics.commands, 0)
        self.due_at = EPOCH_MS + 30_000
        days = [f"{n:06}" for n in range(self.count)]
        self._last.shuffle(days)
        encode = self.codec.encode
        self._checked = False
        for day in days:
            run_id = f"AA-{day}"
            command = Command(f"open-{day}", run_id, None, OpenDay("AA", day, self.due_at))
            self.cluster.land(tp, [Record(encode(command), run_id.encode())])
        server.start()
        journal = self.cluster.streams[TopicPartition(self.topics.journal, 0)].records
        await self.until(lambda: len(journal) > self.count * 1.5)
        server.crash()
        await asyncio.sleep(0.5)
        server.start()
        await self.until(lambda: self.next_due() is None)
        server.crash()

    def next_due(self) -> int | None:
        server = self.servers[0].server
        owned = [] if server is None else list(server._owned.values())
        if not owned or owned[0].owner.fence.command_offset < self.count - 1:
            return 0
        return owned[0].owner._runs.timers.next_due()

    def fired(self) -> list[tuple[int, str, str]]:
        """Due time, run and timer in the order in which the valid journal has them; checks that none is early."""
        epoch, number, fired = (-1, 0), 0, []
        for record in self.cluster.streams[TopicPartition(self.topics.journal, 0)].records:
            fence = dict(record.headers)["fence"] or b""
            at, claim, n = (int.from_bytes(fence[i : i + 8], "big") for i in (0, 8, 16))
            if at == (1 << 64) - 1:
                epoch, number = (record.offset, claim), 0
                continue
            if (at, claim) != epoch or n != number + 1:
                continue
            number = n
            transition = self.codec.decode(record.value or b"")
            assert isinstance(transition, Transition)
            first = transition.events[0] if transition.events else None
            if isinstance(first, TimerFired):
                assert transition.at >= first.due_at
                assert record.timestamp >= first.due_at
                fired.append((first.due_at, transition.run_id, first.timer_id))
        return fired


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.chaos)])
def test_timers_of_one_instant_fire_once_each_in_order_of_their_runs_whatever_dies(count: int) -> None:
    world = Timers(5, ONE, Rules(), False)
    world.count = count
    world.run()
    fired = world.fired()
    assert Counter(fired).most_common(1)[0][1] == 1
    assert fired == sorted(fired)
    assert len(fired) == count
