"""A log that loses its end ends in a stop that says so, or in a store that is rebuilt and says so; never in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from millstream.events.daybook import OpenDay
from millstream.events.envelope import Command
from millstream.events.errors import LogWentBack
from millstream.events.logs.memory import MemoryLog
from millstream.events.logs.port import Record, TopicPartition
from millstream.streams.runtime.prefix import ensure_prefix, extra_specs
from tests.simulation.processes import ServerProcess
from tests.simulation.scenarios import Scenario
from tests.simulation.world import Rules, World

QUIET = Scenario(
    "went back", "a log that loses its end when all is quiet", servers=(2, 2), kernels=(1, 1), clients=(1, 1),
    partitions=(1, 1), think_s=0.02, flushes=1.0, commands_kept=100_000,
)  # fmt: skip
SEEDS = range(12)


class CutWorld(World):
    """Lets everything be done with one server up; then tells another tale, without the checker."""

    def __init__(self, seed: int, tale: Callable[[CutWorld], Awaitable[None]]) -> None:
        super().__init__(seed, QUIET, Rules(), False)
        self._tale = tale
        self.first, self.second = self.servers

    async def _story(self) -> None:
        await ensure_prefix(MemoryLog(self.cluster), self.topics, self.codec, extra_specs(self.topics))
        for process in (self.first, *self.kernels, *self.clients):
            process.start()
        self.quiet = True
        await self._settle()
        self._checked, self.stops_expected = False, True
        await self._tale(self)

    def cut(self, topic: str, least: int = 1) -> int:
        """Take some records off the end; returns how many."""
        tp = TopicPartition(topic, 0)
        end = self.cluster.streams[tp].end
        taken = self._last.randint(least, max(least, end // 2))
        self.cluster.truncate(tp, end - taken)
        return taken

    async def stop_of(self, server: ServerProcess) -> str:
        """Why the server stopped its partition; waits for that, for a minute of its own time at most."""
        async with asyncio.timeout(60):
            while server.server is None or not server.server.stopped:
                await asyncio.sleep(0.1)
        return server.server.stopped[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_an_owner_whose_journal_lost_its_end_stops_at_its_next_append(seed: int) -> None:
    async def tale(world: CutWorld) -> None:
        world.cut(world.topics.journal)
        client = world.clients[0].client
        assert client is not None
        with pytest.raises(LogWentBack):
            await client.ask("AA-2013-02-01", OpenDay("AA", "2013-02-01", None))
        why = await world.stop_of(world.first)
        assert "lost its end" in why
        assert "sim.journal" in why

    CutWorld(seed, tale).run()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_owner_whose_store_knows_more_than_the_journal_stops_at_its_start(seed: int) -> None:
    async def tale(world: CutWorld) -> None:
        world.first.crash()
        world.cut(world.topics.journal)
        end = world.cluster.streams[TopicPartition(world.topics.journal, 0)].end
        world.first.start()
        assert f"ends at {end}" in await world.stop_of(world.first)
        assert world.cluster.streams[TopicPartition(world.topics.journal, 0)].end == end

    CutWorld(seed, tale).run()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_store_of_a_journal_that_others_went_on_with_is_rebuilt_and_says_so(seed: int) -> None:
    async def tale(world: CutWorld) -> None:
        world.first.crash()
        taken = world.cut(world.topics.journal, least=2)
        world.second.start()
        world.clients[0].crash()
        journal = world.cluster.streams[TopicPartition(world.topics.journal, 0)]
        old_end, tp = journal.end + taken, TopicPartition(world.topics.commands, 0)
        for n in range(taken + 2):
            # What it decides now carries the journal past its old end.
            run_id = f"AA-2013-03-{n + 1:02}"
            command = Command(run_id, run_id, None, OpenDay("AA", run_id[3:], None))
            world.cluster.land(tp, [Record(world.codec.encode(command), run_id.encode())])
        async with asyncio.timeout(60):
            while journal.end <= old_end:
                await asyncio.sleep(0.1)
        world.second.crash()
        world.first.start()
        async with asyncio.timeout(60):
            while world.first.server is None or world.first.server.counts.claims == 0:
                await asyncio.sleep(0.1)
        assert world.first.server.counts.rebuilt == 1
        await world.check_stores()

    CutWorld(seed, tale).run()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_owner_whose_commands_end_before_what_was_decided_stops(seed: int) -> None:
    async def tale(world: CutWorld) -> None:
        world.first.crash()
        world.cut(world.topics.commands)
        world.first.start()
        assert "sim.commands" in await world.stop_of(world.first)

    CutWorld(seed, tale).run()
