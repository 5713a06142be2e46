"""A process of its own for the tests of the embedded log: `python process.py ROLE FOLDER TOPIC ...`.

Says on stdout what it has done, a line each, and takes orders on stdin where its role says so.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from millstream.events.logs.port import Record, TopicPartition
from millstream.events.logs.sqlite import SqliteLog
from millstream.events.logs.sqlite_file import LogLock, open_connection


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def append(folder: str, topic: str, name: str, batches: int, size: int) -> None:
    """Append batches of 1 to 5 records, each acknowledged by a line: offset, batch, records."""
    async with SqliteLog(folder) as log:
        say("ready")
        for b in range(batches):
            count = 1 + b % 5
            records = [Record(b"x" * size, key=f"{name}/{b}/{i}/{count}".encode()) for i in range(count)]
            appended = await log.append(topic, 0, records)
            say(appended.offset, b, count)


async def echo(folder: str, topic: str, rounds: int) -> None:
    """Answer each record of partition 0 with one on partition 1."""
    async with SqliteLog(folder) as log:
        tp = TopicPartition(topic, 0)
        reader = log.reader({tp: 0})
        say("ready")
        answered = 0
        while answered < rounds:
            for record in (await reader.read()).get(tp, []):
                await log.append(topic, 1, [Record(record.value)])
                answered += 1


def hold(folder: str, topic: str) -> None:
    """Insert a record on partition 0 as the writer does, and sit between insert and commit until told to go on."""
    lock = LogLock(Path(folder))
    lock.acquire()
    connection = open_connection(Path(folder), write=True)
    connection.execute("BEGIN IMMEDIATE")
    (stream,) = connection.execute("SELECT id FROM streams WHERE topic = ? AND partition = 0", (topic,)).fetchone()
    (newest,) = connection.execute(f'SELECT max("offset") FROM records_{stream}').fetchone()
    offset = 0 if newest is None else newest + 1
    connection.execute(f"INSERT INTO records_{stream} VALUES (?, 1, ?, NULL, NULL)", (offset, b"held/0/0/1"))
    say("inserted", offset)
    sys.stdin.readline()
    connection.execute("COMMIT")
    lock.release()
    say("committed")


async def member(folder: str, topic: str, instance: str, session_s: float) -> None:
    """Be a member of the group `g` until stdin ends."""
    async with SqliteLog(folder) as log:
        group = await log.join("g", [topic], instance_id=instance, session_timeout_s=session_s)
        say("joined", len(group.assignment))
        await asyncio.to_thread(sys.stdin.readline)


def main() -> None:
    role, folder, topic, *rest = sys.argv[1:]
    if role == "append":
        asyncio.run(append(folder, topic, rest[0], int(rest[1]), int(rest[2])))
    elif role == "echo":
        asyncio.run(echo(folder, topic, int(rest[0])))
    elif role == "hold":
        hold(folder, topic)
    elif role == "member":
        asyncio.run(member(folder, topic, rest[0], float(rest[1])))
    else:
        raise SystemExit(f"no role {role!r}")


if __name__ == "__main__":
    main()
