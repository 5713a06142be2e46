"""Compare a topic as it is with the topic as it should be. Pure."""

from __future__ import annotations

from millstream.events.errors import PartitionCountMismatch, TopicSettingsUnsafe
from millstream.events.logs.port import TopicSpec


def compare_specs(expected: TopicSpec, found: TopicSpec) -> None:
    """Raise `PartitionCountMismatch` or `TopicSettingsUnsafe` where `found` differs; the text names what."""
    if expected.partitions != found.partitions:
        raise PartitionCountMismatch(
            f"{expected.name!r} has {found.partitions} partitions, expected {expected.partitions}. The count is fixed"
            f" for the life of a prefix, since a run's partition follows from it. Use {found.partitions}, or another"
            f" prefix."
        )
    for setting in ("cleanup", "keep_forever", "log_append_time"):
        want, have = getattr(expected, setting), getattr(found, setting)
        if want != have:
            raise TopicSettingsUnsafe(
                f"{expected.name!r} has the setting {setting} = {have!r}, expected {want!r}. With it the log would be"
                f" cut, or stamped by other clocks. Set it right, or use another prefix."
            )
