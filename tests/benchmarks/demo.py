"""The main job: flights a second from the first record published to the last report, kill and restart included."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

DEMO = Path(__file__).parents[2] / "examples/flights/demo.py"


def measure(emit: Callable[..., None], kind: str, address: str | None) -> None:
    """`demo.flights_per_s`, as the demo itself measures it."""
    command = [sys.executable, "-P", str(DEMO), "--json", *(["--log", address] if address else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise SystemExit(f"the demo failed:\n{done.stdout}\n{done.stderr}")
    emit("demo.flights_per_s", json.loads(done.stdout.splitlines()[-1])["flights_per_s"], "1/s", log=kind)
