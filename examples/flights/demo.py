"""The main job: a month of flights through the journal, with the owner killed in the middle.

    python examples/flights/demo.py                                  on a log of its own, in a fresh folder
    python examples/flights/demo.py --log kafka://127.0.0.1:9092     on Kafka (millstream broker start)

Every flight from New York in January 2013 goes as a record onto the stream
`flights`. A reader enters each into the book of its carrier's day; a book that
is closed has its figures computed by the kernel group, is added to the month
book of its carrier, and its report goes onto the stream `reports`. All 460
reports are compared with those that plain Python computes of the same file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.flights import data, plain
from examples.flights.processes import ProcessEnded, Processes, show
from examples.flights.publish import STREAM, publish
from examples.flights.reader import read
from examples.flights.watch import Entered, Reports
from millstream.events.codec import Codec
from millstream.events.errors import MillstreamError
from millstream.events.flight import DayReport, Flight
from millstream.events.logs.address import open_log
from millstream.events.logs.port import Log, TopicPartition
from millstream.events.topics import STREAM_PARTITIONS, Topics
from millstream.streams.runtime.client import Client
from millstream.streams.runtime.prefix import find_topics

BOOK = "9E-2013-01-16"
STANDSTILL_S = 60.0
POLL_S = 0.1
FIELDS = ("flights", "arrived", "cancelled", "mean_arr_delay_min", "max_arr_delay_min", "share_late")

console = Console(highlight=False, soft_wrap=True)


class Failed(Exception):
    """The job didn't do what it promises. The text says what differs."""


class Plan(NamedTuple):
    """What is to be done. log: address. prefix: of this run's topics. json: a last line with the figures."""

    log: str
    prefix: str
    folder: Path
    flights: list[Flight]
    expected: dict[plain.CarrierDay, plain.Report]
    kill: bool
    json: bool

    def options(self, *, stores: bool = False) -> list[str]:
        options = ["--log", self.log, "--prefix", self.prefix]
        return [*options, "--folder", str(self.folder / "server")] if stores else options


class Outcome(NamedTuple):
    """took_s: from the first record published to the last report. recovery_s: from the kill to the next transition."""

    reports: Reports
    took_s: float
    recovery_s: float | None


async def main_job(plan: Plan) -> None:
    """Run it all and print it. Raises `Failed`, `ProcessEnded`, `MillstreamError`."""
    async with Processes(plan.folder / "logs") as processes:
        try:
            outcome = await _work(plan, processes)
            _print_worst(outcome.reports.found)
            await _print_history(plan)
            _compare(plan, outcome.reports)
            verified = await _show("verify", *plan.options(stores=True))
            if verified != 0:
                raise Failed(f"`millstream verify` ended with exit code {verified}: the stores don't equal the log.")
        except (Failed, TimeoutError) as failed:
            raise Failed(f"{failed}\n{processes.tails()}") from None
    _print_summary(plan, outcome)


async def _work(plan: Plan, processes: Processes) -> Outcome:
    """Start the processes, publish, read, kill, and wait for all reports."""
    async with open_log(plan.log) as log:
        owner = await processes.start("serve", "serve", *plan.options(stores=True))
        await processes.start("kernels", "kernels", *plan.options())
        console.print(f"[bold]millstream serve[/] (process {owner}) and [bold]millstream kernels[/] on {plan.log}")
        topics = await _served(log, plan.prefix, processes)
        with _bars(plan) as (bars, published, entered, reported):
            watching = Entered(log, topics, len(plan.flights) // 2, entered)
            reports = Reports(len(plan.expected), reported)
            codec = Codec()
            began = time.monotonic()
            async with (
                Client(log, topics, codec) as client,
                _together(
                    [
                        watching.run(),
                        reports.run(log, topics, codec),
                        _publish_and_read(plan, log, topics, codec, client, published),
                    ]
                ) as together,
            ):
                recovery_s = await _kill_in_the_middle(plan, processes, watching, together, bars) if plan.kill else None
                await _wait(reports.complete, lambda: watching.count + len(reports.found), processes, together)
            return Outcome(reports, time.monotonic() - began, recovery_s)


async def _publish_and_read(
    plan: Plan, log: Log, topics: Topics, codec: Codec, client: Client, published: Callable[[int], None]
) -> None:
    ends: asyncio.Future[dict[TopicPartition, int]] = asyncio.get_running_loop().create_future()
    topic = topics.stream(STREAM)
    positions = {TopicPartition(topic, p): (await log.bounds(topic, p)).end for p in range(STREAM_PARTITIONS)}

    async def publish_all() -> None:
        ends.set_result(await publish(log, topics, codec, plan.flights, published))

    async with asyncio.TaskGroup() as group:
        group.create_task(publish_all())
        group.create_task(read(log, codec, client, positions, ends))


async def _kill_in_the_middle(
    plan: Plan, processes: Processes, watching: Entered, together: list[asyncio.Task[None]], bars: Progress
) -> float:
    """kill -9 the owner when half is entered, start it again, and say how long nobody decided anything. Seconds."""
    await _wait(watching.reached, lambda: watching.count, processes, together)
    await processes.kill("serve")
    killed = time.monotonic()
    bars.console.print(f"[bold red]kill -9[/] of the owner at flight {watching.count:,}; it is started again")
    await processes.start("serve", "serve", *plan.options(stores=True))
    await _wait(watching.went_on, lambda: watching.count, processes, together)
    assert watching.went_on_at is not None
    seconds = watching.went_on_at - killed
    bars.console.print(f"[bold green]the journal goes on[/] {seconds:.1f} s after the kill")
    return seconds


async def _wait(
    event: asyncio.Event, measure: Callable[[], int], processes: Processes, together: list[asyncio.Task[None]]
) -> None:
    """Wait for `event` while `measure` grows and all processes and tasks live."""
    last, since = -1, time.monotonic()
    while not event.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), POLL_S)
        processes.check()
        for task in together:
            if task.done():
                task.result()
        now = measure()
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > STANDSTILL_S:
            raise Failed(f"nothing has moved for {STANDSTILL_S:.0f} s.")


