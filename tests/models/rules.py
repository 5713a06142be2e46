"""The protocol as switches: the default is the protocol, a broken rule is one changed switch.

The sections are the protocol's: claim, append, prove, read, commands once,
unknown, outputs. `scenarios.py` says for each switch what goes wrong without it.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Rules:
    # 1. Claim
    reads_up_to_its_claim: bool = True
    claims_again: bool = True  # after an unknown end, as long as the group assigns the partition
    claim_id_in_epoch: bool = True  # epoch = (offset of the claim, its id), not the offset alone

    # 2. Append
    judged_against: Literal["tentative", "proved"] = "tentative"
    batches_in_flight: int = 1
    commands_in_order: bool = True  # False: one may be set aside while later ones are recorded
    large_cause: Literal["plan", "counted with its first slice", "counted with its last slice"] = "plan"
    size_measured: bool = True  # before a transition is sent
    attempt_first: bool = True  # an attempt is durable before its effect starts
    lost_attempt_counted: bool = True  # a take-over appends the next attempt, then runs it
    lost_attempts_max: int | None = 3
    uuid_from_seed: bool = True  # False: drawn anew each time that the definition is driven

    # 3. Prove
    proof: Literal["expected offset", "no newer claim between", "any acknowledgement"] = "expected offset"

    # 4. Read
    fence: Literal["kept", "offset only, waits for a claim", "offset only, trusts the next epoch"] = "kept"
    foreign_epochs_dropped: bool = True
    lower_numbers_dropped: bool = True
    stops_at_hole: bool = True
    store_checked_against_log: bool = True

    # 5. Commands once
    command_ids: bool = True
    second_copy_answered: Literal["after the proof", "at once"] = "after the proof"
    ids_outlive_rewind: bool = True
    resumes_after: Literal["newest valid", "newest seen"] = "newest valid"  # command_offset
    tombstones: bool = True

    # 6. Unknown
    error_means: Literal["unknown", "refused"] = "unknown"
    stops_when_log_went_back: bool = True

    # 7. Outputs
    outputs_leave: Literal["after the proof", "at once"] = "after the proof"
    outputs_resent: Literal["above sent", "still open"] = "above sent"
    output_id: Literal["epoch and number", "offset"] = "epoch and number"
    answer_names: Literal[
        "request", "step and attempt", "step, attempt, epoch of the request", "epoch of the owner"
    ] = "request"
    one_ordered_channel: bool = True
    refusals_answered: bool = True  # to the run that sent the command


PROTOCOL = Rules()
