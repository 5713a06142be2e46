"""The log: one port, three adapters, one conformance suite."""
