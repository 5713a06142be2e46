"""Figures, one JSON line each; nothing is judged. `make bench`, or `make bench QUICK=1` for under two minutes.

    python -m tests.benchmarks.run [--quick] [--only NAME] [--kafka ADDRESS]

A server runs in a process of its own, the clients in this one, Kafka beside them:
everything on one machine, as the figures are meant. Compare figures of one run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from tests.benchmarks import bench_codec, demo, fold, journal, log
from tests.support.broker import ephemeral_broker
from tests.support.records import TRANSITION


def emit(name: str, value: float, unit: str, **labels: object) -> None:
    """Print one figure. labels: what it was measured on."""
    print(json.dumps({"name": name, **labels, "value": round(value, 4), "unit": unit}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under two minutes in all")
    parser.add_argument("--only", default="", help="figures whose name begins so")
    parser.add_argument("--kafka", help="a broker that runs already, such as kafka://127.0.0.1:9092")
    args = parser.parse_args()

    def wanted(name: str) -> bool:
        return name.startswith(args.only) or args.only.startswith(name)

    if wanted("codec"):
        figures = bench_codec.measure("transition, one event", TRANSITION)
        emit("codec.encode_us", figures["encode_us"], "us", record="transition of one event")
        emit("codec.decode_us", figures["decode_us"], "us", record="transition of one event")
    if wanted("fold"):
        uvloop.run(fold.measure(emit, events=50_000 if args.quick else 200_000))
    with tempfile.TemporaryDirectory(prefix="millstream-bench-") as folder:
        _on("embedded", str(Path(folder) / "log"), args, wanted)
    if args.kafka:
        _on("kafka", args.kafka, args, wanted)
        return
    if not any(wanted(name) for name in ("append", "journal", "demo", "broker")):
        return
    began = time.perf_counter()
    with ephemeral_broker() as broker:
        emit("broker.start_s", time.perf_counter() - began, "s")
        _on("kafka", broker.address, args, wanted)


def _on(kind: str, address: str, args: argparse.Namespace, wanted: Callable[[str], bool]) -> None:
    quick = bool(args.quick)
    if wanted("append"):
        uvloop.run(log.measure(emit, kind, address, seconds=2 if quick else 5))
    if wanted("journal"):
        uvloop.run(journal.measure(emit, kind, address, seconds=4 if quick else 15))
    if wanted("demo"):
        demo.measure(emit, kind, address if kind == "kafka" else None)


if __name__ == "__main__":
    main()
