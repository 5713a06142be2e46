"""A static member of a Kafka group that only learns which partitions are its to work on.

It speaks the classic group protocol itself: aiokafka's member sends heartbeats
without its instance id, so two processes with one id throw each other out for
ever, and neither is told. Here the one that was replaced hears it and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest

from millstream.events.errors import InstanceInUse, LogUnavailable, Stop
from millstream.events.logs.kafka_cluster import FRESH_S, Away, Cluster, NotYet, back_off
from millstream.events.logs.kafka_producer import describe
from millstream.events.logs.kafka_wire import Heartbeat, LeaveGroup
from millstream.events.logs.port import TopicPartition
from millstream.events.logs.sharing import share_out

SESSION_TIMEOUT_S = 6.0
# Heartbeats a session time-out. A member learns of a rebalance by its heartbeat, so they bound how long one takes.
HEARTBEATS = 12
COMMIT_TIMEOUT_S = 10.0
STRATEGY = "millstream-sticky"

_REBALANCING = 27
_UNKNOWN_MEMBER = 25
_OLD_GENERATION = 22
_MEMBER_ID_REQUIRED = 79
_FENCED_INSTANCE = 82
_FIND_ANEW = {14, 15, 16}
_FATAL = {23, 24, 26, 30}


class _Rejoin(Exception):
    """Inside: the group wants its members to join again. lost: as new ones, it doesn't know us any more."""

    def __init__(self, why: str = "", *, lost: bool = False) -> None:
        super().__init__(why)
        self.lost = lost


def share(
    members: Mapping[str, tuple[str, frozenset[str], frozenset[TopicPartition]]], partitions: Sequence[TopicPartition]
) -> dict[str, list[TopicPartition]]:
    """What each member gets. members: member id -> (instance id, topics, what it holds). Pure.

    By instance id, so that the same members get the same whatever ids the broker gave them this time.
    """
    by_instance = {instance: member for member, (instance, _, _) in members.items()}
    held = {tp: instance for instance, _, holds in members.values() for tp in sorted(holds)}
    topics = {instance: wanted for instance, wanted, _ in members.values()}
    given: dict[str, list[TopicPartition]] = {member: [] for member in members}
    for tp, instance in sorted(share_out(partitions, topics, held).items()):
        given[by_instance[instance]].append(tp)
    return given


