"""How long the codec takes for one record, beside fastavro's general reader and writer. Prints, judges nothing.

python -P tests/benchmarks/bench_codec.py
"""

from __future__ import annotations

import io
import json
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import fastavro
import msgspec

from millstream.events.avro_read import PYTHON_LEAVES
from millstream.events.codec import HEADER_BYTES, Codec
from millstream.events.envelope import Command
from millstream.events.schema_files import compose
from tests.support.records import ENTER, TRANSITION, WITH_SENT

CALLS = 300
ROUNDS = 300
SAMPLES: dict[str, msgspec.Struct] = {
    "transition, one event": TRANSITION,
    "transition, one event, with sent": WITH_SENT,
    "transition, ten events": msgspec.structs.replace(TRANSITION, events=list(TRANSITION.events) * 10),
    "command": Command("01JABCDEFGHJKMNPQRSTVWXYZ0", "9E-2013-01-16", None, ENTER),
}


def best_us(call: Callable[[], Any]) -> float:
    """Microseconds a call: the best of many short rounds, since others use the machine too."""
    return round(min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6, 2)


def measure(name: str, record: msgspec.Struct) -> dict[str, Any]:
    codec, plain = Codec(), Codec(leaves=PYTHON_LEAVES)
    data = codec.encode(record)
    schema = fastavro.parse_schema(compose(type(record).__name__))
    body = data[HEADER_BYTES:]
    as_dict = fastavro.schemaless_reader(io.BytesIO(body), schema, None, return_record_name=True)
    return {
        "bench": "codec",
        "record": name,
        "bytes": len(data),
        "encode_us": best_us(lambda: codec.encode(record)),
        "decode_us": best_us(lambda: codec.decode(data)),
        "decode_python_leaves_us": best_us(lambda: plain.decode(data)),
        "fastavro_write_us": best_us(lambda: fastavro.schemaless_writer(io.BytesIO(), schema, as_dict)),
        "fastavro_read_us": best_us(
            lambda: fastavro.schemaless_reader(io.BytesIO(body), schema, None, return_record_name=True)
        ),
    }


def main() -> None:
    for name, record in SAMPLES.items():
        print(json.dumps(measure(name, record)), flush=True)


if __name__ == "__main__":
    main()
