"""Any state can be recomputed from the journal, to the byte: at every proof, and from a copy at every offset."""

from __future__ import annotations

import pytest

from millstream.events.envelope import NO_FENCE, Fence
from millstream.events.logs.memory import MemoryLog
from millstream.projections.fold import Runs
from millstream.projections.memory_store import MemoryStore
from millstream.projections.reader import JournalReader
from millstream.projections.verify import compare
from tests.simulation.scenarios import BY_NAME
from tests.simulation.world import Rules, World


class EveryProof(World):
    """Keeps a copy of the store at every proof of every owner, also of those that have been replaced."""

    def __init__(self, seed: int, scenario: str) -> None:
        super().__init__(seed, BY_NAME[scenario], Rules(), False)
        self.proofs: list[tuple[int, Fence, MemoryStore]] = []
        self.differing: list[object] = []
        self.compared = 0

    def proved(self, store: MemoryStore, partition: int, fence: Fence) -> None:
        self.proofs.append((partition, fence, store.snapshot()))

    async def _story(self) -> None:
        await super()._story()
        for partition in range(self.topics.partitions):
            await self._at_every_proof(partition)
            await self._from_every_offset(partition)

    def _reader(self, partition: int, store: MemoryStore) -> JournalReader:
        log = MemoryLog(self.cluster)
        return JournalReader(log=log, topics=self.topics, partition=partition, runs=Runs(store), codec=self.codec)

    async def _at_every_proof(self, partition: int) -> None:
        """One fold that never forgets, step by step, against what the owners had at each proof."""
        proofs = sorted((f.offset, n) for n, (p, f, _) in enumerate(self.proofs) if p == partition)
        folded = MemoryStore()
        reader = self._reader(partition, folded)
        await reader.check()
        for offset, n in proofs:
            assert await reader.catch_up(offset + 1) == self.proofs[n][1]
            self.differing += compare(self.proofs[n][2], folded)
            self.compared += 1

    async def _from_every_offset(self, partition: int) -> None:
        """A fold that is broken off at each offset and goes on from what its store has."""
        end = (await MemoryLog(self.cluster).bounds(self.topics.journal, partition)).end
        whole = MemoryStore()
        await self._reader(partition, whole).catch_up(end)
        store = MemoryStore()
        for offset in range(end):
            reader = self._reader(partition, store)
            await reader.catch_up(offset + 1)
            assert store.fence() == NO_FENCE or store.fence().offset <= offset
            store = store.snapshot()
        self.differing += compare(store, whole)
        self.compared += 1


@pytest.mark.parametrize("scenario", ["ends", "zombies", "slices", "fight", "copies", "all"])
def test_dropping_everything_and_folding_the_journal_gives_the_same_rows_at_every_proof(scenario: str) -> None:
    compared = 0
    for seed in range(6):
        world = EveryProof(seed, scenario)
        world.run()
        assert world.differing == []
        compared += world.compared
    assert compared > 60