class KafkaGroup:
    """See the port's `Group`. Its heartbeats share the event loop: what blocks it for a session costs the membership."""

    def __init__(
        self, cluster: Cluster, group: str, topics: Sequence[str], *, instance_id: str, session_timeout_s: float
    ) -> None:
        self._cluster = cluster
        self._group = group
        self._topics = sorted(set(topics))
        self._instance_id = instance_id
        self._session_timeout_s = session_timeout_s
        self._lane = cluster.new_lane("group")
        self._coordinator: int | None = None
        self._member_id = ""
        self._kafka_generation = -1
        self._assignment: frozenset[TopicPartition] = frozenset()
        self._generation = 0
        # What was shared out, where it was us who did it.
        self._shared: frozenset[TopicPartition] | None = None
        self._wanted: frozenset[str] = frozenset()
        self._heard_at = time.monotonic()
        self._failure: Exception | None = None
        self._news = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return self._assignment

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def session_timeout_s(self) -> float:
        return self._session_timeout_s

    def silent_for_s(self) -> float:
        return time.monotonic() - self._heard_at

    async def changed(self, since_generation: int) -> frozenset[TopicPartition]:
        """See the port."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._generation > since_generation:
                return self._assignment
            self._news.clear()
            await self._news.wait()

    async def close(self, *, leave: bool = False) -> None:
        """See the port."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if leave and self._member_id and self._failure is None:
            # Where it isn't heard the session time-out does the same, later.
            with contextlib.suppress(Away, IncompatibleBrokerVersion, NotImplementedError):
                await self._ask(LeaveGroup(self._group, self._member_id, self._instance_id), timeout_s=2.0)
        if self._failure is None:
            self._fail(LogUnavailable("this membership was closed"))
        await self._cluster.cut(self._lane)

    # -- offsets --------------------------------------------------------------------------------------------------

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """See the port. Raises `LogUnavailable` where the group doesn't take it within `COMMIT_TIMEOUT_S`."""
        if not positions:
            return
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for tp, position in positions.items():
            topics.setdefault(tp[0], []).append((tp[1], position, ""))

        async def once() -> None:
            request = OffsetCommitRequest(
                self._group, self._kafka_generation, self._member_id, -1, list(topics.items())
            )
            for _topic, partitions in (await self._ask(request)).topics:
                for _partition, error_code in partitions:
                    self._check(error_code)

        await self._until_taken(once, "a position could not be committed")

    async def committed(self, tp: TopicPartition) -> int | None:
        """See the port."""

        async def once() -> int | None:
            answer = await self._ask(OffsetFetchRequest(self._group, [(tp[0], [tp[1]])]))
            self._check(getattr(answer, "error_code", 0))
            for _topic, partitions in answer.topics:
                for _partition, offset, _metadata, error_code in partitions:
                    self._check(error_code)
                    return None if offset < 0 else int(offset)
            return None

        position: int | None = await self._until_taken(once, "the committed position could not be read")
        return position

    async def _until_taken(self, once: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        for pause in back_off():
            if self._failure is not None:
                raise self._failure
            why: object
            try:
                return await once()
            except Away as err:
                self._coordinator = None
                why = err
            except _Rejoin as err:
                why = err
            if time.monotonic() > deadline:
                raise LogUnavailable(
                    f"{what} for group {self._group!r} within {COMMIT_TIMEOUT_S:g} s: {why}. Whoever gets the"
                    f" partitions next begins at what was committed before."
                )
            await asyncio.sleep(pause)

    # -- the membership -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._be_a_member()
        except Exception as err:  # noqa: BLE001  whoever waits for news hears it
            self._fail(err)

    def _fail(self, err: Exception) -> None:
        self._failure = err
        self._assignment = frozenset()
        self._news.set()

    async def _be_a_member(self) -> None:
        pauses = back_off()
        joined = False
        while True:
            try:
                if not joined:
                    await self._join()
                    joined = True
                    pauses = back_off()
                await asyncio.sleep(self._session_timeout_s / HEARTBEATS)
                await self._heartbeat()
            except _Rejoin as err:
                # Here, in the task that joins, and nowhere else: a commit can be told so while a join is under way that
                # has given us a new id, and a heartbeat without it would be taken for another process's.
                if err.lost:
                    self._member_id, self._kafka_generation = "", -1
                joined = False
            except Away as err:
                # The session lives on at the broker: a short absence costs nothing, so we don't join again for it.
                self._coordinator = None
                self._cluster.say_away(err)
                await asyncio.sleep(min(next(pauses), self._session_timeout_s / HEARTBEATS))

    async def _heartbeat(self) -> None:
        request = Heartbeat(self._group, self._kafka_generation, self._member_id, self._instance_id)
        # No longer than a session: a coordinator that is silent for that long has given our partitions away.
        timeout_s = min(self._session_timeout_s, self._cluster.request_timeout_s)
        self._check((await self._ask(request, timeout_s=timeout_s)).error_code)
        self._heard_at = time.monotonic()
        if self._shared is not None:
            # A topic that is awaited is looked for more often than a lost one is noticed.
            missing = self._wanted - self._cluster.topics.keys()
            await self._cluster.refresh_if_older(self._wanted, 1.0 if missing else FRESH_S)
            if self._partitions() != self._shared:
                raise _Rejoin("a topic was made or deleted")

    async def _join(self) -> None:
        """Join, share out if we are the leader, and take what we are given. The old assignment holds until then."""
        metadata = ConsumerProtocolMemberMetadata(0, self._topics, _holdings(self._instance_id, self._assignment))
        # Members that hear of it late hold up the join; after this they are left out.
        rebalance_s = max(self._session_timeout_s, 1.0) * 1.5
        joined = await self._ask(
            JoinGroupRequest(
                self._group,
                int(self._session_timeout_s * 1000),
                int(rebalance_s * 1000),
                self._member_id,
                self._instance_id,
                "consumer",
                [(STRATEGY, metadata.encode())],
            ),
            timeout_s=rebalance_s + self._cluster.request_timeout_s,
        )
        if joined.error_code == _MEMBER_ID_REQUIRED:
            self._member_id = joined.member_id
            raise _Rejoin
        self._check(joined.error_code)
        self._heard_at = time.monotonic()
        self._member_id, self._kafka_generation = joined.member_id, joined.generation_id
        given: list[tuple[str, bytes]] = []
        self._shared = None
        if joined.leader_id == joined.member_id and joined.members:
            given = await self._share_out(joined.members)
        synced = await self._ask(
            SyncGroupRequest(self._group, self._kafka_generation, self._member_id, self._instance_id, given),
            timeout_s=rebalance_s + self._cluster.request_timeout_s,
        )
        self._check(synced.error_code)
        self._heard_at = time.monotonic()
        self._assignment = _assigned(synced.member_assignment)
        self._generation += 1
        self._news.set()

    async def _share_out(self, members: Sequence[tuple[str, str | None, bytes]]) -> list[tuple[str, bytes]]:
        known: dict[str, tuple[str, frozenset[str], frozenset[TopicPartition]]] = {}
        for member_id, instance_id, data in members:
            metadata = ConsumerProtocolMemberMetadata.decode(data)
            holds = _held(metadata.user_data)
            known[member_id] = (instance_id or member_id, frozenset(metadata.subscription), holds)
        self._wanted = frozenset(topic for _, wanted, _ in known.values() for topic in wanted)
        await self._cluster.refresh(self._wanted)
        self._shared = self._partitions()
        partitions = sorted(self._shared)
        return [(member, _assignment(given)) for member, given in share(known, partitions).items()]

    def _partitions(self) -> frozenset[TopicPartition]:
        """Those that exist of the topics which the group's members want."""
        found = ((name, self._cluster.topics.get(name)) for name in self._wanted)
        return frozenset(TopicPartition(name, p) for name, topic in found if topic is not None for p in topic.leaders)

    def _check(self, error_code: int) -> None:
        if error_code == 0:
            return
        if error_code == _FENCED_INSTANCE:
            raise InstanceInUse(
                f"another process has joined group {self._group!r} as {self._instance_id!r}. Two processes with one"
                f" instance id would hold the same partitions: a data folder was probably copied. Give one of them a"
                f" folder of its own."
            )
        if error_code in (_UNKNOWN_MEMBER, _OLD_GENERATION):
            # The session ran out while nobody heard us: others may have our partitions already.
            raise _Rejoin(describe(error_code), lost=True)
        if error_code == _REBALANCING:
            raise _Rejoin(describe(error_code))
        if error_code in _FIND_ANEW:
            raise NotYet(describe(error_code))
        if error_code in _FATAL:
            raise Stop(
                f"group {self._group!r} can't be joined: {describe(error_code)}. Another kind of consumer may be in it,"
                f" or this user may not join it, or the session time-out of {self._session_timeout_s:g} s is outside"
                f" what the broker allows (group.min.session.timeout.ms)."
            )
        raise NotYet(describe(error_code))

    async def _ask(self, request: Any, *, timeout_s: float | None = None) -> Any:
        """Ask the group's coordinator, looking for it first where it isn't known."""
        if self._coordinator is None or self._coordinator not in self._cluster.nodes:
            self._coordinator = await self._find_coordinator()
        return await self._cluster.ask(self._coordinator, request, lane=self._lane, timeout_s=timeout_s)

    async def _find_coordinator(self) -> int:
        await self._cluster.refresh([])
        for node in list(self._cluster.nodes):
            answer = await self._cluster.ask(node, FindCoordinatorRequest(self._group, 0), lane=self._lane)
            if answer.error_code == 0:
                found: int = answer.coordinator_id
                return found
        raise NotYet(f"the group {self._group!r} has no coordinator yet")


def _holdings(instance_id: str, assignment: frozenset[TopicPartition]) -> bytes:
    return msgspec.json.encode([instance_id, sorted(assignment)])


def _held(user_data: bytes | None) -> frozenset[TopicPartition]:
    """What a member said that it holds; nothing where it isn't one of ours."""
    try:
        _instance, holds = msgspec.json.decode(user_data or b"", type=tuple[str, list[TopicPartition]])
    except msgspec.MsgspecError:
        return frozenset()
    return frozenset(holds)


def _assignment(given: Sequence[TopicPartition]) -> bytes:
    topics: dict[str, list[int]] = {}
    for tp in given:
        topics.setdefault(tp.topic, []).append(tp.partition)
    data: bytes = ConsumerProtocolMemberAssignment(0, list(topics.items()), b"").encode()
    return data


def _assigned(data: bytes) -> frozenset[TopicPartition]:
    if not data:
        return frozenset()
    decoded = ConsumerProtocolMemberAssignment.decode(data)
    return frozenset(TopicPartition(topic, partition) for topic, parts in decoded.assignment for partition in parts)
