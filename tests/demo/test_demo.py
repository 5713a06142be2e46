"""The main job, as people run it: all 460 reports of the month, with the owner killed in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from examples.flights import data
from millstream.streams.broker.server import Broker
from tests.support.commands import environment

DEMO = Path(data.__file__).with_name("demo.py")
DEADLINE_S = 240.0


def demo(*args: str) -> str:
    """Run it to its end, which must be good; what it printed."""
    done = subprocess.run(
        [sys.executable, "-P", str(DEMO), *args],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def check(shown: str) -> None:
    """What it must have printed, whatever the log."""
    assert re.search(r"kill -9 of the owner at flight [\d,]+; it is started again", shown)
    assert "460/460 reports equal to plain Python's, to the bit" in shown
    worst = re.search(r"^\s*9E +2013-01-16 +101\.3125 +299 +66% +32 +53 +20 *$", shown, re.MULTILINE)
    assert worst is not None, shown
    assert worst.start() < shown.index("69.4857")
    for text in ("DayOpened carrier=9E", "left out", "DayClosed carrier=9E"):
        assert text in shown
    assert "differs" not in shown


def test_the_month_is_right_on_a_log_of_its_own_though_the_owner_is_killed(tmp_path: Path) -> None:
    shown = demo("--folder", str(tmp_path / "demo"))
    check(shown)
    assert shown.count("equal to the byte") == 4
    assert not _left_behind(tmp_path)


@pytest.mark.broker
def test_the_month_is_right_on_a_real_kafka_though_the_owner_is_killed(tmp_path: Path, kafka_broker: Broker) -> None:
    shown = demo("--log", kafka_broker.address, "--folder", str(tmp_path / "demo"))
    check(shown)
    assert shown.count("equal to the byte") == 16
    assert not _left_behind(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_behind_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "demo"
    process = subprocess.Popen(
        [sys.executable, "-P", str(DEMO), "--folder", str(folder)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        _wait_until(lambda: len(_left_behind(tmp_path)) >= 3, "it has started its processes")
        process.send_signal(number)
        shown, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    _wait_until(lambda: not _left_behind(tmp_path), "its processes are gone")
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "interrupted; its processes are stopped" in shown


def test_the_tail_of_the_log_is_shown_where_a_process_ends_by_itself(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", str(DEMO), "--folder", str(tmp_path / "demo"), "--days", "1"],
        env={**environment(), "MILLSTREAM_DEVICE": "abacus"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 1
    assert "`millstream kernels` ended by itself with exit code 2" in done.stdout
    assert "MILLSTREAM_DEVICE='abacus' is not a device" in done.stdout
    assert not _left_behind(tmp_path)


def _left_behind(folder: Path) -> list[int]:
    """Processes that have the folder on their command line."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(folder) in line and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(process.pid)
    return found


def _wait_until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)
