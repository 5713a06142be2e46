"""What must hold on one partition, in every state and at the end of every calm run."""

from tests.models.explorer import Kind, Violation
from tests.models.journal_records import SLICES, Transition, TransitionId, spell
from tests.models.journal_state import Owner, Phase, State


def broken(state: State) -> Violation | None:
    """The promise that this state breaks.

    Once the log was cut behind everybody's back, records are gone and no promise
    about them stands. What remains is that nobody mistakes the new log for the old.
    """
    if state.flaw is not None:
        return state.flaw
    if state.cut:
        return _after_a_cut(state)
    return state.log.broken or _owners(state) or _outputs(state) or _promises(state)


def _after_a_cut(state: State) -> Violation | None:
    flaw = state.log.view.flaw
    if flaw is not None and flaw.kind in (Kind.SPLICED, Kind.CUT_UNNOTICED):
        return flaw
    if state.store is not None:
        resumed = state.log.resumed(state.store)
        if resumed is not None and not resumed.hole and resumed.rows() != state.log.view.rows():
            return Violation(Kind.DIVERGED, "a store of the log before the cut goes on as if it were of this one")
    return None


def _owners(state: State) -> Violation | None:
    for owner in state.owners:
        if owner.phase == Phase.STOPPED:
            return Violation(Kind.FALSE_ALARM, f"{owner.name} has stopped, and the log is whole")
    return None


def _is_void(state: State, transition: TransitionId) -> bool:
    return transition not in state.log.valid and transition[0] != state.log.view.epoch


def _outputs(state: State) -> Violation | None:
    ids: dict[TransitionId, tuple[object, ...]] = {}
    last: TransitionId = ((-1, 0), 0)
    for message in state.sent:
        if ids.setdefault(message.request, message.id) != message.id:
            text = f"the output of {spell(message.request)} went out as {ids[message.request]} and as {message.id}"
            return Violation(Kind.TWO_IDS, text)
        if _is_void(state, message.request):
            return Violation(Kind.VOID_OUTPUT, f"{spell(message.request)} will never be in the log")
        if message.kind == "event":
            if message.request < last:
                return Violation(Kind.OUT_OF_ORDER, f"{spell(message.request)} went out after {spell(last)}")
            last = message.request
    return None


def _promises(state: State) -> Violation | None:
    for transition in state.promised:
        if _is_void(state, transition):
            text = f"a second copy was answered from {spell(transition)}, which is void"
            return Violation(Kind.LOST_ANSWER, text)
    return None


def belief(state: State, owner: Owner, records: list[Transition]) -> Violation | None:
    """Is what the owner now holds for proved what every reader holds? Asked at the moment of the proof."""
    if state.cut:
        return None
    for record in records:
        _, valid = state.log.valid.get(record.id, (0, None))
        if valid != record:
            return Violation(Kind.LOST_ANSWER, f"{owner.name} answered for {record}; readers hold {valid}")
    read = state.log.cut_to(owner.expected).view
    if owner.proved is not None and read.epoch == owner.epoch and owner.proved.rows() != read.rows():
        return Violation(Kind.DIVERGED, f"{owner.name} and a reader differ at offset {owner.expected}")
    return None


def unfinished(state: State) -> Violation | None:
    """What a calm run has left undone."""
    view = state.log.view
    who = state.owners[state.assigned]
    unowned = who.phase == Phase.DOWN and not who.may_claim
    stuck = Kind.UNOWNED if unowned else Kind.WAITS_FOR_EVER
    if view.command_offset < len(state.commands) - 1:
        return Violation(stuck, f"command {view.command_offset + 1} is never decided; {who.name} is {who.phase}")
    open_steps = [name for name, step in view.steps if step.request is not None]
    if open_steps:
        return Violation(stuck, f"step {open_steps[0]!r} stays open; no answer to it was accepted")
    if view.timers or view.plans:
        return Violation(stuck, f"timers {sorted(view.timers)} and plans {list(view.plans)} stay open")
    return _lost_slices(state) or _lost_outputs(state)


def _lost_slices(state: State) -> Violation | None:
    for effect in state.log.view.effects:
        plan, dot, index = effect.partition(".")
        if dot and index == "0" and f"{plan}.{SLICES - 1}" not in state.log.view.effects:
            return Violation(Kind.LOST_SLICE, f"slice {SLICES - 1} of {plan!r} is never written")
    return None


def _lost_outputs(state: State) -> Violation | None:
    out = {message.request for message in state.sent}
    for transition, (_, record) in state.log.valid.items():
        if transition not in out and any(event[0] == "published" for event in record.events):
            return Violation(Kind.LOST_OUTPUT, f"the event of {record} never reaches its stream")
    return None
