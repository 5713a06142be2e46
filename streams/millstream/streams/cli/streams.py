"""The streams that the command line knows the records of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from millstream.events.flight import Flight
from millstream.streams.runtime.prefix import FLIGHTS


class StreamType(NamedTuple):
    """What a stream's records are, and the key by which they are ordered."""

    record: type[msgspec.Struct]
    key: Callable[[Any], str]


STREAMS: dict[str, StreamType] = {FLIGHTS: StreamType(Flight, lambda flight: flight.carrier)}
