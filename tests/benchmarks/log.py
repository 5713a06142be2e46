"""The log alone: one append at a time, and a hundred commands ready at a time."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable

from millstream.events.logs.address import open_log
from millstream.events.logs.port import Record, TopicSpec

READY = 100
VALUE = bytes(120)


async def measure(emit: Callable[..., None], kind: str, address: str, *, seconds: float) -> None:
    """`append.p50_ms` of one record alone; `append.records_per_s` with 100 in each append. 120-byte values."""
    async with open_log(address) as log:
        topic = f"bench-{secrets.token_hex(4)}"
        await log.ensure_topic(TopicSpec(topic, 1))
        record = Record(VALUE, b"9E-2013-01-16", (("fence", bytes(24)),))
        for _ in range(50):
            await log.append(topic, 0, [record])
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            await log.append(topic, 0, [record])
            times.append(time.perf_counter() - began)
        emit("append.p50_ms", statistics.median(times) * 1000, "ms", log=kind)
        count, began = 0, time.perf_counter()
        batch = [record] * READY
        while time.perf_counter() < began + seconds:
            await log.append(topic, 0, batch)
            count += READY
        emit("append.records_per_s", count / (time.perf_counter() - began), "1/s", log=kind, ready=READY)
        await log.delete_topic(topic)
