"""The logs that the conformance suite runs over. Another adapter is one more entry in `SOURCES`.

A source opens any number of handles on one and the same log, as processes would. Topics
are named anew for each test, so that a log may be shared by many tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from millstream.events.logs.kafka import KafkaLog
from millstream.events.logs.memory import MemoryCluster, MemoryLog
from millstream.events.logs.port import Log
from millstream.events.logs.sqlite import SqliteLog
from millstream.streams.broker.server import Broker

_names = itertools.count()


class Logs:
    """One log, opened as often as wanted. session_s: the shortest session time-out that its groups take."""

    def __init__(self, kind: str, open_one: Callable[[], Log], *, session_s: float, close: Callable[[], None]) -> None:
        self.kind = kind
        self.open = open_one
        self.session_s = session_s
        self.close = close

    def topic(self) -> str:
        """A topic name that no other test uses."""
        return f"t{next(_names)}"


def memory_logs(tmp_path: Path) -> Logs:
    cluster = MemoryCluster()
    return Logs("memory", lambda: MemoryLog(cluster), session_s=0.3, close=lambda: None)


def embedded_logs(tmp_path: Path) -> Logs:
    return Logs("embedded", lambda: SqliteLog(tmp_path / "log"), session_s=0.3, close=lambda: None)


def kafka_logs(broker: Broker) -> Logs:
    return Logs("kafka", lambda: KafkaLog(broker.bootstrap), session_s=1.5, close=lambda: None)


def image_logs(bootstrap: str) -> Logs:
    # 6 s: a broker with its own settings takes no shorter session.
    return Logs("kafka", lambda: KafkaLog(bootstrap), session_s=6.0, close=lambda: None)


def _source(request: pytest.FixtureRequest, tmp_path: Path) -> Logs:
    # Kafka comes from a fixture of the whole run, and only where it is asked for.
    if request.param == "kafka":
        return kafka_logs(request.getfixturevalue("kafka_broker"))
    if request.param == "kafka-image":
        return image_logs(request.getfixturevalue("kafka_image"))
    return SOURCES[request.param](tmp_path)


SOURCES: dict[str, Callable[[Path], Logs]] = {"memory": memory_logs, "embedded": embedded_logs}
MARKS: dict[str, list[pytest.MarkDecorator]] = {"kafka": [pytest.mark.broker], "kafka-image": [pytest.mark.broker]}


@pytest.fixture(params=[pytest.param(kind, marks=MARKS.get(kind, [])) for kind in [*SOURCES, *MARKS]])
def logs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Logs]:
    """The log under test, fresh."""
    source = _source(request, tmp_path)
    yield source
    source.close()
