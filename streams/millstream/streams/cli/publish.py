"""`millstream publish`: lines of a file become records of a stream.

What stands before a bad line is published, what stands behind it isn't, and the
number to go on from is printed: so a file is published once, in as many goes as
it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import shlex
import signal
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from rich.progress import Progress, TaskID

from millstream.events.errors import MillstreamError, RecordTooLarge
from millstream.events.logs.port import Record, TopicPartition
from millstream.events.registry import publish_schemas
from millstream.events.topics import STREAM_PARTITIONS, check_name, partition_of
from millstream.streams.cli.console import DONE, FAILED, NotFound, Usage, counted, err, escape, out, progress
from millstream.streams.cli.lines import BadLine, Format, LineSplitter, Parsed, Parser
from millstream.streams.cli.session import Session, opened
from millstream.streams.cli.settings import Setting
from millstream.streams.cli.streams import STREAMS
from millstream.streams.runtime.clock import Chance
from millstream.streams.runtime.sender import Sender

CHUNK_BYTES = 256 * 1024
CHUNKS_AHEAD = 4
FLUSH_WAIT_S = 10.0


class Source(NamedTuple):
    """What is read. size: bytes of the file on disk, None where nobody knows. position: bytes read of it so far."""

    name: str
    file: IO[bytes] | io.RawIOBase | gzip.GzipFile
    raw: IO[bytes] | io.RawIOBase
    size: int | None


def open_source(path: Path | None) -> Source:
    """The file, unpacked where it is gzip; stdin for None and '-'. Raises `NotFound`."""
    if path is None or str(path) == "-":
        # Not the buffered one: a thread that waits in it would hold its lock when the process wants to end.
        raw = io.FileIO(sys.stdin.fileno(), closefd=False)
        return Source("standard input", raw, raw, None)
    try:
        file = path.open("rb")
        size = path.stat().st_size
    except OSError as error:
        raise NotFound(f"{str(path)!r} can't be read: {error.strerror}.") from error
    if path.suffix == ".gz":
        return Source(str(path), gzip.GzipFile(fileobj=file), file, size)
    return Source(str(path), file, file, size)


def guess_format(path: Path | None) -> Format | None:
    """By the file's name; None leaves it to the first line."""
    suffixes = [] if path is None else [s for s in path.suffixes if s != ".gz"]
    if suffixes and suffixes[-1] == ".csv":
        return "csv"
    return "json" if suffixes and suffixes[-1] in (".json", ".jsonl", ".ndjson") else None


class Publishing:
    """One file on its way into one stream."""

    def __init__(self, session: Session, stream: str, parser: Parser[Any]) -> None:
        self._session, self._parser = session, parser
        self._topic, self._type = session.topics.stream(stream), STREAMS[stream]
        self._sender = Sender(session.log, Chance())
        self._under_way: deque[tuple[int, int, asyncio.Future[int]]] = deque()
        self.published = 0
        self.next_line = 1
        """The first line of which it isn't known that it is published."""
        self.reached_line = 1
        """The first line that was not tried at all."""

    async def put(self, parsed: Parsed[Any]) -> None:
        """Send one record; waits only while too much is under way. Raises `BadLine` for one that can't be sent."""
        key = self._type.key(parsed.record)
        try:
            record = Record(self._session.codec.encode(parsed.record), key.encode())
            future = await self._sender.post(TopicPartition(self._topic, partition_of(key, STREAM_PARTITIONS)), record)
        except (RecordTooLarge, MillstreamError, ValueError, TypeError, OverflowError) as error:
            raise BadLine(parsed.first_line, str(error)) from error
        self._under_way.append((parsed.first_line, parsed.last_line, future))
        self.reached_line = parsed.last_line + 1

    def settle(self) -> None:
        """Count what is durable, in order of the lines. Raises what a send has ended with."""
        while self._under_way and self._under_way[0][2].done():
            first, last, future = self._under_way[0]
            self.next_line = first
            future.result()
            self._under_way.popleft()
            self.published += 1
            self.next_line = last + 1

    async def flush(self) -> None:
        """Wait for what is under way, but not for ever: a log that is away is no reason to hold a person up."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._sender.flush(), FLUSH_WAIT_S)
        self.settle()
        if not self._under_way:
            self.next_line = max(self.next_line, self.reached_line)

    async def close(self) -> None:
        await self._sender.close()

    @property
    def uncertain(self) -> int:
        """Records sent of which nobody knows whether they landed."""
        return len(self._under_way)


async def publish(
    address: Setting,
    prefix: str,
    stream: str,
    path: Path | None,
    *,
    format: Format | None,
    from_line: int,
    command: str,
) -> int:
    """Publish a file; the exit code. command: what people typed, without --from-line and file."""
    check_name("stream", stream)
    if stream not in STREAMS:
        raise Usage(f"no record type is known for the stream {stream!r}. Known: {', '.join(STREAMS)}.")
    source = open_source(path)
    parser = Parser(STREAMS[stream].record, format=format or guess_format(path), from_line=from_line)
    async with opened(address, prefix) as session:
        await _ensure_stream(session, stream)
        work = Publishing(session, stream, parser)
        work.next_line = work.reached_line = from_line
        try:
            with progress() as bars:
                bar = bars.add_task(f"publish {escape(source.name)}", total=source.size)
                ended = await _pump(source, parser, work, bars, bar)
        finally:
            await work.close()
    return _report(ended, work, parser, stream, source, f"{command} {_go_on(path, work.next_line)}")


async def _ensure_stream(session: Session, stream: str) -> None:
    log, topics, codec = session
    schemas = next(spec for spec in topics.specs() if spec.name == topics.schemas)
    for spec in (schemas, topics.stream_spec(stream)):
        await log.ensure_topic(spec)
    await publish_schemas(log, topics, codec)


async def _pump(
    source: Source, parser: Parser[Any], work: Publishing, bars: Progress, bar: TaskID
) -> BadLine | KeyboardInterrupt | None:
    """Read, parse and send until the end, a bad line, or Ctrl-C. Everything that was sent is waited for."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sent in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sent, stop.set)
    splitter = LineSplitter()
    ended: BadLine | KeyboardInterrupt | None = None
    try:
        async for chunk in _chunks(source, stop):
            for number, line in splitter.feed(chunk):
                if (parsed := parser.feed(number, line)) is not None:
                    await work.put(parsed)
            work.settle()
            bars.update(bar, completed=source.raw.tell() if source.size else work.published)
        if stop.is_set():
            ended = KeyboardInterrupt()
        else:
            for number, line in splitter.finish():
                if (parsed := parser.feed(number, line)) is not None:
                    await work.put(parsed)
            parser.finish()
    except BadLine as bad:
        ended = bad
    finally:
        for sent in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(sent)
    await work.flush()
    if isinstance(ended, BadLine) and not work.uncertain:
        work.next_line = max(work.next_line, ended.number)
    return ended


