"""One real Kafka for a test run: free port, folder of its own, stopped at the end however the run ends.

Started when the first test asks for it. What a killed run has left behind is found
by its folder's name at the next start, and ended.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from millstream.streams.broker.processes import started_at
from millstream.streams.broker.server import Broker, find

PREFIX = "millstream-test-broker-"
IMAGE = "apache/kafka:4.1.2"


@contextmanager
def ephemeral_broker(*, port: int | None = None) -> Iterator[Broker]:
    """A broker that runs inside the block; its folder is gone afterwards."""
    _end_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{started_at(os.getpid())}-"))
    # Only the quick compiler: a broker that lives for a minute never earns back what the other one costs.
    broker = Broker(folder / "data", port, java_options=["-XX:TieredStopAtLevel=1"])

    def end() -> None:
        with suppress(Exception):
            broker.kill()
        shutil.rmtree(folder, ignore_errors=True)

    # Also where pytest is interrupted between two fixtures.
    atexit.register(end)
    try:
        broker.start()
        yield broker
    finally:
        end()
        atexit.unregister(end)


def _end_leftovers() -> None:
    """End brokers whose test run was killed: the run's process id and start time are in the folder's name."""
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        pid, _, rest = folder.name.removeprefix(PREFIX).partition("-")
        if started_at(int(pid)) == rest.rpartition("-")[0]:
            continue
        running = find(folder / "data")
        if running:
            with suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def official_image() -> Iterator[str]:
    """The bootstrap address of the official image under Docker; skips the test where there is none."""
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not _somebody_listens(where):
        pytest.skip(f"no Docker engine answers at {where}, so the official image {IMAGE} can't be started")
    testcontainers = pytest.importorskip("testcontainers.community.kafka")
    with testcontainers.KafkaContainer(IMAGE).with_kraft() as container:
        yield container.get_bootstrap_server()


def _somebody_listens(where: str) -> bool:
    # Docker's own client leaves a socket open where nobody answers.
    scheme, _, rest = where.partition("://")
    try:
        if scheme != "unix":
            host, _, port = rest.rpartition(":")
            socket.create_connection((host, int(port)), timeout=2).close()
        else:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(rest)
    except (OSError, ValueError):
        return False
    return True