@contextlib.asynccontextmanager
async def _together(works: list[object]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run `works` beside the body; cancelled with it."""
    tasks = [asyncio.ensure_future(work) for work in works]  # type: ignore[call-overload]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _served(log: Log, prefix: str, processes: Processes) -> Topics:
    """The topics, once the server has made them all."""
    topics = await find_topics(log, prefix)
    while await log.partitions(topics.stream("reports")) is None:
        processes.check()
        await asyncio.sleep(POLL_S)
    return await find_topics(log, prefix)


@contextlib.contextmanager
def _bars(plan: Plan):  # type: ignore[no-untyped-def]
    """A bar for what is published, entered and reported, and the function that moves each."""
    columns = (TextColumn("{task.description:<18}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bars:
        tasks = [
            bars.add_task("flights published", total=len(plan.flights)),
            bars.add_task("flights entered", total=len(plan.flights)),
            bars.add_task("reports", total=len(plan.expected)),
        ]

        def mover(task: TaskID) -> Callable[[int], None]:
            return lambda count: bars.update(task, completed=count)

        yield bars, *map(mover, tasks)


def _print_worst(found: dict[tuple[str, str], DayReport]) -> None:
    """The five days with the highest mean arrival delay, of those with 20 arrivals or more."""
    ranked = sorted(
        (r for r in found.values() if r.arrived >= 20 and r.mean_arr_delay_min is not None),
        key=lambda r: (-(r.mean_arr_delay_min or 0.0), r.carrier, r.day),
    )
    table = Table(
        title="The five worst days by mean arrival delay in minutes (20 arrivals or more)",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
    )
    for name in ("carrier", "day"):
        table.add_column(name, no_wrap=True)
    for name in ("mean", "worst", "> 30 min", "arrived", "flights", "cancelled"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in ranked[:5]:
        table.add_row(
            r.carrier,
            r.day,
            f"{r.mean_arr_delay_min:.4f}",
            f"{r.max_arr_delay_min:.0f}",
            f"{r.share_late:.0%}",
            *map(str, (r.arrived, r.flights, r.cancelled)),
        )
    console.print()
    console.print(table)


async def _print_history(plan: Plan) -> None:
    book = BOOK if tuple(BOOK.split("-", 1)) in plan.expected else "@last"
    if await _show("history", book, "--ends", "4", *plan.options()) != 0:
        raise Failed("`millstream history` found nothing to show.")


async def _show(*args: str) -> int:
    """Run `millstream ARGS` here, with the command above its output."""
    console.print(f"\n[dim]$ millstream {shlex.join(args)}[/]", soft_wrap=True)
    return await show(*args)


def _compare(plan: Plan, reports: Reports) -> None:
    """Every figure of every report with the plain one, by ==: not a bit may differ."""
    wrong = [f"two reports of one day: {doubled}" for doubled in reports.doubled]
    wrong += [f"no report of {' '.join(key)}" for key in plan.expected.keys() - reports.found.keys()]
    wrong += [
        f"a report of {' '.join(key)}, which has no flights" for key in reports.found.keys() - plan.expected.keys()
    ]
    for key in plan.expected.keys() & reports.found.keys():
        for field in FIELDS:
            ours, plainly = getattr(reports.found[key], field), plan.expected[key][field]  # type: ignore[literal-required]
            if ours != plainly:
                wrong.append(f"{' '.join(key)}: {field} is {ours!r}, plainly computed {plainly!r}")
    wrong += _wrong_months(reports)
    if wrong:
        shown = "\n".join(f"  {line}" for line in wrong[:10])
        raise Failed(f"the reports are not what they should be, in {len(wrong)} places; the first:\n{shown}")


def _wrong_months(reports: Reports) -> list[str]:
    """Each carrier's month book has taken its days one by one: 1, 2, 3, ..."""
    days: dict[str, list[int]] = {}
    for report in reports.found.values():
        days.setdefault(report.carrier, []).append(report.month_days)
    return [
        f"month book of {c}: took days {sorted(n)}" for c, n in days.items() if sorted(n) != [*range(1, len(n) + 1)]
    ]


def _print_summary(plan: Plan, outcome: Outcome) -> None:
    count, reports = len(plan.flights), len(outcome.reports.found)
    repeated = f", {outcome.reports.repeated} repeated with the same id" if outcome.reports.repeated else ""
    console.print()
    console.print(
        f"[bold green]done[/]  {count:,} flights in {outcome.took_s:.1f} s: {count / outcome.took_s:,.0f} flights/s,"
        " from the first record published to the last report"
    )
    if outcome.recovery_s is not None:
        console.print(f"      the owner was killed in the middle; the journal went on after {outcome.recovery_s:.1f} s")
    console.print(f"      {reports}/{len(plan.expected)} reports equal to plain Python's, to the bit{repeated}")
    if plan.json:
        figures = {
            "flights": count,
            "flights_per_s": round(count / outcome.took_s, 1),
            "recovery_s": outcome.recovery_s,
        }
        print(json.dumps(figures))


# ---------------------------------------------------------------------- arguments, folders, signals


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A month of flights through the journal, with a kill -9 in the middle."
    )
    parser.add_argument("--log", help="kafka://HOST:PORT; default: an embedded log in the folder")
    parser.add_argument("--folder", type=Path, help="where log, stores and logs of the processes go; kept")
    parser.add_argument("--keep", action="store_true", help="keep a temporary folder, and the topics on Kafka")
    parser.add_argument("--days", type=int, default=31, choices=range(1, 32), metavar="1..31", help="only so many days")
    parser.add_argument("--no-kill", action="store_true", help="let the owner live")
    parser.add_argument("--json", action="store_true", help="a last line with the figures, for programs")
    return parser.parse_args()