async def _chunks(source: Source, stop: asyncio.Event) -> AsyncIterator[bytes]:
    """The bytes as they come, read in a thread that nobody waits for: standard input may never end."""
    loop = asyncio.get_running_loop()
    room = threading.Semaphore(CHUNKS_AHEAD)
    queue: asyncio.Queue[bytes | OSError] = asyncio.Queue()

    def read() -> None:
        while True:
            room.acquire()
            try:
                chunk: bytes | OSError = source.file.read(CHUNK_BYTES) or b""
            except (OSError, EOFError) as error:
                chunk = OSError(str(error))
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, chunk)
            if not chunk or isinstance(chunk, OSError):
                return

    threading.Thread(target=read, name="read", daemon=True).start()
    stopping = loop.create_task(stop.wait())
    try:
        while not stop.is_set():
            getting = loop.create_task(queue.get())
            await asyncio.wait({getting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                getting.cancel()
                return
            chunk = getting.result()
            if isinstance(chunk, OSError):
                raise NotFound(f"{source.name} can't be read to its end: {chunk}.")
            if not chunk:
                return
            room.release()
            yield chunk
    finally:
        stopping.cancel()


def _go_on(path: Path | None, line: int) -> str:
    if path is None or str(path) == "-":
        return f"--from-line {line} < FILE"
    return f"{shlex.quote(str(path))} --from-line {line}"


def _report(
    ended: BadLine | KeyboardInterrupt | None,
    work: Publishing,
    parser: Parser[Any],
    stream: str,
    source: Source,
    go_on: str,
) -> int:
    count = counted(work.published, "record")
    if ended is None and not work.uncertain:
        ignored = f" (columns left out: {', '.join(map(escape, parser.ignored))})" if parser.ignored else ""
        out.print(f"published {count} to {stream}{ignored}", markup=False)
        return DONE
    if isinstance(ended, BadLine):
        err.print("[bold red]error:[/]", end=" ")
        err.print(escape(f"{source.name}, {ended}"), markup=False)
        if ended.line:
            err.print(f"  {escape(ended.line)}", style="dim", markup=False)
    elif ended is not None:
        err.print("interrupted")
    if work.uncertain:
        err.print(
            f"published {count}; {work.uncertain:,} more, from line {work.next_line} on, were sent and the log has not"
            f" answered: they may be on {stream} or not. Once the log answers, look with: millstream tail {stream}",
            markup=False,
        )
        return FAILED
    err.print(
        f"published {count} to {stream}; nothing from line {work.next_line} on. Go on from there, without doubles, with:",
        markup=False,
    )
    err.print(f"  {go_on}", markup=False)
    return FAILED
