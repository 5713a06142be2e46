"""The comparison of what was told with what counts finds each way in which the two can differ."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from millstream.events.envelope import fence_header, read_fence_header
from millstream.events.logs.port import Record, read_range
from tests.chaos.examine import settled
from tests.chaos.load import Told
from tests.chaos.place import Place
from tests.chaos.setting import serve_once
from tests.simulation.books import Violation
from tests.support.aio import run

FIRST, SECOND = "AA-2013-01-01/0", "AA-2013-01-01/1"


def forget_one(told: Told) -> None:
    del told[FIRST]


def invent_one(told: Told) -> None:
    told["AA-2013-01-01/99"] = []


def tell_another_reply(told: Told) -> None:
    told[SECOND] = [msgspec.structs.replace(told[SECOND][0], reply=b"17")]


def tell_another_end(told: Told) -> None:
    told[SECOND] = [msgspec.structs.replace(told[SECOND][0], code="not-open")]


def tell_it_from_elsewhere(told: Told) -> None:
    told[SECOND] = [msgspec.structs.replace(told[SECOND][0], offset=0)]


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (forget_one, "1 decided commands were never acknowledged"),
        (invent_one, "1 acknowledged commands aren't in the journal"),
        (tell_another_reply, "the journal has"),
        (tell_another_end, "the journal has"),
        (tell_it_from_elsewhere, "which doesn't count"),
    ],
)
def test_an_answer_that_the_journal_does_not_have_is_found(
    embedded: Place, tamper: Callable[[Told], None], words: str
) -> None:
    async def check() -> None:
        told = await serve_once(embedded, flights=2)
        tamper(told)
        with pytest.raises(Violation, match=words):
            await settled(embedded, told)

    run(check())


def test_a_command_that_is_decided_twice_is_found(embedded: Place) -> None:
    async def check() -> None:
        embedded.partitions = 1
        told = await serve_once(embedded, flights=2)
        async with embedded.log() as log:
            journal = (await embedded.topics(log)).journal
            end = (await log.bounds(journal, 0)).end
            async for records in read_range(log, journal, 0, end - 1, end):
                mark = read_fence_header(records[0].headers)
                assert mark is not None
                again = fence_header(mark.epoch_offset, mark.claim_id, mark.number + 1)
                headers = (again, *records[0].headers[1:])
                await log.append(journal, 0, [Record(records[0].value, records[0].key, headers)])
        with pytest.raises(Violation, match="decided a second time"):
            await settled(embedded, told)

    run(check())
