"""The modelled log of one partition, with what every reader of it has folded so far."""

from collections.abc import Iterator

from tests.models.explorer import Kind, Violation
from tests.models.journal_records import Folder, Record, Transition, TransitionId, View


class Log:
    """An immutable log; `append` gives a longer one, the same object for the same records.

    view     what a reader holds that has read all of it from the start
    valid    the transitions which that reader applied, with their offsets
    readers  the views of all that were restarted at any offset and read on from there
    broken   what those readers have met: flaws of the fold, or disagreement among them
    """

    __slots__ = ("_longer", "before", "broken", "folder", "length", "readers", "record", "valid", "view")

    def __init__(self, folder: Folder, before: "Log | None" = None, record: Record | None = None) -> None:
        self.folder = folder
        self.before = before
        self.record = record
        self._longer: dict[Record, Log] = {}
        if before is None or record is None:
            self.length = 0
            self.view = folder.empty
            self.valid: dict[TransitionId, tuple[int, Transition]] = {}
            self.readers = frozenset({folder.restarted(folder.empty)})
            self.broken: Violation | None = None
            return
        offset = before.length
        self.length = offset + 1
        self.view = folder.read(before.view, record, offset)
        self.valid = before.valid
        if isinstance(record, Transition) and before.view.number < self.view.number:
            self.valid = {**before.valid, record.id: (offset, record)}
        read_on = {folder.read(view, record, offset) for view in before.readers}
        self.readers = frozenset(read_on | {folder.restarted(self.view)})
        self.broken = self._check()

    def append(self, record: Record) -> "Log":
        longer = self._longer.get(record)
        if longer is None:
            longer = self._longer[record] = Log(self.folder, self, record)
        return longer

    def extend(self, records: tuple[Record, ...]) -> "Log":
        log = self
        for record in records:
            log = log.append(record)
        return log

    def cut_to(self, length: int) -> "Log":
        """The first `length` records; the log itself where it is shorter."""
        log = self
        while log.length > length and log.before is not None:
            log = log.before
        return log

    def records(self) -> Iterator[Record]:
        """All of them, newest first."""
        log: Log | None = self
        while log is not None and log.record is not None:
            yield log.record
            log = log.before

    def _check(self) -> Violation | None:
        view = self.view
        if view.flaw is not None:
            return view.flaw
        if view.hole:
            return Violation(
                Kind.HOLE, f"every reader and every new owner stops at offset {self.length - 1}: {self.record}"
            )
        skipped = sorted(set(range(view.command_offset + 1)) - view.decided)
        if skipped:
            text = f"command {skipped[0]} was never decided, command_offset is {view.command_offset}"
            return Violation(Kind.LOST_COMMAND, text)
        if any(reader.rows() != view.rows() for reader in self.readers):
            text = f"one that was restarted below offset {self.length} holds other rows than one that read all"
            return Violation(Kind.DIVERGED, text)
        return None

    def resumed(self, store: "Log") -> View | None:
        """What a reader makes of this log whose store was folded from `store`, another history of it.

        None where it stops loudly: the store is ahead of the log.
        """
        if store.length > self.length:
            return None
        same = self.cut_to(store.length).record == store.record
        if not same and self.folder.rules.store_checked_against_log:
            return self.view  # dropped, rebuilt from the start
        return self._read_on(store)

    def _read_on(self, store: "Log") -> View:
        if self.length == store.length:
            return store.view
        assert self.before is not None
        assert self.record is not None
        return self.folder.read(self.before._read_on(store), self.record, self.length - 1)
