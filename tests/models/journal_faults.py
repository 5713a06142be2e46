"""What goes wrong on one partition, and how an owner gets over it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.models.explorer import Action, Kind, Violation, Words
from tests.models.journal_decide import Aside
from tests.models.journal_records import Transition, spell_all
from tests.models.journal_state import Late, Owner, Phase, State

if TYPE_CHECKING:
    from tests.models.journal import JournalModel

Steps = Iterator[tuple[Action, State]]


def steps(model: JournalModel, state: State) -> Steps:
    yield from _late_landings(state)
    faults = state.faults
    if faults.unknown_ends:
        yield from _unknown_ends(model, state)
    if faults.crashes:
        yield from _crashes(state)
    if faults.rebalances:
        yield from _rebalances(state)
    if faults.client_retries:
        for command in model.bounds.commands:
            after = state.spending("client_retries")
            yield ("a client sends '{}' again", command), after._replace(commands=(*state.commands, command))
    if faults.worker_repeats:
        for message in state.sent:
            if message.id in state.worked:
                again = model.answer(state.spending("worker_repeats"), message)
                yield ("a worker runs {} once more", message.step), again
    if faults.cuts and state.log.length:
        yield from _cuts(state)


def _rebalances(state: State) -> Steps:
    """Who gets the partition hears of it at once: hearing late is no more than claiming late."""
    for i, owner in enumerate(state.owners):
        if i != state.assigned:
            after = state.spending("rebalances")._replace(assigned=i)
            if not owner.assigned:
                after = after.with_owner(i, owner.down(assigned=True, may_claim=True))
            yield ("the group gives the partition to {}", owner.name), after


def _late_landings(state: State) -> Steps:
    for late in state.late:
        if late.landings and not state.faults.double_landings:
            continue
        rest = state.late - {late}
        if not late.landings and state.faults.double_landings:
            rest |= {Late(late.records, 1)}
        after = state._replace(log=state.log.extend(late.records), late=rest)
        after = after.spending("double_landings") if late.landings else after
        text = "{} lands late at {}, once more" if late.landings else "{} lands late at {}"
        yield (text, Words(spell_all, late.records), state.log.length), after


def _unknown_ends(model: JournalModel, state: State) -> Steps:
    for i, owner in enumerate(state.owners):
        if not owner.requests:
            continue
        after = state.spending("unknown_ends")
        if model.rules.error_means == "refused" and owner.phase == Phase.OWNER:
            yield _decide_again(after, i, owner)
        else:
            action = ("{} hears nothing of {}: unknown", owner.name, Words(spell_all, owner.requests[0].records))
            yield action, give_up_epoch(model, after, i, owner)


def give_up_epoch(model: JournalModel, state: State, i: int, owner: Owner) -> State:
    """Throw away the tentative state, retire the producer, claim again while assigned."""
    may_claim = owner.assigned and model.rules.claims_again
    # What is proved and not sent is sent all the same: it is valid, whoever owns the partition.
    down = owner.down(assigned=owner.assigned, may_claim=may_claim)._replace(to_send=owner.to_send)
    return state.giving_up(*owner.requests).with_owner(i, down)


def _decide_again(state: State, i: int, owner: Owner) -> tuple[Action, State]:
    """The broken reading of an error: 'refused', so the numbers are free and the epoch goes on."""
    assert owner.proved is not None
    action = ("{} gets an error for {}, takes it as refused", owner.name, Words(spell_all, owner.requests[0].records))
    again = owner._replace(requests=(), position=owner.proved.command_offset + 1, aside=None)
    return action, state.giving_up(*owner.requests).with_owner(i, again)


def went_back(model: JournalModel, state: State, i: int, owner: Owner, offset: int) -> tuple[Action, State]:
    """An append landed below what is proved: the log has lost records."""
    action = ("{} gets offset {}, expected {}: the log went back", owner.name, offset, owner.expected)
    if model.rules.stops_when_log_went_back:
        stopped = owner._replace(phase=Phase.STOPPED, requests=(), to_send=(), proved=None)
        return action, state.giving_up(*owner.requests).with_owner(i, stopped)
    text = f"{owner.name} had proved offsets up to {owner.expected}, appended at {offset}, and goes on"
    after = give_up_epoch(model, state, i, owner)
    return action, after._replace(flaw=state.flaw or Violation(Kind.CUT_UNNOTICED, text))


def _crashes(state: State) -> Steps:
    for i, owner in enumerate(state.owners):
        if owner.phase != Phase.DOWN or owner.to_send:
            assigned = state.assigned == i
            down = owner.down(assigned=assigned, may_claim=assigned)
            after = state.spending("crashes").giving_up(*owner.requests).with_owner(i, down)
            yield ("{} crashes and starts again", owner.name), after


def _cuts(state: State) -> Steps:
    after = state.spending("cuts")._replace(log=state.log.cut_to(state.log.length - 1), cut=True)
    text = "the log loses offset {}; a reader's store had it"
    yield (text, state.log.length - 1), after._replace(store=state.store or state.log)


def is_too_large(records: tuple[object, ...]) -> bool:
    return any(isinstance(record, Transition) and ("too large",) in record.events for record in records)


def refuse_too_large(model: JournalModel, state: State) -> Steps:
    """The broker refuses a batch over its limit, each time."""
    for i, owner in enumerate(state.owners):
        if owner.requests and is_too_large(owner.requests[0].records):
            action = ("the broker refuses {}: too large", Words(spell_all, owner.requests[0].records))
            down = owner.down(assigned=owner.assigned, may_claim=owner.assigned and model.rules.claims_again)
            yield action, state.with_owner(i, down)


def set_aside(state: State, i: int, owner: Owner) -> tuple[Action, State]:
    """The broken order: this command waits in memory, later ones are recorded."""
    aside = owner._replace(position=owner.position + 1, aside=Aside(owner.position))
    return ("{} sets command {} aside", owner.name, owner.position), state.with_owner(i, aside)
