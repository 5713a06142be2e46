"""What the documentation shows as code runs, and does what is said of it."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from millstream.events.codec import Codec
from millstream.events.daybook import EnterFlight, OpenDay
from millstream.events.envelope import fence_header
from millstream.events.errors import Stop
from millstream.events.logs.address import open_log
from millstream.events.logs.kafka_topics import settings_of
from millstream.events.logs.port import Record, TopicPartition
from millstream.events.registry import load_schemas
from millstream.events.topics import EMBEDDED_PARTITIONS, Topics
from millstream.projections.fence import Hole
from millstream.projections.memory_store import MemoryStore
from millstream.projections.verify import rebuild
from millstream.streams.runtime.client import follow
from millstream.streams.runtime.local import local
from tests.architecture.tree import ROOT, text_of
from tests.support.aio import run

EXAMPLE = Path("examples/daybook/ten_lines.py")
BOOK = "9E-2013-01-16"
TOPICS = Topics("millstream", EMBEDDED_PARTITIONS)
PARTITION = TOPICS.partition_of(BOOK)
REFUSED_OFFSET, FIRST_FLIGHT_OFFSET = 2, 3


def code(page: str, language: str = "python") -> list[str]:
    """The blocks of code of a page that say they are in this language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(Path(page)) or "", re.MULTILINE | re.DOTALL)
    return [block for named, block in blocks if named == language]


def python(folder: Path, *words: str) -> str:
    """What a program prints that is run in `folder`."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def a_book_with_two_flights(folder: Path) -> None:
    """A claim, then an opening, a refusal and two flights, at the offsets 1 to 4 of the book's partition."""
    opening = OpenDay("9E", "2013-01-16", None)
    async with local(str(folder / ".millstream")) as client:
        assert (await client.ask(BOOK, opening)).accepted
        assert (await client.ask(BOOK, opening)).offset == REFUSED_OFFSET
        for flight, delay in (("4065", 12.0), ("4076", -3.5)):
            assert (await client.ask(BOOK, EnterFlight(flight, "JFK", "BOS", False, delay))).accepted


def test_the_ten_lines_of_the_readme_are_the_example_s() -> None:
    (shown,) = code("README.md")
    assert (text_of(EXAMPLE) or "").endswith(f"\n\n{shown}")
    assert sum(bool(line.strip()) for line in shown.splitlines()) <= 10


def test_the_example_prints_what_the_readme_says_also_when_it_runs_again(tmp_path: Path) -> None:
    first, second = [block for block in code("README.md", "") if "flight 4065 has position" in block]
    assert python(tmp_path, str(ROOT / EXAMPLE)) == first
    assert python(tmp_path, str(ROOT / EXAMPLE)) == second


def test_a_journal_is_read_as_the_page_says_without_a_line_of_ours(tmp_path: Path) -> None:
    (shown,) = code("docs/journal-format.md")
    assert "millstream." not in "".join(line for line in shown.splitlines() if "import" in line)
    run(a_book_with_two_flights(tmp_path))
    assert PARTITION == 2, "the page reads partition 2"
    lines = python(tmp_path, "-I", "-c", shown).splitlines()
    events = [line.split(" ", 2) for line in lines]
    assert [(key, rest.split(" ")[0]) for _, key, rest in events] == [
        (BOOK, "millstream.DayOpened"),
        (BOOK, "millstream.CommandRefused"),
        (BOOK, "millstream.FlightEntered"),
        (BOOK, "millstream.FlightEntered"),
    ]
    assert "'flight': '4076'" in lines[-1]
    assert "'arr_delay_min': -3.5" in lines[-1]


def test_copies_and_what_a_replaced_owner_wrote_are_left_out_as_the_page_says(tmp_path: Path) -> None:
    (shown,) = code("docs/journal-format.md")
    run(a_book_with_two_flights(tmp_path))
    before = python(tmp_path, "-I", "-c", shown)
    run(append_what_does_not_count(tmp_path / ".millstream"))
    assert python(tmp_path, "-I", "-c", shown) == before


async def append_what_does_not_count(folder: Path) -> None:
    """A second copy of a journal record, as a retry can leave it; and what an owner of another epoch would write next."""
    async with open_log(str(folder)) as log:
        tp = TopicPartition(TOPICS.journal, PARTITION)
        async for _, stored in follow(log, {tp: FIRST_FLIGHT_OFFSET}):
            copy = Record(stored.value, stored.key, stored.headers)
            foreign = Record(stored.value, stored.key, [fence_header(0, 1, 5)])
            await log.append(*tp, [copy, foreign])
            return


