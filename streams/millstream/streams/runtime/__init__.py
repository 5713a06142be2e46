"""Owning partitions, recovering, sending, waiting: all that touches the clock and the log."""
