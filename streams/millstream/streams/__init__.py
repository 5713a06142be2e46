"""What runs: deciders (pure), the runtime that owns partitions, the consumer group for kernels, the command line."""
