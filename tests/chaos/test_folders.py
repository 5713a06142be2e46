"""One folder, two servers: the second is told who holds it; a copy of it is noticed, and there is no endless fight."""

from __future__ import annotations

import shutil

from tests.chaos.examine import settled
from tests.chaos.load import Load
from tests.chaos.place import Place
from tests.support.aio import run, until
from tests.support.processes import Programs


def test_a_second_server_on_a_folder_is_refused_and_a_copied_folder_is_noticed(place: Place) -> None:
    async def check() -> None:
        async with Programs(place.cwd) as programs:
            first = place.server(programs, "first", folder="one").start()
            await first.says("owns partitions")
            async with Load(place, seed=8) as load:
                await load.answered(50)
                second = place.server(programs, "second", folder="one").start()
                said = await second.ends(4)
                assert f"is held by process {first.pid}" in said
                assert "--folder" in said
                shutil.copytree(place.folder("one"), place.folder("two"))
                copy = place.server(programs, "copy", folder="two").start()
                await until(lambda: not (first.running and copy.running), "one of the two gives way", 60.0)
                loser, winner = (first, copy) if copy.running else (copy, first)
                said = await loser.ends(4)
                assert "copied" in said
                assert "instance" in said
                await load.answered(50)
                told = await load.finish()
            found = await settled(place, told)
            assert winner.running
            assert winner.starts == loser.starts == 1
            assert found.claims < 30, "they have fought"
            await winner.stop()
        await place.verify("one" if winner is first else "two")

    run(check(), deadline_s=120)
