"""Read the journal for people: which records count (rule 4), and which runs there are."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from millstream.events.envelope import NO_FENCE, FenceMark, Transition, read_fence_header
from millstream.events.errors import UnknownSchema
from millstream.events.logs.port import StoredRecord, read_range
from millstream.events.registry import load_schemas
from millstream.events.topics import check_run_id
from millstream.projections.fence import Hole, Judge, fence_after
from millstream.streams.cli.console import NotFound, Usage
from millstream.streams.cli.session import Session

LAST = "@last"
NEAR = 5


class Entry(NamedTuple):
    """A transition that counts, with its record's offset and the log's time of it, ms."""

    offset: int
    timestamp: int
    transition: Transition


async def valid_records(
    session: Session, partition: int, warn: Callable[[str], None]
) -> AsyncIterator[tuple[StoredRecord, FenceMark]]:
    """The records of transitions that count, from the beginning to where the log ends now. Nothing is decoded.

    warn: is told of holes: a person who looks for a cause wants to see what is behind them too.
    """
    bounds = await session.log.bounds(session.topics.journal, partition)
    judge, fence = Judge(), NO_FENCE
    async for records in read_range(session.log, session.topics.journal, partition, bounds.first, bounds.end):
        for record in records:
            mark = read_fence_header(record.headers)
            if mark is None:
                continue
            try:
                verdict = judge(mark, record.offset, fence)
            except Hole as hole:
                warn(f"partition {partition}: {hole}")
                judge.gaps.add(hole.gap)
                verdict = "apply"
            if verdict in ("apply", "claim"):
                fence = fence_after(fence, mark, record.offset)
            if verdict == "apply":
                yield record, mark


async def read_run(session: Session, run_id: str, warn: Callable[[str], None]) -> list[Entry]:
    """All that happened to a run, refusals too, in order; empty where nothing did."""
    key = run_id.encode()
    entries: list[Entry] = []
    async for record, _ in valid_records(session, session.topics.partition_of(run_id), warn):
        if record.key == key:
            entries.append(Entry(record.offset, record.timestamp, await _decode(session, record)))
    return entries


async def _decode(session: Session, record: StoredRecord) -> Transition:
    value = record.value or b""
    try:
        found = session.codec.decode(value)
    except UnknownSchema:
        await load_schemas(session.log, session.topics, session.codec)
        found = session.codec.decode(value)
    assert isinstance(found, Transition)
    return found


async def find_run(session: Session, asked: str, warn: Callable[[str], None]) -> tuple[str, list[Entry]]:
    """A run by its id, a unique beginning of one, or `@last`, with its entries.

    Raises `BadId`, `Usage` where a beginning is several's, and `NotFound` with ids that are near.
    """
    if asked != LAST:
        check_run_id(asked.rstrip("/") or asked)
        if entries := await read_run(session, asked, warn):
            return asked, entries
    known = await _known_runs(session)
    if asked == LAST:
        if not known:
            raise NotFound(f"there are no runs on this log under the prefix {session.topics.prefix!r} yet.")
        run_id = max(known, key=known.__getitem__)
        return run_id, await read_run(session, run_id, warn)
    begin_so = sorted(run_id for run_id in known if run_id.startswith(asked))
    if len(begin_so) == 1:
        return begin_so[0], await read_run(session, begin_so[0], warn)
    if begin_so:
        more = f" and {len(begin_so) - NEAR} more" if len(begin_so) > NEAR else ""
        raise Usage(
            f"{asked!r} is the beginning of {len(begin_so)} runs: {', '.join(begin_so[:NEAR])}{more}. Write more of it."
        )
    near = difflib.get_close_matches(asked, known, NEAR, 0.6)
    hint = f" Near to it: {', '.join(near)}." if near else f" {len(known):,} runs are known; none is near to it."
    raise NotFound(f"nothing ever happened to a run {asked!r} under the prefix {session.topics.prefix!r}.{hint}")


async def _known_runs(session: Session) -> dict[str, tuple[int, int]]:
    """All runs, with when each began: the log's time, then the offset."""
    known: dict[str, tuple[int, int]] = {}
    for partition in range(session.topics.partitions):
        async for record, _ in valid_records(session, partition, lambda _: None):
            if record.key:
                known.setdefault(record.key.decode(errors="replace"), (record.timestamp, record.offset))
    return known
