"""A broker of their own for tests that kill, pause and stop it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from millstream.streams.broker.server import Broker
from tests.support.broker import ephemeral_broker


@pytest.fixture(scope="session")
def own_broker() -> Iterator[Broker]:
    """A broker that a test may do anything to, as long as it runs again when the test ends."""
    with ephemeral_broker() as broker:
        yield broker
