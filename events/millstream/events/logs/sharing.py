"""Share the partitions of a group out to its members: even, and with as little moving as that allows. Pure.

Used by the adapters that keep their groups themselves (SQLite, memory).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from millstream.events.logs.port import TopicPartition


def share_out(
    partitions: Iterable[TopicPartition],
    members: Mapping[str, frozenset[str]],
    held: Mapping[TopicPartition, str],
) -> dict[TopicPartition, str]:
    """Give each partition to a member that subscribes to its topic; partitions without such a member are left out.

    members: instance id -> topics. held: who has each partition now. The same input gives the same output. Where all
    subscribe to the same topics, loads differ by one at most, and nothing moves that needn't.
    """
    given: dict[TopicPartition, str] = {}
    load = dict.fromkeys(sorted(members), 0)
    free: list[TopicPartition] = []
    for tp in sorted(partitions):
        holder = held.get(tp)
        if holder in load and tp.topic in members[holder]:
            given[tp] = holder
            load[holder] += 1
        else:
            free.append(tp)
    for tp in free:
        able = [m for m in load if tp.topic in members[m]]
        if able:
            least = min(able, key=load.__getitem__)
            given[tp] = least
            load[least] += 1
    _even_out(given, members, load)
    return given


def _even_out(given: dict[TopicPartition, str], members: Mapping[str, frozenset[str]], load: dict[str, int]) -> None:
    # Each move lowers the sum of squared loads, so this ends.
    moved = True
    while moved:
        moved = False
        # The highest numbers move first, so that a member keeps the low ones it began with.
        for tp in sorted(given, reverse=True):
            holder = given[tp]
            able = [m for m in load if tp.topic in members[m]]
            least = min(able, key=load.__getitem__)
            if load[holder] - load[least] > 1:
                given[tp] = least
                load[holder] -= 1
                load[least] += 1
                moved = True
