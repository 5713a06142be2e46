"""From an address, as people type it, to a log. The Kafka adapter is loaded only where one is named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from millstream.events.errors import BadAddress
from millstream.events.logs.port import Log, Notice

DEFAULT_FOLDER = ".millstream"
_FORMS = (
    "An address is a folder for the embedded log (./.millstream), kafka://host:port[,host:port...] for Kafka, or"
    " memory: for a log that ends with the process"
)


def open_log(
    address: str | None,
    *,
    kafka_settings: Mapping[str, Any] | None = None,
    notice: Notice | None = None,
) -> Log:
    """The log at `address` (None: the folder `.millstream`), not started: use it with `async with`.

    kafka_settings: more for the Kafka adapter (security and such). Raises `BadAddress`, whose text shows the forms.
    """
    text = DEFAULT_FOLDER if address is None else address
    if text == "memory:":
        from millstream.events.logs.memory import MemoryLog

        return MemoryLog(notice=notice)
    if text.startswith("kafka://"):
        bootstrap = bootstrap_servers(text)
        from millstream.events.logs.kafka import KafkaLog

        return KafkaLog(bootstrap, settings=kafka_settings, notice=notice)
    _check_folder(text)
    from millstream.events.logs.sqlite import SqliteLog

    return SqliteLog(text, notice=notice)


def bootstrap_servers(address: str) -> str:
    """'kafka://a:1,b:2' -> 'a:1,b:2'; `BadAddress` where a host or a port is missing."""
    servers = address.removeprefix("kafka://").split(",")
    for server in servers:
        host, colon, port = server.rpartition(":")
        if not colon or not host or "/" in server or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise BadAddress(f"log address {address!r}: {server!r} isn't host:port. {_FORMS}.")
    return ",".join(servers)


def _check_folder(text: str) -> None:
    if not text.strip() or "\0" in text:
        raise BadAddress(f"log address {text!r} is empty or no path. {_FORMS}.")
    scheme = text.partition(":")[0]
    if "://" in text or (text.endswith(":") and "/" not in text) or scheme in ("kafka", "memory", "sqlite"):
        raise BadAddress(f"log address {text!r} has a form that isn't known. {_FORMS}.")
