"""The import contracts of pyproject.toml hold, and each of them can fail: in a copy of the tree an import is planted."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import PORTIONS, ROOT, files

PLANTED = [
    ("events/millstream/events/topics.py", "millstream.projections.keys", "events imports nothing of ours"),
    ("events/millstream/events/flight.py", "time", "records know no clock, chance, network or event loop"),
    ("events/millstream/events/logs/sqlite.py", "aiokafka", "only the Kafka adapter imports aiokafka"),
    ("events/millstream/events/logs/sqlite.py", "fastavro", "only the codec imports fastavro"),
    ("events/millstream/events/codec.py", "rocksdict", "only the RocksDB store imports rocksdict"),
    ("kernels/millstream/kernels/device.py", "millstream.events.topics", "kernels imports nothing of ours"),
    ("projections/millstream/projections/fold.py", "millstream.streams", "projections knows only events"),
    (
        "projections/millstream/projections/daybook.py",
        "datetime",
        "folding knows no clock, chance, network or event loop",
    ),
    (
        "streams/millstream/streams/deciders/daybook.py",
        "time",
        "deciding knows no clock, chance, network or event loop",
    ),
    ("streams/millstream/streams/runtime/client.py", "aiokafka", "only the Kafka adapter imports aiokafka"),
    (
        "streams/millstream/streams/deciders/run.py",
        "millstream.streams.runtime.clock",
        "inside streams: cli, gpu and broker above runtime, runtime above deciders",
    ),
]
"""File, what it must not import, and the contract that says so."""


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts in a tree, whatever of ours is installed beside."""
    roots = os.pathsep.join(str(root / portion) for portion in PORTIONS)
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", "pyproject.toml"]
    environment = {**os.environ, "PYTHONPATH": roots, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=120)


def broken(checked: subprocess.CompletedProcess[str]) -> set[str]:
    """The names of the contracts that don't hold."""
    return set(re.findall(r"^(.+) BROKEN", checked.stdout, re.MULTILINE))


@pytest.fixture(scope="module")
def copied_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    copy = tmp_path_factory.mktemp("tree")
    for path in files():
        if path.parts[0] in (*PORTIONS, "pyproject.toml"):
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, copy / path)
    yield copy
    shutil.rmtree(copy)


def test_every_import_contract_holds(copied_tree: Path) -> None:
    checked = lint(copied_tree)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(("file", "module", "contract"), PLANTED)
def test_a_forbidden_import_is_refused(copied_tree: Path, file: str, module: str, contract: str) -> None:
    planted = copied_tree / file
    before = planted.read_text()
    planted.write_text(f"{before}\nimport {module}\n")
    try:
        checked = lint(copied_tree)
    finally:
        planted.write_text(before)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert broken(checked) == {contract}
    assert f"-> {module}".rpartition(".")[2] in checked.stdout


def test_each_contract_is_broken_by_one_of_the_planted_imports() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in contracts} == {contract for _, _, contract in PLANTED}
