"""Seeded faults for the memory log: how each append ends. Off unless a `Faults` is given.

Every draw comes from the caller's `random.Random`, so a run is its seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from enum import Enum


class End(Enum):
    """How an append ends: what becomes of the records, and what the caller is told."""

    OK = "it lands, and its offset is told"
    LANDED_ERROR = "it lands, and an error is told"
    LANDED_NO_OFFSET = "it lands, and offset -1 is told"
    LANDED_OTHER_OFFSET = "it lands, and a wrong offset is told"
    REFUSED = "it doesn't land, and an error is told"
    LATE_ERROR = "an error is told, and it lands some operations later"
    LATE_SILENT = "nothing is told, and it lands some operations later"
    NEVER = "nothing is told, and it never lands"
    TWICE = "it lands twice, the second copy some operations later; the offset of the first is told"


class Faults:
    """Draws an `End` for each append. rates: probability of each end other than OK, together at most 1.

    late_operations_max: a late landing comes after 1 to so many further operations on the cluster, so two late ones
    may change places. orphans_land: probability that an append left unfinished by `retire` or `crash` still lands.
    """

    def __init__(
        self,
        rng: random.Random,
        rates: Mapping[End, float] | None = None,
        *,
        late_operations_max: int = 20,
        orphans_land: float = 0.5,
    ) -> None:
        self._rng = rng
        self.rates = dict(rates or {})
        self.late_operations_max = late_operations_max
        self.orphans_land = orphans_land
        self.quiet = False
        if sum(self.rates.values()) > 1:
            raise ValueError(f"the rates add up to {sum(self.rates.values())}, over 1")

    def next_end(self, topic: str, partition: int) -> End:
        """The end of the append that is being made. `quiet`: set it to True and all go well."""
        if self.quiet:
            return End.OK
        drawn = self._rng.random()
        for end, rate in self.rates.items():
            drawn -= rate
            if drawn < 0:
                return end
        return End.OK

    def late_after(self) -> int:
        """After how many further operations a late append lands."""
        return self._rng.randint(1, self.late_operations_max)

    def wrong_offset(self, right: int) -> int:
        """An offset that the append doesn't have."""
        return right + self._rng.choice((-1, 1, 2, 100))

    def orphan_lands(self) -> bool:
        """Whether an append that its sender has given up still lands."""
        return not self.quiet and self._rng.random() < self.orphans_land


class Script(Faults):
    """Plays the given ends in order, then OK for ever: for tests that enumerate. Orphans land."""

    def __init__(self, ends: Iterable[End], *, late_after: int = 1, orphans_land: bool = True) -> None:
        super().__init__(random.Random(0), orphans_land=1.0 if orphans_land else 0.0)
        self._ends = list(ends)
        self._late_after = late_after

    def next_end(self, topic: str, partition: int) -> End:
        return self._ends.pop(0) if self._ends else End.OK

    def late_after(self) -> int:
        return self._late_after

    def wrong_offset(self, right: int) -> int:
        return right + 1
