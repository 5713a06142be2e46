"""Which process is which: a process id alone may have been given to somebody else since."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from pathlib import Path


def started_at(pid: int) -> str | None:
    """When this process began, as the system tells it (compare only), or None where there is no such process.

    A process that has ended, with all its threads, but wasn't waited for counts as gone.
    """
    try:
        # The second field, the name, may hold blanks and brackets: count from the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ended = fields[0] == "Z" and int(fields[17]) <= 1
        return None if ended else fields[19]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return None
    except OSError:
        return None
    told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def port_is_free(port: int) -> bool:
    with socket.socket() as sock:
        # As Kafka does: a port whose old connections still time out counts as free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError as err:
            if err.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def listener_on(port: int) -> str | None:
    """'process 4711 (nginx)' for whoever listens on this port, where the system tells us."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(entry) in inodes for entry in folder.iterdir()):
                name = (folder.parent / "comm").read_text().strip()
                return f"process {folder.parent.name} ({name})"
        except OSError:
            continue
    return None


def _listening_inodes(port: int) -> set[str]:
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found
