"""From an older version of a record to the next one: a table. Pure.

A row is (record name, version) -> a function of the fields at that version to
the fields at the next. A record that was written at version 1 and is read by a
release at version 3 goes through the rows 1 and 2. Rows are never removed: the
journal is kept for ever, and so is every version that was ever written to it.

A step takes and returns a dict of fields, and may change the dict that it gets.
A record inside the record has gone through its own rows before and comes as an
object of today: a step may move it, but not look inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Fields = dict[str, Any]
Step = Callable[[Fields], Fields]
Upcasts = Mapping[tuple[str, int], Step]


def adds(name: str, make: Callable[[], Any]) -> Step:
    """A step to a version with one more field. `make` is called for each record, so that no two share a list."""

    def step(fields: Fields) -> Fields:
        fields[name] = make()
        return fields

    return step


def renames(old: str, new: str) -> Step:
    """A step to a version in which the field `old` is called `new`."""

    def step(fields: Fields) -> Fields:
        fields[new] = fields.pop(old)
        return fields

    return step


def in_turn(*steps: Step) -> Step:
    """Several changes of one version, one after the other."""

    def step(fields: Fields) -> Fields:
        for one in steps:
            fields = one(fields)
        return fields

    return step


UPCASTS: Upcasts = {}
