"""The groups' committed positions are gone (expired, or deleted by hand): the journal knows better, and nothing is done twice."""

from __future__ import annotations

import contextlib
import sqlite3

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import DeleteGroupsRequest

from millstream.streams.deciders.reactions import KERNEL
from tests.chaos.examine import Examined, settled
from tests.chaos.load import Load
from tests.chaos.place import Place
from tests.support.aio import run, until
from tests.support.processes import Programs


async def forget_positions(place: Place, groups: list[str]) -> None:
    """Everything that the log's groups remember is deleted, as an operator can, or time does."""
    if place.kind == "embedded":
        with contextlib.closing(sqlite3.connect(place.log_file)) as file:
            assert file.execute("DELETE FROM committed").rowcount > 0, "nothing was committed: nothing to forget"
            file.execute("DELETE FROM members")
            file.commit()
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=place.address.removeprefix("kafka://"))
    await admin.start()
    try:

        async def deleted(group: str) -> bool:
            coordinator = await admin.find_coordinator(group)
            answer = await admin._send_request(DeleteGroupsRequest([group]), coordinator)
            ((_, code),) = answer.results
            return code in (0, 69)  # done, or there is none

        for group in groups:
            # A static member counts until its session has run out.
            await until(lambda group=group: deleted(group), f"{group} is deleted", 30.0, pause_s=0.2)  # type: ignore[misc]
    finally:
        await admin.close()


async def write_and_close_books(place: Place, *, seed: int) -> Examined:
    """Some closed books, then everything is stopped."""
    async with Programs(place.cwd) as programs:
        server, kernels = place.server(programs).start(), place.kernels(programs).start()
        await server.says("owns partitions")
        async with Load(place, seed=seed, closes=True) as load:
            await load.answered(80)
            told = await load.finish()
        before = await settled(place, told, kernels=True)
        await kernels.stop()
        await server.stop()
        return before


def answers(found: Examined) -> int:
    """Decided answers of kernels, copies too."""
    return sum(len(offsets) for command_id, offsets in found.valid.items() if command_id.endswith("/answer"))


def test_positions_that_are_lost_are_said_and_nothing_is_done_again(place: Place) -> None:
    async def check() -> None:
        before = await write_and_close_books(place, seed=6)
        async with place.log() as log:
            topics = await place.topics(log)
        await forget_positions(place, [topics.owners_group, topics.kernel_group(KERNEL)])
        async with Programs(place.cwd) as programs:
            server = place.server(programs, "again", folder="server").start()
            kernels = place.kernels(programs, "kernels-again").start()
            await server.says("owns partitions")
            await kernels.says("no committed position; beginning at 0")
            # The worker computes all calls again, and every answer is taken for the copy that it is.
            calls = len(before.outputs.calls)
            after = before
            while answers(after) < answers(before) + calls:
                after = await settled(place, {}, untold=("L",), kernels=True)
            assert [p.books.runs for p in after.partitions] == [p.books.runs for p in before.partitions]
            assert after.outputs.landed == before.outputs.landed, "no output was sent again"
            assert len(after.valid) == len(before.valid), "nothing was decided that hadn't been"
            assert "dropped" not in server.said()
            await kernels.stop()
            await server.stop()
        await place.verify("server")

    run(check(), deadline_s=120)
