"""The state of the journal model: one partition, its owners, the network, the workers, the clients.

Nothing is timed. A pause, of a process or of a request, is a next step that comes
arbitrarily late, so every interleaving of pauses is searched without a step for it.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from tests.models.explorer import Violation
from tests.models.journal_decide import Aside, Command
from tests.models.journal_log import Log
from tests.models.journal_records import Epoch, Output, Record, TransitionId, View


class Faults(NamedTuple):
    """How many of each may still happen."""

    rebalances: int = 0
    unknown_ends: int = 0  # an append's sender hears nothing, or an error; the request may land at any later moment
    crashes: int = 0  # crash and restart of an owner
    double_landings: int = 0
    client_retries: int = 0
    worker_repeats: int = 0
    cuts: int = 0  # the log forgets its last record

    def less(self, fault: str) -> "Faults":
        return self._replace(**{fault: getattr(self, fault) - 1})


@dataclass(frozen=True)
class Bounds:
    """How far one search goes. `claims` bounds the whole journal: each batch needs an owner."""

    commands: tuple[Command, ...]
    faults: Faults = field(default_factory=Faults)
    owners: int = 2
    claims: int = 3
    batch_commands_max: int = 2

    def __str__(self) -> str:
        faults = ", ".join(
            f"{count} {name.replace('_', ' ')}" for name, count in self.faults._asdict().items() if count
        )
        commands = ", ".join(str(command) for command in self.commands)
        return f"{self.owners} owners, {self.claims} claims; {commands}; {faults or 'no faults'}"


class Request(NamedTuple):
    """An append on its way: it may land, land twice, or never."""

    records: tuple[Record, ...]
    landed_at: tuple[int, ...] = ()


class Late(NamedTuple):
    """A request that its sender gave up; it may land all the same."""

    records: tuple[Record, ...]
    landings: int


class Waiting(NamedTuple):
    """An output that its owner has yet to send, with the offset where the owner believes its transition."""

    output: Output
    offset: int


class Message(NamedTuple):
    """An output as the world has seen it."""

    id: tuple[object, ...]
    kind: str
    request: TransitionId
    step: str
    attempt: int
    tag: Epoch  # of the sender


class Phase(StrEnum):
    DOWN = "down"
    CLAIMING = "claiming"
    OWNER = "owner"
    STOPPED = "stopped"  # loudly: an operator is called


class Owner(NamedTuple):
    name: str
    phase: Phase = Phase.DOWN
    assigned: bool = False  # as far as it has heard from the group
    may_claim: bool = False
    epoch: Epoch = (-1, 0)
    expected: int = 0  # base offset of its next append
    number: int = 0  # the last one proved
    position: int = 0  # the next command to read
    proved: View | None = None
    requests: tuple[Request, ...] = ()
    to_send: tuple[Waiting, ...] = ()
    aside: Aside | None = None

    def down(self, *, assigned: bool, may_claim: bool) -> "Owner":
        """All of its memory is gone but what the group told it."""
        return Owner(self.name, assigned=assigned, may_claim=may_claim)


class State(NamedTuple):
    log: Log
    commands: tuple[Command, ...]
    owners: tuple[Owner, ...]
    assigned: int  # the owner to which the group gives the partition
    faults: Faults
    claims_max: int
    claims_made: int = 0
    late: frozenset[Late] = frozenset()
    sent: tuple[Message, ...] = ()  # first occurrences, in the order in which the world saw them
    worked: frozenset[tuple[object, ...]] = frozenset()  # ids of tasks that a worker has run
    promised: frozenset[TransitionId] = frozenset()  # answered before their proof
    cut: bool = False
    store: Log | None = None  # a reader's store, from before the cut
    flaw: Violation | None = None  # what went wrong inside a step

    def with_owner(self, index: int, owner: Owner) -> "State":
        return self._replace(owners=(*self.owners[:index], owner, *self.owners[index + 1 :]))

    def spending(self, fault: str) -> "State":
        """One fault less; with the last double landing gone, nothing that has landed can land again."""
        faults = self.faults.less(fault)
        late = self.late if faults.double_landings else frozenset(r for r in self.late if not r.landings)
        return self._replace(faults=faults, late=late)

    def giving_up(self, *requests: Request) -> "State":
        """The sender of these looks away; what may still land stays on its way."""
        most = 1 if self.faults.double_landings else 0
        late = {Late(r.records, len(r.landed_at)) for r in requests if len(r.landed_at) <= most}
        return self._replace(late=self.late | late) if late else self