def _plan(given: argparse.Namespace, folder: Path) -> Plan:
    flights = [flight for flight in data.read() if flight.day <= given.days]
    last = f"2013-01-{given.days:02}"
    expected = {key: report for key, report in plain.reports().items() if key[1] <= last}
    log = given.log or str(folder / ".millstream")
    fresh = given.log is None and not Path(log).exists()
    # A prefix of its own where others have been: what lies there would count as ours.
    prefix = "millstream" if fresh else f"demo-{secrets.token_hex(4)}"
    return Plan(log, prefix, folder, flights, expected, not given.no_kill, given.json)


async def _run(given: argparse.Namespace, folder: Path) -> None:
    """The job, ended by SIGTERM as by Ctrl-C."""
    plan = _plan(given, folder)
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    keep = given.log is None or given.keep
    try:
        await main_job(plan)
    except (Failed, ProcessEnded, MillstreamError):
        # Whoever looks for the reason needs what is on the log.
        keep = True
        raise
    finally:
        if not keep:
            with contextlib.suppress(MillstreamError):
                await _delete_topics(plan)


async def _delete_topics(plan: Plan) -> None:
    async with open_log(plan.log) as log:
        topics = await find_topics(log, plan.prefix)
        names = [spec.name for spec in topics.specs()]
        for topic in (*names, topics.kernel("day_figures"), topics.stream(STREAM), topics.stream("reports")):
            with contextlib.suppress(MillstreamError):
                await log.delete_topic(topic)


def main() -> int:
    given = _arguments()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="millstream-demo-"))
    keep = given.keep or given.folder is not None
    try:
        asyncio.run(_run(given, folder))
    except (Failed, ProcessEnded, MillstreamError) as failed:
        keep = True
        console.print("[bold red]failed:[/] ", end="")
        console.print(str(failed), markup=False, soft_wrap=True)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; its processes are stopped")
        return 130
    finally:
        if keep:
            console.print(f"kept: {folder}", markup=False, soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
