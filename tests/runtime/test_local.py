"""A server and a client in one process, on a folder: what examples and trials begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.events.codec import Codec
from millstream.events.daybook import EnterFlight, OpenDay
from millstream.events.envelope import FORMAT, OwnershipClaimed, claim_header
from millstream.events.errors import FolderInUse, InstanceInUse
from millstream.events.logs.address import open_log
from millstream.events.logs.port import Record
from millstream.events.topics import EMBEDDED_PARTITIONS, Topics
from millstream.streams.runtime.local import local
from millstream.streams.runtime.owner import TWIN_CLAIMS
from tests.support.aio import run

BOOK = "9E-2013-01-16"
OPEN = OpenDay("9E", "2013-01-16", None)
FLIGHT = EnterFlight("4065", "JFK", "BOS", False, 12.0)


def test_what_was_acknowledged_is_there_when_the_program_runs_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local(str(tmp_path)) as client:
            assert (await client.ask(BOOK, OPEN)).accepted
            first = await client.ask(BOOK, FLIGHT, command_id="enter-4065")
        async with local(str(tmp_path)) as client:
            assert (await client.ask(BOOK, OPEN)).code == "exists"
            again = await client.ask(BOOK, FLIGHT, command_id="enter-4065")
            assert again.reply == first.reply == b"0"

    run(scenario())


def test_two_prefixes_in_one_folder_know_nothing_of_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local(str(tmp_path), prefix="one") as one, local(str(tmp_path), prefix="two") as two:
            assert (await one.ask(BOOK, OPEN)).accepted
            assert (await two.ask(BOOK, OPEN)).accepted

    run(scenario())


def test_a_second_server_on_the_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local(str(tmp_path)) as client:
            with pytest.raises(FolderInUse, match="is held by process"):
                async with local(str(tmp_path)):
                    pass
            assert (await client.ask(BOOK, OPEN)).accepted

    run(scenario())


def test_what_ends_the_server_is_raised_where_the_block_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        topics = Topics("millstream", EMBEDDED_PARTITIONS)
        async with local(str(tmp_path)) as client, open_log(str(tmp_path)) as other:
            instance = (tmp_path / "server" / "millstream" / "instance-id").read_text().strip()
            codec = Codec()
            for claim_id in range(1, TWIN_CLAIMS + 1):
                copied = OwnershipClaimed(instance, "another process", claim_id, topics.partitions, FORMAT, 0)
                record = Record(codec.encode(copied), None, [claim_header(claim_id)])
                await other.append(topics.journal, topics.partition_of(BOOK), [record])
            await client.ask(BOOK, OPEN)

    with pytest.raises(InstanceInUse, match="copied"):
        run(scenario())


def test_an_error_of_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with local(str(tmp_path)):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(scenario())
