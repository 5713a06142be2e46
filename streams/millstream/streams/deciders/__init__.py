"""Judging: pure functions from a state and a cause to events. One file a noun."""
