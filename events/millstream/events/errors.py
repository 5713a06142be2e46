"""What can go wrong outside, named by what the caller does next.

    MillstreamError
    ├── Refused                 the request is wrong; nothing happened; mend it and ask again
    │   ├── RecordTooLarge          one record over the record limit
    │   ├── BatchTooLarge           a batch over the batch limit
    │   ├── BadId                   an id outside the allowed set
    │   └── BadAddress              a log address that can't be read
    ├── AppendUnknown           an append whose end nobody knows: claim again and learn
    ├── LogUnavailable          the log doesn't answer now: wait and try again
    ├── Stop                    going on would lose or invent data: stop, say so, ask a person
    │   ├── LogWentBack             the log is shorter than what we know of it
    │   ├── OffsetOutOfRange        a position that the log no longer (or not yet) has
    │   ├── HoleInJournal           a number is missing: lost data
    │   ├── TopicMissing            a topic that should be there isn't
    │   ├── TopicSettingsUnsafe     settings that would eat or reorder the log
    │   ├── PartitionCountMismatch  another partition count than the prefix was made with
    │   ├── NewerFormat             the journal was written by a newer release
    │   ├── StoreAheadOfLog         a projection that knows more than its log
    │   ├── StoreOfAnotherLog       a projection of another log: dropped and rebuilt
    │   ├── StoreOfOtherFolds       a projection made by another release's folds: rebuilt
    │   ├── InstanceInUse           two processes go by one instance id
    │   ├── FolderInUse             another process holds this folder
    │   ├── LogFolderUnusable       not writable, full, or not ours
    │   └── StoreDamaged            RocksDB can't read its files: rebuild
    ├── SchemaError             a schema can't be read, found or evolved
    │   ├── UnknownSchema           a fingerprint that the schemas topic doesn't have (yet)
    │   ├── SchemaUnreadable        not Avro, or not one of ours
    │   ├── SchemaIncompatible      a change that old readers or old data can't bear
    │   ├── Undecodable             bytes that their own schema can't read
    │   └── Unencodable             a value that its schema can't hold
    └── BrokerFailed            the local Kafka didn't come up or go down
        └── PortTaken               somebody else listens there

`Refused` never reaches the log. `AppendUnknown` is never "it failed": the record
may have landed, may land later, or never (journal protocol, rule 6).
"""

from __future__ import annotations


class MillstreamError(Exception):
    """Base of everything Millstream raises; its text says what happened, why, and what to do next."""


class Refused(MillstreamError):
    """The request can't be accepted as it is; nothing happened. Mend it and ask again."""


class RecordTooLarge(Refused):
    """One record is over the log's record limit. Put the value in a file or split it."""

    def __init__(self, topic: str, size: int, limit: int) -> None:
        super().__init__(
            f"a record of {size:,} bytes for {topic!r} is over the limit of {limit:,} bytes a record."
            f" Nothing was written. Split it, or store the value elsewhere and send its address."
        )
        self.topic, self.size, self.limit = topic, size, limit


class BatchTooLarge(Refused):
    """A batch is over the log's batch limit. Append it in several batches."""

    def __init__(self, topic: str, size: int, limit: int, records: int) -> None:
        super().__init__(
            f"a batch of {records:,} records and {size:,} bytes for {topic!r} is over the limit of {limit:,}"
            f" bytes a batch. Nothing was written. Append it in smaller batches."
        )
        self.topic, self.size, self.limit, self.records = topic, size, limit, records


class BadId(Refused):
    """An id has characters that an id may not have. The text names the allowed set."""


class BadAddress(Refused):
    """A log address can't be read. The text shows the forms that can."""


class AppendUnknown(MillstreamError):
    """Nobody knows how this append ended. It may have landed, may still land, or never will.

    Retire the producer, read the log, and learn (journal protocol, rule 6).
    """


class LogUnavailable(MillstreamError):
    """The log doesn't answer. Wait and try again; nothing that was acknowledged is lost."""


class Stop(MillstreamError):
    """Going on would lose or invent data. Stop, say so loudly, and let a person decide."""


class LogWentBack(Stop):
    """The log is shorter than what was already read from it: it was truncated or restored."""


class OffsetOutOfRange(Stop):
    """A reader's position is outside what the log holds."""

    def __init__(self, topic: str, partition: int, position: int, first: int, end: int) -> None:
        super().__init__(
            f"position {position} of {topic!r} partition {partition} is outside the log, which holds"
            f" {first} to {end - 1 if end > first else 'nothing'} (next is {end})."
            f" Records were deleted, or the topic was recreated. Nothing was skipped: choose {first} to go on"
            f" with what is left, or {end} to go on with what comes."
        )
        self.topic, self.partition, self.position, self.first, self.end = topic, partition, position, first, end


class HoleInJournal(Stop):
    """A transition number is missing in an epoch: data was lost. Only an operator's `GapAccepted` goes past it."""


class TopicMissing(Stop):
    """A topic that should exist doesn't."""


class TopicSettingsUnsafe(Stop):
    """A topic's settings would delete, reorder or lose what is on it."""


class PartitionCountMismatch(Stop):
    """A topic has another number of partitions than its prefix was made with."""


class NewerFormat(Stop):
    """The journal was written by a newer release than this one."""


class StoreAheadOfLog(Stop):
    """A projection holds more than its log: the log was recreated or restored from an older copy."""


class StoreOfAnotherLog(Stop):
    """A projection was folded from another log. It is dropped and rebuilt, loudly."""


class StoreOfOtherFolds(Stop):
    """A projection's rows were made by another version of the folds. It is dropped and rebuilt."""


class InstanceInUse(Stop):
    """Another live process goes by the same instance id: a data folder was probably copied."""


class FolderInUse(Stop):
    """Another process holds this folder. The text names it."""


class LogFolderUnusable(Stop):
    """The log folder can't be written, is full, or holds something else."""


class StoreDamaged(Stop):
    """RocksDB can't read its own files. Rebuild the store from the log."""


class SchemaError(MillstreamError):
    """Something about a schema."""


class UnknownSchema(SchemaError):
    """A record names a schema fingerprint that isn't known. Read the `schemas` topic to its end, then try again."""

    def __init__(self, fingerprint: int) -> None:
        super().__init__(
            f"no schema with fingerprint {fingerprint:016x} is known. The record was written by a newer release, or"
            f" the schemas topic is incomplete. Upgrade this process, or restore the schemas topic."
        )
        self.fingerprint = fingerprint


class SchemaUnreadable(SchemaError):
    """A schema is not valid Avro, or misses what ours must have."""


class SchemaIncompatible(SchemaError):
    """A schema change that old readers or old data can't bear; the text names field and rule."""


class Undecodable(SchemaError):
    """Bytes that can't be read as what they claim to be."""


class Unencodable(SchemaError):
    """A record holds a value that its schema can't; the text names record and field. Nothing was written."""


class BrokerFailed(MillstreamError):
    """The local Kafka didn't start, or didn't stop. The text has the end of its log."""


class PortTaken(BrokerFailed):
    """Somebody else listens on the port that the broker was told to use."""
