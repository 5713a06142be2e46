"""`millstream tail`: rows that can't steer a terminal, and JSON that has everything as it was."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from millstream.events.logs.port import Record
from millstream.events.logs.sqlite import SqliteLog
from millstream.streams.cli.console import escape
from tests.cli.test_lines import json_line
from tests.support.aio import run
from tests.support.commands import millstream, running

EVIL = "\x1b[2J\x1b]0;x\x07\x00\r\x9b\u202e[red]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\x9b\x00\x7f", "\\x9b\\x00\\x7f"),
        ("\u202egnp\u2028\ufeff", "\\u202egnp\\u2028\\ufeff"),
        ("plain é 漢 😀", "plain é 漢 😀"),
    ],
)
def test_what_could_steer_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_control_characters_are_escaped_in_rows_and_untouched_in_json(tmp_path: Path) -> None:
    millstream("publish", "flights", cwd=tmp_path, stdin=json_line(tailnum=EVIL, carrier=EVIL).encode())
    row = millstream("tail", "flights", cwd=tmp_path).stdout
    assert row.rstrip("\n").isprintable()
    assert "[red]" in row
    found = msgspec.json.decode(millstream("tail", "flights", "--json", cwd=tmp_path).stdout)
    assert (found["key"], found["value"]["tailnum"]) == (EVIL, EVIL)


def test_a_record_that_cant_be_read_is_shown_and_passed(tmp_path: Path) -> None:
    millstream("publish", "flights", cwd=tmp_path, stdin=json_line(carrier="UA").encode())

    async def spoil() -> None:
        async with SqliteLog(tmp_path / ".millstream") as log:
            for partition in range(4):
                records = [Record(b"\xffno avro", b"\xff"), Record(None, None)]
                await log.append("millstream.streams.flights", partition, records)

    run(spoil())
    rows = [
        msgspec.json.decode(line) for line in millstream("tail", "flights", "--json", cwd=tmp_path).stdout.splitlines()
    ]
    assert len(rows) == 9
    assert sum("unreadable" in row for row in rows) == 4
    assert sum(row["value"] is not None for row in rows) == 1
    assert "unreadable" in millstream("tail", "flights", cwd=tmp_path).stdout


def test_it_begins_where_it_is_told_and_ends_after_so_many(tmp_path: Path) -> None:
    text = "\n".join(json_line(flight=n, carrier="UA") for n in range(10))
    millstream("publish", "flights", cwd=tmp_path, stdin=text.encode())

    def offsets(*args: str) -> list[int]:
        out = millstream("tail", "flights", "--json", *args, cwd=tmp_path).stdout
        return [msgspec.json.decode(line)["offset"] for line in out.splitlines()]

    assert offsets("-n", "3") == [0, 1, 2]
    assert offsets("--from", "7") == [7, 8, 9]
    assert offsets("--from", "latest") == []
    assert offsets("-n", "0") == []
    partition = millstream("tail", "flights", "--json", "-n", "1", cwd=tmp_path).stdout
    number = str(msgspec.json.decode(partition)["partition"])
    assert offsets("--partition", number, "--from", "8") == [8, 9]
    refused = millstream("tail", "flights", "--partition", number, "--from", "99", cwd=tmp_path, code=4)
    assert "outside the log" in refused.stderr
    millstream("tail", "flights", "--from", "yesterday", cwd=tmp_path, code=2)
    millstream("tail", "flights", "--partition", "4", cwd=tmp_path, code=3)


def test_with_follow_it_shows_what_others_publish_until_it_is_stopped(tmp_path: Path) -> None:
    millstream("publish", "flights", cwd=tmp_path, stdin=json_line(dest="AAA").encode())
    with running("tail", "flights", "--follow", cwd=tmp_path) as tail:
        tail.says("dest=AAA")
        millstream("publish", "flights", cwd=tmp_path, stdin=json_line(dest="BBB").encode())
        tail.says("dest=BBB")
        tail.process.terminate()
        tail.ends(0)


def test_a_stream_or_a_log_that_isnt_there_ends_with_3_and_makes_nothing(tmp_path: Path) -> None:
    nothing = millstream("tail", "flights", cwd=tmp_path, code=3)
    assert "there is no log in ./.millstream" in nothing.stderr
    assert str(tmp_path) in nothing.stderr
    assert not (tmp_path / ".millstream").exists()
    millstream("publish", "flights", cwd=tmp_path, stdin=json_line().encode())
    assert "no stream 'fligths'" in millstream("tail", "fligths", cwd=tmp_path, code=3).stderr
