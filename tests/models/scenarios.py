"""What is searched: bounds in which the protocol must hold, and rules that must be caught when broken.

A row of `BROKEN` uses bounds of `SMALL`, so the same search with all rules on is known
to find nothing: what the broken rule is caught by is the rule's own doing.
"""

from functools import singledispatch
from typing import Any, NamedTuple

from tests.models import journal_state, partitions, step
from tests.models.explorer import Kind, Model
from tests.models.journal import JournalModel
from tests.models.journal_decide import Command
from tests.models.journal_state import Faults
from tests.models.rules import PROTOCOL, Rules

Bounds = journal_state.Bounds | partitions.Bounds | step.Bounds


@singledispatch
def model_of(bounds: Bounds, rules: Rules = PROTOCOL) -> Model[Any]:
    raise TypeError(f"no model has bounds of the type {type(bounds)!r}")


@model_of.register
def _(bounds: journal_state.Bounds, rules: Rules = PROTOCOL) -> Model[Any]:
    return JournalModel(bounds, rules)


@model_of.register
def _(bounds: partitions.Bounds, rules: Rules = PROTOCOL) -> Model[Any]:
    return partitions.PartitionsModel(bounds, rules)


@model_of.register
def _(bounds: step.Bounds, rules: Rules = PROTOCOL) -> Model[Any]:
    return step.StepModel(bounds, rules)


ADDS = (Command("add", "a"), Command("add", "b"))
PUBLISHES = (Command("publish", "p"), Command("publish", "q"))
TASK = (Command("start", "s"),)
REWIND = (Command("start", "s"), Command("rewind", "r", "s"))
TIMER = (Command("sleep", "t"), Command("add", "a"))
FAN_OUT = (Command("fan out", "f"), Command("add", "a"))
TOO_LARGE = (Command("add much", "m"), Command("add", "a"))
REMOVAL = (Command("add", "a"), Command("remove", "r", "a"))


def _journal(commands: tuple[Command, ...], owners: int = 2, claims: int = 3, **faults: int) -> journal_state.Bounds:
    return journal_state.Bounds(commands, Faults(**faults), owners, claims)


SMALL: dict[str, Bounds] = {
    "zombie": _journal(ADDS, rebalances=1, unknown_ends=1),
    "crash": _journal(ADDS, unknown_ends=1, crashes=1),
    "landed twice": _journal(ADDS[:1], rebalances=1, double_landings=1),
    "cut": _journal(ADDS, rebalances=1, cuts=1),
    "second copy": _journal(ADDS[:1], unknown_ends=1, crashes=1, client_retries=1),
    "timer": _journal(TIMER, unknown_ends=1, crashes=1),
    "task": _journal(TASK, unknown_ends=1, crashes=1, worker_repeats=1),
    "rewind": _journal(REWIND, crashes=1),
    "copy after a rewind": _journal(REWIND, claims=1, client_retries=1),
    "events": _journal(PUBLISHES, rebalances=1),
    "events landed twice": _journal(PUBLISHES, claims=2, crashes=1, double_landings=1),
    "fan-out": _journal(FAN_OUT, unknown_ends=1, crashes=1),
    "too large": _journal(TOO_LARGE, crashes=1),
    "removal": _journal(REMOVAL, crashes=1, client_retries=1),
    "child": partitions.Bounds(copies=1),
    "child waits for a signal": partitions.Bounds(copies=1, needs_signal=True),
    "child removed": partitions.Bounds(child_crashes=0, retention=True, copies=1),
    "child's id taken": partitions.Bounds(id_taken=True),
    "step": step.Bounds(crashes=3, cancels=1, kills=5),
}

LARGE: dict[str, Bounds] = SMALL | {
    "all three faults": _journal(ADDS, rebalances=1, unknown_ends=1, crashes=1),
    "three owners": _journal(ADDS[:1], owners=3, rebalances=2),
    "landed twice, second copy": _journal(ADDS[:1], rebalances=1, double_landings=1, client_retries=1),
    "second copy to a zombie": _journal(ADDS[:1], rebalances=1, unknown_ends=1, client_retries=1),
    "rewind, worker repeats": _journal(REWIND, crashes=1, worker_repeats=1),
    "rewind under a zombie": _journal(REWIND, claims=2, rebalances=1),
    "events under a zombie": _journal(PUBLISHES, rebalances=1, crashes=1),
    "events landed twice, unknown": _journal(PUBLISHES, unknown_ends=1, crashes=1, double_landings=1),
    "fan-out under a zombie": _journal(FAN_OUT, rebalances=1),
    "two cuts": _journal(ADDS, claims=2, rebalances=1, cuts=2),
    "child, two crashes each": partitions.Bounds(2, 2, copies=1, needs_signal=True, retention=True),
}


