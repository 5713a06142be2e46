"""`millstream tail`: the records of a stream, as rows for people or as lines of JSON for programs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from base64 import b64encode
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import msgspec

from millstream.events.errors import OffsetOutOfRange, SchemaError, UnknownSchema
from millstream.events.logs.port import StoredRecord, TopicPartition
from millstream.events.registry import load_schemas
from millstream.events.topics import check_name
from millstream.streams.cli.console import DONE, NotFound, Usage, err, escape, out, print_json_line
from millstream.streams.cli.session import Session, reading
from millstream.streams.cli.settings import Setting
from millstream.streams.runtime.client import follow

EARLIEST, LATEST = "earliest", "latest"


class Row(msgspec.Struct, omit_defaults=True):
    """A record as it is printed with --json. value: None where it is empty or can't be read; then `unreadable` says why."""

    partition: int
    offset: int
    timestamp: int
    key: str | None
    value: msgspec.Raw | None
    unreadable: str | None = None
    base64: str | None = None


async def tail(
    address: Setting,
    prefix: str,
    stream: str,
    *,
    start: str,
    partition: int | None,
    as_json: bool,
    following: bool,
    limit: int | None,
) -> int:
    """Print a stream's records from `start` ('earliest', 'latest', or an offset); the exit code."""
    check_name("stream", stream)
    async with reading(address, prefix, streams_only=True) as session:
        positions, ends = await _range(session, stream, start, partition)
        printing = _print(session, positions, None if following else ends, as_json=as_json, limit=limit)
        if following:
            await _until_interrupted(printing)
        else:
            await printing
    return DONE


async def _until_interrupted(printing: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(printing)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _range(
    session: Session, stream: str, start: str, partition: int | None
) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
    """Where to begin and where the stream ends now, by partition."""
    topic = session.topics.stream(stream)
    count = await session.log.partitions(topic)
    if count is None:
        raise NotFound(f"there is no stream {stream!r} on this log (no topic {topic!r}). Publish to it first.")
    if partition is not None and not 0 <= partition < count:
        raise NotFound(f"stream {stream!r} has the partitions 0 to {count - 1}, no {partition}.")
    positions, ends = {}, {}
    for number in range(count) if partition is None else [partition]:
        tp = TopicPartition(topic, number)
        bounds = await session.log.bounds(topic, number)
        ends[tp] = bounds.end
        if start in (EARLIEST, LATEST):
            positions[tp] = bounds.first if start == EARLIEST else bounds.end
            continue
        if not (start.isascii() and start.isdigit()):
            raise Usage(f"--from {start!r} is neither 'earliest' nor 'latest' nor an offset.")
        offset = int(start)
        if partition is not None and not bounds.first <= offset <= bounds.end:
            raise OffsetOutOfRange(topic, number, offset, bounds.first, bounds.end)
        if offset < bounds.first:
            err.print(f"partition {number} begins at {bounds.first}; what was before is deleted", style="yellow")
        positions[tp] = min(max(offset, bounds.first), bounds.end)
    return positions, ends


async def _print(
    session: Session,
    positions: dict[TopicPartition, int],
    until: dict[TopicPartition, int] | None,
    *,
    as_json: bool,
    limit: int | None,
) -> None:
    left = limit
    if left == 0:
        return
    async for tp, record in follow(session.log, positions, until=until):
        row = await read_row(session, tp, record)
        if as_json:
            print_json_line(msgspec.json.encode(row))
        else:
            _print_row(row)
        if left is not None:
            left -= 1
            if left == 0:
                return


async def read_row(session: Session, tp: TopicPartition, record: StoredRecord) -> Row:
    """A record in printable form. One that can't be read is shown as such, and is no reason to stop."""
    key = None if record.key is None else record.key.decode(errors="backslashreplace")
    row = Row(tp.partition, record.offset, record.timestamp, key, None)
    if record.value is None:
        return row
    try:
        row.value = msgspec.Raw(msgspec.json.encode(await _decode(session, record.value)))
    except SchemaError as error:
        row.unreadable, row.base64 = str(error), b64encode(record.value).decode()
    return row


async def _decode(session: Session, value: bytes) -> object:
    log, topics, codec = session
    try:
        return codec.decode(value)
    except UnknownSchema:
        await load_schemas(log, topics, codec)
        return codec.decode(value)


def _print_row(row: Row) -> None:
    out.print(f"[cyan]{row.partition}/{row.offset}[/]  [dim]{at(row.timestamp)}[/]", end="  ")
    out.print("-" if row.key is None else escape(row.key), style="bold", markup=False, end="  ")
    if row.unreadable is not None:
        out.print(f"unreadable: {escape(row.unreadable)}", style="red", markup=False)
    elif row.value is None:
        out.print("(empty)", style="dim")
    else:
        out.print(fields_text(msgspec.json.decode(row.value)), markup=False)


def fields_text(value: object) -> str:
    """`name=value` for each field of a JSON object, without its type's name; nothing in it can steer a terminal."""
    if not isinstance(value, dict):
        return short(value)
    return " ".join(f"{escape(str(name))}={short(item)}" for name, item in value.items() if name != "type")


def short(value: object) -> str:
    """A value on one line: text bare where that is clear, a long list by its first values and its length."""
    if isinstance(value, str) and value and " " not in value and "=" not in value:
        return escape(value)
    if isinstance(value, dict):
        return "{" + fields_text(value) + "}"
    if isinstance(value, list):
        shown = " ".join(short(item) for item in value[:3])
        return f"[{shown} … {len(value)} values]" if len(value) > 3 else f"[{shown}]"
    if value is None:
        return "-"
    return escape(msgspec.json.encode(value).decode())


def at(timestamp_ms: int) -> str:
    """A log's time for people, UTC."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
