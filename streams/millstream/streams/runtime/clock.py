"""Time and chance, as arguments: everything in the runtime that needs them is given one of these.

A partition's time is the log's, never the host's: the append time of the last
proved batch plus the monotonic clock since. So a host whose clock is an hour
ahead fires no timer early, and a clock that jumps changes nothing.
"""

from __future__ import annotations

import os
import random
import socket
import time
from typing import Protocol


class Clock(Protocol):
    """`monotonic`: seconds that only grow. `wall_ms`: what the host believes the time is, in ms; for people only."""

    def monotonic(self) -> float: ...

    def wall_ms(self) -> int: ...


class SystemClock:
    """The host's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class PartitionClock:
    """The time of one partition in ms. Never goes back, whatever the log, the host or the next owner say."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._log_ms = 0
        self._heard_at = clock.monotonic()
        self._last = 0

    def heard(self, log_ms: int) -> None:
        """The log stamped one of our appends with `log_ms`."""
        if log_ms > 0:
            self._log_ms = log_ms
            self._heard_at = self._clock.monotonic()

    def not_before(self, at: int) -> None:
        """A transition of an earlier owner has this `at`."""
        self._last = max(self._last, at)

    def now(self) -> int:
        since_ms = int((self._clock.monotonic() - self._heard_at) * 1000)
        self._last = max(self._last, self._log_ms + since_ms)
        return self._last

    def wait_s(self, until_ms: int) -> float:
        """Seconds from now until `until_ms`; 0 where it has passed."""
        return max(0, until_ms - self.now()) / 1000


class Chance:
    """Ids and jitter from one seeded source, so that a simulated run is its seed."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed) if seed is not None else random.SystemRandom()

    def claim_id(self) -> int:
        """Random, 64 bits, not 0."""
        return self._random.getrandbits(64) or 1

    def token(self) -> str:
        """16 hex digits."""
        return f"{self._random.getrandbits(64):016x}"

    def jitter(self, delay_s: float) -> float:
        """`delay_s`, shortened by up to a half: owners that lost together must not claim together."""
        return delay_s * (0.5 + self._random.random() / 2)


def process_name(chance: Chance, began_ms: int) -> str:
    """Unique to this process: when it began, host, process id, and a token, since process ids come again.

    Names of one host are in the order in which their processes began.
    """
    return f"{began_ms:013d}-{socket.gethostname()}-{os.getpid()}-{chance.token()}"
