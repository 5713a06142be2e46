"""`millstream broker`: a local Kafka for people. `start` in the background, `run` in the foreground.

Exit codes: 0 done (or: it runs), 3 it doesn't run, 5 it could not be started or stopped.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from millstream.events.errors import BrokerFailed, FolderInUse
from millstream.streams.broker.jars import Progress as Told
from millstream.streams.broker.probe import ask
from millstream.streams.broker.server import DEFAULT_DATA, DEFAULT_PORT, Broker, find, stop_running

NOT_RUNNING = 3
FAILED = 5

app = typer.Typer(
    name="broker",
    help="A real local Kafka; neither Docker nor Java has to be installed. Without a word more: `run`.",
    invoke_without_command=True,
)
Port = Annotated[int, typer.Option("--port", help="Where it listens, on 127.0.0.1 only.", min=1, max=65535)]
Data = Annotated[Path, typer.Option("--data", help="The folder that holds its topics.", file_okay=False)]

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


@app.callback()
def main(context: typer.Context, port: Port = DEFAULT_PORT, data: Data = DEFAULT_DATA) -> None:
    if context.invoked_subcommand is None:
        run(port, data)


@app.command()
def start(port: Port = DEFAULT_PORT, data: Data = DEFAULT_DATA) -> None:
    """Start it in the background and return when it answers."""
    running = find(data)
    if running:
        out.print(f"A broker already runs on {data}: process {running.pid}, {running.address}")
        if running.port != port:
            err.print(f"It listens on port {running.port}, not {port}. First: millstream broker stop --data {data}")
            raise typer.Exit(FAILED)
        return
    broker = _started(port, data)
    out.print(f"Stop it with: millstream broker stop{_unless_default(data)}")
    broker.detach()


@app.command()
def run(port: Port = DEFAULT_PORT, data: Data = DEFAULT_DATA) -> None:
    """Run it in the foreground until Ctrl-C or SIGTERM."""
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    broker = _started(port, data)
    out.print("Ctrl-C stops it.")
    try:
        while not asked.wait(0.2):
            if broker.pid is None:
                err.print(f"[red]Kafka ended by itself.[/red] The end of its log:\n{broker.log_tail()}")
                raise typer.Exit(FAILED)
    finally:
        _or_exit(broker.stop)
    out.print("stopped")


@app.command()
def stop(data: Data = DEFAULT_DATA) -> None:
    """Stop the broker of this folder."""
    running = find(data)
    if running is None:
        out.print(f"No broker runs on {data}.")
        raise typer.Exit(NOT_RUNNING)
    _or_exit(lambda: stop_running(running, data))
    out.print(f"stopped (process {running.pid})")


@app.command()
def status(data: Data = DEFAULT_DATA) -> None:
    """Say whether it runs and answers. Exit code 0: it does; 3: it doesn't run; 5: it doesn't answer."""
    running = find(data)
    if running is None:
        out.print(f"No broker runs on {data}. Start one: millstream broker start{_unless_default(data)}")
        raise typer.Exit(NOT_RUNNING)
    answer = ask(running.port)
    if answer is None:
        log = data / "broker.log"
        err.print(f"Process {running.pid} runs and does not answer on port {running.port}. Its log: {log}")
        raise typer.Exit(FAILED)
    out.print(f"running: {running.address}  process {running.pid}  cluster {answer.cluster_id}  data {data}")


def _started(port: int, data: Path) -> Broker:
    broker = Broker(data, port)
    began = time.monotonic()
    with _progress_bar() as told:
        _or_exit(lambda: broker.start(told))
    out.print(f"ready in {time.monotonic() - began:.1f} s: {broker.address}  (process {broker.pid}, data {data})")
    return broker


def _or_exit(do: Callable[[], None]) -> None:
    try:
        do()
    except (BrokerFailed, FolderInUse) as error:
        err.print(str(error), style="red", markup=False)
        raise typer.Exit(FAILED) from None


@contextmanager
def _progress_bar() -> Iterator[Told]:
    """One line that says what is going on, with a bar where the amount is known; gone at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def told(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield told


def _unless_default(data: Path) -> str:
    return "" if data == DEFAULT_DATA else f" --data {data}"
