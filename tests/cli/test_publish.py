"""`millstream publish`: a file is published once, in as many goes as it takes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millstream.events.errors import MillstreamError
from millstream.events.logs.sqlite import SqliteLog
from tests.cli.test_lines import HEADER, ROW, json_line
from tests.support.aio import run, until
from tests.support.commands import millstream, running

TOPIC = "millstream.streams.flights"


def published(folder: Path) -> list[dict[str, Any]]:
    """The records on the stream, by flight number."""
    lines = millstream("tail", "flights", "--json", cwd=folder).stdout.splitlines()
    return sorted((msgspec.json.decode(line)["value"] for line in lines), key=lambda value: value["flight"])


def numbers(folder: Path) -> list[int]:
    return [value["flight"] for value in published(folder)]


def test_after_a_bad_line_the_file_is_mended_and_gone_on_with_without_doubles(tmp_path: Path) -> None:
    lines = [json_line(flight=n) for n in range(1, 11)]
    file = tmp_path / "flights of today.jsonl"
    file.write_text("\n".join([*lines[:2], '{"year": 2013', *lines[3:]]))
    failed = millstream("publish", "flights", file.name, cwd=tmp_path, code=1)
    assert "line 3: it is no JSON" in failed.stderr
    assert "published 2 records" in failed.stderr
    assert numbers(tmp_path) == [1, 2]

    file.write_text("\n".join(lines))
    go_on = shlex.split(failed.stderr.strip().splitlines()[-1])
    assert go_on == ["millstream", "publish", "flights", file.name, "--from-line", "3"]
    assert "published 8 records" in millstream(*go_on[1:], cwd=tmp_path).stdout
    assert numbers(tmp_path) == list(range(1, 11))


def test_after_an_interrupt_the_line_to_go_on_from_is_printed(tmp_path: Path) -> None:
    lines = [json_line(flight=n) for n in range(1, 11)]
    with running("publish", "flights", cwd=tmp_path, stdin=subprocess.PIPE) as publish:
        assert publish.process.stdin is not None
        publish.process.stdin.write("".join(f"{line}\n" for line in lines[:5]).encode())
        publish.process.stdin.flush()
        run(_has(tmp_path / ".millstream", 5))
        publish.process.send_signal(signal.SIGINT)
        publish.ends(1)
        assert "interrupted" in publish.output
        assert "published 5 records" in publish.output
        from_line = re.search(r"millstream publish flights --from-line (\d+) < FILE", publish.output)
    assert from_line is not None
    millstream("publish", "flights", "--from-line", from_line[1], cwd=tmp_path, stdin="\n".join(lines).encode())
    assert numbers(tmp_path) == list(range(1, 11))


async def _has(folder: Path, count: int) -> None:
    """Wait until the stream has so many records."""

    async def enough() -> bool:
        if not (folder / "log.sqlite3").exists():
            return False
        async with SqliteLog(folder) as log:
            try:
                return sum([(await log.bounds(TOPIC, p)).end for p in range(4)]) >= count
            except MillstreamError:
                return False

    await until(enough, f"{count} flights are on the log", pause_s=0.05)


def test_csv_and_json_windows_line_ends_and_a_byte_order_mark_give_the_same_records(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{ROW}\r\n\r\n{ROW}".encode())
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{json_line()}\r\n\r\n{json_line()}".encode())
    for file in ("a.csv", "a.jsonl"):
        assert "published 2 records" in millstream("publish", "flights", file, cwd=tmp_path).stdout
    first, *others = published(tmp_path)
    assert others == [first] * 3


def test_the_offset_of_a_key_is_on_one_partition_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = "\n".join(json_line(flight=n, carrier="UA" if n % 2 else "B6") for n in range(50))
    millstream("publish", "flights", cwd=tmp_path, stdin=text.encode())
    rows = [
        msgspec.json.decode(line) for line in millstream("tail", "flights", "--json", cwd=tmp_path).stdout.splitlines()
    ]
    for carrier in ("UA", "B6"):
        of_carrier = [row for row in rows if row["key"] == carrier]
        assert len({row["partition"] for row in of_carrier}) == 1
        found = [row["value"]["flight"] for row in sorted(of_carrier, key=lambda row: row["offset"])]
        assert found == sorted(found)


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        (["orders"], 2, "Known: flights"),
        (["../x"], 2, "stream '../x' is not allowed"),
        (["flights", "no-such-file"], 3, "'no-such-file' can't be read: No such file"),
        (["flights", "--prefix", "a b"], 2, "prefix 'a b' is not allowed"),
        (["flights", "--log", "redis://x"], 2, "kafka://host:port"),
    ],
)
def test_what_cant_be_published_is_said_before_anything_is(
    tmp_path: Path, args: list[str], code: int, text: str
) -> None:
    failed = millstream("publish", *args, cwd=tmp_path, stdin=json_line().encode(), code=code)
    assert text in failed.stderr
    assert os.listdir(tmp_path) in ([], [".millstream"])


def test_an_empty_file_is_no_mistake(tmp_path: Path) -> None:
    assert "published 0 records" in millstream("publish", "flights", cwd=tmp_path).stdout
