"""Disks that are full, read-only, damaged or gone: refused cleanly, or healed from the log."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from millstream.events.codec import Codec
from millstream.events.daybook import EnterFlight
from millstream.streams.runtime.answers import Answer
from millstream.streams.runtime.client import Client
from tests.chaos.disk import small_disk
from tests.chaos.examine import settled
from tests.chaos.load import Load, Told
from tests.chaos.place import Place
from tests.chaos.setting import CARRIERS, serve_once
from tests.support.aio import run, until
from tests.support.processes import Programs


def tables(place: Place) -> list[Path]:
    return sorted(place.folder("server").glob("store/*/*.sst"))


def test_a_store_that_was_deleted_is_folded_again(place: Place) -> None:
    async def check() -> None:
        told = await serve_once(place, flights=10)
        shutil.rmtree(place.folder("server") / "store")
        async with Programs(place.cwd) as programs:
            server = place.server(programs).start()
            await server.says("owns partitions")
            found = await settled(place, told)
            await server.stop()
        assert found.transitions == len(told)
        await place.verify("server")

    run(check(), deadline_s=60)


@pytest.mark.parametrize("damage", ["where the fence is", "a table gone"])
def test_a_store_that_is_damaged_where_it_begins_is_folded_again(embedded: Place, damage: str) -> None:
    async def check() -> None:
        told = await serve_once(embedded)
        _damage(embedded, damage)
        async with Programs(embedded.cwd) as programs:
            server = embedded.server(programs).start()
            await server.says("owns partitions")
            assert "was dropped and is folded again from the journal" in server.said()
            await settled(embedded, told)
            await server.stop()
        await embedded.verify("server")

    run(check(), deadline_s=60)


def test_a_store_that_is_damaged_among_its_rows_stops_with_the_way_to_heal_it(embedded: Place) -> None:
    async def check() -> None:
        embedded.partitions = 1
        told = await serve_once(embedded)
        _damage(embedded, "among the rows")
        done = await embedded.run("verify", "--folder", embedded.folder("server"), code=1)
        assert "checksum" in done.stderr
        assert "Nothing is lost, the log has everything: rebuild the store (`millstream rebuild`)" in done.stderr
        async with Programs(embedded.cwd) as programs:
            server = embedded.server(programs).start()
            await server.says("owns partitions")
            # The owner finds it when it reads the row; nothing is decided on what can't be read.
            asking = asyncio.ensure_future(ask_all_books(embedded))
            said = await server.ends(1)
            assert "millstream rebuild" in said
            await embedded.run("rebuild", "--folder", embedded.folder("server"))
            server.start()
            told |= await asking
            await settled(embedded, told)
            await server.stop()
        await embedded.verify("server")

    run(check(), deadline_s=60)


async def ask_all_books(place: Place) -> Told:
    """One more flight for every book that `serve_once` has made."""
    async with place.log() as log, Client(log, await place.topics(log), Codec()) as client:

        async def enter(book: str) -> tuple[str, Answer]:
            body = EnterFlight("late", "JFK", "BOS", True, None)
            return f"{book}/late", await client.ask(book, body, command_id=f"{book}/late")

        asks = [enter(f"{carrier}-2013-01-01") for carrier in CARRIERS]
        return {command_id: [answer] for command_id, answer in await asyncio.gather(*asks)}


def _damage(place: Place, how: str) -> None:
    table, *_ = tables(place)
    content = bytearray(table.read_bytes())
    if how == "a table gone":
        table.unlink()
    elif how == "where the fence is":
        content[20] ^= 0xFF
        table.write_bytes(content)
    else:
        # Not the first block, which has the fence, nor the last ones, which have the index.
        for at in range(len(content) // 3, len(content) // 2, 100):
            content[at] ^= 0xFF
        table.write_bytes(content)


def test_a_folder_on_a_disk_that_is_read_only_is_refused(embedded: Place) -> None:
    async def check() -> None:
        with small_disk(embedded.folder("server"), 32) as disk:
            told = await serve_once(embedded, flights=5)
            disk.make_read_only()
            done = await embedded.run("serve", "--folder", disk.path, code=4)
            assert f"the server folder {str(disk.path)!r} can't be written: Read-only file system" in done.stderr
            disk.make_read_only(False)
            async with Programs(embedded.cwd) as programs:
                server = embedded.server(programs).start()
                await server.says("owns partitions")
                await settled(embedded, told)
                await server.stop()
            await embedded.verify("server")

    run(check(), deadline_s=60)


def test_a_log_on_a_disk_that_is_read_only_is_refused(tmp_path: Path) -> None:
    async def check() -> None:
        with small_disk(tmp_path / "disk", 32) as disk:
            place = Place("embedded", str(disk.path / "log"), tmp_path)
            await serve_once(place, flights=5)
            disk.make_read_only()
            done = await place.run("serve", "--folder", place.folder("server"), code=4)
            assert "can't be written" in done.stderr or "can't be opened" in done.stderr
            disk.make_read_only(False)
            await place.verify("server")

    run(check(), deadline_s=60)


def test_stores_on_a_full_disk_stop_with_the_reason_and_heal_when_there_is_room(embedded: Place) -> None:
    async def check() -> None:
        with small_disk(embedded.folder("server"), 24) as disk:
            async with Programs(embedded.cwd) as programs:
                server = embedded.server(programs).start()
                await server.says("owns partitions")
                async with Load(embedded, seed=12) as load:
                    await load.answered(100)
                    disk.fill()
                    server.kill()
                    server.start()
                    said = await server.ends(4)
                    assert "No space left on device" in said
                    assert "Free space" in said or "make room" in said.lower()
                    disk.make_room()
                    server.start()
                    await server.says("owns partitions")
                    await load.answered(50)
                    told = await load.finish()
                await settled(embedded, told)
                await server.stop()
            await embedded.verify("server")

    run(check(), deadline_s=90)


def test_a_log_on_a_full_disk_takes_nothing_and_goes_on_by_itself_when_there_is_room(tmp_path: Path) -> None:
    async def check() -> None:
        with small_disk(tmp_path / "disk", 24) as disk:
            place = Place("embedded", str(disk.path / "log"), tmp_path)
            async with Programs(tmp_path) as programs:
                server = place.server(programs).start()
                await server.says("owns partitions")
                async with Load(place, seed=13) as load:
                    await load.answered(100)
                    disk.fill()
                    await _stalled(load)
                    assert server.running
                    disk.make_room()
                    await load.answered(100)
                    told = await load.finish()
                await settled(place, told)
                said = await server.stop()
                assert len(said.splitlines()) < 40, said
            await place.verify("server")

    run(check(), deadline_s=120)


async def _stalled(load: Load) -> None:
    """Until a hundred looks in a row have seen no further answer."""
    seen, same = -1, 0

    def still() -> bool:
        nonlocal seen, same
        seen, same = load.answers, same + 1 if load.answers == seen else 0
        return same >= 100

    await until(still, "nothing is answered any more", 30.0, pause_s=0.02)
