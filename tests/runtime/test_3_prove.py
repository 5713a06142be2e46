"""Prove: the expected offset came back, and nothing else is a proof."""

from __future__ import annotations

import asyncio

import pytest

from millstream.events.errors import AppendUnknown
from millstream.events.logs.memory_faults import End
from millstream.events.logs.port import Appended
from millstream.projections.fold import Runs
from millstream.streams.runtime.owner import Owner
from tests.support.world import CLOSE, DAY, OPEN, Owning, World, book_of, flight, play


class AnyEndProves(Owner):
    """Another offset, none, an error: the append has ended, so the batch is taken as proved."""

    def _prove(self) -> None:
        assert self._flying is not None
        task, batch = self._flying
        told: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        at = -1 if isinstance(task.exception(), AppendUnknown) else task.result().timestamp
        told.set_result(Appended(batch.base, at))
        self._flying = (told, batch)  # type: ignore[assignment]
        super()._prove()


async def asked_of_the_kernel(world: World, owning: Owning) -> tuple[int, bool]:
    """How many different calls the kernel got, and whether the owner's store waits for the one that counts."""
    await world.quiet()
    counts = book_of(await world.fold()).request
    known = book_of(Runs(owning.store)).request
    return len({call.request_id for call in world.calls()}), counts == known


async def a_batch_behind_a_newer_claim(world: World, owner_type: type[Owner]) -> tuple[int, bool]:
    """The second owner claims, and closes, while the first one's batch is on its way."""
    first = world.own(owner_type)
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(), "enter")
    assert await world.decided("enter")
    first.log.slow_s = 0.3
    world.put(DAY, CLOSE, "close")
    await asyncio.sleep(0.1)
    first.log.slow_s = 0.001
    world.own()
    return await asked_of_the_kernel(world, first)


def test_another_offset_than_the_expected_one_proves_nothing() -> None:
    assert play(a_batch_behind_a_newer_claim, Owner) == (1, True)
    # The first owner has sent a call for a transition that no reader takes, and waits for its answer.
    assert play(a_batch_behind_a_newer_claim, AnyEndProves) == (2, False)


async def a_batch_that_ends_badly(world: World, owner_type: type[Owner], end: End) -> tuple[int, bool]:
    owning = world.own(owner_type)
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(), "enter")
    assert await world.decided("enter")
    owning.log.script.by_topic["journal"] = [end]
    world.put(DAY, CLOSE, "close")
    await world.quiet()
    if not owning.store.fence().offset < len(world.journal()):
        return len(world.calls()), False
    return await asked_of_the_kernel(world, owning)


@pytest.mark.parametrize("end", [End.REFUSED, End.NEVER])
def test_an_error_proves_nothing(end: End) -> None:
    assert play(a_batch_that_ends_badly, Owner, end) == (1, True)
    # The kernel works on a closing that the journal doesn't have, and the store is ahead of its log.
    assert play(a_batch_that_ends_badly, AnyEndProves, end) == (1, False)


async def a_batch_that_lands_later_than_its_error(world: World, owner_type: type[Owner]) -> tuple[int, bool]:
    first = world.own(owner_type)
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(), "enter")
    assert await world.decided("enter")
    first.log.script.by_topic["journal"] = [End.LATE_ERROR]
    world.put(DAY, CLOSE, "close")
    await asyncio.sleep(0.01)
    world.own()
    await asyncio.sleep(0.2)
    world.land_late()
    return await asked_of_the_kernel(world, first)


def test_a_batch_whose_error_was_believed_and_that_lands_late_counts_for_nobody() -> None:
    assert play(a_batch_that_lands_later_than_its_error, Owner) == (1, True)
    assert play(a_batch_that_lands_later_than_its_error, AnyEndProves) == (2, False)
