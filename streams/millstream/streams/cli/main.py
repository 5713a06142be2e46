"""The command `millstream`: verbs and options. What a verb does is loaded when it runs, so that help is there at once.

Exit codes: 0 done, 1 it failed or differs, 2 usage, 3 not found, 4 refused, 5 no server or broker.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from millstream.events.errors import MillstreamError
from millstream.streams.broker.commands import app as broker_app
from millstream.streams.cli.console import DONE, complain, exit_code
from millstream.streams.cli.settings import find_folder, find_log, find_prefix

RUN, STREAMS, TIME_TRAVEL, CARE = "Run", "Streams", "Time travel", "Care"

app = typer.Typer(
    name="millstream",
    help="Durable workflows on a stream of events. The log is --log, else MILLSTREAM_LOG, else `log` in"
    " \\[tool.millstream] of the nearest pyproject.toml or millstream.toml, else the nearest folder .millstream.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(broker_app, rich_help_panel=RUN)

LogAddress = Annotated[
    str | None, typer.Option("--log", metavar="ADDRESS", help="A folder, or kafka://HOST:PORT.", show_default=False)
]
Prefix = Annotated[
    str | None, typer.Option("--prefix", help="What the topics' names begin with.", show_default="millstream")
]
Folder = Annotated[
    Path | None,
    typer.Option("--folder", help="Where a server keeps its stores.", show_default="beside the log", file_okay=False),
]
Json = Annotated[bool, typer.Option("--json", help="Lines of JSON instead of text for people.")]
Partition = Annotated[int | None, typer.Option("--partition", min=0, help="Only this one.", show_default="all")]
WithParent = Annotated[
    int | None, typer.Option("--with-parent", hidden=True, metavar="PID", help="End when this parent process does.")
]


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from millstream.streams.cli.serve import release

        typer.echo(f"millstream {release()}")
        raise typer.Exit(DONE)


@app.command(rich_help_panel=RUN)
def serve(
    log: LogAddress = None,
    prefix: Prefix = None,
    folder: Folder = None,
    partitions: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Of a new prefix; fixed for its life.", show_default="4, on Kafka 16"),
    ] = None,
    kernels: Annotated[bool, typer.Option("--kernels", help="Be a member of the kernel group too.")] = False,
    with_parent: WithParent = None,
) -> None:
    """Own a share of the partitions: decide commands, append to the journal, keep the projections."""
    from millstream.streams.cli.serve import serve as work

    address, name = find_log(log), _checked_prefix(prefix)
    _run(
        lambda: work(
            address, name, find_folder(folder, address, name), partitions, kernels=kernels, with_parent=with_parent
        )
    )


@app.command(rich_help_panel=RUN)
def kernels(
    log: LogAddress = None,
    prefix: Prefix = None,
    instance: Annotated[
        str | None,
        typer.Option(help="The member's name: under the same one it gets its partitions back.", show_default="random"),
    ] = None,
    with_parent: WithParent = None,
) -> None:
    """Be a member of the kernel group: compute batches on the GPU, or with NumPy where there is none."""
    from millstream.streams.cli.kernels import kernels as work

    address, name = find_log(log), _checked_prefix(prefix)
    _run(lambda: work(address, name, instance, with_parent=with_parent))


@app.command(rich_help_panel=STREAMS)
def publish(
    stream: Annotated[str, typer.Argument(help="Such as flights.", show_default=False)],
    file: Annotated[
        Path | None,
        typer.Argument(help="JSON lines, or CSV with a header; may be .gz. [dim]default: standard input[/]"),
    ] = None,
    log: LogAddress = None,
    prefix: Prefix = None,
    from_line: Annotated[int, typer.Option(min=1, help="Pass over the lines before it.")] = 1,
    format: Annotated[
        Literal["json", "csv"] | None, typer.Option(help="What the lines are.", show_default="by name, or first line")
    ] = None,
) -> None:
    """Put the lines of a file into a stream, as records."""
    from millstream.streams.cli.publish import publish as work

    address, name = find_log(log), _checked_prefix(prefix)
    command = f"millstream publish {stream}{_typed(log, prefix, format)}"
    _run(lambda: work(address, name, stream, file, format=format, from_line=from_line, command=command))


@app.command(rich_help_panel=STREAMS)
def tail(
    stream: Annotated[str, typer.Argument(help="Such as reports.", show_default=False)],
    log: LogAddress = None,
    prefix: Prefix = None,
    start: Annotated[str, typer.Option("--from", help="earliest, latest, or an offset.")] = "earliest",
    partition: Partition = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Wait for more at the end.")] = False,
    limit: Annotated[
        int | None, typer.Option("-n", min=0, help="Stop after so many records.", show_default="all")
    ] = None,
    json: Json = False,
) -> None:
    """Show the records of a stream: a row each, or with --json a line of JSON each."""
    from millstream.streams.cli.tail import tail as work

    address, name = find_log(log), _checked_prefix(prefix)
    _run(
        lambda: work(
            address, name, stream, start=start, partition=partition, as_json=json, following=follow, limit=limit
        )
    )


@app.command(rich_help_panel=TIME_TRAVEL)
def history(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Its id, a unique beginning of it, or @last.", show_default=False)
    ],
    log: LogAddress = None,
    prefix: Prefix = None,
    ends: Annotated[
        int | None, typer.Option(min=1, help="Only so many transitions at both ends.", show_default="all")
    ] = None,
    json: Json = False,
) -> None:
    """Show what happened to a run, event by event, and what caused it. Refused commands too."""
    from millstream.streams.cli.history import history as work

    address, name = find_log(log), _checked_prefix(prefix)
    _run(lambda: work(address, name, run, as_json=json, ends=ends))


@app.command(rich_help_panel=CARE)
def verify(
    log: LogAddress = None,
    prefix: Prefix = None,
    folder: Folder = None,
    partition: Partition = None,
    json: Json = False,
) -> None:
    """Fold the log anew and compare with a server's stores, to the byte. The server may go on meanwhile."""
    from millstream.streams.cli.verify import verify as work

    address, name = find_log(log), _checked_prefix(prefix)
    _run(lambda: work(address, name, find_folder(folder, address, name), partition, as_json=json))


@app.command(rich_help_panel=CARE)
def rebuild(
    log: LogAddress = None,
    prefix: Prefix = None,
    folder: Folder = None,
    partition: Partition = None,
    json: Json = False,
) -> None:
    """Drop a stopped server's stores and fold them again from the log."""
    from millstream.streams.cli.rebuild import rebuild as work

    address, name = find_log(log), _checked_prefix(prefix)
    _run(lambda: work(address, name, find_folder(folder, address, name), partition, as_json=json))


def _checked_prefix(given: str | None) -> str:
    from millstream.events.topics import check_name

    return check_name("prefix", find_prefix(given).value)


def _typed(log: str | None, prefix: str | None, format: str | None) -> str:
    """The options as they were typed, so that a command can be shown again."""
    import shlex

    given = (("--log", log), ("--prefix", prefix), ("--format", format))
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given if value is not None)


def _run(work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    from millstream.streams.cli.session import run

    code = run(work())
    if code != DONE:
        raise typer.Exit(code)


def main() -> None:
    """The entry point. Errors of ours end as one paragraph and an exit code, others as a traceback: they are bugs."""
    try:
        app()
    except MillstreamError as error:
        complain(error)
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
