"""`millstream kernels`: a member of the consumer group that works off the kernel-batch topics."""

from __future__ import annotations

import asyncio

from millstream.events.topics import Topics
from millstream.kernels.device import NoGpu, WrongDevice
from millstream.kernels.device import name as device_name
from millstream.streams.cli.console import DONE, Usage, err, out, plain
from millstream.streams.cli.serve import log_to_stderr, release, until_stopped
from millstream.streams.cli.session import Session, opened
from millstream.streams.cli.settings import Setting
from millstream.streams.deciders.reactions import KERNEL
from millstream.streams.gpu.group import KernelGroup
from millstream.streams.runtime.clock import Chance
from millstream.streams.runtime.prefix import find_topics

PREFIX_POLL_S = 0.2


async def kernels(address: Setting, prefix: str, instance: str | None, *, with_parent: int | None) -> int:
    """Work until SIGTERM or Ctrl-C; the exit code."""
    log_to_stderr()
    try:
        device = device_name()
    except (WrongDevice, NoGpu) as error:
        raise Usage(str(error)) from error
    async with opened(address, prefix, patience_s=None) as session:
        out.print(
            f"[bold]millstream {release()}[/]   kernel {KERNEL} on {plain(device)}   log {plain(address.value)}"
            f" ({session.log.kind})   prefix {prefix}"
        )
        await until_stopped([member(session, instance or f"kernels-{Chance().token()}")], with_parent=with_parent)
    return DONE


async def member(session: Session, instance: str) -> None:
    """Be a member of the group until cancelled; then finish the batch under way, leave, and print the counts."""
    topics = await _served(session)
    group = KernelGroup(session.log, topics, session.codec, instance_id=instance)
    working = asyncio.ensure_future(group.run())
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        group.stop()
        await working
        raise
    finally:
        c = group.counts
        out.print(
            f"kernel {KERNEL}: {c.calls:,} calls in {c.launches:,} launches, {c.failed} failed, {c.dead_letters} dead letters"
        )


async def _served(session: Session) -> Topics:
    """The topics as the first server has made them: how many partitions there are is its word, not a worker's."""
    waited = False
    while await session.log.partitions(session.topics.kernel(KERNEL)) is None:
        if not waited:
            err.print("nobody has served this prefix yet; waiting for the first server (millstream serve)")
            waited = True
        await asyncio.sleep(PREFIX_POLL_S)
    return await find_topics(session.log, session.topics.prefix)
