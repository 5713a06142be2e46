"""The consumer group that works off kernel-batch topics."""
