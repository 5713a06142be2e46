"""A store on disk: RocksDB through rocksdict.

The write-ahead log is off, since the journal is one: what was not flushed is
folded again. All rows are in one column family, so that a flush takes rows and
fence together (several part at a crash). Block cache and write buffers are
shared by all stores of the process.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from millstream.events.envelope import Fence
from millstream.events.errors import FolderInUse, LogFolderUnusable, MillstreamError, StoreDamaged
from millstream.projections.keys import FENCE_KEY, META_KEY, after
from millstream.projections.store import StoreMeta, fence_row, meta_row, read_fence, read_meta

BLOCK_CACHE_BYTES = 32 << 20
WRITE_BUFFERS_BYTES = 64 << 20
WRITE_BUFFER_BYTES = 8 << 20
BLOOM_BITS = 10
OPEN_FILES_MAX = 256


@lru_cache(maxsize=1)
def _shared() -> tuple[Cache, WriteBufferManager]:
    """One block cache and one account of write buffers for the process, however many partitions it has."""
    return Cache(BLOCK_CACHE_BYTES), WriteBufferManager(WRITE_BUFFERS_BYTES, False)


def _options(*, read_only: bool) -> Options:
    cache, buffers = _shared()
    tables = BlockBasedOptions()
    tables.set_block_cache(cache)
    tables.set_bloom_filter(BLOOM_BITS, False)
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_block_based_table_factory(tables)
    options.set_write_buffer_manager(buffers)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    # One task writes: a memtable that needn't mind others takes rows a fifth faster.
    options.set_allow_concurrent_memtable_write(False)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_paranoid_checks(True)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    options.set_stats_dump_period_sec(0)
    # A reader beside a live owner opens all files at once: compaction deletes those that it would open later.
    options.set_max_open_files(-1 if read_only else OPEN_FILES_MAX)
    return options


class RocksStore:
    """A store in the folder `path`, made if it is missing. With `read_only` it sees what was flushed before the opening,
    also while another process has it open. Raises `FolderInUse`, `StoreDamaged`, `LogFolderUnusable`."""

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.path = str(path)
        self._read_only = read_only
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign, assignment]
        self._db: Rdict | None = self._open()

    @staticmethod
    def forget(path: str) -> None:
        """Delete the store in `path`, also one that can't be opened. Raises `FolderInUse` while a process has it open."""
        try:
            with _named(path):
                Rdict.destroy(path, Options(raw_mode=True))
        except StoreDamaged:
            pass  # It is to go anyway.
        shutil.rmtree(path, ignore_errors=True)

    def get(self, key: bytes) -> bytes | None:
        # Not `_named`: this is called for every command, and a context manager costs as much as the read.
        try:
            row: bytes | None = self._live().get(key)
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise _mapped(self.path, error) from error
        return row

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        with _named(self.path):
            within = ReadOptions()
            end = after(prefix)
            if end is not None:
                within.set_iterate_upper_bound(end)
            rows = self._live().iter(within)
            try:
                rows.seek(prefix if start is None else max(prefix, start))
                while rows.valid():
                    yield rows.key(), rows.value()
                    rows.next()
                # An iterator that meets a damaged block just ends.
                rows.status()
            finally:
                del rows

    def write(self, puts: Mapping[bytes, bytes | None], fence: Fence) -> None:
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in puts.items():
            if value is None:
                delete(key)
            else:
                put(key, value)
        # Rows and fence in one batch: a crash between them would fold a record twice.
        put(FENCE_KEY, fence_row(fence))
        with _named(self.path):
            self._live().write(batch, self._unlogged)

    def fence(self) -> Fence:
        return read_fence(self)

    def meta(self) -> StoreMeta | None:
        return read_meta(self)

    def set_meta(self, meta: StoreMeta) -> None:
        with _named(self.path):
            self._live().put(META_KEY, meta_row(meta), self._unlogged)

    def checkpoint(self, folder: str) -> None:
        with _named(self.path):
            Path(folder).parent.mkdir(parents=True, exist_ok=True)
            Checkpoint(self._live()).create_checkpoint(str(folder))

    def flush(self) -> None:
        with _named(self.path):
            self._live().flush()

    def drop(self) -> None:
        self._close()
        self.forget(self.path)
        self._db = self._open()

    def close(self) -> None:
        try:
            if self._db is not None and not self._read_only:
                self.flush()
        finally:
            self._close()

    def _open(self) -> Rdict:
        if self._read_only and not Path(self.path, "CURRENT").exists():
            raise StoreDamaged(
                f"there is no store in {self.path!r}. Its owner makes it from the log at its next start."
            )
        with _named(self.path):
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            access = AccessType.read_only() if self._read_only else AccessType.read_write()
            return Rdict(self.path, _options(read_only=self._read_only), access_type=access)

    def _live(self) -> Rdict:
        if self._db is None:
            raise StoreDamaged(f"store {self.path!r} is closed.")
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            db, self._db = self._db, None
            db.close()


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Raise what RocksDB says as the error that tells what to do next. rocksdict raises it as a bare `Exception`."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise _mapped(path, error) from error


def _mapped(path: str, error: Exception) -> MillstreamError:
    text = str(error)
    low = text.lower()
    if (
        "lock hold by" in low
        or "/lock: resource temporarily" in low
        or ("lock" in low and "temporarily unavailable" in low)
    ):
        return FolderInUse(
            f"store {path!r} is open in another process: {text}. Stop that one, or open the store read-only."
        )
    if any(word in low for word in ("no space left", "permission denied", "read-only file system", "disk quota")):
        return LogFolderUnusable(
            f"store {path!r} can't be written: {text}. Free space or mend the permissions and start again; what is missing"
            f" in it is folded from the log."
        )
    return StoreDamaged(
        f"RocksDB can't use its files in {path!r}: {text}. Nothing is lost, the log has everything: rebuild the store"
        f" (`millstream rebuild`), or delete the folder."
    )
