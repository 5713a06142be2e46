"""A real single-node Kafka, from jars, with no Docker and no system Java."""