class Broken(NamedTuple):
    """One changed switch, and what the search must find. `then` ends the sentence 'without it, ...'."""

    rule: str
    then: str
    rules: Rules
    bounds: str
    kind: Kind


BROKEN = (
    # 1. Claim
    Broken(
        "an owner reads up to its claim before it decides",
        "it decides again what its predecessor decided",
        Rules(reads_up_to_its_claim=False),
        "crash",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "an owner claims again after an unknown end",
        "the partition stays assigned and unowned for ever",
        Rules(claims_again=False),
        "zombie",
        Kind.UNOWNED,
    ),
    Broken(
        "the claim id is part of the epoch",
        "after a cut two claims have one offset, and a zombie's record passes under the other's",
        Rules(claim_id_in_epoch=False),
        "cut",
        Kind.SPLICED,
    ),
    # 2. Append
    Broken(
        "a command is judged against the tentative state",
        "two copies in one batch both take effect",
        Rules(judged_against="proved"),
        "second copy",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "one batch is in flight",
        "the first is lost, the second lands, and the hole stops everybody",
        Rules(batches_in_flight=2),
        "crash",
        Kind.HOLE,
    ),
    Broken(
        "commands are recorded in offset order",
        "one that was set aside is passed by the command_offset",
        Rules(commands_in_order=False),
        "crash",
        Kind.LOST_COMMAND,
    ),
    Broken(
        "a large cause is recorded as a plan (counted early)",
        "a crash after the first slice loses the second",
        Rules(large_cause="counted with its first slice"),
        "fan-out",
        Kind.LOST_SLICE,
    ),
    Broken(
        "a large cause is recorded as a plan (counted late)",
        "a crash after the first slice writes it again",
        Rules(large_cause="counted with its last slice"),
        "fan-out",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "a transition is measured before it is sent",
        "the broker refuses the same batch for ever",
        Rules(size_measured=False),
        "too large",
        Kind.NO_PROGRESS,
    ),
    Broken(
        "an attempt is durable before its effect",
        "an effect runs that the log knows nothing of",
        Rules(attempt_first=False),
        "step",
        Kind.UNRECORDED_EFFECT,
    ),
    Broken(
        "a lost attempt counts, the next one is recorded",
        "the effect runs more often than the log says",
        Rules(lost_attempt_counted=False),
        "step",
        Kind.UNRECORDED_EFFECT,
    ),
    Broken(
        "lost attempts have a cap",
        "a step that kills its process kills every owner in turn",
        Rules(lost_attempts_max=None),
        "step",
        Kind.UNBOUNDED,
    ),
    Broken(
        "uuids come from the run's seed",
        "one step has two idempotence keys",
        Rules(uuid_from_seed=False),
        "step",
        Kind.TWO_KEYS,
    ),
    # 3. Prove
    Broken(
        "only the expected offset is a proof",
        "an owner answers for what a newer claim has voided",
        Rules(proof="any acknowledgement"),
        "zombie",
        Kind.LOST_ANSWER,
    ),
    Broken(
        "proof is the expected offset, and no id is made of offsets",
        "a batch that landed twice gives one output two ids",
        Rules(proof="no newer claim between", output_id="offset"),
        "events landed twice",
        Kind.TWO_IDS,
    ),
    # 4. Read
    Broken(
        "the fence is kept with the rows (a reader waits for a claim)",
        "a restarted reader loses records",
        Rules(fence="offset only, waits for a claim"),
        "crash",
        Kind.DIVERGED,
    ),
    Broken(
        "the fence is kept with the rows (a reader trusts what comes)",
        "a restarted reader takes a zombie's records",
        Rules(fence="offset only, trusts the next epoch"),
        "zombie",
        Kind.DIVERGED,
    ),
    Broken(
        "records of other epochs are dropped",
        "a zombie's decision counts beside its successor's",
        Rules(foreign_epochs_dropped=False),
        "zombie",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "lower numbers are dropped",
        "a batch that landed twice counts twice",
        Rules(lower_numbers_dropped=False),
        "landed twice",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "a reader stops at a hole",
        "lost records go unseen",
        Rules(stops_at_hole=False),
        "cut",
        Kind.CUT_UNNOTICED,
    ),
    Broken(
        "a store is checked against the log at start",
        "a store of another log goes on as if it were of this one",
        Rules(store_checked_against_log=False),
        "cut",
        Kind.DIVERGED,
    ),
    # 5. Commands once
    Broken(
        "every command has an id",
        "a client's retry takes effect again",
        Rules(command_ids=False),
        "second copy",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "a second copy is answered after the proof of the first",
        "its caller holds an answer that the log never had",
        Rules(second_copy_answered="at once"),
        "second copy",
        Kind.LOST_ANSWER,
    ),
    Broken(
        "command ids outlive a rewind",
        "a copy of a start takes effect after it",
        Rules(ids_outlive_rewind=False),
        "copy after a rewind",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "a removed run leaves a tombstone",
        "a late copy of its start runs it again",
        Rules(tombstones=False),
        "removal",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "a removed child leaves a tombstone",
        "a late copy of its start runs it again",
        Rules(tombstones=False),
        "child removed",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "a child's start has an id",
        "its second copy looks like another run that wants the name",
        Rules(command_ids=False),
        "child",
        Kind.REFUSED_WRONGLY,
    ),
    # Without answers to refusals, the second copy of the start does no harm, and the signal's is seen.
    Broken(
        "a signal has an id",
        "its second copy takes effect again",
        Rules(command_ids=False, refusals_answered=False),
        "child waits for a signal",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "a new owner resumes after the newest valid command_offset",
        "it believes a void record, and skips a command",
        Rules(resumes_after="newest seen"),
        "zombie",
        Kind.LOST_COMMAND,
    ),
    # 6. Unknown
    Broken(
        "an error means unknown",
        "the number is used again, and the first batch lands after all",
        Rules(error_means="refused"),
        "timer",
        Kind.DOUBLE_EFFECT,
    ),
    Broken(
        "an owner stops when the log went back",
        "nobody learns that answered commands are gone",
        Rules(stops_when_log_went_back=False),
        "cut",
        Kind.CUT_UNNOTICED,
    ),
    # 7. Outputs
    Broken(
        "outputs leave after the proof",
        "the world sees the output of a void transition",
        Rules(outputs_leave="at once"),
        "events",
        Kind.VOID_OUTPUT,
    ),
    Broken(
        "what lies above the watermark is sent again (an event)",
        "an event that nobody answers is lost with its owner",
        Rules(outputs_resent="still open"),
        "events landed twice",
        Kind.LOST_OUTPUT,
    ),
    Broken(
        "what lies above the watermark is sent again (a child's end)",
        "the end is lost, and the parent waits for ever",
        Rules(outputs_resent="still open"),
        "child",
        Kind.WAITS_FOR_EVER,
    ),
    Broken(
        "an answer names its request (only step and attempt)",
        "a stale outcome passes after a rewind",
        Rules(answer_names="step and attempt"),
        "rewind",
        Kind.WRONG_REQUEST,
    ),
    Broken(
        "an answer names its request (step, attempt and epoch)",
        "a stale outcome passes after a rewind in the same epoch",
        Rules(answer_names="step, attempt, epoch of the request"),
        "rewind",
        Kind.WRONG_REQUEST,
    ),
    Broken(
        "an answer names its request (the owner's epoch)",
        "a good outcome is refused after a take-over",
        Rules(answer_names="epoch of the owner"),
        "task",
        Kind.WAITS_FOR_EVER,
    ),
    Broken(
        "outputs for one stream go through one ordered channel",
        "its readers see them out of the journal's order",
        Rules(one_ordered_channel=False),
        "events",
        Kind.OUT_OF_ORDER,
    ),
    Broken(
        "outputs for one partition go through one ordered channel",
        "a signal overtakes the start of its run",
        Rules(one_ordered_channel=False),
        "child waits for a signal",
        Kind.REFUSED_WRONGLY,
    ),
    Broken(
        "a refusal is answered to the run that asked",
        "a parent waits for ever for a child that never began",
        Rules(refusals_answered=False),
        "child's id taken",
        Kind.WAITS_FOR_EVER,
    ),
)
