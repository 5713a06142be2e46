"""From the bytes of a file to records: lines of JSON, or CSV with a header. Pure.

A byte-order mark, CRLF, empty lines and a missing last line end are no part of
any record. A line that is no record stops everything with its number and the
reason: nothing is skipped.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec

from millstream.events.errors import MillstreamError

R = TypeVar("R", bound=msgspec.Struct)
Format = Literal["json", "csv"]

UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
LINE_BYTES_MAX = 16 * 1024 * 1024
UNKNOWN = ("", "NA")
"""What a CSV cell says where there is no value, in fields that may be without one."""


class BadLine(MillstreamError):
    """A line is no record. number: of the line, from 1. line: its text, shortened, or empty."""

    def __init__(self, number: int, reason: str, line: str = "") -> None:
        super().__init__(f"line {number}: {reason}")
        self.number, self.reason = number, reason
        self.line = line if len(line) <= 120 else line[:117] + "..."


class Parsed(NamedTuple, Generic[R]):
    """A record, and the lines it stood in."""

    first_line: int
    last_line: int
    record: R


class LineSplitter:
    """Cuts chunks of bytes into numbered lines without their ends."""

    def __init__(self) -> None:
        self._rest = b""
        self._number = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, str]]:
        """The lines that are complete with this chunk."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            yield self._line(line)
        if len(self._rest) > LINE_BYTES_MAX:
            raise BadLine(self._number + 1, f"it is longer than {LINE_BYTES_MAX:,} bytes; is it a text file?")

    def finish(self) -> Iterator[tuple[int, str]]:
        """The last line, where it has no end."""
        if self._rest:
            yield self._line(self._rest)
            self._rest = b""

    def _line(self, raw: bytes) -> tuple[int, str]:
        self._number += 1
        if self._number == 1:
            if raw.startswith(UTF16_BOMS):
                raise BadLine(1, "the file is UTF-16. Convert it first: iconv -f UTF-16 -t UTF-8")
            raw = raw.removeprefix(UTF8_BOM)
        try:
            return self._number, raw.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            reason = f"byte {error.start + 1} is no UTF-8 ({raw[error.start : error.start + 4].hex(' ')})"
            raise BadLine(self._number, reason, raw.decode(errors="backslashreplace")) from None


class Parser(Generic[R]):
    """From lines to records of `kind`. format: None takes the first line's word for it.

    from_line: lines before it are passed over, but for a CSV header.
    """

    def __init__(self, kind: type[R], *, format: Format | None = None, from_line: int = 1) -> None:
        self._kind, self.format, self._from_line = kind, format, from_line
        hints = get_type_hints(kind)
        self._fields = {name: hints[name] for name in kind.__struct_fields__}
        self._optional = {name for name, hint in self._fields.items() if type(None) in get_args(hint)}
        self._header: Sequence[str] | None = None
        self._open: tuple[int, str] | None = None
        self.ignored: list[str] = []
        """CSV columns that the record doesn't have."""

    def feed(self, number: int, line: str) -> Parsed[R] | None:
        """The record that is complete with this line, or None. Raises `BadLine`."""
        if self._open is None and not line.strip():
            return None
        if self.format is None:
            self.format = "json" if line.lstrip()[0] in "{[" else "csv"
        if self.format == "csv":
            return self._csv(number, line)
        if number < self._from_line:
            return None
        return Parsed(number, number, self._convert(number, line, self._json(number, line), strict=True))

    def finish(self) -> None:
        """The input is over. Raises `BadLine` where a quoted CSV cell is still open."""
        if self._open is not None:
            raise BadLine(self._open[0], "a quote is opened here and never closed", self._open[1])

    def _json(self, number: int, line: str) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadLine(number, f"it is no JSON: {error}", line) from None
        if not isinstance(found, dict):
            raise BadLine(number, f"a JSON object is expected, found {type(found).__name__}", line)
        unknown = [name for name in found if name not in self._fields and name != "type"]
        if unknown:
            raise BadLine(
                number, f"{_named(unknown)} not known; {self._kind.__name__} has {', '.join(self._fields)}", line
            )
        return found

    def _csv(self, number: int, line: str) -> Parsed[R] | None:
        first, text = (number, line) if self._open is None else (self._open[0], f"{self._open[1]}\n{line}")
        if self._header is not None and first < self._from_line:
            return None
        try:
            cells = next(csv.reader(io.StringIO(text, newline="\n"), strict=True))
        except csv.Error as error:
            if "unexpected end of data" in str(error) and len(text) < LINE_BYTES_MAX:
                self._open = (first, text)
                return None
            raise BadLine(first, f"it is no CSV: {error}", text) from None
        self._open = None
        if self._header is None:
            self._header = self._checked_header(number, line, cells)
            return None
        if len(cells) != len(self._header):
            raise BadLine(first, f"it has {len(cells)} cells, the header has {len(self._header)}", text)
        found: dict[str, Any] = {}
        for name, cell in zip(self._header, cells, strict=True):
            if name in self._fields:
                found[name] = None if name in self._optional and cell in UNKNOWN else cell
        return Parsed(first, number, self._convert(first, text, found, strict=False))

    def _checked_header(self, number: int, line: str, cells: Sequence[str]) -> Sequence[str]:
        header = [cell.strip() for cell in cells]
        doubled = sorted({name for name in header if header.count(name) > 1})
        if doubled:
            raise BadLine(number, f"the header names {_named(doubled)} more than once", line)
        missing = [name for name in self._fields if name not in header]
        if missing:
            raise BadLine(
                number,
                f"the header has no {', '.join(missing)}; a {self._kind.__name__} has {', '.join(self._fields)}",
                line,
            )
        self.ignored = [name for name in header if name not in self._fields]
        return header

    def _convert(self, number: int, line: str, found: dict[str, Any], *, strict: bool) -> R:
        try:
            record = msgspec.convert(found, self._kind, strict=strict)
        except msgspec.ValidationError as error:
            raise BadLine(number, str(error), line) from None
        for name in self._fields:
            value = getattr(record, name)
            if type(value) is float and not math.isfinite(value):
                raise BadLine(number, f"{name} is {value}; a number is expected", line)
        return record


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
