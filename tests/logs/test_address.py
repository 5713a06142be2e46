"""From an address to a log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from millstream.events.errors import BadAddress
from millstream.events.logs.address import bootstrap_servers, open_log
from millstream.events.logs.sqlite import SqliteLog


def test_a_folder_is_an_embedded_log(tmp_path: Path) -> None:
    assert open_log(str(tmp_path)).kind == "embedded"


def test_no_address_is_the_folder_millstream() -> None:
    log = open_log(None)
    assert isinstance(log, SqliteLog)
    assert log.folder == Path(".millstream")


def test_memory_is_a_log_of_its_own() -> None:
    assert open_log("memory:").kind == "memory"


def test_a_kafka_address_names_one_server_or_several() -> None:
    assert bootstrap_servers("kafka://localhost:9092") == "localhost:9092"
    assert bootstrap_servers("kafka://a:1,b:2,[::1]:3") == "a:1,b:2,[::1]:3"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "  ",
        "kafka://",
        "kafka://localhost",
        "kafka://localhost:",
        "kafka://:9092",
        "kafka://localhost:0",
        "kafka://localhost:99999",
        "kafka://localhost:9092/topic",
        "kafka://a:1,,b:2",
        "kafka:localhost:9092",
        "memory:x",
        "http://localhost:9092",
        "sqlite:log.db",
    ],
)
def test_what_is_no_address_is_refused_with_the_forms_that_are(address: str) -> None:
    with pytest.raises(BadAddress, match=r"a folder for the embedded log .* kafka://host:port.* memory:"):
        open_log(address)


def test_opening_an_embedded_log_loads_no_kafka_client() -> None:
    code = (
        "import sys; from millstream.events.logs import open_log; open_log('.'); open_log('memory:');"
        " sys.exit('aiokafka' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0
