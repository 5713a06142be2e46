"""The folder of one server: who holds it, its instance id, its stores.

lock            held by a live process with flock; names the holder
instance-id     kept over restarts, so that the group gives the same partitions back at once
store/<n>/      the projection of partition n
checkpoints/    copies made for `verify` while the server goes on
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from millstream.events.errors import FolderInUse, LogFolderUnusable, StoreDamaged
from millstream.projections.rocksdb_store import RocksStore
from millstream.streams.runtime.clock import Chance


class ServerFolder:
    """Opens and locks `path`. Raises `FolderInUse` naming the holder, `LogFolderUnusable` where it can't be written."""

    def __init__(self, path: Path, *, since: str) -> None:
        self.path = path
        self._since = since
        self._lock: int | None = None

    def lock(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise LogFolderUnusable(
                f"the server folder {str(self.path)!r} can't be written: {error.strerror}. Give another one, or mend its rights."
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 4096, 0).decode(errors="replace") or "another process"
            os.close(fd)
            raise FolderInUse(
                f"the server folder {str(self.path)!r} is held by {holder}. Two servers can't share one: stop that one, or"
                f" give this one a folder of its own (--folder)."
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}, since {self._since}".encode(), 0)
        self._lock = fd

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def instance_id(self, chance: Chance) -> str:
        """The id kept in the folder; made at the first call."""
        path = self.path / "instance-id"
        try:
            found = path.read_text().strip()
        except FileNotFoundError:
            found = ""
        if not found:
            found = f"{socket.gethostname()}-{chance.token()}"
            partial = path.with_suffix(".new")
            partial.write_text(found + "\n")
            partial.rename(path)
        return found

    def store_path(self, partition: int) -> Path:
        return self.path / "store" / str(partition)

    def open_store(self, partition: int) -> tuple[RocksStore, str | None]:
        """The partition's store; and why it begins empty, where its files were damaged and had to be dropped."""
        path = self.store_path(partition)
        path.parent.mkdir(parents=True, exist_ok=True)
        store = None
        try:
            store = RocksStore(str(path))
            # RocksDB opens damaged tables, too; what everybody needs first is read here, so that it heals and doesn't stop.
            store.meta()
            store.fence()
            return store, None
        except StoreDamaged as damaged:
            if store is not None:
                with contextlib.suppress(StoreDamaged):
                    store.close()
            shutil.rmtree(path)
            return RocksStore(str(path)), str(damaged)

    def answer_checkpoints(self, stores: Mapping[int, RocksStore]) -> None:
        """Make the copies that `request_checkpoint` has asked for."""
        for request in self.path.glob("checkpoints/*.request"):
            target = request.with_suffix("")
            target.mkdir(exist_ok=True)
            for partition, store in stores.items():
                store.checkpoint(str(target / str(partition)))
            request.rename(request.with_suffix(".done"))

    @property
    def held(self) -> bool:
        """Whether a live process holds the lock."""
        try:
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def request_checkpoint(self, chance: Chance) -> Path:
        """Ask the live holder for copies of its stores. They are there once the file `<returned>.done` exists."""
        folder = self.path / "checkpoints"
        folder.mkdir(exist_ok=True)
        target = folder / chance.token()
        target.with_suffix(".request").touch()
        return target
