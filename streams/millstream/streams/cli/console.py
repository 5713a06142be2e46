"""What all verbs share towards people: two consoles, exit codes, and texts from the log made harmless."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape as _no_markup

from millstream.events.errors import (
    BadAddress,
    BadId,
    BrokerFailed,
    LogUnavailable,
    MillstreamError,
    Refused,
    Stop,
    StoreDamaged,
    TopicMissing,
)
from millstream.streams.cli.settings import WrongSetting

if TYPE_CHECKING:
    from rich.progress import Progress

DONE, FAILED, USAGE, NOT_FOUND, REFUSED, NO_SERVER = range(6)

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


class Usage(MillstreamError):
    """The command line can't mean anything."""


class NotFound(MillstreamError):
    """What was asked for isn't there. The text says where it was looked for."""


class NoServer(MillstreamError):
    """Nobody answers who should: a server or a broker."""


_CODES: list[tuple[type[MillstreamError], int]] = [
    (Usage, USAGE),
    (BadId, USAGE),
    (BadAddress, USAGE),
    (WrongSetting, USAGE),
    (NotFound, NOT_FOUND),
    (TopicMissing, NOT_FOUND),
    (NoServer, NO_SERVER),
    (LogUnavailable, NO_SERVER),
    (BrokerFailed, NO_SERVER),
    (StoreDamaged, FAILED),
    (Refused, REFUSED),
    (Stop, REFUSED),
]


def exit_code(error: MillstreamError) -> int:
    """The exit code of an error of ours: by the first of its kinds that has one."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def complain(error: MillstreamError) -> None:
    """One paragraph on stderr; never a traceback."""
    err.print("[bold red]error:[/]", end=" ")
    err.print(escape(str(error), keep="\n"), markup=False)


def escape(text: str, keep: str = "") -> str:
    """`text` with everything that could steer a terminal written out: controls, line ends, overrides of direction."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or _harmless(c) else _written_out(c) for c in text)


def counted(count: int, noun: str) -> str:
    """'1 record', '27,004 records'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def plain(text: object) -> str:
    """`text` for a place in a marked-up line: harmless, and no markup itself, whatever brackets it has."""
    return _no_markup(escape(str(text)))


def _harmless(char: str) -> bool:
    return unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _written_out(char: str) -> str:
    point = ord(char)
    return f"\\x{point:02x}" if point < 256 else f"\\u{point:04x}" if point < 65536 else f"\\U{point:08x}"


def print_json(value: Any) -> None:
    """One line of JSON, whatever stdout is. Structs, bytes (as base64) and tuples are taken as msgspec takes them."""
    import msgspec

    print_json_line(msgspec.json.encode(value))


def print_json_line(encoded: bytes) -> None:
    sys.stdout.buffer.write(encoded + b"\n")
    sys.stdout.buffer.flush()


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Bars on stderr, gone at the end; none where stderr is no terminal, so that a log keeps only results."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = not quiet and err.is_terminal
    with Progress(*columns, console=err, transient=True, disable=not shown) as bars:
        yield bars
