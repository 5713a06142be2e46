"""Servers as processes: one folder has one holder, and several terminals work on one embedded log."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from millstream.streams.cli.console import NO_SERVER, NoServer, exit_code
from millstream.streams.cli.session import opened
from millstream.streams.cli.settings import Setting
from tests.cli.test_lines import json_line
from tests.support.aio import run, until
from tests.support.commands import COMMAND, environment, millstream, running


def test_a_second_server_on_one_folder_stops_and_names_the_holder(tmp_path: Path) -> None:
    with running("serve", cwd=tmp_path) as first:
        first.says("owns partitions")
        second = millstream("serve", cwd=tmp_path, code=4)
        assert f"is held by process {first.process.pid}" in second.stderr
        assert first.process.poll() is None


def test_a_copied_folder_is_noticed_and_there_is_no_fight(tmp_path: Path) -> None:
    with running("serve", "--folder", "one", cwd=tmp_path) as first:
        first.says("owns partitions")
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        with running("serve", "--folder", "two", cwd=tmp_path) as second:
            loser, winner = _ended_of(first.process, second.process)
            assert winner.poll() is None
            said = first if loser is first.process else second
            said.ends(4)
            assert "instance" in said.output
            assert "copied" in said.output


def _ended_of(
    first: subprocess.Popen[bytes], second: subprocess.Popen[bytes]
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """The process that ends first, and the other one."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for one, other in ((first, second), (second, first)):
            if one.poll() is not None:
                return one, other
        time.sleep(0.05)
    raise AssertionError("both processes live")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with running("serve", "--kernels", cwd=tmp_path) as server:
        server.says("owns partitions")
        server.process.send_signal(number)
        server.ends(0)
        assert "stopped: 0 records" in server.output
        assert "kernel day_figures: 0 calls" in server.output
        first_line = server.output.splitlines()[0]
        assert first_line.startswith("millstream ")
        assert "log ./.millstream (embedded)" in first_line
        assert "4 partitions" in first_line


def test_another_partition_count_than_the_prefix_was_made_with_is_refused(tmp_path: Path) -> None:
    with running("serve", "--partitions", "3", cwd=tmp_path) as server:
        server.says("owns partitions (number@epoch): 0@0 1@0 2@0")
        server.process.terminate()
        server.ends(0)
    refused = millstream("serve", "--partitions", "5", cwd=tmp_path, code=4)
    assert "has 3 partitions, expected 5" in refused.stderr


def test_several_terminals_work_on_one_embedded_log_at_once(tmp_path: Path) -> None:
    with (
        running("kernels", cwd=tmp_path) as kernels,
        running("serve", "--folder", "one", cwd=tmp_path) as one,
    ):
        one.says("owns partitions")
        millstream("publish", "flights", cwd=tmp_path, stdin=json_line(dest="AAA").encode())
        with running("tail", "flights", "--follow", cwd=tmp_path) as tail:
            tail.says("dest=AAA")
            text = "\n".join(json_line(flight=n, dest="BBB") for n in range(500)).encode()
            assert "published 500 records" in millstream("publish", "flights", cwd=tmp_path, stdin=text).stdout
            tail.says("dest=BBB", times=500)
            assert "equal to the byte" in millstream("verify", "--folder", "one", cwd=tmp_path).stdout
        assert one.process.poll() is None
        assert kernels.process.poll() is None
        kernels.process.terminate()
        kernels.ends(0)


def test_a_server_ends_with_its_parent_where_it_is_told_to(tmp_path: Path) -> None:
    code = (
        "import os, subprocess\n"
        f"command = [*{COMMAND!r}, 'serve', '--with-parent', str(os.getpid())]\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)\n"
        "while not child.stdout.readline().startswith('owns'): pass\n"
        "print(child.pid, flush=True)\n"
        "os._exit(0)"
    )
    parent = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60
    )
    run(_gone(int(parent.stdout)))


async def _gone(pid: int) -> None:
    await until(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", f"process {pid} is gone"
    )


def test_a_broker_that_is_away_is_said_so_with_what_to_start(unused_port: int) -> None:
    async def look() -> None:
        async with opened(Setting(f"kafka://127.0.0.1:{unused_port}", "--log"), "millstream", patience_s=0.3):
            raise AssertionError("it can't be opened")

    with pytest.raises(NoServer, match="millstream broker start") as away:
        run(look())
    assert exit_code(away.value) == NO_SERVER


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
