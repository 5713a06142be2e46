"""The journal protocol on one partition: owners that claim, decide, append, prove and send.

What happens without any fault. The faults are in `journal_faults.py`, what must hold
in `journal_checks.py`.
"""

from collections.abc import Callable, Iterator
from itertools import takewhile

from tests.models import journal_checks, journal_faults
from tests.models.explorer import CALM_STEPS_MAX, Action, Violation, Words
from tests.models.journal_decide import Answer, Command, Desk
from tests.models.journal_log import Log
from tests.models.journal_records import Claim, Folder, Output, Transition, TransitionId, spell, spell_all
from tests.models.journal_state import Bounds, Faults, Message, Owner, Phase, Request, State, Waiting
from tests.models.rules import PROTOCOL, Rules

Steps = Iterator[tuple[Action, State]]


class JournalModel:
    def __init__(self, bounds: Bounds, rules: Rules = PROTOCOL) -> None:
        self.bounds = bounds
        self.rules = rules
        self.folder = Folder(rules)
        # In this order a calm run takes them too: what is on its way arrives before anything new starts.
        self._calm: tuple[Callable[[State], Steps], ...] = (
            self.hear,
            self.land,
            self.take_over,
            self.prove,
            self.send,
            lambda state: journal_faults.refuse_too_large(self, state),
            self.append,
            self.claim,
            self.work,
        )

    # -- what the explorer asks ------------------------------------------------

    def start(self) -> State:
        owners = tuple(Owner(name) for name in "ABC"[: self.bounds.owners])
        first = owners[0]._replace(assigned=True, may_claim=True)
        return State(
            log=Log(self.folder),
            commands=self.bounds.commands,
            owners=(first, *owners[1:]),
            assigned=0,
            faults=self.bounds.faults,
            claims_max=self.bounds.claims,
        )

    def steps(self, state: State) -> Steps:
        for group in self._calm:
            yield from group(state)
        yield from journal_faults.steps(self, state)

    def broken(self, state: State) -> Violation | None:
        return journal_checks.broken(state)

    def calm(self, state: State) -> State | None:
        """No more faults, and what is late never lands: landing is a step of its own, tried from every state."""
        if state.cut:
            return None
        return state._replace(
            faults=Faults(), claims_max=CALM_STEPS_MAX, late=frozenset(), promised=frozenset(), store=None
        )

    def calm_step(self, state: State) -> tuple[Action, State] | None:
        for group in self._calm:
            for action, after in group(state):
                return action, after._replace(late=frozenset())
        return None

    def unfinished(self, state: State) -> Violation | None:
        return journal_checks.unfinished(state)

    # -- the group -------------------------------------------------------------

    def hear(self, state: State) -> Steps:
        """Owners learn late that a partition isn't theirs any more, and are zombies until then."""
        for i, owner in enumerate(state.owners):
            if owner.assigned and state.assigned != i:
                down = owner.down(assigned=False, may_claim=False)
                after = state.giving_up(*owner.requests).with_owner(i, down)
                yield ("{} learns that it lost the partition", owner.name), after

    # -- 1. claim --------------------------------------------------------------

    def claim(self, state: State) -> Steps:
        for i, owner in enumerate(state.owners):
            if owner.phase != Phase.DOWN or not (owner.assigned and owner.may_claim):
                continue
            if state.claims_made < state.claims_max:
                claim = Claim(owner.name, state.claims_made)
                claiming = owner._replace(phase=Phase.CLAIMING, requests=(Request((claim,)),))
                after = state._replace(claims_made=state.claims_made + 1).with_owner(i, claiming)
                yield ("{} sends {}", owner.name, claim), after

    def take_over(self, state: State) -> Steps:
        """The claim's offset came back: read up to it, then own."""
        for i, owner in enumerate(state.owners):
            if owner.phase != Phase.CLAIMING:
                continue
            request = owner.requests[0]
            for offset in set(request.landed_at):
                yield self._take_over(state, i, owner, request, offset)

    def _take_over(self, state: State, i: int, owner: Owner, request: Request, offset: int) -> tuple[Action, State]:
        claim = request.records[0]
        assert isinstance(claim, Claim)
        read = state.log.cut_to(offset + 1 if self.rules.reads_up_to_its_claim else 0)
        view = read.view
        epoch = (offset, claim.claim_id if self.rules.claim_id_in_epoch else 0)
        phase = Phase.STOPPED if view.hole else Phase.OWNER
        after = owner._replace(
            phase=phase,
            may_claim=False,
            epoch=epoch,
            expected=offset + 1,
            number=0,
            position=self._resumes_after(read) + 1,
            proved=view,
            requests=(),
            to_send=self._resends(read),
            aside=None,
        )
        action = ("{} reads up to its claim at {}; next command {}", owner.name, offset, after.position)
        return action, state.giving_up(request).with_owner(i, after)

    def _resumes_after(self, read: Log) -> int:
        """The newest valid command_offset; a broken owner also believes what is void."""
        offsets = [read.view.command_offset]
        if self.rules.resumes_after == "newest seen":
            offsets += [record.command_offset for record in read.records() if isinstance(record, Transition)]
        return max(offsets)

    def _resends(self, read: Log) -> tuple[Waiting, ...]:
        view = read.view
        if self.rules.outputs_resent == "above sent":
            outputs = view.unsent
        else:
            outputs = tuple(
                Output("task", step.request, name, step.attempt) for name, step in view.steps if step.request
            )
        return tuple(Waiting(output, read.valid[output.request][0]) for output in outputs)

    # -- 2. append -------------------------------------------------------------

    def append(self, state: State) -> Steps:
        for i, owner in enumerate(state.owners):
            if owner.phase == Phase.OWNER and len(owner.requests) < self.rules.batches_in_flight:
                yield from self._append(state, i, owner)

    def _append(self, state: State, i: int, owner: Owner) -> Steps:
        desk = self._desk(state, owner)
        for draft in desk.drafts():
            to_send = owner.to_send
            if self.rules.outputs_leave == "at once":
                to_send += self._outputs(draft.records, owner.expected)
            requests = (*owner.requests, Request(draft.records))
            after = owner._replace(requests=requests, position=draft.position, aside=draft.aside, to_send=to_send)
            promised = state.promised
            if self.rules.second_copy_answered == "at once":
                promised |= self._tentative_answers(state, owner, draft.records, draft.repeats)
            yield (
                ("{} appends {}", owner.name, Words(spell_all, draft.records)),
                state._replace(promised=promised).with_owner(i, after),
            )
        if not self.rules.commands_in_order and owner.aside is None and owner.position < len(state.commands):
            yield journal_faults.set_aside(state, i, owner)

    def _desk(self, state: State, owner: Owner) -> Desk:
        assert owner.proved is not None
        tentative, number = owner.proved, owner.number
        for request in owner.requests:
            for record in request.records:
                assert isinstance(record, Transition)
                tentative, number = self.folder.apply(tentative, record), record.number
        return Desk(
            folder=self.folder,
            commands=state.commands,
            commands_max=self.bounds.batch_commands_max,
            writer=owner.name,
            epoch=owner.epoch,
            number=number,
            position=owner.position,
            proved=owner.proved,
            tentative=tentative,
            sent=self._sent_so_far(owner),
            aside=owner.aside,
        )

    def _sent_so_far(self, owner: Owner) -> TransitionId | None:
        """The last output of an unbroken row of acknowledged ones."""
        if self.rules.outputs_resent != "above sent" or owner.proved is None:
            return None
        waiting = {item.output for item in owner.to_send}
        acknowledged = list(takewhile(lambda output: output not in waiting, owner.proved.unsent))
        return acknowledged[-1].request if acknowledged else None

    def _tentative_answers(
        self, state: State, owner: Owner, records: tuple[Transition, ...], repeats: frozenset[int]
    ) -> frozenset[TransitionId]:
        """The first decisions of repeated commands that aren't proved, and are answered all the same."""
        assert owner.proved is not None
        ids = {state.commands[offset].id for offset in repeats} - owner.proved.seen
        pending = [record for request in owner.requests for record in request.records]
        return frozenset(
            record.id
            for record in (*pending, *records)
            if isinstance(record, Transition) and any(("took", name) in record.events for name in ids)
        )

    # -- the network -----------------------------------------------------------

    def land(self, state: State) -> Steps:
        for i, owner in enumerate(state.owners):
            for nth, request in enumerate(owner.requests):
                again = bool(request.landed_at)
                if journal_faults.is_too_large(request.records) or len(request.landed_at) > 1:
                    continue
                if again and not state.faults.double_landings:
                    continue
                offset = state.log.length
                landed = request._replace(landed_at=(*request.landed_at, offset))
                requests = (*owner.requests[:nth], landed, *owner.requests[nth + 1 :])
                after = state._replace(log=state.log.extend(request.records))
                after = after.spending("double_landings") if again else after
                text = "{} sent by {} lands again at {}" if again else "{} sent by {} lands at {}"
                action = (text, Words(spell_all, request.records), owner.name, offset)
                yield action, after.with_owner(i, owner._replace(requests=requests))

    # -- 3. prove --------------------------------------------------------------

    def prove(self, state: State) -> Steps:
        """An offset came back for the oldest batch: proved, or unknown."""
        for i, owner in enumerate(state.owners):
            if owner.phase == Phase.OWNER and owner.requests:
                for offset in set(owner.requests[0].landed_at):
                    yield self._acknowledged(state, i, owner, offset)

    def _acknowledged(self, state: State, i: int, owner: Owner, offset: int) -> tuple[Action, State]:
        action: Action = ("{} gets offset {}, expected {}", owner.name, offset, owner.expected)
        if offset < owner.expected:
            return journal_faults.went_back(self, state, i, owner, offset)
        if offset == owner.expected or self._is_proof(state, owner, offset):
            text = f"{action[0]}: proved, answers its callers"
            return (text, *action[1:]), self._proved(state, i, owner, offset)
        text = f"{action[0]}: unknown, gives up the epoch"
        return (text, *action[1:]), journal_faults.give_up_epoch(self, state, i, owner)

    def _is_proof(self, state: State, owner: Owner, offset: int) -> bool:
        if self.rules.proof == "no newer claim between":
            between = (state.log.cut_to(length).record for length in range(owner.expected + 1, offset + 1))
            return not any(isinstance(record, Claim) for record in between)
        return self.rules.proof == "any acknowledgement"

    def _proved(self, state: State, i: int, owner: Owner, offset: int) -> State:
        request = owner.requests[0]
        view = owner.proved
        assert view is not None
        records = [record for record in request.records if isinstance(record, Transition)]
        for record in records:
            view = self.folder.apply(view, record)
        to_send = owner.to_send
        if self.rules.outputs_leave == "after the proof":
            to_send += self._outputs(request.records, offset)
        after = owner._replace(
            expected=offset + len(records),
            number=owner.number + len(records),
            proved=view,
            requests=owner.requests[1:],
            to_send=to_send,
        )
        flaw = state.flaw or journal_checks.belief(state, after, records)
        return state.giving_up(request)._replace(flaw=flaw).with_owner(i, after)

    def _outputs(self, records: tuple[object, ...], offset: int) -> tuple[Waiting, ...]:
        found: list[Waiting] = []
        for at, record in enumerate(records, offset):
            assert isinstance(record, Transition)
            for event in record.events:
                if event[0] == "asked":
                    found.append(Waiting(Output("task", record.id, event[1], event[2]), at))
                elif event[0] == "published":
                    found.append(Waiting(Output("event", record.id), at))
        return tuple(found)

    # -- 7. outputs ------------------------------------------------------------

    def send(self, state: State) -> Steps:
        for i, owner in enumerate(state.owners):
            if not owner.to_send:
                continue
            yield from self._send(state, i, owner)

    def _send(self, state: State, i: int, owner: Owner) -> Steps:
        """The oldest goes first; any of them where the channel reorders."""
        for nth in range(1 if self.rules.one_ordered_channel else len(owner.to_send)):
            output, offset = owner.to_send[nth]
            name = output.request if self.rules.output_id == "epoch and number" else (offset,)
            message = Message(name, output.kind, output.request, output.step, output.attempt, owner.epoch)
            known = any(message.id == earlier.id for earlier in state.sent)
            sent = state.sent if known else (*state.sent, message)
            after = owner._replace(to_send=owner.to_send[:nth] + owner.to_send[nth + 1 :])
            action = ("{} sends the {} of {}", owner.name, output.kind, Words(spell, output.request))
            yield action, state._replace(sent=sent).with_owner(i, after)

    def work(self, state: State) -> Steps:
        """A worker runs a task once for each id; its answer is a command."""
        for message in state.sent:
            if message.kind == "task" and message.id not in state.worked:
                after = state._replace(worked=state.worked | {message.id})
                yield (
                    ("a worker runs {} and answers {}", message.step, Words(spell, message.request)),
                    self.answer(after, message),
                )

    def answer(self, state: State, message: Message) -> State:
        answer = Answer(message.request, message.step, message.attempt, message.tag)
        return state._replace(commands=(*state.commands, Command("answer", answer=answer)))