def test_dead_letters_are_listed_as_the_page_says(tmp_path: Path) -> None:
    listing = code("docs/operate.md")[0]

    async def scenario() -> None:
        async with local(str(tmp_path / ".millstream")) as client, open_log(str(tmp_path / ".millstream")) as log:
            await log.append(TOPICS.commands, PARTITION, [Record(b"no command", BOOK.encode())])
            # Decided behind it, so it has been seen; its dead letter follows the proof.
            assert (await client.ask(BOOK, OpenDay("9E", "2013-01-16", None))).accepted
            async for _ in follow(log, {TopicPartition(TOPICS.dead_letters, 0): 0}):
                return

    run(scenario())
    (line,) = python(tmp_path, "-c", listing).splitlines()
    assert line.startswith(f"0 millstream.commands/{PARTITION}/0 ")
    assert line.endswith("b'no command'")


def test_a_gap_is_accepted_as_the_page_says(tmp_path: Path) -> None:
    address = str(tmp_path / ".millstream")
    run(a_book_with_two_flights(tmp_path))
    lose(tmp_path / ".millstream" / "log.sqlite3", offset=REFUSED_OFFSET)
    with pytest.raises(Hole, match="1 record is missing") as found:
        run(refolded(address))
    run(accepted(address, found.value))
    assert run(refolded(address)) == 4


def test_a_record_that_builds_on_a_lost_one_stops_readers_also_when_the_gap_is_accepted(tmp_path: Path) -> None:
    address = str(tmp_path / ".millstream")
    run(a_book_with_two_flights(tmp_path))
    lose(tmp_path / ".millstream" / "log.sqlite3", offset=FIRST_FLIGHT_OFFSET)
    with pytest.raises(Hole) as found:
        run(refolded(address))
    run(accepted(address, found.value))
    with pytest.raises(Stop, match="can't be folded"):
        run(refolded(address))


async def accepted(address: str, hole: Hole) -> None:
    """Do what the page says with what the error says."""
    accept_gap: Callable[..., Coroutine[Any, Any, None]] = defined(code("docs/operate.md")[1], "accept_gap")
    shown = re.search(r"epoch (\d+) \(claim ([0-9a-f]{16})\).* after=(\d+) and before=(\d+)", str(hole))
    assert shown is not None
    epoch, claim, after, before = shown.groups()
    numbers = {"epoch": int(epoch), "claim": claim, "after": int(after), "before": int(before)}
    await accept_gap(address, TOPICS.journal, PARTITION, **numbers, by="operator", reason="the disk is gone")


def defined(source: str, name: str) -> Any:
    """What a block of code defines under a name."""
    namespace: dict[str, Any] = {}
    exec(compile(source, name, "exec"), namespace)
    return namespace[name]


def lose(file: Path, *, offset: int) -> None:
    """Take one record of the journal away, as a damaged disk would."""
    log = sqlite3.connect(file)
    query = "SELECT id FROM streams WHERE topic = ? AND partition = ?"
    (table,) = log.execute(query, (TOPICS.journal, PARTITION)).fetchone()
    with log:
        assert log.execute(f'DELETE FROM records_{table} WHERE "offset" = ?', (offset,)).rowcount == 1
    log.close()


async def refolded(address: str) -> int:
    """Fold the journal anew; the number of the last transition."""
    codec = Codec()
    async with open_log(address) as log:
        await load_schemas(log, TOPICS, codec)
        fence = await rebuild(log, TOPICS, PARTITION, MemoryStore(), codec)
        await asyncio.sleep(0)
        return fence.number


def every_stop(of: type[Stop] = Stop) -> set[str]:
    """The names of all kinds of `Stop` that people can meet."""
    direct = of.__subclasses__()
    return {kind.__name__ for kind in direct if kind.__module__.endswith(".errors")}.union(*map(every_stop, direct))


def test_the_operator_s_page_has_a_way_out_of_every_stop() -> None:
    page = text_of(Path("docs/operate.md")) or ""
    assert set(re.findall(r"^\| `([A-Z]\w+)` \|", page, re.MULTILINE)) == every_stop()


def test_the_operator_s_page_names_every_topic_and_every_setting_that_is_checked() -> None:
    page = text_of(Path("docs/operate.md")) or ""
    settings = {name for spec in TOPICS.specs() for name in settings_of(spec, 3)}
    assert {name for name in settings if f"`{name}`" not in page} == set()
    topics = {spec.name.replace(TOPICS.prefix, "<prefix>", 1) for spec in TOPICS.specs()}
    assert {name for name in topics if f"`{name}`" not in page} == set()
