"""The log: one port, three adapters, one conformance suite. `open_log(address)` picks the adapter."""

from millstream.events.logs.address import open_log

__all__ = ["open_log"]
