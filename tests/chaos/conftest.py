"""Places to play in, and a broker that may be killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from millstream.streams.broker.server import Broker
from tests.chaos.place import Place
from tests.support.broker import ephemeral_broker


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.broker)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A log of the test's own, of both kinds."""
    if request.param == "kafka":
        return Place("kafka", request.getfixturevalue("kafka_broker").address, tmp_path)
    return Place("embedded", str(tmp_path / "log"), tmp_path)


@pytest.fixture
def embedded(tmp_path: Path) -> Place:
    return Place("embedded", str(tmp_path / "log"), tmp_path)


@pytest.fixture
def kafka(kafka_broker: Broker, tmp_path: Path) -> Place:
    return Place("kafka", kafka_broker.address, tmp_path)


@pytest.fixture(scope="module")
def mortal_broker() -> Iterator[Broker]:
    """A broker that a test may do anything to, as long as it runs again when the test ends."""
    with ephemeral_broker() as broker:
        yield broker
