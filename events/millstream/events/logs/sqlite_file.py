"""The embedded log's file: its tables, its settings, how it is opened, and what its errors mean.

`log.sqlite3` holds everything. One table a partition, so that each append lands at the
right edge of its own tree: measured against one table with key (stream, offset), a third
of the space and CPU at 1.5 KB a record. `log.lock` and `log.turn` only hold locks and
counters: they can be deleted while nobody has the log open.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import struct
from pathlib import Path
from typing import NamedTuple

from millstream.events.errors import LogFolderUnusable

FILE = "log.sqlite3"
LOCK = "log.lock"
TURN = "log.turn"
APPLICATION_ID = 0x4D4C4F47
"""Stands in the file's header: "MLOG" in ASCII."""
FILE_FORMAT = 1
BUSY_WRITE_MS = 5_000
BUSY_READ_MS = 1_000

TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE topics (
    topic TEXT PRIMARY KEY, partitions INTEGER NOT NULL, cleanup TEXT NOT NULL,
    keep_forever INTEGER NOT NULL, log_append_time INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    first INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, partition)
);
CREATE TABLE groups (name TEXT PRIMARY KEY, generation INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE members (
    name TEXT NOT NULL, instance TEXT NOT NULL, process TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    topics TEXT NOT NULL, session_ms INTEGER NOT NULL, boot TEXT NOT NULL, lease_end_ms INTEGER NOT NULL,
    generation INTEGER NOT NULL, PRIMARY KEY (name, instance)
) WITHOUT ROWID;
CREATE TABLE assignments (
    name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, instance TEXT NOT NULL,
    PRIMARY KEY (name, topic, partition)
) WITHOUT ROWID;
CREATE TABLE committed (
    name TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (name, topic, partition)
) WITHOUT ROWID;
"""

COUNTERS = struct.Struct("<4q")


class Counters(NamedTuple):
    """What stands in `log.lock`, changed under the lock only.

    commits: write transactions so far, by all processes. groups: changes of any group's assignment.
    last_ms: the newest timestamp given. holder: pid of the process that has, or had, the lock.
    """

    commits: int
    groups: int
    last_ms: int
    holder: int


class LogLock:
    """The lock that write transactions and checkpoints are done under, across processes.

    SQLite's own wait for a lock sleeps and is unfair. Whoever wants this one first takes his turn in `log.turn`
    and keeps it until he has the lock: a process that writes without a pause can't shut others out.
    That checkpoints are under it too keeps them away from other connections' commits altogether.
    """

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._turn = os.open(folder / TURN, flags, 0o666)
        self._lock = os.open(folder / LOCK, flags, 0o666)
        if os.fstat(self._lock).st_size < COUNTERS.size:
            # In full size from the beginning: later writes need no room, so they work on a full disk.
            os.pwrite(self._lock, bytes(COUNTERS.size), 0)

    def acquire(self) -> Counters:
        """Wait for the lock, in a thread of one's own; the counters as they are now."""
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        fcntl.flock(self._turn, fcntl.LOCK_UN)
        counters = self.counters()
        if counters.holder != os.getpid():
            counters = counters._replace(holder=os.getpid())
            self.write(counters)
        return counters

    def release(self) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def counters(self) -> Counters:
        """About 1 µs, no lock needed: a single page is read."""
        raw = os.pread(self._lock, COUNTERS.size, 0)
        return Counters(*COUNTERS.unpack(raw)) if len(raw) == COUNTERS.size else Counters(0, 0, 0, 0)

    def write(self, counters: Counters) -> None:
        os.pwrite(self._lock, COUNTERS.pack(*counters), 0)

    def close(self) -> None:
        os.close(self._turn)
        os.close(self._lock)


def open_connection(folder: Path, *, write: bool) -> sqlite3.Connection:
    """A connection with our settings, no transaction open. One thread at a time may use it."""
    connection = sqlite3.connect(
        folder / FILE,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
        timeout=(BUSY_WRITE_MS if write else BUSY_READ_MS) / 1000,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("PRAGMA cache_size = -16000")
        # Checkpoints are made by the writer, under the lock; what a reset leaves of the WAL file is cut to this.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA journal_size_limit = 8388608")
        if not write:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare_folder(folder: Path) -> LogLock:
    """Make folder and file where they are missing, check them, and open the lock.

    Raises `LogFolderUnusable`, whose text says what isn't right and what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as e:
        file = next((p for p in (folder, *folder.parents) if p.exists() and not p.is_dir()), folder)
        raise LogFolderUnusable(
            f"log folder {str(folder)!r} can't be used: {str(file)!r} is a file, not a folder. Name another folder."
        ) from e
    except OSError as e:
        raise _unwritable(folder, e) from e
    _refuse_other_logs(folder)
    try:
        lock = LogLock(folder)
    except OSError as e:
        raise _unwritable(folder, e) from e
    try:
        lock.acquire()
        try:
            _prepare_file(folder)
        finally:
            lock.release()
    except BaseException:
        lock.close()
        raise
    return lock


def _unwritable(folder: Path, e: OSError) -> LogFolderUnusable:
    return LogFolderUnusable(
        f"log folder {str(folder)!r} can't be written: {e.strerror}. Give this user the right to write there, make"
        f" room on the disk, or name another folder."
    )


def _refuse_other_logs(folder: Path) -> None:
    if (folder / "meta.properties").exists():
        raise LogFolderUnusable(
            f"folder {str(folder)!r} holds the data of a Kafka broker (meta.properties), not an embedded log."
            f" Name another folder, or the broker's address: kafka://host:port."
        )


def _prepare_file(folder: Path) -> None:
    try:
        connection = open_connection(folder, write=True)
        try:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if application == 0 and tables == 0:
                _create(connection)
            else:
                _check(folder, application, connection.execute("PRAGMA user_version").fetchone()[0])
            connection.execute("PRAGMA journal_mode = WAL")
            # Fails at once where the file can't be written, instead of at the first append.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.Error as e:
        # SQLite looks, and not we: a process that closes a descriptor of its own on the file loses the locks that its
        # connections have there, and then another process that leaves deletes the WAL under them.
        if getattr(e, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise LogFolderUnusable(
                f"{str(folder / FILE)!r} isn't an SQLite file, so not a log of ours; it was left as it is. Move it"
                f" away, or name another folder."
            ) from e
        raise LogFolderUnusable(
            f"the log in {str(folder)!r} can't be opened: {explain(e)}. Nothing was changed."
        ) from e


def _create(connection: sqlite3.Connection) -> None:
    # The id too is set in the transaction: a kill in the middle leaves an empty file, which is made again.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FILE_FORMAT}")
    for statement in TABLES.split(";")[:-1]:
        connection.execute(statement)
    connection.execute("INSERT INTO meta VALUES ('identity', ?)", (secrets.token_hex(8),))
    connection.execute("COMMIT")


def _check(folder: Path, application: int, version: int) -> None:
    file = str(folder / FILE)
    if application != APPLICATION_ID:
        raise LogFolderUnusable(
            f"{file!r} is an SQLite file of another program (application id {application:#x}), not a log of ours; it"
            f" was left as it is. Move it away, or name another folder."
        )
    if version > FILE_FORMAT:
        raise LogFolderUnusable(
            f"{file!r} has the file format {version}, newer than {FILE_FORMAT}, the newest that this release knows."
            f" Upgrade this process; nothing was changed."
        )


def explain(e: sqlite3.Error) -> str:
    """What an SQLite error means here, and what to do, as the end of a sentence."""
    code = getattr(e, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full. Make room; the log goes on by itself then"
    if code == sqlite3.SQLITE_BUSY:
        return "another program has held SQLite's own lock for too long. Close SQLite tools that have the file open"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        return f"the file can't be opened for writing ({e}). Give this user the right to write in the folder"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"the file is damaged ({e}). Restore it from a copy"
    if code == sqlite3.SQLITE_IOERR:
        return f"reading or writing the disk failed ({e}). Look at the system's log for disk errors, and at free space"
    return f"SQLite says {e}"
