"""Groups of the memory log: members live until their process falls silent for a session time-out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from millstream.events.errors import InstanceInUse
from millstream.events.logs.port import TopicPartition
from millstream.events.logs.sharing import share_out


class GroupState:
    """One group, for all members. partitions_of: the partitions that exist of some topics."""

    def __init__(self, name: str, partitions_of: Callable[[frozenset[str]], list[TopicPartition]]) -> None:
        self.name = name
        self._partitions_of = partitions_of
        self.members: dict[str, MemoryGroup] = {}
        self.held: dict[TopicPartition, str] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.generation = 0

    def enter(self, member: MemoryGroup) -> None:
        """A static member that comes back gets what it had, unnoticed; a new one makes all be shared out again."""
        before = self.members.get(member.instance_id)
        self.members[member.instance_id] = member
        if before is not None and before is not member:
            before.replaced()
        if before is not None and before.topics == member.topics:
            self.generation += 1
            member.assigned(self._of(member.instance_id), self.generation)
        else:
            self.share()

    def leave(self, member: MemoryGroup) -> None:
        if self.members.get(member.instance_id) is member:
            del self.members[member.instance_id]
            self.share()

    def share(self) -> None:
        """Hand everything out again, and tell every member that still listens."""
        topics = {m.instance_id: m.topics for m in self.members.values()}
        wanted = frozenset().union(*topics.values())
        self.held = share_out(self._partitions_of(wanted), topics, self.held)
        self.generation += 1
        for member in self.members.values():
            member.assigned(self._of(member.instance_id), self.generation)

    def topics_changed(self) -> None:
        """Share out again where partitions have come or gone."""
        wanted: frozenset[str] = frozenset().union(*(m.topics for m in self.members.values()))
        if set(self._partitions_of(wanted)) != set(self.held):
            self.share()

    def forget_topic(self, topic: str) -> None:
        self.committed = {tp: p for tp, p in self.committed.items() if tp.topic != topic}
        self.topics_changed()

    def _of(self, instance_id: str) -> frozenset[TopicPartition]:
        return frozenset(tp for tp, holder in self.held.items() if holder == instance_id)


class MemoryGroup:
    """A member. While it is silent it learns nothing, and after its session time-out others get its partitions."""

    def __init__(self, state: GroupState, instance_id: str, topics: frozenset[str], session_timeout_s: float) -> None:
        self._state = state
        self.instance_id = instance_id
        self.topics = topics
        self._session_timeout_s = session_timeout_s
        self._assignment: frozenset[TopicPartition] = frozenset()
        self._generation = 0
        self._in_use = False
        self._closed = False
        self._silent_since: float | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._waits: dict[asyncio.Future[None], None] = {}
        state.enter(self)

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return self._assignment

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def session_timeout_s(self) -> float:
        return self._session_timeout_s

    def assigned(self, assignment: frozenset[TopicPartition], generation: int) -> None:
        """The group's word; not heard while silent."""
        if self._silent_since is None and not self._closed:
            self._assignment, self._generation = assignment, generation
            self._wake()

    def replaced(self) -> None:
        """Another process goes by this instance id now."""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._silent_since is None:
            self._in_use = True
            self._assignment = frozenset()
            self._wake()

    def _wake(self) -> None:
        for future in self._waits:
            if not future.done():
                future.set_result(None)

    async def changed(self, since_generation: int) -> frozenset[TopicPartition]:
        loop = asyncio.get_running_loop()
        while True:
            if self._in_use:
                raise InstanceInUse(
                    f"another process has joined group {self._state.name!r} as {self.instance_id!r}. Two processes with"
                    f" one instance id would hold the same partitions: a data folder was probably copied. Give one of"
                    f" them a folder of its own."
                )
            if self._generation > since_generation:
                return self._assignment
            future: asyncio.Future[None] = loop.create_future()
            self._waits[future] = None
            try:
                await future
            finally:
                self._waits.pop(future, None)

    def silent_for_s(self) -> float:
        if self._silent_since is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._silent_since

    def fall_silent(self) -> None:
        """Stop heartbeating: the session runs out after its time-out."""
        if self._silent_since is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._silent_since = loop.time()
            self._expiry = loop.call_later(self._session_timeout_s, self._state.leave, self)

    def speak_again(self) -> None:
        """Heartbeat again, and join anew where the session has run out meanwhile."""
        if self._silent_since is None or self._closed:
            return
        self._silent_since = None
        if self._expiry is not None:
            self._expiry.cancel()
        holder = self._state.members.get(self.instance_id)
        if holder is None:
            self._state.enter(self)
        elif holder is not self:
            self.replaced()
        else:
            self.assigned(self._state._of(self.instance_id), self._state.generation)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        self._state.committed.update(positions)

    async def committed(self, tp: TopicPartition) -> int | None:
        return self._state.committed.get(tp)

    async def close(self, *, leave: bool = False) -> None:
        if leave:
            self._closed = True
            if self._expiry is not None:
                self._expiry.cancel()
            self._state.leave(self)
        else:
            self.fall_silent()
            self._closed = True
