"""A server in a small world: it takes its share of the partitions, on a disk that outlives it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from millstream.streams.runtime.owner import Owner
from millstream.streams.runtime.server import Server
from tests.simulation.parts import Disk, SimFolder
from tests.support.world import Handle, Process, World

SESSION_S = 1.0


class Serving(Process):
    """A process that serves its share of the partitions, on a disk that outlives it."""

    server: Server
    task: asyncio.Task[None]

    def __init__(
        self, world: World, name: str, handle: Handle, disk: Disk, server_type: type[Server], owner_type: type[Owner]
    ) -> None:
        super().__init__(world, name, handle)
        self.disk = disk
        folder = SimFolder(name, disk)
        self.server = server_type(
            handle,
            world.topics,
            folder.path,
            codec=world.codec,
            clock=self.clock,
            chance=self.chance,
            session_timeout_s=SESSION_S,
        )
        self.server._folder = folder
        self.server.owner_type = owner_type
        self.task = self.spawn(self._serve())

    async def _serve(self) -> None:
        async with self.server:
            await self.server.serve()

    @property
    def owns(self) -> set[int]:
        return set(self.server.fences)


def serve(
    world: World,
    name: str = "server",
    *,
    disk: Disk | None = None,
    server_type: type[Server] = Server,
    owner_type: type[Owner] = Owner,
    **of_handle: Any,
) -> Serving:
    handle = world.handle(session_timeout_s=SESSION_S, **of_handle)
    return Serving(world, name, handle, disk or Disk(random.Random(1), 0.5), server_type, owner_type)
