"""What a seed is made of: how large, how faulty, what befalls it. A seed's scenario is `seed % len(SCENARIOS)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from millstream.events.logs.memory_faults import End

ALL_ENDS: Mapping[End, float] = {
    End.LANDED_ERROR: 0.05,
    End.LANDED_NO_OFFSET: 0.03,
    End.LANDED_OTHER_OFFSET: 0.03,
    End.REFUSED: 0.05,
    End.LATE_ERROR: 0.05,
    End.LATE_SILENT: 0.03,
    End.NEVER: 0.03,
    End.TWICE: 0.05,
}
SOME_ENDS: Mapping[End, float] = {End.LANDED_ERROR: 0.02, End.REFUSED: 0.02, End.LATE_ERROR: 0.02, End.TWICE: 0.02}


@dataclass(frozen=True)
class Scenario:
    """befalls: what happens, by weight (names of methods of `Chaos`), about every `befalls_every_s`.

    Counts are (least, most). active_s: how long faults go on. slow: share of appends that take 50 ms and more.
    commands_kept: decided commands that stay on the log; so few that they are cut away all the time.
    flushes: probability that a write is followed by a flush of the store.
    """

    name: str
    about: str
    partitions: tuple[int, int] = (1, 2)
    servers: tuple[int, int] = (2, 2)
    kernels: tuple[int, int] = (1, 2)
    clients: tuple[int, int] = (1, 2)
    books: tuple[int, int] = (2, 3)
    flights: tuple[int, int] = (0, 5)
    slice_flights: int = 500
    think_s: float = 0.3
    ends: Mapping[End, float] = field(default_factory=dict)
    kernel_errors: float = 0.0
    slow: float = 0.0
    flushes: float = 0.3
    befalls: Mapping[str, float] = field(default_factory=dict)
    befalls_every_s: float = 0.25
    active_s: float = 2.0
    record_bytes_max: int = 1_000_000
    commands_kept: int = 3


CRASHES = {"crash_server": 3.0, "crash_server_often": 2.0, "crash_client": 2.0, "crash_kernel": 2.0, "verify": 1.0}
ZOMBIES = {"pause_server": 3.0, "silence_server": 3.0, "leave_and_come_back": 1.0, "verify": 1.0}
COPIES = {"copy_command": 4.0, "late_answer": 1.0, "copy_call": 2.0, "pause_kernel": 1.0, "crash_client": 0.5}
CLOCKS = {"jump_wall_clock": 3.0, "jump_log_clock": 1.0, "crash_server": 1.0}
JUNK = {"junk_command": 3.0, "misplaced_command": 3.0, "junk_call": 1.0, "copy_command": 1.0}

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("calm", "nothing goes wrong", servers=(1, 1)),
    Scenario("ends", "appends end in every way", ends=ALL_ENDS, slow=0.05),
    Scenario("crashes", "processes die and come back", befalls=CRASHES, slow=0.05),
    Scenario("zombies", "processes stop, fall silent and go on", befalls=ZOMBIES, slow=0.1, ends=SOME_ENDS),
    Scenario(
        "copies", "copies of everything, late and in another order", befalls=COPIES, befalls_every_s=0.08, kernel_errors=0.2
    ),
    Scenario("clocks", "clocks jump by an hour; timers", befalls=CLOCKS, books=(3, 5), flights=(0, 2), kernel_errors=0.1),
    Scenario(
        "setback", "the log's clock is set back: it stands still for a while", books=(2, 3), flights=(0, 2), partitions=(1, 1),
        befalls={"set_log_clock_back": 3.0, "jump_wall_clock": 1.0, "crash_server": 1.0},
    ),
    Scenario(
        "kernels", "kernel workers die, stop, fail, and compute twice", kernels=(2, 3), slow=0.4, kernel_errors=0.3,
        befalls={"crash_kernel": 4.0, "pause_kernel": 3.0, "copy_call": 2.0, "late_answer": 3.0}, befalls_every_s=0.05,
        books=(3, 5), flights=(0, 2), think_s=0.1,
    ),
    Scenario("junk", "what can't be decided, and what lies on the wrong partition", partitions=(2, 2), befalls=JUNK),
    Scenario(
        "slices", "plans of many slices under crashes", flights=(4, 9), slice_flights=2, books=(1, 2), think_s=0.1,
        befalls={**CRASHES, **ZOMBIES}, ends=SOME_ENDS,
    ),
    Scenario(
        "large", "transitions over the limit", flights=(15, 45), record_bytes_max=560, think_s=0.02, books=(1, 2),
        befalls={**CRASHES, **COPIES},
    ),
    Scenario("herd", "fifty ask the same at once", books=(1, 2), befalls={**CRASHES, **ZOMBIES}, slow=0.1),
    Scenario("fight", "two owners of one partition, and neither gives up", partitions=(1, 1), slow=0.2, ends=SOME_ENDS),
    Scenario(
        "all", "everything at once", servers=(2, 3), ends=ALL_ENDS, slow=0.05, kernel_errors=0.1, slice_flights=2,
        befalls={**CRASHES, **ZOMBIES, **COPIES, **CLOCKS, **JUNK}, befalls_every_s=0.15,
    ),
)  # fmt: skip
BY_NAME = {s.name: s for s in SCENARIOS}


def scenario_of(seed: int) -> Scenario:
    return SCENARIOS[seed % len(SCENARIOS)]
