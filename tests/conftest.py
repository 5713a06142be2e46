"""What all tests may ask for. Nothing here starts unless a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from millstream.streams.broker.server import Broker
from tests.support.broker import ephemeral_broker, official_image


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[Broker]:
    """One real Kafka for the whole run. Tests name their topics anew, and leave it running."""
    with ephemeral_broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka_image() -> Iterator[str]:
    """The address (host:port) of the official image, where a Docker engine answers."""
    with official_image() as bootstrap:
        yield bootstrap
